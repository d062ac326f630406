"""The vocabulary every part shares: a trial goes out, a result comes back.

A `Trial` and its `Result` are frozen, picklable values. A `Search` is ask and tell over them, and a
`TrialLog` is what a running trial writes into. This module imports the standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

ParamValue = Any
"""A hyperparameter's value: a number, a string, a boolean or None."""


class State(StrEnum):
    """How a trial ended."""

    COMPLETE = "complete"
    FAILED = "failed"
    KILLED = "killed"


@dataclass(frozen=True)
class Trial:
    """One set of hyperparameters to try.

    Attributes:
        number: Position in the order of asking, from 0.
        params: Hyperparameters under the names the search space gives them.
        epochs: For a search that hands out training time, the epoch to train up to (cumulative).
        initial_epoch: The epoch to start from; above 0 only with `continues`.
        continues: Number of the earlier trial whose training state this one takes up.
        keep_state: Whether a later trial may continue this one, so that its training state must be kept.
        resources: For a search that hands out rows, how many of the development rows this trial may use.
        rungs_above: For a search that goes on with the best on more resources, how many such steps may still follow.
            Trials with fewer rungs above them were judged on more, and so beat the others whatever their objectives.
        details: What the search wants on record beside the hyperparameters (bracket, rung, …).
    """

    number: int
    params: Mapping[str, ParamValue]
    epochs: int | None = None
    initial_epoch: int = 0
    continues: int | None = None
    keep_state: bool = False
    resources: int | None = None
    rungs_above: int = 0
    details: Mapping[str, ParamValue] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What came of a trial.

    Attributes:
        state: How it ended.
        objective: Mean over the folds of what the search optimises, in its original sign.
        objective_std: Population standard deviation over the folds.
        fold_scores: The objective of each fold, in fold order.
        metrics: Further scores, averaged over the folds.
        best_epoch: For a model trained in epochs, how many epochs of training the objective stands for.
        fit_seconds: Mean wall time of a fold's training, in seconds.
        fit_seconds_std: Population standard deviation of that over the folds.
        score_seconds: Mean wall time of a fold's scoring, in seconds.
        score_seconds_std: Population standard deviation of that over the folds.
        model_id: Id of the logged MLflow model the trial left behind.
        reason: For a failed trial, one line that says why.
        traceback: For a failed trial, the whole story.
        may_pass: Whether another attempt may succeed: the failure was the machine's or the store's, not the model's.
    """

    state: State
    objective: float | None = None
    objective_std: float | None = None
    fold_scores: tuple[float, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    best_epoch: int | None = None
    fit_seconds: float | None = None
    fit_seconds_std: float | None = None
    score_seconds: float | None = None
    score_seconds_std: float | None = None
    model_id: str | None = None
    reason: str | None = None
    traceback: str | None = None
    may_pass: bool = False

    def __post_init__(self) -> None:
        """A complete trial has a finite objective; anything else would one day be called the best."""
        if self.state is State.COMPLETE and (self.objective is None or not math.isfinite(self.objective)):
            raise ValueError(f"a complete trial needs a finite objective, got {self.objective}")


# Of a trial that was running when its search was interrupted.
INTERRUPTED = Result(State.KILLED, reason="the search was interrupted")


@dataclass(frozen=True)
class Record:
    """A trial together with its result and the MLflow run that holds both (None when untracked)."""

    trial: Trial
    result: Result
    run_id: str | None = None

    @property
    def objective(self) -> float:
        """The objective of a complete trial, NaN for any other."""
        return math.nan if self.result.objective is None else self.result.objective


@dataclass(frozen=True)
class Setting:
    """What a search may need to know of what its trials are evaluated on.

    Attributes:
        n_samples: Number of development rows.
        n_splits: Number of folds.
        smallest_part: Number of training or of validation rows of a fold, where it is least.
        n_classes: Number of classes, None for a regression.
    """

    n_samples: int
    n_splits: int
    smallest_part: int
    n_classes: int | None = None


class Search(Protocol):
    """Proposes trials and learns from their results. Not thread-safe: the loop owns it.

    A search that `conf/search` names is made with the declared space as `space` and with whatever its constructor
    names of: `seed`; `metric` and `maximize`, the objective's name and direction; `setting`, a `Setting`.
    """

    @property
    def total(self) -> int | None:
        """How many trials the search will propose, or None when that cannot be known."""

    def ask(self) -> Trial | None:
        """The next trial, or None when there is nothing to propose until an outstanding one is told.

        None with no trial outstanding means that the search is over.
        """

    def tell(self, trial: Trial, result: Result) -> None:
        """Learn how a trial that was asked for ended. Each trial is told once."""


class TrialLog(Protocol):
    """What a running trial writes into, wherever it runs."""

    @property
    def store_errors(self) -> tuple[type[Exception], ...]:
        """What is raised when the store cannot be reached or written to, which may pass."""

    def epoch(self, metrics: Mapping[str, float], step: int) -> None:
        """Record the metrics of one epoch while the training goes on."""

    def save_model(self, estimator: Any, fold: int | None = None) -> str:
        """Keep the fitted estimator, of a fold if one is named, as the run's model; returns the logged model's id."""

    def save_state(self, path: Path) -> None:
        """Keep a file of training state under its own name, for a trial that continues this one."""

    def load_state(self, name: str) -> Path:
        """A local copy of the state file `name` that the continued trial kept."""

    def finish(self, result: Result) -> None:
        """Record the scores of a complete trial."""

    def flush(self) -> None:
        """Record whatever epochs still wait to be sent together."""


def better(a: float, b: float, *, maximize: bool) -> bool:
    """Whether objective `a` beats `b`. A NaN never beats anything, and anything finite beats a NaN."""
    if not math.isfinite(a):
        return False
    return not math.isfinite(b) or (a > b if maximize else a < b)


def merit(record: Record, *, maximize: bool) -> tuple[float, float]:
    """What trials are ranked by, least first: the rungs above, then the objective; failures come last, as equals."""
    if record.result.state is not State.COMPLETE:
        return math.inf, math.inf
    return record.trial.rungs_above, -record.objective if maximize else record.objective


def beats(record: Record, other: Record | None, *, maximize: bool) -> bool:
    """Whether a trial ranks above another, or completed where there is no other."""
    if other is None:
        return record.result.state is State.COMPLETE
    return merit(record, maximize=maximize) < merit(other, maximize=maximize)


def best_first(records: Sequence[Record], *, maximize: bool) -> list[Record]:
    """The complete trials by rank, the earlier first on a tie."""
    complete = [r for r in records if r.result.state is State.COMPLETE]
    return sorted(complete, key=lambda r: (*merit(r, maximize=maximize), r.trial.number))


def best_record(records: Sequence[Record], *, maximize: bool) -> Record | None:
    """The complete trial of the first rank, the earliest one on a tie; None when none completed."""
    return next(iter(best_first(records, maximize=maximize)), None)


def standings(records: Sequence[Record]) -> dict[int, str]:
    """What became of each trial of a halving search, by trial number; empty for any other search.

    `final` in the last rung; `promoted` if a later rung took its hyperparameters up, `eliminated` if one started
    without them, `undecided` if the search ended first.
    """
    halving = [r.trial for r in records if "candidate" in r.trial.details]
    rungs: dict[int, set[int]] = {}
    for trial in halving:
        rungs.setdefault(trial.details["iteration"], set()).add(trial.details["candidate"])

    def standing(trial: Trial) -> str:
        if trial.rungs_above == 0:
            return "final"
        above = rungs.get(trial.details["iteration"] + 1)
        if above is None:
            return "undecided"
        return "promoted" if trial.details["candidate"] in above else "eliminated"

    return {trial.number: standing(trial) for trial in halving}
