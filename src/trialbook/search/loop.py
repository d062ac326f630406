"""The loop that drives every search: ask, submit, tell.

It knows no machine-learning library and no MLflow. What proposes is a `Search`, what runs trials is a
`concurrent.futures.Executor`, and what remembers is a `Journal`.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from trialbook import interrupts
from trialbook.errors import RequestError, TrialError, WorkerDied
from trialbook.trial import INTERRUPTED, Record, Result, Search, State, Trial, beats, best_record, better
from trialbook.waiting import first_done


class Journal(Protocol):
    """Where trials are written down. The loop opens and closes every trial here, in the driver."""

    def steps(self) -> Iterable[tuple[str, int]]:
        """What an earlier, interrupted run of this search did: `("ask", number)` and `("tell", number)`, in order."""

    def recall(self, trial: Trial) -> Record | None:
        """How a trial ended in that earlier run; None if it did not. Asked once for each trial."""

    def open(self, trial: Trial, attempt: int) -> Any:
        """Write down that a trial starts; returns the picklable log that the trial itself writes into.

        Args:
            trial: The trial.
            attempt: 1, or one more than at the trial's last `retry` by this loop.
        """

    def retry(self, trial: Trial, log: Any, result: Result) -> None:
        """Write down how an attempt failed after which the trial is opened again."""

    def close(self, trial: Trial, log: Any, result: Result) -> Record:
        """Write down how it ended."""

    def hurry(self) -> None:
        """Hear that the loop is about to leave trials that run: they are closed next, and should not take long."""


class Observer(Protocol):
    """Who watches, for instance a progress line."""

    def started(self, trial: Trial) -> None:
        """A trial has been handed to the executor."""

    def retried(self, trial: Trial, result: Result) -> None:
        """An attempt has failed, and the trial is tried again."""

    def finished(self, record: Record) -> None:
        """A trial has ended, one way or another."""


@dataclass(frozen=True)
class Budget:
    """When to stop asking. Trials already running are always waited for.

    Attributes:
        max_trials: Number of trials to start at most.
        max_time: Seconds the search and its final step should take together.
        reserve: Share of `max_time` kept for the final step: no trial is started in it.
        patience: Number of trials in a row that may end without improving on the best.
        target: Objective value that is good enough; judged by trials that no rung is above.
        max_failures: Number of failed trials that ends the search as failed.
    """

    max_trials: int | None = None
    max_time: float | None = None
    reserve: float = 0.1
    patience: int | None = None
    target: float | None = None
    max_failures: int | None = None

    def __post_init__(self) -> None:
        """Refuse what could never be meant."""
        for name, least in (("max_trials", 1), ("max_time", 0), ("patience", 1), ("max_failures", 1)):
            value = getattr(self, name)
            kind, number = (int | float, "number") if name == "max_time" else (int, "whole number")
            if value is not None and (isinstance(value, bool) or not isinstance(value, kind) or value < least):
                raise RequestError(f"budget.{name} must be a {number} of at least {least}, or null; got {value!r}.")
        if self.target is not None and not isinstance(self.target, int | float):
            raise RequestError(f"budget.target must be a number, or null; got {self.target!r}.")
        if not isinstance(self.reserve, int | float) or not 0 <= self.reserve < 1:
            raise RequestError(f"budget.reserve must be a share from 0 to below 1, got {self.reserve!r}.")

    def exceeded_by(self, failures: int) -> bool:
        """Whether so many trials have failed that the search has, too."""
        return self.max_failures is not None and failures >= self.max_failures

    def spent(
        self, *, started: int, seconds: float, since_best: int, best: float | None, failures: int, maximize: bool
    ) -> str | None:
        """Why no further trial should be started, or None."""
        if self.exceeded_by(failures):
            return f"max_failures={self.max_failures} reached"
        if self.max_trials is not None and started >= self.max_trials:
            return f"max_trials={self.max_trials} reached"
        if self.max_time is not None and seconds >= self.max_time * (1 - self.reserve):
            return f"max_time={self.max_time:g} s reached"
        if self.patience is not None and since_best >= self.patience:
            return f"{self.patience} trials without improvement"
        if self.target is not None and best is not None and not better(self.target, best, maximize=maximize):
            return f"target {self.target:g} reached"
        return None


@dataclass
class Progress:
    """How far a search is, and what its budget is judged by.

    Attributes:
        maximize: Direction of the objective.
        earlier: Seconds that an earlier, interrupted run of the search took.
        records: Every trial that has ended, in the order they did.
        again: Trials that were asked for but have not ended, and so have to be run.
    """

    maximize: bool = True
    earlier: float = 0.0
    again: deque[Trial] = field(default_factory=deque)
    records: list[Record] = field(default_factory=list)
    started: int = 0
    since_best: int = 0
    failures: int = 0
    best: Record | None = None
    clock: float = field(default_factory=time.monotonic)

    def next(self, search: Search) -> Trial | None:
        """The next trial to run: one that has to be run again, or else the one that the search proposes."""
        if self.again:
            return self.again.popleft()
        trial = search.ask()
        self.started += trial is not None
        return trial

    def add(self, record: Record) -> None:
        """A trial has ended."""
        self.records.append(record)
        self.since_best += 1
        self.failures += record.result.state is State.FAILED
        if beats(record, self.best, maximize=self.maximize):
            self.best, self.since_best = record, 0

    def spent(self, budget: Budget) -> str | None:
        """Why no further trial should be started, or None."""
        seconds = self.earlier + time.monotonic() - self.clock
        # A score on part of the resources is easily good by chance, so it cannot be good enough.
        best = None if self.best is None or self.best.trial.rungs_above else self.best.objective
        return budget.spent(
            started=self.started,
            seconds=seconds,
            since_best=self.since_best,
            best=best,
            failures=self.failures,
            maximize=self.maximize,
        )


@dataclass(frozen=True)
class Outcome:
    """What a finished loop leaves.

    Attributes:
        records: Every trial with its result, in the order they ended.
        stopped: Why it ended.
        best: The best complete trial.
        failed: Whether as many trials failed as the budget lets fail.
    """

    records: tuple[Record, ...]
    stopped: str
    best: Record | None
    failed: bool = False

    def as_recorded(self, records: Mapping[int, Record], *, maximize: bool) -> Outcome:
        """The same with the records of a journal, by number, which may know more than it could say at the time."""
        known = tuple(records[record.trial.number] for record in self.records)
        return replace(self, records=known, best=best_record(known, maximize=maximize))


@contextlib.contextmanager
def _in_flight(journal: Journal, executor: Executor) -> Iterator[dict[int, tuple[Trial, Any]]]:
    """Trials that have been opened but not closed. Whatever happens, none of them stays open, and none goes on."""
    trials: dict[int, tuple[Trial, Any]] = {}
    try:
        yield trials
    finally:
        if trials:
            journal.hurry()
            executor.shutdown(cancel_futures=True)
        for trial, log in trials.values():
            journal.close(trial, log, INTERRUPTED)


def replay(search: Search, journal: Journal, *, maximize: bool = True, earlier: float = 0.0) -> Progress:
    """Ask a search, and tell it, what it was asked and told before it was interrupted.

    Args:
        search: The search, composed anew.
        journal: Has the record.
        maximize: Direction of the objective.
        earlier: Seconds that the interrupted run took.

    Raises:
        RequestError: If the search proposes other trials than are on record.
    """
    progress = Progress(maximize, earlier)
    waiting: dict[int, Trial] = {}
    for step, number in journal.steps():
        if step == "ask":
            if (trial := search.ask()) is None:
                raise RequestError(
                    f"the search cannot go on: it proposes no trial {number}, which is on record; the libraries' "
                    "versions may have changed."
                )
            progress.started += 1
            waiting[number] = trial
        elif (record := journal.recall(trial := waiting.pop(number))) is not None:
            search.tell(trial, record.result)
            progress.add(record)
    progress.again.extend(trial for trial in waiting.values() if journal.recall(trial) is None)
    return progress


def run(
    search: Search,
    executor: Executor,
    work: Callable[[Trial, Any], Result],
    journal: Journal,
    *,
    workers: int = 1,
    retries: int = 0,
    maximize: bool = True,
    budget: Budget | None = None,
    observer: Observer | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Run a search to its end.

    Args:
        search: Proposes the trials.
        executor: Runs them; shut down if the loop ends before they do.
        work: Runs one trial, in the executor; returns its result and raises only to end the search.
        journal: Opens and closes the record of each trial.
        workers: How many trials may be outstanding at once.
        retries: How often a trial is tried again whose worker died, or whose failure may pass.
        maximize: Direction of the objective.
        budget: When to stop before the search is exhausted.
        observer: Told about every start and end.
        progress: How far an earlier run of the search has come, from `replay`.

    Returns:
        All records, in the order the trials ended.

    Raises:
        BaseException: Whatever `work` raises, and `KeyboardInterrupt`; open trials are closed as KILLED first.
    """
    budget = budget or Budget()
    progress = progress or Progress(maximize)
    pending: dict[Future[Result], tuple[Trial, int]] = {}
    with _in_flight(journal, executor) as opened:

        def start(trial: Trial, attempt: int = 1) -> None:
            log = journal.open(trial, attempt)
            opened[trial.number] = trial, log
            interrupts.check()
            pending[executor.submit(work, trial, log)] = trial, attempt

        while True:
            interrupts.check()
            stop = None
            while len(pending) < workers and (progress.again or not (stop := progress.spent(budget))):
                if (trial := progress.next(search)) is None:
                    break
                if observer:
                    observer.started(trial)
                start(trial)
            if not pending:
                break
            done = first_done(pending)
            # Ended together, told in the order asked: a search must see the same order in every run.
            for future in sorted(done, key=lambda f: pending[f][0].number):
                trial, attempt = pending.pop(future)
                result = _result(future)
                if result.may_pass and attempt <= retries:
                    journal.retry(*opened[trial.number], result)
                    del opened[trial.number]
                    if observer:
                        observer.retried(trial, result)
                    start(trial, attempt + 1)
                    continue
                record = journal.close(*opened[trial.number], result)
                del opened[trial.number]
                search.tell(trial, result)
                progress.add(record)
                if observer:
                    observer.finished(record)
    records = tuple(progress.records)
    return Outcome(
        records,
        stop or "the search space is exhausted",
        best_record(records, maximize=maximize),
        failed=budget.exceeded_by(progress.failures),
    )


def _result(future: Future[Result]) -> Result:
    """What came of a trial, its process's end included."""
    try:
        return future.result()
    except TrialError as error:
        reason = f"{type(error).__name__}: {error}"
        return Result(State.FAILED, reason=reason, may_pass=isinstance(error, WorkerDied))
