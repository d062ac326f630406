"""Fakes, and the contract every search must keep; for the tests of Trialbook and of searches written elsewhere.

This module imports the standard library and Trialbook's vocabulary only.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
import zlib
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trialbook.trial import Record, Result, Search, State, Trial


@dataclass
class MemoryLog:
    """A trial's log that keeps what is written in memory, and training state in a folder of the journal's."""

    folder: Path
    continues: Path | None = None
    epochs: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    models: list[tuple[int | None, Any]] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    store_errors: tuple[type[Exception], ...] = ()

    def epoch(self, metrics: Mapping[str, float], step: int) -> None:
        """Keep the metrics of an epoch."""
        self.epochs.append((step, dict(metrics)))

    def save_model(self, estimator: Any, fold: int | None = None) -> str:
        """Keep the estimator itself."""
        self.models.append((fold, estimator))
        return f"model-{len(self.models)}"

    def save_state(self, path: Path) -> None:
        """Copy a file of training state."""
        self.folder.mkdir(exist_ok=True)
        shutil.copy(path, self.folder)

    def load_state(self, name: str) -> Path:
        """The file that the continued trial kept."""
        assert self.continues is not None
        return self.continues / name

    def finish(self, result: Result) -> None:
        """Keep the result."""
        self.results.append(result)

    def flush(self) -> None:
        """Nothing waits."""


class MemoryJournal:
    """A journal in memory.

    Attributes:
        opened: Every trial opened, in order; once for each attempt.
        retried: Every failure after which a trial was tried again, with the trial, in order.
        records: Every trial closed, in order.
        logs: Each trial's log, by the trial's number.
    """

    def __init__(self) -> None:
        self.opened: list[Trial] = []
        self.retried: list[tuple[Trial, Result]] = []
        self.records: list[Record] = []
        self.logs: dict[int, MemoryLog] = {}
        self._scratch = tempfile.mkdtemp(prefix="trialbook-journal-")
        weakref.finalize(self, shutil.rmtree, self._scratch, ignore_errors=True)

    def steps(self) -> tuple[()]:
        """There was no earlier run."""
        return ()

    def recall(self, trial: Trial) -> None:
        """Nor did any trial end in it."""

    def open(self, trial: Trial, attempt: int = 1) -> MemoryLog:
        """Note that a trial starts."""
        del attempt
        self.opened.append(trial)
        continues = None if trial.continues is None else self.logs[trial.continues].folder
        log = self.logs[trial.number] = MemoryLog(Path(self._scratch, str(trial.number)), continues)
        return log

    def retry(self, trial: Trial, log: MemoryLog, result: Result) -> None:
        """Note that an attempt failed and another follows."""
        del log
        self.retried.append((trial, result))

    def close(self, trial: Trial, log: MemoryLog, result: Result) -> Record:
        """Note how a trial ended."""
        del log
        record = Record(trial, result)
        self.records.append(record)
        return record

    def hurry(self) -> None:
        """Nothing takes long."""


def completed(objective: float, **values: Any) -> Result:
    """The result of a trial that completed with the given objective."""
    return Result(State.COMPLETE, objective=objective, objective_std=0.0, fold_scores=(objective,), **values)


def failed(reason: str = "it failed") -> Result:
    """The result of a trial that failed."""
    return Result(State.FAILED, reason=reason, traceback=reason)


class SearchContract:
    """What every search promises. Subclass it, implement `make`, and pytest runs it on your search.

    A finite search over at most a few hundred trials is expected.
    """

    @abstractmethod
    def make(self) -> Search:
        """A new search, always with the same seed."""

    def play(self, search: Search, *, in_flight: int = 1, fail: frozenset[int] = frozenset()) -> list[Trial]:
        """Run a search to its end on a made-up objective; returns its trials in the order asked."""
        asked: list[Trial] = []
        waiting: list[Trial] = []
        while True:
            while len(waiting) < in_flight and (trial := search.ask()) is not None:
                asked.append(trial)
                waiting.append(trial)
            if not waiting:
                return asked
            trial = waiting.pop(0)
            score = _made_up_score(trial.params)
            search.tell(trial, failed() if trial.number in fail else completed(score))

    def test_numbers_count_from_zero_in_the_order_of_asking(self) -> None:
        """Trial numbers are positions."""
        asked = self.play(self.make())
        assert [trial.number for trial in asked] == list(range(len(asked)))
        assert asked

    def test_it_ends_and_stays_ended(self) -> None:
        """After the last trial there is none."""
        search = self.make()
        self.play(search)
        assert search.ask() is None

    def test_total_is_the_number_of_trials(self) -> None:
        """A total, where there is one, is right."""
        search = self.make()
        total = search.total
        assert total is None or total == len(self.play(search))

    def test_same_seed_same_trials(self) -> None:
        """Nothing but the seed and the results decides what is proposed."""
        assert self.play(self.make()) == self.play(self.make())

    def test_trials_in_flight_are_distinct(self) -> None:
        """Asking ahead of results proposes no trial twice."""
        asked = self.play(self.make(), in_flight=3)
        assert len({trial.number for trial in asked}) == len(asked)

    def test_failures_do_not_end_it(self) -> None:
        """A search goes on after failed trials, three in a row included."""
        asked = self.play(self.make(), fail=frozenset({0, 1, 2}))
        assert len(asked) > 3

    def test_a_trial_continues_only_what_kept_its_state(self) -> None:
        """Training goes on only from an earlier trial that was asked to keep its state."""
        asked = self.play(self.make())
        for trial in asked:
            if trial.continues is not None:
                earlier = asked[trial.continues]
                assert earlier.number < trial.number
                assert earlier.keep_state
                assert earlier.params == trial.params
                assert earlier.epochs == trial.initial_epoch


def _made_up_score(params: Mapping[str, Any]) -> float:
    """A number that looks random and depends on the hyperparameters alone."""
    return zlib.crc32(repr(sorted(params.items())).encode()) / 2**32
