"""A worker: a process that is handed a function once and then runs it, call by call. Both its ends are here.

It is started as a program of its own, not forked and not through `multiprocessing`, so that the environment of its
numerical libraries is set before they load, the driver's main module is not imported again, and it can be started from
anywhere, a daemonic process of Dask's included. It leads a process group of its own: an interrupt at the terminal does
not reach it, and whatever it starts is killed with it. When the driver is gone, however that came about, the pipe
between them ends, and the worker ends itself and its group.
"""

from __future__ import annotations

import contextlib
import math
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import MappingProxyType
from typing import Any

import cloudpickle

from trialbook import garbage
from trialbook.errors import ExecutorError, TrialbookError, TrialError, TrialTimeout, WorkerDied

_PROGRAM = "import sys; sys.path[:] = sys.argv[2:]; from trialbook.worker import main; main(int(sys.argv[1]))"
# What limits the threads of TensorFlow, of BLAS and OpenMP, and of joblib. All are read when the library loads.
_THREADS = (
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"),
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "LOKY_MAX_CPU_COUNT"),
)
_LOOK_SECONDS = 1.0
_HARD_TO_KILL_SECONDS = 5.0


# What a worker says: that the call has returned or raised something; or, while it runs, what it asks of what has stayed
# with the driver, or tells it without waiting for an answer.
_RETURNED, _RAISED, _ASKED, _TOLD = range(4)


class Resident(ABC):
    """What stays with the driver where a worker is called with it: the worker gets a `StandIn`."""

    @abstractmethod
    def stand_in(self) -> StandIn:
        """What the worker gets."""

    @abstractmethod
    def answer(self, worker: str, what: str, *args: Any) -> Any:
        """Do what the stand-in asks for.

        Args:
            worker: The name of the worker that it is in.
            what: What for.
            args: As the stand-in has given them.
        """

    @abstractmethod
    def abandoned(self, worker: str) -> None:
        """Hear that the worker of this name ended before the call did."""

    @property
    @abstractmethod
    def waits(self) -> bool:
        """Whether it may take long over an answer that it is about to give."""


class StandIn:
    """What a worker gets in place of a `Resident`.

    Attributes:
        driver: The way to it, there as soon as it has arrived.
    """

    driver: Driver


class Worker:
    """The driver's end of a worker.

    Args:
        function: What it runs, and what it calls before, as `pack` made one of them.
        environment: What is added to its environment.
        path: Where it looks for modules that it does not find where this process does.

    Attributes:
        name: The worker's host and process, as `host:pid`.
        calls: How many calls it has answered.
        ended: Whether the process is no more.
    """

    def __init__(
        self, function: bytes, environment: Mapping[str, str] = MappingProxyType({}), path: Sequence[str] = ()
    ) -> None:
        self.calls = 0
        self.ended = False
        self._killed = False
        # What a killed worker leaves behind in its temporary folder goes with it.
        self._scratch = tempfile.TemporaryDirectory(prefix="trialbook-worker-", ignore_cleanup_errors=True)
        self._pipe, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), *dict.fromkeys([*sys.path, *path])],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, **environment, "TMPDIR": self._scratch.name},
            )
        self.name = f"{socket.gethostname()}:{self._process.pid}"
        self._function = function

    @property
    def alive(self) -> bool:
        """Whether the process is there."""
        return not self.ended and self._process.poll() is None

    def ready(self) -> None:
        """Hand the function over, and wait until the worker has taken it.

        Raises:
            WorkerDied: If the worker ended.
            ExecutorError: If it cannot take it, for instance because a module is missing.
        """
        self._ask(self._function, None)

    def call(self, *args: Any, timeout: float | None = None, resident: Resident | None = None) -> Any:
        """Call the function, and wait for what it returns.

        Args:
            args: What to call it with.
            timeout: How many seconds it may take, those in which `resident` does something not counted.
            resident: Of the arguments, the one that stays here.

        Raises:
            WorkerDied: If the worker ended.
            TrialTimeout: If it took longer; the worker is killed.
            TrialbookError: If the function raised one.
            ExecutorError: If it raised anything else.
        """
        sent = [arg if resident is None or arg is not resident else resident.stand_in() for arg in args]
        try:
            answer = self._ask(cloudpickle.dumps(sent), timeout, resident)
        except (WorkerDied, TrialTimeout):
            if resident is not None:
                resident.abandoned(self.name)
            raise
        self.calls += 1
        return answer

    def kill(self) -> None:
        """End the worker and all that it has started; also from another thread than the one that waits for it."""
        if self.ended or self._killed:
            return
        self._killed = True
        # The group before the process is waited for: until then nobody else can have its number.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_HARD_TO_KILL_SECONDS)

    def close(self) -> None:
        """End the worker, and give back what it used."""
        if not self.ended:
            self.kill()
            self.ended = True
            self._pipe.close()
            self._scratch.cleanup()

    def _ask(self, question: bytes, timeout: float | None, resident: Resident | None = None) -> Any:
        left = math.inf if timeout is None else timeout
        try:
            self._pipe.send_bytes(question)
            while True:
                began = time.monotonic()
                if not self._answers_within(left):
                    self.close()
                    raise TrialTimeout(f"it was killed after executor.trial_timeout={timeout:g} s")
                left -= time.monotonic() - began
                kind, said = cloudpickle.loads(self._pipe.recv_bytes())
                if kind not in (_ASKED, _TOLD):
                    break
                assert resident is not None
                answer = _outcome(resident.answer, self.name, *said)
                if kind == _ASKED:
                    self._pipe.send_bytes(answer)
        except (EOFError, OSError):
            self.close()
            raise WorkerDied(f"its worker {self.name} {_how_it_ended(self._process.returncode)}") from None
        if kind == _RETURNED:
            return said
        raise said if isinstance(said, TrialbookError) else ExecutorError(f"the worker {self.name} failed: {said}")

    def _answers_within(self, seconds: float) -> bool:
        """Wait for the worker to say something, or for its end.

        The end of the pipe tells of that, unless a process that the worker has forked still holds it open.
        """
        deadline = time.monotonic() + seconds
        while not self._pipe.poll(max(0.0, min(_LOOK_SECONDS, deadline - time.monotonic()))):
            if self._process.poll() is not None and not self._pipe.poll(0):
                raise EOFError
            if time.monotonic() >= deadline:
                return False
        return True


