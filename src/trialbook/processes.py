"""Trials in worker processes on this machine."""

from __future__ import annotations

import functools
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from types import MappingProxyType
from typing import Any, TypeVar

import joblib

from trialbook.errors import ExecutorError, TrialbookError, WorkerDied
from trialbook.executors import TrialExecutor, check_at_least
from trialbook.waiting import until_set
from trialbook.worker import Resident, Worker, pack, thread_limits

T = TypeVar("T")
_Call = tuple[Future[Any], tuple[Any, ...], Resident | None]
_STARTS = 3
# A small net leaves about 4 MB behind, and two workers with TensorFlow take about 2 GB.
TRIALS_PER_WORKER = 25
# For so many workers the driver does what has to do with the store: it is fast enough for them, and saves each of them
# a second of processor time to load MLflow and to make its first calls.
_SERVED = 4
# How long is waited for what is being written for a worker that has been told to end, where the store is not away.
_LAST_WORDS_SECONDS = 10.0
_LOOK_SECONDS = 0.1


class ProcessExecutor(TrialExecutor):
    """Runs trials in worker processes, each of which is sent what runs a trial once.

    A trial that takes its worker down fails alone: every worker has a pipe of its own, and is replaced.

    Args:
        workers: How many; None for one for each core.
        retries: How often a trial is tried again whose worker died, or whose error may pass.
        trial_timeout: Seconds after which a trial is killed with its worker; None for no limit.
        trials_per_worker: After so many trials a worker is replaced by a fresh one, which gives back the memory that
            training leaves behind; None for 25 where it does so, as nets do, and else for never.
        threads: How many threads the numerical libraries of a worker take; None for what the environment says, as
            with OMP_NUM_THREADS, or else its share of the cores.
        idle_seconds: How long a worker may wait for a trial before it is stopped until there is one; None for ever.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        retries: int = 1,
        trial_timeout: float | None = None,
        trials_per_worker: int | None = None,
        threads: int | None = None,
        idle_seconds: float | None = None,
    ) -> None:
        super().__init__(retries=retries)
        check_at_least("workers", workers, 1, optional=True)
        check_at_least("trial_timeout", trial_timeout, 1, optional=True, whole=False)
        check_at_least("trials_per_worker", trials_per_worker, 1, optional=True)
        check_at_least("threads", threads, 1, optional=True)
        cores = joblib.cpu_count()
        self.workers = workers or cores
        self.workers_write = self.workers > _SERVED
        self._share = max(1, cores // self.workers)
        self.trial_timeout = trial_timeout
        self.trials_per_worker = trials_per_worker
        self._threads = threads
        self.idle_seconds = idle_seconds
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._seats: list[_Seat] = []
        self._lock = threading.Lock()
        self._closed = False
        self._broken: ExecutorError | None = None

    def start(
        self, work: Callable[..., Any], prepare: Callable[[], None] | None = None, *, leaves_memory: bool = False
    ) -> None:
        """Begin to start all workers at once."""
        self._work = work
        if leaves_memory:
            self.trials_per_worker = self.trials_per_worker or TRIALS_PER_WORKER
        self.start_packed(pack(work, prepare))

    def start_packed(
        self, packed: bytes, path: Sequence[str] = (), environment: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Begin to start all workers at once.

        Args:
            packed: What `trialbook.worker.pack` made of what they run, perhaps elsewhere.
            path: Where they look for modules that they find nowhere else.
            environment: What is added to their environment.
        """
        limits = thread_limits(self._threads or self._share, given=self._threads is not None)
        new_worker = functools.partial(Worker, packed, {**limits, **environment}, path)
        self._seats = [_Seat(self, new_worker, self._calls) for _ in range(self.workers)]
        for seat in self._seats:
            seat.start()

    @property
    def ready(self) -> bool:
        """Whether every worker can take a trial; or one cannot be started, which `wait_until_ready` raises."""
        return self._broken is not None or all(seat.taken.is_set() for seat in self._seats)

    def wait_until_ready(self) -> None:
        """Wait until every worker can take a trial."""
        for seat in self._seats:
            until_set(seat.taken)
        if self._broken is not None:
            raise self._broken

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Have a worker call what the executor was started with."""
        if fn is not self._work or kwargs:
            raise ValueError("only what the executor was started with can be submitted, with positional arguments")
        resident = None if self.workers_write else next((arg for arg in args if isinstance(arg, Resident)), None)
        return self.call(*args, resident=resident)

    def call(self, *args: Any, resident: Resident | None = None) -> Future[Any]:
        """Have a worker call what the executor was started with, see `trialbook.worker.Worker.call`."""
        future: Future[Any] = Future()
        with self._lock:
            if self._broken is not None:
                raise self._broken
            if self._closed:
                raise RuntimeError("the executor has been shut down")
            self._calls.put((future, args, resident))
        return future

    def kill(self, future: Future[Any]) -> None:
        """Kill the worker that runs a call, if one does."""
        for seat in self._seats:
            seat.kill(future)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers now: what still runs is killed."""
        del cancel_futures
        with self._lock:
            again, self._closed = self._closed, True
        for seat in self._seats:
            self._calls.put(None)
            seat.close()
        if wait and not again:
            deadline = time.monotonic() + _LAST_WORDS_SECONDS
            for seat in self._seats:
                while seat.is_alive() and not seat.waits and time.monotonic() < deadline:
                    seat.join(_LOOK_SECONDS)

    def give_up(self, error: ExecutorError) -> None:
        """Answer all calls, those to come included, with an error."""
        with self._lock:
            self._broken = self._broken or error
            while not self._calls.empty():
                if (call := self._calls.get()) is None:
                    self._calls.put(None)  # a seat's word to leave; no calls come after the first of them
                    break
                call[0].set_exception(error)


