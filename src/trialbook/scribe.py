"""The record of a search, written by a process of its own while the next trial trains already.

What MLflow and its database do for one trial is some fifty milliseconds of Python, a large part of the time in which a
small net is trained. So where trials run in the driver, another process writes them down, in the order in which the
driver says it. At any moment the store holds what a driver that writes for itself would have written a little earlier,
and no trial ends before the record of the one before has: a driver that is killed leaves at most one trial unwritten
that had ended.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trialbook import model_files
from trialbook.errors import StoreError, TrialbookError
from trialbook.garbage import set_aside
from trialbook.journal import SearchRun
from trialbook.model_files import Flavors, Form
from trialbook.outage import STORE_ERRORS
from trialbook.store import one_line
from trialbook.tracking import RunLog, this_process
from trialbook.trial import Record, Result, State, Trial
from trialbook.waiting import result_of
from trialbook.worker import Worker, pack

# What a logged model is called until it has an id.
_UNNAMED = "unnamed"
# How long an interrupted driver waits for the last words to be written.
_LAST_WORDS_SECONDS = 8.0
_NICE = 5


class Scribe:
    """The driver's end: a search's journal that is written by another process.

    The process is started at once, and ends with the context that this is.
    """

    def __init__(self) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="trialbook-scribe-", ignore_cleanup_errors=True)
        self._worker = Worker(pack(_Desk()))
        self._line = ThreadPoolExecutor(1, thread_name_prefix="scribe")
        self._broken: BaseException | None = None
        self._closing: Future[Any] | None = None
        # Where training state is kept, once it is, by trial and name.
        self.states: dict[tuple[int, str], Future[Path]] = {}
        self._line.submit(self._begin)

    def __enter__(self) -> Scribe:
        """Be there."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process, whatever it does."""
        self.end()

    def end(self) -> None:
        """End the process, whatever it does."""
        self._worker.kill()
        self._line.shutdown(cancel_futures=True)
        self._worker.close()
        self._scratch.cleanup()

    @contextmanager
    def writing(self, journal: SearchRun) -> Iterator[Scribe]:
        """Be this journal, which has been replayed; in the end it is up to date itself, and the process ends.

        Raises:
            StoreError: If something could not be written.
        """
        self._journal = journal
        self.say("take", journal, this_process())
        try:
            yield self
        except BaseException:
            with suppress(StoreError, NotInTime):
                self.say("give_back").result(_LAST_WORDS_SECONDS)
            raise
        else:
            vars(journal).update(result_of(self.say("give_back")))
        finally:
            self.end()

    # What a journal does.

    def steps(self) -> Iterator[tuple[str, int]]:
        """What the search was asked and told before it was taken up."""
        return self._journal.steps()

    def recall(self, trial: Trial) -> Record | None:
        """The recorded end of a trial, if it has one."""
        return self._journal.recall(trial)

    def open(self, trial: Trial, attempt: int = 1) -> ScribeLog:
        """Open the trial's run."""
        self.say("open", trial, attempt)
        return ScribeLog(self, trial.number, trial.continues, self._journal.envelope.form, Path(self._scratch.name))

    def retry(self, trial: Trial, log: ScribeLog, result: Result) -> None:
        """Close the run of an attempt after which the trial gets another."""
        del log
        self.say("retry", trial, result)

    def close(self, trial: Trial, log: ScribeLog, result: Result) -> Record:
        """Close the trial's run, once that of the one before has been closed.

        The record lacks what only the store will say; the journal has it in the end.
        """
        del log
        if result.state is State.KILLED:
            # What cannot be written now is closed by whoever resumes the search.
            with suppress(StoreError, NotInTime):
                self.say("close", trial, result).result(_LAST_WORDS_SECONDS)
        else:
            if self._closing is not None:
                result_of(self._closing)
            self._closing = self.say("close", trial, result)
        return Record(trial, result)

    def hurry(self) -> None:
        """Wait no longer for a store that is away, and not for long for one that turns out to be.

        The other process hears of it after what it is doing; it is not waited for long either.
        """
        self._journal.hurry()
        with suppress(StoreError):
            self.say("hurry")

    # How it is passed on.

    def say(self, what: str, *args: Any) -> Future[Any]:
        """Have the other process do something, after all that it has been told before.

        Raises:
            StoreError: If something before could not be done.
        """
        if self._broken is not None:
            raise self._broken
        return self._line.submit(self._pass_on, what, *args)

    def _begin(self) -> None:
        try:
            self._worker.ready()
        except TrialbookError as error:
            self._broken = _as_store_error(error)

    def _pass_on(self, what: str, *args: Any) -> Any:
        # What comes after a failure is not written: it would be another record than that of what happened.
        if self._broken is not None:
            raise self._broken
        try:
            return self._worker.call(what, *args)
        except TrialbookError as error:
            self._broken = _as_store_error(error)
            raise self._broken from error


