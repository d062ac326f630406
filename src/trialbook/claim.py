"""One driver for one search: the claim that it holds on the search's run.

A claim is a tag on the run that names the driver's host and process, and that is written anew while the driver lives.
On the same host a process is known to be gone when it is; on another, when its claim has not been renewed for a while.
"""

from __future__ import annotations

import _thread
import contextlib
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import psutil
from mlflow import MlflowClient
from mlflow.entities import Run

from trialbook.errors import ClaimLost, RequestError, StoreError
from trialbook.outage import STORE_ERRORS

TAG = "trialbook.driver"

_RENEWED_EVERY = 30.0
_STALE_AFTER = 4 * _RENEWED_EVERY
# Longer than it takes from looking at a claim to writing one's own.
_SETTLED_AFTER = 1.0

# Held while a claim is being renewed.
_renewing = threading.Lock()


@dataclass(frozen=True)
class Driver:
    """A process that drives a search.

    Attributes:
        host: Its host's name.
        pid: Its number there.
        started: When it started, in seconds since 1970: numbers of processes are used again.
    """

    host: str
    pid: int
    started: float

    @classmethod
    def this(cls) -> Driver:
        """The present process."""
        process = psutil.Process()
        return cls(socket.gethostname(), process.pid, round(process.create_time(), 1))

    def __str__(self) -> str:
        """As a message names it."""
        return f"process {self.pid} on {self.host}"

    def lives(self, seen: float) -> bool:
        """Whether it still runs, as far as can be told from here.

        Args:
            seen: When it last renewed its claim, in seconds since 1970.
        """
        if self.host != socket.gethostname():
            return time.time() - seen < _STALE_AFTER
        try:
            process = psutil.Process(self.pid)
            return bool(process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - self.started) < 1)
        except psutil.NoSuchProcess:
            return False


def claim_tags() -> dict[str, str]:
    """The tag by which the present process claims a run."""
    return {TAG: json.dumps({**asdict(Driver.this()), "seen": round(time.time(), 1)})}


def claimed(run: Run) -> Driver | None:
    """The other, living process that drives a search, if there is one."""
    driver, seen = _read(run)
    return driver if driver is not None and driver != Driver.this() and driver.lives(seen) else None


def refuse_if_claimed(run: Run) -> None:
    """Refuse to touch a search that another process drives.

    Raises:
        RequestError: Naming that process.
    """
    if (driver := claimed(run)) is not None:
        raise RequestError(f"search {run.info.run_id} is being run by {driver}; stop it first, or let it finish.")


def take_over(client: MlflowClient, run_id: str) -> None:
    """Claim a search that no living process drives.

    Raises:
        RequestError: If one does, or if another process claims it at the same moment.
    """
    refuse_if_claimed(client.get_run(run_id))
    client.set_tag(run_id, *claim_tags().popitem())
    # Of two that claim at once, the later writer stays.
    time.sleep(_SETTLED_AFTER)
    refuse_if_claimed(client.get_run(run_id))


@contextlib.contextmanager
def at_rest() -> Iterator[None]:
    """Renew no claim for a moment: MLflow holds a lock of its own while its evaluation imports what it needs.

    Each of its requests imports something too, and a request of another thread just then may wait for that lock while
    the evaluation waits for the import: both wait for ever.
    """
    with _renewing:
        yield


class Claim:
    """Renews the present process's claim on a run for as long as it is entered, and then gives it up.

    A process that was suspended for long may find that another has taken the run over; it is then interrupted.

    Args:
        client: The store.
        run_id: The run, already claimed.
    """

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client = client
        self._run_id = run_id
        self._over = threading.Event()
        self._taken_by: Driver | None = None
        self._thread = threading.Thread(target=self._renew, name="trialbook-claim", daemon=True)

    def __enter__(self) -> Claim:
        """Begin to renew."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give the claim up, unless it is another's."""
        self._over.set()
        if self._taken_by is None:
            with contextlib.suppress(StoreError, *STORE_ERRORS):
                self._client.delete_tag(self._run_id, TAG)

    def check(self) -> None:
        """Whether the claim still holds; what to ask after an interrupt.

        Raises:
            ClaimLost: If another process has taken the search over.
        """
        if self._taken_by is not None:
            raise ClaimLost(f"search {self._run_id} has been taken over by {self._taken_by}")

    def _renew(self) -> None:
        while not self._over.wait(_RENEWED_EVERY):
            # What it means that the store is away is for the driver itself to find out.
            with _renewing, contextlib.suppress(StoreError, *STORE_ERRORS):
                driver, _ = _read(self._client.get_run(self._run_id))
                if driver not in (None, Driver.this()):
                    self._taken_by = driver
                    # In a sweep's job SIGINT is for the sweep to answer; in a notebook SIGTERM has no handler.
                    heard = callable(signal.getsignal(signal.SIGTERM))
                    _thread.interrupt_main(signal.SIGTERM if heard else signal.SIGINT)
                    return
                self._client.set_tag(self._run_id, *claim_tags().popitem())


def _read(run: Run) -> tuple[Driver | None, float]:
    """Who claims a run, and when that was last renewed."""
    if (tag := run.data.tags.get(TAG)) is None:
        return None, 0.0
    fields = json.loads(tag)
    seen = fields.pop("seen")
    return Driver(**fields), seen
