"""Trials on a Dask cluster, one on this machine or one that is joined: the driver's side."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from trialbook import allowed
from trialbook.errors import ExecutorError, RequestError, TrialbookError, WorkerDied
from trialbook.executors import TrialExecutor
from trialbook.processes import TRIALS_PER_WORKER, ProcessExecutor
from trialbook.worker import pack

if TYPE_CHECKING:
    import distributed

T = TypeVar("T")
_SCHEMES = ("tcp", "tls", "ws", "wss")
_CONNECT_SECONDS = 10
_FIRST_WORKER_SECONDS = 30
_CLOSE_SECONDS = 3
# What Dask lets through when a scheduler cannot be reached, or not any more.
_LOST = (OSError, TimeoutError, RuntimeError)


class DaskExecutor(TrialExecutor):
    """Runs trials on a Dask cluster.

    Args:
        address: A scheduler's address; None to start a cluster on this machine.
        workers: How many trials to run at a time; None for one for each core of this machine, or for each thread of a
            cluster that is joined.
        retries: How often a trial is tried again whose worker died, or whose error may pass.
        trial_timeout: Seconds after which a trial is killed; None for no limit.
        trials_per_worker: After so many trials a worker process is replaced by a fresh one; None for 25 where trials
            leave memory behind, as nets do, and else for never.
        threads: How many threads the numerical libraries take in a trial; None for its share of this machine's cores,
            or 1 on a cluster that is joined.
    """

    def __init__(
        self,
        address: str | None = None,
        workers: int | None = None,
        *,
        retries: int = 1,
        trial_timeout: float | None = None,
        trials_per_worker: int | None = None,
        threads: int | None = None,
    ) -> None:
        super().__init__(retries=retries)
        scheme, named, _ = str(address or "").partition("://")
        if named and scheme not in _SCHEMES:
            raise RequestError(f"executor.address={address} must start with one of: {', '.join(_SCHEMES)}.")
        if find_spec("distributed") is None:
            raise RequestError("executor=dask needs Dask's package distributed: pip install 'trialbook[dask]'.")
        # How many Dask workers share a machine of a cluster is not known here.
        threads = 1 if threads is None and address is not None else threads
        self._settings: dict[str, Any] = {
            "trial_timeout": trial_timeout,
            "trials_per_worker": trials_per_worker,
            "threads": threads,
        }
        self.workers = ProcessExecutor(workers, **self._settings).workers
        self._all = workers is None
        self._address = address
        self._name = f"trialbook-{uuid.uuid4().hex[:8]}"
        self._tokens = (f"{self._name}-{i}" for i in itertools.count())
        self._tasks: dict[str, Any] = {}
        self._cluster: Any = None
        self._client: distributed.Client | None = None

    def start(
        self, work: Callable[..., Any], prepare: Callable[[], None] | None = None, *, leaves_memory: bool = False
    ) -> None:
        """Join the cluster, and begin to start worker processes on its workers."""
        self._work = work
        if leaves_memory and self._settings["trials_per_worker"] is None:
            self._settings["trials_per_worker"] = TRIALS_PER_WORKER
        self._client = self._connected()
        if self._address is not None:
            self._wait_for_hosts(self._client)
        from trialbook.hosting import Host

        environment = {allowed.ALLOW: os.environ[allowed.ALLOW]} if allowed.ALLOW in os.environ else {}
        modules = {} if self._address is None else _own_modules()
        host = Host(self._name, pack(work, prepare), self._settings, modules, environment)
        try:
            self._client.register_plugin(host, self._name)
        except Exception as error:
            raise RequestError(
                f"executor.address={self._address}: its workers cannot take trials ({type(error).__name__}: {error}); "
                "install there what is installed here."
            ) from error

    def wait_until_ready(self) -> None:
        """Wait until every worker process on the present workers can take a trial."""
        from trialbook.hosting import ready

        assert self._client is not None
        try:
            self._client.run(ready, self._name)
        except _LOST as error:
            raise error if isinstance(error, TrialbookError) else self._lost() from error

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Have a worker process somewhere call what the executor was started with."""
        from trialbook.hosting import run

        if fn is not self._work or kwargs:
            raise ValueError("only what the executor was started with can be submitted, with positional arguments")
        assert self._client is not None
        answer: Future[T] = Future()
        token = next(self._tokens)
        try:
            task = self._client.submit(run, self._name, token, args, key=token, retries=0)
        except _LOST as error:
            raise self._lost() from error
        self._tasks[token] = task  # a task that nobody refers to is dropped
        task.add_done_callback(functools.partial(self._pass_on, token, answer))
        return answer

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster: trials that still run are killed, and so are the worker processes."""
        del wait, cancel_futures
        if (client := self._client) is None:
            return
        self._client = None
        if client.status == "running":
            with contextlib.suppress(*_LOST):
                client.cancel(list(self._tasks.values()))
                client.unregister_worker_plugin(self._name)
        for leave in (client, self._cluster):
            if leave is not None:
                with contextlib.suppress(*_LOST):
                    leave.close(timeout=_CLOSE_SECONDS)

    def _connected(self) -> distributed.Client:
        import dask

        # Its notes would come between the lines of the command, which tell what goes wrong.
        with dask.config.set({"logging": {"distributed": "critical", "distributed.client": "critical"}}):
            from distributed import Client

        if self._address is None:
            self._cluster = _own_cluster(self.workers)
        try:
            return Client(self._address or self._cluster, timeout=_CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise RequestError(f"executor.address={self._address} cannot be reached: {error}") from error

    def _wait_for_hosts(self, client: distributed.Client) -> None:
        try:
            client.wait_for_workers(1, timeout=_FIRST_WORKER_SECONDS)
        except TimeoutError as error:
            raise RequestError(
                f"executor.address={self._address} has no workers; start some with dask worker."
            ) from error
        if self._all:
            self.workers = sum(client.nthreads().values())

    def _pass_on(self, token: str, answer: Future[Any], task: Any) -> None:
        """Hand what became of a task on to the one who waits for its trial."""
        from distributed import Event

        self._tasks.pop(token, None)
        if task.status == "finished":
            answer.set_result(task.result())
        elif task.status == "error":
            answer.set_exception(_trial_error(task.exception()))
        else:
            answer.set_exception(self._lost())
        if (client := self._client) is not None and task.status in ("finished", "error"):
            with contextlib.suppress(*_LOST):
                Event(token, client).clear()

    def _lost(self) -> ExecutorError:
        return ExecutorError(f"the connection to the Dask scheduler {self._address or 'of this process'} is lost")


def _own_cluster(threads: int) -> distributed.SpecCluster:
    """A cluster in this process; its worker's threads only wait for the worker processes beside it."""
    from distributed import Scheduler, SpecCluster, Worker

    # Both serve pages about themselves, dashboard or not: by default on every interface, the scheduler at a port that a
    # second search on this machine would find taken.
    here = {"protocol": "inproc://", "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    # The memory that counts is that of the worker processes: one that waits for them is never too full for a task.
    waiting = {**here, "nthreads": threads, "memory_limit": None}
    return SpecCluster(
        scheduler={"cls": Scheduler, "options": here},
        workers={0: {"cls": Worker, "options": waiting}},
        silence_logs=logging.CRITICAL,
    )


def _trial_error(error: BaseException) -> TrialbookError:
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        return WorkerDied("the Dask worker that ran it is gone")
    if isinstance(error, TrialbookError):
        return error
    return ExecutorError(f"a task of Dask failed: {type(error).__name__}: {error}")


def _own_modules() -> dict[str, str]:
    """The source of the modules that were loaded from the present folder, by file name: workers may lack them."""
    here = Path.cwd()
    found = {}
    for name, module in list(sys.modules.items()):
        file = Path(getattr(module, "__file__", None) or "")
        if file.suffix != ".py" or not file.is_relative_to(here) or "site-packages" in file.parts:
            continue
        if name.partition(".")[0] in ("trialbook", "__main__", "__mp_main__"):
            continue
        parts = [*name.split("."), "__init__"] if hasattr(module, "__path__") else name.split(".")
        found[str(Path(*parts).with_suffix(".py"))] = file.read_text()
    return found
