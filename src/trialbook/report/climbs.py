"""The way of each candidate of a halving search or of Hyperband from few rows or epochs to more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trialbook.report.summary import completed
from trialbook.trial import Record


def paths(records: Iterable[Record]) -> list[list[Record]]:
    """The complete trials of each candidate, each on more rows or epochs than the one before."""
    done = sorted((r for r in records if completed(r)), key=lambda r: r.trial.number)
    found: dict[Any, list[Record]] = {}
    start: dict[int, int] = {}
    for record in done:
        trial = record.trial
        # Keras Tuner names the trial that goes on; a halving search names the candidate.
        origin = trial.number if trial.continues is None else start.get(trial.continues, trial.continues)
        start[trial.number] = origin
        key = ("candidate", trial.details["candidate"]) if "candidate" in trial.details else ("trial", origin)
        found.setdefault(key, []).append(record)
    return list(found.values())


def superseded(records: Iterable[Record]) -> set[int]:
    """Numbers of the trials whose candidate completed a later one, on more rows or epochs."""
    return {r.trial.number for path in paths(records) for r in path[:-1]}
