"""The leaderboard, in the columns of scikit-learn's `cv_results_`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from trialbook.trial import Record, merit, standings


def ranks(records: Sequence[Record], *, maximize: bool) -> list[int]:
    """The rank of each record as scikit-learn gives it: 1 is best, ties share the better rank, failures come last.

    Unlike scikit-learn's, no trial of a halving search ranks above one that was judged on more.
    """
    values = [merit(r, maximize=maximize) for r in records]
    first: dict[tuple[float, float], int] = {}
    for position, value in enumerate(sorted(values), start=1):
        first.setdefault(value, position)
    return [first[value] for value in values]


def leaderboard(records: Sequence[Record], *, maximize: bool) -> pd.DataFrame:
    """Every trial, best first, in the columns of scikit-learn's `cv_results_` and a few of ours beside them."""
    standing = standings(records)
    rows = [
        _row(record, rank, standing) for record, rank in zip(records, ranks(records, maximize=maximize), strict=True)
    ]
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    table = table.dropna(axis="columns", how="all")
    return table.sort_values(["rank_test_score", "trial"], ignore_index=True)


def _row(record: Record, rank: int, standing: dict[int, str]) -> dict[str, Any]:
    trial, result = record.trial, record.result
    return {
        "rank_test_score": rank,
        "trial": trial.number,
        "state": str(result.state),
        "standing": standing.get(trial.number),
        "iter": trial.details["iteration"] if standing else None,
        "n_resources": trial.details["resources"] if standing else None,
        "mean_test_score": result.objective,
        "std_test_score": result.objective_std,
        **{f"split{fold}_test_score": score for fold, score in enumerate(result.fold_scores)},
        **{f"param_{name}": value for name, value in trial.params.items()},
        "params": str(dict(trial.params)),
        "mean_fit_time": result.fit_seconds,
        "std_fit_time": result.fit_seconds_std,
        "mean_score_time": result.score_seconds,
        "std_score_time": result.score_seconds_std,
        "epochs": trial.epochs,
        "best_epoch": result.best_epoch,
        "reason": result.reason,
        "run_id": record.run_id,
    }