def thread_limits(threads: int, *, given: bool) -> dict[str, str]:
    """What to add to a worker's environment so that its numerical libraries take so many threads.

    Args:
        threads: How many.
        given: Whether that is a wish, which the environment does not overrule.
    """
    return {name: str(threads) for name in _THREADS if given or name not in os.environ}


def pack(function: Callable[..., Any], prepare: Callable[[], None] | None = None) -> bytes:
    """A function as workers take it.

    Args:
        function: What they will run.
        prepare: Called in the worker before the function is unpacked there, to load what takes long.
    """
    return bytes(cloudpickle.dumps((prepare, cloudpickle.dumps(function))))


def main(pipe: int) -> None:
    """The worker's end: run calls until there are no more.

    Args:
        pipe: File descriptor of the pipe to the driver.
    """
    # The driver decides what an interrupt means for its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    driver = Driver(Connection(pipe))
    function: list[Callable[..., Any]] = []
    driver.say(_outcome(lambda: function.append(_unpack(driver.heard()))))
    while True:
        driver.say(_outcome(lambda: function[0](*driver.arguments())))


class Driver:
    """The driver, as a worker knows it.

    Args:
        connection: The pipe to it.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._heard: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=_listen, args=(connection, self._heard), daemon=True).start()

    def ask(self, what: str, *args: Any) -> Any:
        """Have something done by that for which a stand-in stands, and wait for the answer.

        Raises:
            TrialbookError: Whatever it raises; a `TrialError` in words for what is not ours.
        """
        self.say(_message(_ASKED, (what, *args)))
        kind, answer = cloudpickle.loads(self.heard())
        if kind == _RETURNED:
            return answer
        raise answer if isinstance(answer, TrialbookError) else TrialError(answer)

    def tell(self, what: str, *args: Any) -> None:
        """The same for what cannot go wrong, without waiting."""
        self.say(_message(_TOLD, (what, *args)))

    def say(self, message: bytes) -> None:
        """Send a message."""
        self._connection.send_bytes(message)

    def heard(self) -> bytes:
        """The next message."""
        return self._heard.get()

    def arguments(self) -> list[Any]:
        """The arguments of the next call."""
        args: list[Any] = cloudpickle.loads(self.heard())
        for arg in args:
            if isinstance(arg, StandIn):
                arg.driver = self
        return args


def _listen(connection: Connection, heard: queue.SimpleQueue[bytes]) -> None:
    """Take messages, also while a call is being run: that is how the end of the driver is noticed at once.

    A process that the driver has forked may hold the pipe open; then its having another parent tells.
    """
    driver = os.getppid()
    with contextlib.suppress(EOFError, OSError):
        while os.getppid() == driver:
            if connection.poll(_LOOK_SECONDS):
                heard.put(connection.recv_bytes())
    os.killpg(0, signal.SIGKILL)


def _unpack(packed: bytes) -> Callable[..., Any]:
    with garbage.uncollected():
        prepare, function = cloudpickle.loads(packed)
        if prepare is not None:
            prepare()
        unpacked: Callable[..., Any] = cloudpickle.loads(function)
    return unpacked


def _outcome(run: Callable[..., Any], *args: Any) -> bytes:
    """What a call returned or raised; in words if it is not ours, for it may hold what cannot be sent."""
    try:
        return _message(_RETURNED, run(*args))
    except TrialbookError as error:
        return _message(_RAISED, error)
    except BaseException as error:
        return _message(_RAISED, " ".join(f"{type(error).__name__}: {error}".split()))


def _message(kind: int, said: Any) -> bytes:
    return bytes(cloudpickle.dumps((kind, said)))


def _how_it_ended(code: int | None) -> str:
    if code is None:
        return "does not answer and cannot be killed"
    if code == -signal.SIGKILL:
        return "was killed by SIGKILL, as by a system that runs out of memory"
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
