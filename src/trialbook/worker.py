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
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import MappingProxyType
from typing import Any

import cloudpickle

from trialbook import garbage
from trialbook.errors import ExecutorError, TrialbookError, TrialTimeout, WorkerDied

_PROGRAM = "import sys; sys.path[:] = sys.argv[2:]; from trialbook.worker import main; main(int(sys.argv[1]))"
# What limits the threads of TensorFlow, of BLAS and OpenMP, and of joblib. All are read when the library loads.
_THREADS = (
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"),
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "LOKY_MAX_CPU_COUNT"),
)
_LOOK_SECONDS = 1.0
_HARD_TO_KILL_SECONDS = 5.0


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

    def call(self, *args: Any, timeout: float | None = None) -> Any:
        """Call the function, and wait for what it returns.

        Raises:
            WorkerDied: If the worker ended.
            TrialTimeout: If there was no answer within `timeout` seconds; the worker is killed.
            TrialbookError: If the function raised that.
            ExecutorError: If it raised anything else.
        """
        answer = self._ask(cloudpickle.dumps(args), timeout)
        self.calls += 1
        return answer

    def kill(self) -> None:
        """End the worker and all that it has started; also from another thread than the one that waits for it."""
        if self.ended:
            return
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

    def _ask(self, question: bytes, timeout: float | None) -> Any:
        try:
            self._pipe.send_bytes(question)
            if not self._answers_within(timeout):
                self.close()
                raise TrialTimeout(f"it was killed after executor.trial_timeout={timeout:g} s")
            done, answer = cloudpickle.loads(self._pipe.recv_bytes())
        except (EOFError, OSError):
            self.close()
            raise WorkerDied(f"its worker {self.name} {_how_it_ended(self._process.returncode)}") from None
        if done:
            return answer
        raise (
            answer if isinstance(answer, TrialbookError) else ExecutorError(f"the worker {self.name} failed: {answer}")
        )

    def _answers_within(self, timeout: float | None) -> bool:
        """Wait for an answer, or for the worker's end.

        The end of the pipe tells of that, unless a process that the worker has forked still holds it open.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
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
    connection = Connection(pipe)
    calls: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, calls), daemon=True).start()
    function: list[Callable[..., Any]] = []
    connection.send_bytes(_answer(lambda: function.append(_unpack(calls.get()))))
    while True:
        connection.send_bytes(_answer(lambda: function[0](*cloudpickle.loads(calls.get()))))


def _listen(connection: Connection, calls: queue.SimpleQueue[bytes]) -> None:
    """Take calls, also while one is being run: that is how the end of the driver is noticed at once.

    A process that the driver has forked may hold the pipe open; then its having another parent tells.
    """
    driver = os.getppid()
    with contextlib.suppress(EOFError, OSError):
        while os.getppid() == driver:
            if connection.poll(_LOOK_SECONDS):
                calls.put(connection.recv_bytes())
    os.killpg(0, signal.SIGKILL)


def _unpack(packed: bytes) -> Callable[..., Any]:
    with garbage.uncollected():
        prepare, function = cloudpickle.loads(packed)
        if prepare is not None:
            prepare()
        unpacked: Callable[..., Any] = cloudpickle.loads(function)
    return unpacked


def _answer(run: Callable[[], Any]) -> bytes:
    """What a call returned or raised; in words if it is not ours, for it may hold what cannot be sent."""
    try:
        return bytes(cloudpickle.dumps((True, run())))
    except TrialbookError as error:
        return bytes(cloudpickle.dumps((False, error)))
    except BaseException as error:
        return bytes(cloudpickle.dumps((False, " ".join(f"{type(error).__name__}: {error}".split()))))


def _how_it_ended(code: int | None) -> str:
    if code is None:
        return "does not answer and cannot be killed"
    if code == -signal.SIGKILL:
        return "was killed by SIGKILL, as by a system that runs out of memory"
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
