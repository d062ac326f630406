"""What the columns of a table are for, besides being learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import pandas as pd
from pandas.api import types

from trialbook.data.columns import BOOLEAN, NUMBER, TEXT, as_instants, kind_of, normalized
from trialbook.errors import DataError

_TRAIN = ("train", "training", "dev", "development")
_TEST = ("test", "testing", "holdout")


@dataclass(frozen=True)
class Roles:
    """What the columns of a table are for.

    Attributes:
        target: What is to be predicted.
        features: What it is predicted from; empty for all columns that have no other role.
        drop: Columns to leave out.
        groups: Which rows belong together.
        time: What the rows are sorted by. It stays a feature.
        split: Which rows are for the test: it holds `train` and `test`.
        sample_weight: What each row counts for in training.
    """

    target: str
    features: Sequence[str] = ()
    drop: Sequence[str] = ()
    groups: str | None = None
    time: str | None = None
    split: str | None = None
    sample_weight: str | None = None

    def check(self, columns: Sequence[str], where: str) -> None:
        """The columns must be there, and none can have two roles that exclude each other.

        Raises:
            DataError: Naming the key, and the column it may have meant.
        """
        named = {"target": [self.target], "features": self.features, "drop": self.drop}
        named |= {key: [name] for key in ("groups", "time", "split", "sample_weight") if (name := getattr(self, key))}
        for key, names in named.items():
            for name in names:
                if name not in columns:
                    raise DataError(f"data.{key}={name!r} is not a column of {where}; {offer(name, columns)}")
        for key in ("features", "drop"):
            if self.target in named[key]:
                raise DataError(f"data.{key} names {self.target!r}, which is the target.")
        if both := sorted(set(self.features) & set(self.drop)):
            raise DataError(f"data.features and data.drop both name {both[0]!r}; name it in one of them.")

    def of(self, columns: Sequence[str]) -> list[str]:
        """The features among the columns, in their order."""
        apart = {self.target, self.groups, self.split, self.sample_weight, *self.drop}
        return [name for name in columns if (name in self.features if self.features else name not in apart)]


def take_out(X: pd.DataFrame, key: str, column: str | None, name: str) -> tuple[pd.DataFrame, np.ndarray | None]:
    """The features without a column that says something about the rows, and that column.

    Raises:
        DataError: If there is no such column.
    """
    if column is None:
        return X, None
    if column not in X.columns:
        raise DataError(f"data.{key}={column!r} is not a column of {name}; {offer(column, list(X.columns))}")
    return X.drop(columns=column), X[column].to_numpy()


def check_weights(weights: np.ndarray, column: str) -> np.ndarray:
    """What rows count for, if it can be that.

    Raises:
        DataError: If it cannot.
    """
    numbers = types.is_numeric_dtype(weights.dtype)
    if not (numbers and np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
        raise DataError(f"data.sample_weight={column!r} must hold numbers of at least 0, and not only zeros.")
    return weights


def groups_of(table: pd.DataFrame, name: str | None) -> np.ndarray | None:
    """What each row belongs together with, shape (n_rows,).

    Raises:
        DataError: If it is not known for every row.
    """
    if name is None:
        return None
    column = table[name]
    if column.isna().any():
        raise DataError(f"data.groups={name} has no value in {int(column.isna().sum())} of {len(column)} rows.")
    groups: np.ndarray = normalized(column.to_frame(), "data.groups")[name].to_numpy()
    return groups


def weights_of(table: pd.DataFrame, name: str | None) -> np.ndarray | None:
    """What each row counts for in training, shape (n_rows,); see `check_weights`."""
    if name is None:
        return None
    weights: np.ndarray = table[name].to_numpy()
    return check_weights(weights, name)


def order_of(column: pd.Series, name: str) -> np.ndarray:
    """Positions of the rows in order of time; rows of the same time stay in the order they came in."""
    if column.isna().any():
        raise DataError(f"data.time={name} has no value in {int(column.isna().sum())} of {len(column)} rows.")
    times = normalized(column.to_frame(), "data.time")[name]
    kind = kind_of(times)
    if kind in (TEXT, BOOLEAN):
        raise DataError(
            f"data.time={name} must hold numbers, or dates such as 2026-11-22 or 2026-11-22T09:30:00Z; got "
            f"{times.iloc[0]!r}."
        )
    instants = times if kind == NUMBER else as_instants(times)
    return np.argsort(instants.to_numpy(), kind="stable")


def test_rows_of(column: pd.Series, name: str) -> np.ndarray:
    """For each row, whether it is for the test."""
    words = column.astype("object").map(lambda value: str(value).strip().lower())
    if odd := sorted(set(words) - set(_TRAIN) - set(_TEST)):
        raise DataError(f"data.split={name} must hold train and test and nothing else, got {odd[0]!r}.")
    test = words.isin(_TEST).to_numpy()
    if test.all() or not test.any():
        raise DataError(f"data.split={name} holds only {words.iloc[0]!r}; it must hold train and test.")
    return np.asarray(test)


def offer(name: str, columns: Sequence[str]) -> str:
    """For a message: what columns there are, and which may have been meant."""
    nearest = get_close_matches(name, columns, n=1)
    some = ", ".join(columns[:10]) + (", …" if len(columns) > 10 else "")
    return f"allowed: {some}.{f' Did you mean {nearest[0]!r}?' if nearest else ''}"
