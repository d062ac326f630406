"""What is to be predicted: classes or a number."""

from __future__ import annotations

import numpy as np
import pandas as pd
from pandas.api import types

from trialbook.data.columns import BOOLEAN, DATE, NUMBER, TEXT, kind_of, normalized
from trialbook.data.dataset import CLASSIFICATION, REGRESSION
from trialbook.errors import DataError

# Whole numbers with at most so many different values are taken for classes, unless the task is named.
_MOST_CLASSES = 20


def read_target(column: pd.Series, task: str | None, key: str) -> tuple[np.ndarray, str]:
    """The targets and the task, inferred where it is not named.

    Text and booleans are classes, and so are whole numbers of few different values, or any numbers of two; other
    numbers are a regression.

    Args:
        column: The targets, none missing.
        task: `classification`, `regression`, or None to infer it.
        key: How to call the column in messages.

    Returns:
        The targets, shape (n_rows,), and the task.

    Raises:
        DataError: If they are nothing that can be predicted.
    """
    if task not in (None, CLASSIFICATION, REGRESSION):
        raise DataError(f"data.task must be {CLASSIFICATION} or {REGRESSION}, or null to infer it; got {task!r}.")
    if types.is_numeric_dtype(column.dtype) and (infinite := int(np.isinf(column.astype("float64")).sum())):
        raise DataError(f"{key} is infinite in {infinite} of {len(column)} rows.")
    column = normalized(column.to_frame(), key).iloc[:, 0]
    kind, different = kind_of(column), column.nunique()
    if different < 2:
        raise DataError(f"{key} is {column.iloc[0]} in all {len(column)} rows; there is nothing to learn.")
    if kind == DATE:
        raise DataError(f"{key} holds dates; a target must be classes or numbers.")
    task = task or _inferred(column, kind, different)
    if task == REGRESSION:
        if kind == TEXT:
            raise DataError(
                f"{key} holds text such as {column.iloc[0]!r}, which is no number; leave data.task out, or name a "
                "numeric column."
            )
        return column.to_numpy(dtype="float64"), task
    if 2 * different > len(column):
        also = ", or give data.task=regression" if kind == NUMBER else ""
        raise DataError(
            f"{key} has {different} different values in {len(column)} rows, too many to be classes; name another "
            f"column{also}."
        )
    return _labels(column, kind), task


def targets_like(y: np.ndarray, column: pd.Series, key: str) -> np.ndarray:
    """Further targets, in the type of those already read.

    Args:
        y: Those already read, shape (n_rows,).
        column: The further ones, none missing.
        key: How to call the column in messages.

    Raises:
        DataError: If numbers are wanted, and these are none.
    """
    column = normalized(column.to_frame(), key).iloc[:, 0]
    if y.dtype.kind == "f" and kind_of(column) in (TEXT, DATE):
        raise DataError(f"{key} holds text such as {column.iloc[0]!r}, where numbers are wanted.")
    if y.dtype.kind == "f":
        return np.asarray(column, dtype="float64")
    labels = _labels(column, kind_of(column))
    return labels.astype("str") if y.dtype.kind == "U" else labels


def _labels(column: pd.Series, kind: str) -> np.ndarray:
    """Class labels: booleans, whole numbers, or text."""
    if kind == BOOLEAN:
        return np.asarray(column, dtype="bool")
    if kind == NUMBER and (column == column.round()).all():
        return np.asarray(column, dtype="int64")
    return np.asarray(column.astype("object")).astype("str")


def _inferred(column: pd.Series, kind: str, different: int) -> str:
    if kind != NUMBER or different == 2:
        return CLASSIFICATION
    few = different <= _MOST_CLASSES and 2 * different <= len(column)
    return CLASSIFICATION if few and (column == column.round()).all() else REGRESSION
