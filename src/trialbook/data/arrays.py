"""Arrays from NumPy files: rows of any shape, such as images."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from trialbook.data.columns import numbers_filled
from trialbook.data.dataset import Dataset
from trialbook.data.files import name_of, read_bytes, shown
from trialbook.data.splitting import Rows, apart, hold_out
from trialbook.data.tables import wants_preprocessing
from trialbook.data.target import read_target, targets_like
from trialbook.errors import DataError

# What rows, targets, test rows and their targets are called in .npz files that do not say otherwise.
_ROWS = ("x", "X", "x_train", "X_train", "data", "images")
_TARGETS = ("y", "Y", "y_train", "Y_train", "target", "targets", "label", "labels")
_TEST = (("x_test", "y_test"), ("X_test", "y_test"), ("X_test", "Y_test"))


def from_numpy(
    *,
    path: str | None,
    target_path: str | None = None,
    rows: str | None = None,
    target: str | None = None,
    test_path: str | None = None,
    test_target_path: str | None = None,
    name: str | None = None,
    task: str | None = None,
    flatten: bool = False,
    test_size: float = 0.2,
    test_seed: int = 0,
    shuffle: bool = True,
    preprocessing: str = "auto",
) -> Dataset:
    """Arrays from a `.npz` file, or from a `.npy` file of rows and one of targets.

    Args:
        path: A path, or an address that fsspec understands: of both arrays, or of the rows.
        target_path: The file of the targets, where `path` is a `.npy` file.
        rows: What the rows are called in a `.npz` file; None for the usual names.
        target: What the targets are called there; None likewise.
        test_path: A file of test rows of the same kind; a `.npz` file may also hold `x_test` and `y_test`.
        test_target_path: The file of their targets, where `test_path` is a `.npy` file.
        name: What to call the data; None for the file's name.
        task: `classification` or `regression`; None to infer it from the targets.
        flatten: Whether rows of more than one dimension become vectors.
        test_size: Share of the rows kept for the final test, unless there are test rows.
        test_seed: Seed of that split.
        shuffle: Whether test rows are drawn at random; else they are the last ones.
        preprocessing: `auto` to put the median where numbers of a vector are missing; `none` to leave that to the
            model.

    Raises:
        DataError: If the files cannot be read, or cannot be learned from.
    """
    if not path:
        raise DataError("data=numpy needs data.path: a .npz file, or a .npy file with data.target_path beside it.")
    source, called = shown(path), name or name_of(path)
    arrays = _arrays(path, "data.path")
    X, values = _pair(arrays, path, target_path, rows, target, "path")
    y, task = read_target(pd.Series(values), task, "data.target")
    own = next(([arrays[n] for n in names] for names in _TEST if set(names) <= set(arrays)), None)
    if test_path is not None:
        held = _arrays(test_path, "data.test_path")
        own = list(_pair(held, test_path, test_target_path, rows, target, "test_path"))
    if own is None:
        data = hold_out(X, y, called, task, source, test_size=test_size, test_seed=test_seed, shuffle=shuffle)
    else:
        targets = targets_like(y, pd.Series(_values(own[1], own[0], "the test targets")), "the test targets")
        test = Rows(_numbers(own[0], "the test rows"), targets)
        if test.X.shape[1:] != X.shape[1:]:
            raise DataError(f"data={called}: rows are of {X.shape[1:]}, test rows of {test.X.shape[1:]} values.")
        data = apart(Rows(X, y), test, called, task, source, held_out="those it comes with")
    data = flattened(data) if flatten else data
    gaps = data.X.dtype.kind == "f" and (np.isnan(data.X).any() or np.isnan(data.X_test).any())
    if not gaps:
        return data
    if data.X.ndim > 2:
        raise DataError(f"data={called} lacks values in rows of more than one dimension; fill them in first.")
    return replace(data, preprocessing=numbers_filled() if wants_preprocessing(preprocessing) else None)


def flattened(data: Dataset) -> Dataset:
    """The same data with each row a vector."""
    X, X_test = (rows.reshape(len(rows), -1) for rows in (np.asarray(data.X), np.asarray(data.X_test)))
    return replace(data, X=X, X_test=X_test)


def _arrays(path: str, key: str) -> Mapping[str, np.ndarray]:
    """The arrays of a file by their names; that of a `.npy` file has none."""
    where = f"{key}={shown(path)}"
    content = read_bytes(path, where)
    try:
        found = np.load(io.BytesIO(content), allow_pickle=False)
        return {"": found} if isinstance(found, np.ndarray) else {name: found[name] for name in found.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        said = " ".join(str(error).split())
        if "pickle" in said:
            said = "it holds Python objects, which would have to be unpickled, or is no NumPy file at all"
        raise DataError(f"{where} is no .npy or .npz file of numbers: {said}.") from error


def _pair(
    arrays: Mapping[str, np.ndarray],
    path: str,
    target_path: str | None,
    rows: str | None,
    target: str | None,
    key: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and targets, from one file or from two."""
    if "" in arrays:
        if target_path is None:
            raise DataError(f"data.{key}={shown(path)} is one array; name the file of the targets: data.target_path.")
        X, y = arrays[""], _arrays(target_path, "data.target_path").get("")
        if y is None:
            raise DataError(f"data.target_path={shown(target_path)} must be a .npy file, which holds one array.")
    else:
        X = _named(arrays, rows, _ROWS, f"data.{key}", "data.rows")
        y = _named(arrays, target, _TARGETS, f"data.{key}", "data.target")
    return _numbers(X, "the rows"), _values(y, X, "the targets")


def _named(
    arrays: Mapping[str, np.ndarray], given: str | None, usual: tuple[str, ...], where: str, key: str
) -> np.ndarray:
    found = [name for name in (usual if given is None else (given,)) if name in arrays]
    if len(found) != 1:
        raise DataError(f"{where} holds {', '.join(arrays) or 'no arrays'}; say which to take with {key}.")
    return arrays[found[0]]


def _numbers(X: np.ndarray, what: str) -> np.ndarray:
    if X.dtype.kind not in "fiub":
        raise DataError(f"data=numpy: {what} must be numbers, got {X.dtype}.")
    if X.ndim < 2:
        raise DataError(f"data=numpy: {what} must have at least two dimensions, the first for the rows; got {X.shape}.")
    if X.dtype.kind == "f" and (infinite := int(np.isinf(X).sum())):
        raise DataError(f"data=numpy: {what} hold {infinite} infinite values; give finite numbers.")
    return X


def _values(y: np.ndarray, X: np.ndarray, what: str) -> np.ndarray:
    if y.ndim > 1 and y.size == len(y):
        y = y.ravel()
    if y.ndim != 1 or len(y) != len(X):
        raise DataError(f"data=numpy: {what} must be one value for each of {len(X)} rows, got the shape {y.shape}.")
    if y.dtype.kind not in "fiubU":
        raise DataError(f"data=numpy: {what} must be numbers, booleans or text, got {y.dtype}.")
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise DataError(f"data=numpy: {what} are missing or infinite in {int((~np.isfinite(y)).sum())} rows.")
    return y
