"""Which rows are for the test, and which for validation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupShuffleSplit, ShuffleSplit, StratifiedShuffleSplit, train_test_split
from sklearn.utils.multiclass import type_of_target

from trialbook.data.dataset import CLASSIFICATION, REGRESSION, Dataset
from trialbook.errors import DataError


@dataclass(frozen=True)
class Rows:
    """Rows, their targets, and what else is known of each.

    Attributes:
        X: Rows, shape (n_rows, …).
        y: Targets, shape (n_rows,).
        groups: What each row belongs together with, shape (n_rows,); None for rows of their own.
        sample_weight: What each row counts for in training, shape (n_rows,); None for all the same.
    """

    X: pd.DataFrame | np.ndarray
    y: np.ndarray
    groups: np.ndarray | None = None
    sample_weight: np.ndarray | None = None

    def at(self, positions: np.ndarray) -> Rows:
        """The rows at these positions, in this order."""
        return Rows(
            self.X.iloc[positions].reset_index(drop=True) if isinstance(self.X, pd.DataFrame) else self.X[positions],
            self.y[positions],
            None if self.groups is None else self.groups[positions],
            None if self.sample_weight is None else self.sample_weight[positions],
        )


def hold_out(
    X: pd.DataFrame | np.ndarray,
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
    **about: Any,
) -> Dataset:
    """Split off the test rows: whole groups where there are groups, else stratified by class for a classification.

    Args:
        X: All rows, shape (n_rows, …).
        y: Their targets, shape (n_rows,).
        name: What the data set is called.
        task: `classification` or `regression`.
        source: Where it comes from.
        test_size: Share of the rows to split off, or how many.
        test_seed: Seed of the split.
        shuffle: Whether test rows are drawn at random; else they are the last ones.
        groups: What each row belongs together with, shape (n_rows,).
        sample_weight: What each row counts for in training, shape (n_rows,).
        **about: Further attributes of the data set.

    Raises:
        DataError: If the rows cannot be split so.
    """
    if task not in (CLASSIFICATION, REGRESSION):
        raise DataError(f"data.task must be {CLASSIFICATION} or {REGRESSION}, got {task!r}.")
    if groups is not None and not shuffle:
        raise DataError(
            "data.shuffle=false and data.time take the last rows for the test, which would tear data.groups apart; "
            "name the test rows with data.split or data.test_path."
        )
    rows = Rows(X, y, groups, sample_weight)
    try:
        if groups is not None:
            splitter = GroupShuffleSplit(n_splits=1, test_size=test_size, random_state=test_seed)
            dev, test = next(splitter.split(X, y, groups))
            how = f"whole groups drawn with seed {test_seed}"
        elif shuffle:
            stratify = _splittable(y, name) if task == CLASSIFICATION else None
            dev, test = train_test_split(
                np.arange(len(y)), test_size=test_size, random_state=test_seed, stratify=stratify
            )
            how = f"drawn {'' if stratify is None else 'by class '}with seed {test_seed}"
        else:
            dev, test = train_test_split(np.arange(len(y)), test_size=test_size, shuffle=False)
            how = "the last ones"
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"data.test_size={test_size} cannot split {len(y)} rows of {name}: {error}") from error
    return apart(rows.at(dev), rows.at(test), name, task, source, ordered=not shuffle, held_out=how, **about)


def apart(dev: Rows, test: Rows, name: str, task: str, source: str, **about: Any) -> Dataset:
    """A data set of development and test rows that are apart already.

    Raises:
        DataError: If a model could not be found on the former, or tested on the latter.
    """
    if task == CLASSIFICATION:
        known = np.unique(dev.y)
        if len(known) < 2:
            raise DataError(f"data={name}: all {len(dev.y)} rows to search on are of the class {known[0]}.")
        if len(unknown := np.setdiff1d(test.y, known)):
            raise DataError(
                f"data={name}: test rows have the class {unknown[0]}, which no row to search on has; choose other "
                "test rows, or leave that class out."
            )
    elif np.ptp(dev.y) == 0:
        raise DataError(f"data={name}: all {len(dev.y)} rows to search on have the target {dev.y[0]:g}.")
    return Dataset(
        name,
        task,
        dev.X,
        dev.y,
        test.X,
        test.y,
        source,
        groups=dev.groups,
        sample_weight=dev.sample_weight,
        **about,
    )


def _splittable(y: np.ndarray, name: str) -> np.ndarray:
    """Targets of which each class can be in both parts."""
    labels, counts = np.unique(y, return_counts=True)
    if counts.min() < 2:
        raise DataError(
            f"data={name} has only 1 row of the class {labels[counts.argmin()]}, which cannot be both searched on and "
            "tested; a class needs at least 2."
        )
    return y


class Holdout:
    """One split into training and validation rows: whole groups where there are groups, else stratified by class.

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
        if groups is not None:
            kind = GroupShuffleSplit
        splitter = kind(n_splits=1, test_size=self.test_size, random_state=self.random_state)
        yield from splitter.split(X, y, groups)

    def in_order(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """The same for rows in order of time: the last ones are for validation."""
        train, validation = train_test_split(np.arange(len(X)), test_size=self.test_size, shuffle=False)
        return train, validation

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Always 1."""
        return 1
