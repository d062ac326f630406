"""Data sets and their splits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.datasets import fetch_openml
from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit, train_test_split
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
    """

    name: str
    task: str
    X: pd.DataFrame
    y: np.ndarray
    X_test: pd.DataFrame
    y_test: np.ndarray
    source: str

    @property
    def digest(self) -> str:
        """Fingerprint of the development rows, their order and their targets."""
        return fingerprint(self.X, self.y)

    @property
    def test_digest(self) -> str:
        """Fingerprint of the test rows."""
        return fingerprint(self.X_test, self.y_test)


def from_sklearn(loader: Callable[[], Any], *, name: str, task: str, test_size: float, test_seed: int) -> Dataset:
    """A data set that comes inside scikit-learn.

    Args:
        loader: Gives the data set with `data` as a frame and `target` as a series, as scikit-learn's `load_*`
            functions do when called with `as_frame=True`.
        name: What to call it.
        task: `classification` or `regression`.
        test_size: Share of the rows kept for the final test.
        test_seed: Seed of that split. It is not the search's seed: champions are compared on the same test rows.
    """
    bunch = loader()
    function: Any = getattr(loader, "func", loader)  # inside a partial
    source = f"{function.__module__}.{function.__qualname__}"
    return hold_out(bunch.data, bunch.target.to_numpy(), name, task, source, test_size=test_size, test_seed=test_seed)


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
    X: pd.DataFrame, y: np.ndarray, name: str, task: str, source: str, *, test_size: float, test_seed: int
) -> Dataset:
    """Split off the test rows, stratified by class for a classification.

    Raises:
        DataError: If the rows cannot be split so.
    """
    if task not in (CLASSIFICATION, REGRESSION):
        raise DataError(f"data.task must be {CLASSIFICATION} or {REGRESSION}, got {task!r}.")
    try:
        X_dev, X_test, y_dev, y_test = train_test_split(
            X, y, test_size=test_size, random_state=test_seed, stratify=y if task == CLASSIFICATION else None
        )
    except ValueError as error:
        raise DataError(f"data.test_size={test_size} cannot split {len(y)} rows of {name}: {error}") from error
    return Dataset(name, task, X_dev.reset_index(drop=True), y_dev, X_test.reset_index(drop=True), y_test, source)


def fingerprint(X: pd.DataFrame, y: np.ndarray) -> str:
    """The first 16 hexadecimal digits of a SHA-256 over column names, types, values and targets, in order."""
    digest = hashlib.sha256()
    digest.update(repr([(str(c), str(t)) for c, t in X.dtypes.items()]).encode())
    digest.update(pd.util.hash_pandas_object(X, index=False).to_numpy().tobytes())
    digest.update(pd.util.hash_array(np.asarray(y)).tobytes())
    return digest.hexdigest()[:16]


class Holdout:
    """One split into training and validation rows, stratified where the targets are classes.

    Args:
        test_size: Share of the rows to validate on.
        random_state: Seed of the split.
    """

    def __init__(self, test_size: float = 0.2, random_state: int | None = None) -> None:
        self.test_size = test_size
        self.random_state = random_state

    def split(self, X: Any, y: Any, groups: Any = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Positions of the training and of the validation rows, once."""
        kind = StratifiedShuffleSplit if type_of_target(y) in ("binary", "multiclass") else ShuffleSplit
        splitter = kind(n_splits=1, test_size=self.test_size, random_state=self.random_state)
        yield from splitter.split(X, y, groups)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Always 1."""
        return 1
