"""Data sets and their splits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.datasets import fetch_openml
from sklearn.model_selection import GroupShuffleSplit, ShuffleSplit, StratifiedShuffleSplit, train_test_split
from sklearn.utils.multiclass import type_of_target

from trialbook.errors import DataError

CLASSIFICATION = "classification"
REGRESSION = "regression"


@dataclass(frozen=True)
class Dataset:
    """Rows to search on, and rows kept away from the search to test its winner on, once.

    Attributes:
        name: What the data set is called.
        task: `classification` or `regression`.
        X: Development rows, shape (n_rows, n_columns); all the search ever sees.
        y: Their targets, shape (n_rows,).
        X_test: Test rows, for the final step alone.
        y_test: Their targets.
        source: Where the data come from, in words a reader can follow.
        groups: For each development row, what it belongs together with, shape (n_rows,); None for rows of their own.
        ordered: Whether the rows are in the order they came in, the test rows last.
        sample_weight: What each development row counts for in training, shape (n_rows,); None for all the same.
    """

    name: str
    task: str
    X: pd.DataFrame
    y: np.ndarray
    X_test: pd.DataFrame
    y_test: np.ndarray
    source: str
    groups: np.ndarray | None = None
    ordered: bool = False
    sample_weight: np.ndarray | None = None

    @property
    def digest(self) -> str:
        """Fingerprint of the development rows, their order, their targets, groups and weights."""
        beside = {"groups": self.groups, "sample_weight": self.sample_weight}
        given = {f"trialbook.{name}": column for name, column in beside.items() if column is not None}
        return fingerprint(self.X.assign(**given), self.y)

    @property
    def test_digest(self) -> str:
        """Fingerprint of the test rows."""
        return fingerprint(self.X_test, self.y_test)


def from_sklearn(
    loader: Callable[[], Any],
    *,
    name: str,
    task: str,
    test_size: float,
    test_seed: int,
    shuffle: bool = True,
    groups: str | None = None,
    sample_weight: str | None = None,
) -> Dataset:
    """A data set that comes inside scikit-learn.

    Args:
        loader: Gives the data set with `data` as a frame and `target` as a series, as scikit-learn's `load_*`
            functions do when called with `as_frame=True`.
        name: What to call it.
        task: `classification` or `regression`.
        test_size: Share of the rows kept for the final test.
        test_seed: Seed of that split. It is not the search's seed: champions are compared on the same test rows.
        shuffle: Whether test rows are drawn at random; else they are the last ones, as for rows in order of time.
        groups: Name of the column that says which rows belong together; it is taken out of the features.
        sample_weight: Name of the column that says what each row counts for in training; it is taken out likewise.

    Raises:
        DataError: If there is no such column, or the rows cannot be split so.
    """
    bunch = loader()
    function: Any = getattr(loader, "func", loader)  # inside a partial
    source = f"{function.__module__}.{function.__qualname__}"
    X, belongs = _take_out(bunch.data, "groups", groups, name)
    X, weights = _take_out(X, "sample_weight", sample_weight, name)
    if weights is not None and not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
        raise DataError(f"data.sample_weight={sample_weight!r} must hold numbers of at least 0, and not only zeros.")
    return hold_out(
        X,
        bunch.target.to_numpy(),
        name,
        task,
        source,
        test_size=test_size,
        test_seed=test_seed,
        shuffle=shuffle,
        groups=belongs,
        sample_weight=weights,
    )


def _take_out(X: pd.DataFrame, key: str, column: str | None, name: str) -> tuple[pd.DataFrame, np.ndarray | None]:
    """The features without a column that says something about the rows, and that column."""
    if column is None:
        return X, None
    if column not in X.columns:
        raise DataError(f"data.{key}={column!r} is not a column of {name}; allowed: {', '.join(X.columns)}.")
    return X.drop(columns=column), X[column].to_numpy()


def from_openml(
    *,
    data_id: int,
    columns: Sequence[str],
    target: str,
    labels: Mapping[str, Any],
    path: str | None = None,
    name: str,
    task: str,
    test_size: float,
    test_seed: int,
) -> Dataset:
    """A data set of openml.org, or the same data from a local file.

    Args:
        data_id: Its number there.
        columns: What to call its columns, in its order.
        target: What to call the target, which comes last in the file.
        labels: For each label as OpenML writes it, what it is called here and in the file.
        path: A csv file without a header row, to read instead of fetching anything.
        name: What to call the data set.
        task: `classification` or `regression`.
        test_size: Share of the rows kept for the final test.
        test_seed: Seed of that split.

    Raises:
        DataError: If it cannot be fetched, or the file read.
    """
    if path is not None:
        X, y = _read_csv(path, [*columns, target])
        source = path
    else:
        X, y = _fetch(data_id, name, columns, labels)
        source = f"https://www.openml.org/d/{data_id}"
    return hold_out(X, y, name, task, source, test_size=test_size, test_seed=test_seed)


def _fetch(
    data_id: int, name: str, columns: Sequence[str], labels: Mapping[str, Any]
) -> tuple[pd.DataFrame, np.ndarray]:
    try:
        bunch = fetch_openml(data_id=data_id, as_frame=True)
    except OSError as error:
        raise DataError(
            f"data={name} cannot be fetched from OpenML ({error}); give a local copy as data.path."
        ) from error
    X = bunch.data.set_axis(list(columns), axis="columns")
    return X, bunch.target.astype(str).map(dict(labels)).to_numpy()


def _read_csv(path: str, columns: Sequence[str]) -> tuple[pd.DataFrame, np.ndarray]:
    try:
        table = pd.read_csv(path, header=None)
    except (OSError, ValueError) as error:
        raise DataError(f"data.path={path} cannot be read: {error}") from error
    if table.shape[1] != len(columns):
        raise DataError(f"data.path={path} must have {len(columns)} columns without a header, got {table.shape[1]}.")
    table.columns = list(columns)
    return table.iloc[:, :-1], table.iloc[:, -1].to_numpy()


def hold_out(
    X: pd.DataFrame,
    y: np.ndarray,
    name: str,
    task: str,
    source: str,
    *,
    test_size: float,
    test_seed: int,
    shuffle: bool = True,
    groups: np.ndarray | None = None,
    sample_weight: np.ndarray | None = None,
) -> Dataset:
    """Split off the test rows: whole groups where there are groups, else stratified by class for a classification.

    Raises:
        DataError: If the rows cannot be split so.
    """
    if task not in (CLASSIFICATION, REGRESSION):
        raise DataError(f"data.task must be {CLASSIFICATION} or {REGRESSION}, got {task!r}.")
    if groups is not None and not shuffle:
        raise DataError("data.shuffle=false takes the last rows for the test, which would tear data.groups apart.")
    try:
        if groups is not None:
            splitter = GroupShuffleSplit(n_splits=1, test_size=test_size, random_state=test_seed)
            dev, test = next(splitter.split(X, y, groups))
        elif shuffle:
            stratify = y if task == CLASSIFICATION else None
            dev, test = train_test_split(
                np.arange(len(y)), test_size=test_size, random_state=test_seed, stratify=stratify
            )
        else:
            dev, test = train_test_split(np.arange(len(y)), test_size=test_size, shuffle=False)
    except ValueError as error:
        raise DataError(f"data.test_size={test_size} cannot split {len(y)} rows of {name}: {error}") from error
    return Dataset(
        name,
        task,
        X.iloc[dev].reset_index(drop=True),
        y[dev],
        X.iloc[test].reset_index(drop=True),
        y[test],
        source,
        groups=None if groups is None else groups[dev],
        ordered=not shuffle,
        sample_weight=None if sample_weight is None else sample_weight[dev],
    )


def fingerprint(X: pd.DataFrame, y: np.ndarray) -> str:
    """The first 16 hexadecimal digits of a SHA-256 over column names, types, values and targets, in order."""
    digest = hashlib.sha256()
    digest.update(repr([(str(c), str(t)) for c, t in X.dtypes.items()]).encode())
    digest.update(pd.util.hash_pandas_object(X, index=False).to_numpy().tobytes())
    digest.update(pd.util.hash_array(np.asarray(y)).tobytes())
    return digest.hexdigest()[:16]


class Holdout:
    """One split into training and validation rows, stratified where there are classes.

    Args:
        test_size: Share of the rows to validate on.
        random_state: Seed of the split.
    """

    def __init__(self, test_size: float = 0.2, random_state: int | None = None) -> None:
        self.test_size = test_size
        self.random_state = random_state

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Positions of the training and of the validation rows, once; `y` is None where there are no classes."""
        classes = y is not None and type_of_target(y) in ("binary", "multiclass")
        kind = StratifiedShuffleSplit if classes else ShuffleSplit
        splitter = kind(n_splits=1, test_size=self.test_size, random_state=self.random_state)
        yield from splitter.split(X, y, groups)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Always 1."""
        return 1