def _as_store_error(error: TrialbookError) -> StoreError:
    return error if isinstance(error, StoreError) else StoreError(f"the record cannot be written: {error}")


@dataclass(frozen=True)
class ScribeLog:
    """What a running trial holds: passes on what it is told.

    Attributes:
        scribe: Writes it down.
        trial: The trial's number.
        continues: The number of the trial that it continues.
        form: How its model is written.
        scratch: Where files wait for the other process to take them.
    """

    scribe: Scribe
    trial: int
    continues: int | None
    form: Form
    scratch: Path
    store_errors: tuple[type[Exception], ...] = STORE_ERRORS

    def epoch(self, metrics: Mapping[str, float], step: int) -> None:
        """Have the metrics of an epoch sent."""
        self.scribe.say("epoch", self.trial, dict(metrics), step)

    def save_model(self, estimator: Any, fold: int | None = None) -> str:
        """Write a fitted estimator down here, and have the rest done; returns what stands for the model's id."""
        folder = self._new_folder() / "model"
        flavors = model_files.write(estimator, folder, self.form)
        self.scribe.say("save_model", self.trial, folder, flavors, fold)
        return _UNNAMED

    def save_state(self, path: Path) -> None:
        """Have a file of training state kept."""
        moved = shutil.move(path, self._new_folder() / path.name)
        self.scribe.states[self.trial, path.name] = self.scribe.say("save_state", self.trial, moved)

    def load_state(self, name: str) -> Path:
        """The file of training state that the continued trial kept, once it has arrived."""
        assert self.continues is not None
        kept = self.scribe.states.get((self.continues, name))
        path: Path = result_of(kept or self.scribe.say("load_state", self.trial, name))
        return path

    def finish(self, result: Result) -> None:
        """Have the result sent."""
        self.scribe.say("finish", self.trial, result)

    def flush(self) -> None:
        """Have whatever epochs are still waiting sent."""
        self.scribe.say("flush", self.trial)

    def _new_folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.scratch))


class _Desk:
    """The other end: what the driver says, done here with the journal itself."""

    journal: SearchRun

    def __init__(self) -> None:
        self._logs: dict[int, RunLog] = {}
        self._models: dict[int, str] = {}
        self._refused: dict[int, Result] = {}

    def __call__(self, what: str, *args: Any) -> Any:
        try:
            return getattr(self, what)(*args)
        except STORE_ERRORS as error:
            raise StoreError(one_line(error)) from error

    def take(self, journal: SearchRun, driver: str) -> None:
        self.journal = journal
        self._driver = driver
        # There is time until the next trial has ended, which is what the processor is there for.
        os.nice(_NICE)
        set_aside()

    def give_back(self) -> dict[str, Any]:
        return vars(self.journal)

    def open(self, trial: Trial, attempt: int) -> None:
        self._logs[trial.number] = replace(self.journal.open(trial, attempt), worker=self._driver)

    def epoch(self, number: int, metrics: Mapping[str, float], step: int) -> None:
        self._logs[number].epoch(metrics, step)

    def save_model(self, number: int, written: Path, flavors: Flavors, fold: int | None) -> None:
        try:
            self._models[number] = self._logs[number].take_model(written, flavors, fold)
        except OSError as error:
            # Its search has been told of it, or will be, and goes on; but it is not to be chosen.
            self._refused[number] = Result(State.FAILED, reason=f"{type(error).__name__}: {error}")
        shutil.rmtree(written.parent)

    def save_state(self, number: int, path: Path) -> Path:
        self._logs[number].save_state(path)
        shutil.rmtree(path.parent)
        return self._logs[number].saved_state(path.name)

    def load_state(self, number: int, name: str) -> Path:
        return self._logs[number].load_state(name)

    def finish(self, number: int, result: Result) -> None:
        if number in self._refused:
            self._logs[number].flush()
        else:
            self._logs[number].finish(self._named(number, result))

    def flush(self, number: int) -> None:
        self._logs[number].flush()

    def retry(self, trial: Trial, result: Result) -> None:
        self._refused.pop(trial.number, None)  # that was this attempt's model
        self.journal.retry(trial, self._logs.pop(trial.number), result)

    def close(self, trial: Trial, result: Result) -> None:
        refused = self._refused.get(trial.number)
        if result.state is State.COMPLETE:
            result = refused or self._named(trial.number, result)
        self.journal.close(trial, self._logs.pop(trial.number), result)

    def hurry(self) -> None:
        self.journal.hurry()

    def _named(self, number: int, result: Result) -> Result:
        return result if result.model_id is None else replace(result, model_id=self._models[number])
