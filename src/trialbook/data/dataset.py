"""The data set a search runs on, and what is said about it."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

CLASSIFICATION = "classification"
REGRESSION = "regression"

_CLASSES_SHOWN = 5


@dataclass(frozen=True)
class Dataset:
    """Rows to search on, and rows kept away from the search to test its winner on, once.

    Attributes:
        name: What the data set is called.
        task: `classification` or `regression`.
        X: Development rows, all the search ever sees: a frame of shape (n_rows, n_columns), or an array of shape
            (n_rows, …).
        y: Their targets, shape (n_rows,).
        X_test: Test rows, for the final step alone.
        y_test: Their targets.
        source: Where the data come from, in words a reader can follow.
        groups: For each development row, what it belongs together with, shape (n_rows,); None for rows of their own.
        ordered: Whether the rows are in the order they came in, the test rows last.
        sample_weight: What each development row counts for in training, shape (n_rows,); None for all the same.
        preprocessing: An unfitted transformer to stand in front of every model; None for rows that models take as they
            are.
        target: What the target is called.
        columns: The columns in a few words, such as `3 numbers, 1 date`; empty where their shape says it all.
        held_out: How the test rows were chosen, in a few words.
        notes: What a person should know of how the data were read, a sentence each.
    """

    name: str
    task: str
    X: pd.DataFrame | np.ndarray
    y: np.ndarray
    X_test: pd.DataFrame | np.ndarray
    y_test: np.ndarray
    source: str
    groups: np.ndarray | None = None
    ordered: bool = False
    sample_weight: np.ndarray | None = None
    preprocessing: Any = None
    target: str = "target"
    columns: str = ""
    held_out: str = ""
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Fingerprint of the development rows, their order, their targets, groups and weights."""
        beside = {"groups": self.groups, "sample_weight": self.sample_weight}
        return fingerprint(self.X, self.y, **{name: column for name, column in beside.items() if column is not None})

    @property
    def test_digest(self) -> str:
        """Fingerprint of the test rows."""
        return fingerprint(self.X_test, self.y_test)

    @property
    def described(self) -> list[str]:
        """What a person should see before a search on these data, a line each."""
        total = len(self.y) + len(self.y_test)
        kinds = f" ({self.columns})" if self.columns else ""
        how = f" ({self.held_out})" if self.held_out else ""
        return [
            f"{self.name}: {total:,} rows of {shape_of(self.X)}{kinds}; {len(self.y):,} to search on, "
            f"{len(self.y_test):,} for the test{how}",
            f"{self.task} of {self.target}: {_values(self.y, self.task)}",
            *self.notes,
        ]


def shape_of(X: pd.DataFrame | np.ndarray) -> str:
    """What one row consists of: `12 columns`, or `28×28 values`."""
    if X.ndim > 2:
        return f"{'×'.join(map(str, X.shape[1:]))} values"
    return f"{X.shape[1]} columns" if X.shape[1] > 1 else "1 column"


def fingerprint(X: pd.DataFrame | np.ndarray, y: np.ndarray, **beside: np.ndarray) -> str:
    """The first 16 hexadecimal digits of a SHA-256 over names, types, values and targets, in order.

    Args:
        X: Rows, shape (n_rows, …).
        y: Their targets, shape (n_rows,).
        **beside: What else is known of each row, shape (n_rows,).
    """
    digest = hashlib.sha256()
    if isinstance(X, pd.DataFrame):
        X = X.assign(**{f"trialbook.{name}": column for name, column in beside.items()})
        digest.update(repr([(str(c), str(t)) for c, t in X.dtypes.items()]).encode())
        digest.update(pd.util.hash_pandas_object(X, index=False).to_numpy().tobytes())
    else:
        digest.update(repr((str(X.dtype), X.shape, sorted(beside))).encode())
        digest.update(np.ascontiguousarray(X).data)
        for _, column in sorted(beside.items()):
            digest.update(pd.util.hash_array(column).tobytes())
    digest.update(pd.util.hash_array(np.asarray(y)).tobytes())
    return digest.hexdigest()[:16]


def _values(y: np.ndarray, task: str) -> str:
    """The classes with their shares, the most frequent first; or the range of the numbers."""
    if task == REGRESSION:
        return f"from {y.min():g} to {y.max():g}, on average {y.mean():g}"
    shares = pd.Series(y).value_counts(normalize=True)
    shown = ", ".join(f"{label} ({_percent(share)})" for label, share in shares.head(_CLASSES_SHOWN).items())
    return f"{len(shares)} classes: {shown}{', …' if len(shares) > _CLASSES_SHOWN else ''}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.{1 - math.floor(math.log10(100 * share))}f} %"
