"""The record of a trial that runs in a worker of this machine, written by the driver.

Such a worker loads neither MLflow nor a client of the store, which takes each a second of processor time and 100 MB of
memory. What it says is written while it waits, so the record is at every moment what the worker would have written.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle

from trialbook.errors import NotRecorded
from trialbook.evaluate import split
from trialbook.trial import Result
from trialbook.worker import StandIn

if TYPE_CHECKING:
    from trialbook.tracking import RunLog

# Of an estimator that is sent to the driver as it is, in bytes. A larger one is written by the worker: others do the
# same meanwhile, and the driver has no time for it.
_MOST_SENT = 1 << 20


class DistantLog(StandIn):
    """What a running trial holds: has the driver write what it is told."""

    store_errors: tuple[type[Exception], ...] = (NotRecorded,)

    def epoch(self, metrics: Mapping[str, float], step: int) -> None:
        """Have the metrics of an epoch sent."""
        self.driver.tell("epoch", dict(metrics), step)

    def save_model(self, estimator: Any, fold: int | None = None) -> str:
        """Have a fitted estimator saved; returns the logged model's id."""
        if (packed := _packed(estimator)) is not None:
            return str(self.driver.ask("save_packed", packed, fold))
        from trialbook import model_files

        form = self.driver.ask("form")
        with tempfile.TemporaryDirectory(prefix="trialbook-model-") as scratch:
            folder = Path(scratch, "model")
            flavors = model_files.write(estimator, folder, form)
            return str(self.driver.ask("take_model", folder, flavors, fold))

    def save_state(self, path: Path) -> None:
        """Have a file of training state kept."""
        self.driver.ask("save_state", path)

    def load_state(self, name: str) -> Path:
        """The file of training state that the continued trial kept, or a copy of it."""
        return Path(self.driver.ask("load_state", name, Path(tempfile.gettempdir())))

    def finish(self, result: Result) -> None:
        """Have the result sent."""
        self.driver.ask("finish", result)

    def flush(self) -> None:
        """Have whatever epochs are still waiting sent."""
        self.driver.ask("flush")


def answer(log: RunLog, what: str, *args: Any) -> Any:
    """Do in the driver what a `DistantLog` asks for.

    Raises:
        NotRecorded: If the store refuses it, or there is no memory for it.
        TrialbookError: Whatever else the log raises on purpose.
    """
    from trialbook.store import one_line

    refusals: tuple[type[Exception], ...] = (MemoryError, *log.store_errors)
    try:
        if what == "form":
            assert log.envelope is not None
            return log.envelope.form
        if what == "save_packed":
            packed, fold = args
            return log.save_model(cloudpickle.loads(packed), fold)
        return getattr(log, what)(*args)
    except refusals as error:
        raise NotRecorded(f"{type(error).__name__}: {one_line(error)}") from error


def _packed(estimator: Any) -> bytes | None:
    """An estimator as it can be sent, None if it is large, or a net, or cannot be."""
    if split(estimator)[1] is not None:
        return None
    packed = _Few()
    try:
        cloudpickle.dump(estimator, packed)
    except Exception:
        return None  # whatever it is, whoever writes it will say
    return b"".join(packed.parts)


class _Few:
    """A file that takes no more than so much."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self._left = _MOST_SENT

    def write(self, part: bytes) -> None:
        """Keep a part.

        Raises:
            ValueError: If that is too much.
        """
        view = memoryview(part)
        self._left -= view.nbytes
        if self._left < 0:
            raise ValueError("that is too much")
        self.parts.append(bytes(view))
