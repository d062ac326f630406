"""Data sets that others keep: inside scikit-learn, at openml.org, and those Keras knows where to fetch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.datasets import fetch_openml

from trialbook.data.arrays import flattened
from trialbook.data.dataset import CLASSIFICATION, Dataset
from trialbook.data.files import Format, read_table
from trialbook.data.roles import Roles, check_weights, take_out
from trialbook.data.splitting import Rows, apart, hold_out
from trialbook.data.tables import from_frame, wants_preprocessing
from trialbook.errors import DataError


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
    X, belongs = take_out(bunch.data, "groups", groups, name)
    X, weights = take_out(X, "sample_weight", sample_weight, name)
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
        sample_weight=None if weights is None else check_weights(weights, str(sample_weight)),
    )


def from_openml(
    *,
    data_id: int | None = None,
    dataset: str | None = None,
    version: int | str = "active",
    path: str | None = None,
    columns: Sequence[str] | None = None,
    target: str | None = None,
    labels: Mapping[str, Any] | None = None,
    name: str | None = None,
    task: str | None = None,
    features: Sequence[str] | None = None,
    drop: Sequence[str] | None = None,
    groups: str | None = None,
    test_size: float = 0.2,
    test_seed: int = 0,
    shuffle: bool = True,
    preprocessing: str = "auto",
) -> Dataset:
    """A data set of openml.org, or the same data from a local file.

    Args:
        data_id: Its number there.
        dataset: Its name there, instead of its number.
        version: With a name, which version.
        path: A csv file without a header row, to read instead of fetching anything; needs `columns` and `target`.
        columns: What to call its features, in its order; None for their names there.
        target: What to call the target or, where `columns` is None, which column it is; None for its own.
        labels: For each label as OpenML writes it, what it is called here and in the file; None for no change.
        name: What to call the data set; None for its name there.
        task: `classification` or `regression`; None to infer it.
        features: Columns to predict from; None for all.
        drop: Columns to leave out.
        groups: Column that says which rows belong together; it is no feature.
        test_size: Share of the rows kept for the final test.
        test_seed: Seed of that split.
        shuffle: Whether test rows are drawn at random; else they are the last ones.
        preprocessing: See `from_table`.

    Raises:
        DataError: If it cannot be fetched, or the file read.
    """
    if path is not None:
        table, source = _local(path, [*(columns or ()), str(target)]), path
        target = str(target)
    else:
        if (data_id is None) == (dataset is None):
            raise DataError("data=openml needs data.data_id, its number there, or data.dataset, its name; give one.")
        own = target if columns is None and target is not None else "default-target"
        bunch = _fetched(name or dataset or data_id, data_id=data_id, name=dataset, version=version, target_column=own)
        table, target = _as_table(bunch, columns, target, labels)
        source = f"https://www.openml.org/d/{bunch.details['id']}"
        name = name or str(bunch.details["name"])
    return from_frame(
        table,
        Roles(target, tuple(features or ()), tuple(drop or ()), groups),
        name=name or "openml",
        source=source,
        task=task,
        test_size=test_size,
        test_seed=test_seed,
        shuffle=shuffle,
        preprocessed=wants_preprocessing(preprocessing),
    )


def from_keras(dataset: str, *, name: str | None = None, flatten: bool = False) -> Dataset:
    """Images that Keras fetches once and keeps in its own cache, with the test rows they come with.

    Args:
        dataset: Name of a module of `keras.datasets` whose data are images and classes: `mnist`, `fashion_mnist`, ….
        name: What to call the data; None for the same.
        flatten: Whether a row is a vector of pixels instead of an image.

    Raises:
        DataError: If there is no such data set, or it is not in the cache and cannot be fetched.
    """
    import keras

    module = getattr(keras.datasets, dataset, None)
    if module is None:
        raise DataError(f"data.dataset={dataset!r} is no data set of keras.datasets; mnist, for example, is one.")
    try:
        parts = module.load_data()
    except Exception as error:  # Keras raises a bare one
        raise DataError(
            f"data={dataset} is not in Keras's cache (~/.keras/datasets) and cannot be fetched: "
            f"{' '.join(str(error).split())}"
        ) from error
    dev, test = (Rows(np.asarray(X), np.ravel(y)) for X, y in parts)
    data = apart(
        dev, test, name or dataset, CLASSIFICATION, f"keras.datasets.{dataset}", held_out="those it comes with"
    )
    return flattened(data) if flatten else data


def _fetched(called: Any, **which: Any) -> Any:
    """What scikit-learn's cache or openml.org has."""
    where = f"data={called}"
    try:
        with warnings.catch_warnings():
            # What is not in scikit-learn's cache it calls an invalid cache, unless it can be fetched.
            warnings.filterwarnings("ignore", message="Invalid cache", category=RuntimeWarning)
            return fetch_openml(as_frame=True, **{key: value for key, value in which.items() if value is not None})
    except OSError as error:
        raise DataError(f"{where} cannot be fetched from OpenML ({error}); give a local copy as data.path.") from error
    except (ValueError, KeyError) as error:
        raise DataError(f"{where} cannot be had from OpenML: {' '.join(str(error).split())}") from error


def _as_table(
    bunch: Any, columns: Sequence[str] | None, target: str | None, labels: Mapping[str, Any] | None
) -> tuple[pd.DataFrame, str]:
    """Features and target in one table, under the names asked for."""
    if not isinstance(bunch.target, pd.Series):
        raise DataError("data=openml: the data set has no target, or several; name the column to predict: data.target.")
    X = bunch.data if columns is None else bunch.data.set_axis(list(columns), axis="columns")
    y = bunch.target if labels is None else bunch.target.astype(str).map(dict(labels))
    target = str(bunch.target.name) if target is None else target
    return X.assign(**{target: y}), target


def _local(path: str, columns: Sequence[str]) -> pd.DataFrame:
    table = read_table(path, "data.path", Format(options={"header": None}))
    if table.shape[1] != len(columns):
        raise DataError(f"data.path={path} must have {len(columns)} columns without a header, got {table.shape[1]}.")
    return table.set_axis(list(columns), axis="columns")