class _Seat(threading.Thread):
    """A place for one worker after another, and the thread that waits for the answers of the one that has it.

    Attributes:
        taken: Set once the first worker is ready, or will never be.
    """

    def __init__(
        self,
        executor: ProcessExecutor,
        new_worker: Callable[[], Worker],
        calls: queue.SimpleQueue[_Call | None],
    ) -> None:
        super().__init__(daemon=True, name="trialbook-worker")
        self._executor = executor
        self._new_worker = new_worker
        self._calls = calls
        self._worker: Worker | None = None
        self._future: Future[Any] | None = None
        self._resident: Resident | None = None
        self._closed = False
        self._lock = threading.Lock()
        self.taken = threading.Event()

    def run(self) -> None:
        """Answer calls until told to leave."""
        try:
            self._filled()
            self.taken.set()
            while (call := self._next()) is not None:
                self._answer(*call)
        except ExecutorError as error:
            self._executor.give_up(error)
        finally:
            self.taken.set()
            self._vacate()

    @property
    def waits(self) -> bool:
        """Whether what it does for its worker may take long."""
        resident = self._resident
        return resident is not None and resident.waits

    def kill(self, future: Future[Any]) -> None:
        """Kill the worker if it runs this call."""
        with self._lock:
            if self._future is future and self._worker is not None:
                self._worker.kill()

    def close(self) -> None:
        """Kill the worker whatever it does, and let no other take its place."""
        with self._lock:
            self._closed = True
            if self._worker is not None:
                self._worker.kill()

    def _next(self) -> _Call | None:
        try:
            return self._calls.get(timeout=self._executor.idle_seconds)
        except queue.Empty:
            self._vacate()
            return self._calls.get()

    def _answer(self, future: Future[Any], args: tuple[Any, ...], resident: Resident | None) -> None:
        if not future.set_running_or_notify_cancel():
            return
        self._future, self._resident = future, resident
        try:
            worker = self._filled()
            timeout = self._executor.trial_timeout
            future.set_result(worker.call(*args, timeout=timeout, resident=resident))
        except ExecutorError as error:
            future.set_exception(error)
            raise
        except TrialbookError as error:
            future.set_exception(error)
        except Exception as error:
            failure = ExecutorError(f"{type(error).__name__}: {error}")
            future.set_exception(failure)
            raise failure from error
        finally:
            self._future = self._resident = None
        if worker.ended or worker.calls == self._executor.trials_per_worker:
            # Now rather than when there is a call: starting takes a while.
            self._vacate()
            self._filled()

    def _filled(self) -> Worker:
        """The worker, a new one if there is none; an end in its very start is not the trial's fault, but may pass."""
        if self._worker is not None and self._worker.alive:
            return self._worker
        self._vacate()
        failure: Exception | None = None
        for _ in range(_STARTS):
            with self._lock:
                if self._closed:
                    raise ExecutorError("the executor has been shut down")
                try:
                    worker = self._worker = self._new_worker()
                except OSError as error:
                    raise ExecutorError(f"no worker can be started: {error}") from error
            try:
                worker.ready()
            except WorkerDied as error:
                failure = error
                self._vacate()
            else:
                return worker
        raise ExecutorError(f"no worker can be started: {failure}") from failure

    def _vacate(self) -> None:
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()
