"""Tables of one's own: what each column is for, and which rows are for the test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from trialbook.data.columns import (
    BOOLEAN,
    NUMBER,
    TEXT,
    in_words,
    kind_of,
    kinds_of,
    normalized,
    plural,
    preprocessing,
    resembles_dates,
)
from trialbook.data.dataset import Dataset
from trialbook.data.files import Format, name_of, read_table, shown
from trialbook.data.roles import Roles, groups_of, order_of, test_rows_of, weights_of
from trialbook.data.splitting import Rows, apart, hold_out
from trialbook.data.target import read_target, targets_like
from trialbook.errors import DataError

# The heading pandas gives a column that has none, such as the row numbers it writes itself.
_UNNAMED = r"Unnamed: \d+"


def from_table(
    *,
    path: str | None,
    target: str | None,
    name: str | None = None,
    task: str | None = None,
    features: Sequence[str] | str | None = None,
    drop: Sequence[str] | str | None = None,
    groups: str | None = None,
    time: str | None = None,
    sample_weight: str | None = None,
    split: str | None = None,
    test_path: str | None = None,
    test_size: float = 0.2,
    test_seed: int = 0,
    shuffle: bool = True,
    preprocessing: str = "auto",
    separator: str | None = None,
    encoding: str = "utf-8",
    missing: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
) -> Dataset:
    """A table from a file: CSV, TSV or Parquet, also compressed.

    Args:
        path: A path, or an address that fsspec understands, such as `https://…` or `s3://…`.
        target: The column to predict.
        name: What to call the data; None for the file's name.
        task: `classification` or `regression`; None to infer it from the target.
        features: Columns to predict from; None for all others.
        drop: Columns to leave out.
        groups: Column that says which rows belong together; it is no feature.
        time: Column to sort the rows by; the last ones are then for the test, and nothing is shuffled.
        sample_weight: Column that says what each row counts for in training; it is no feature.
        split: Column that holds `train` and `test`; it is no feature.
        test_path: A file of the test rows.
        test_size: Share of the rows kept for the final test, if neither `split` nor `test_path` says which.
        test_seed: Seed of that split. It is not the search's seed: champions are compared on the same test rows.
        shuffle: Whether test rows are drawn at random; else they are the last ones.
        preprocessing: `auto` to put a transformer in front of every model that makes numbers of the columns; `none` for
            models that take the columns as they are.
        separator: What stands between two fields of a text file; None to tell from the file's name.
        encoding: Encoding of a text file.
        missing: Texts that stand for a missing value, besides the usual ones.
        options: Further keywords of `pandas.read_csv`.

    Raises:
        DataError: If the file cannot be read, or cannot be learned from.
    """
    if not path or not target:
        raise DataError(
            f"data={name or 'csv'} needs data.path, the file, and data.target, the column to predict; "
            f"{'data.path' if not path else 'data.target'} is missing."
        )
    if split and test_path:
        raise DataError("data.split and data.test_path both say which rows are for the test; give one of them.")
    roles = Roles(str(target), _names(features), _names(drop), groups, time, split, sample_weight)
    form = Format(separator, encoding, tuple(missing), options or {})
    table = read_table(str(path), "data.path", form)
    other = None if test_path is None else read_table(str(test_path), "data.test_path", form)
    return from_frame(
        table,
        roles,
        other,
        name=name or name_of(str(path)),
        source=shown(str(path)),
        task=task,
        test_size=test_size,
        test_seed=test_seed,
        shuffle=shuffle,
        preprocessed=wants_preprocessing(preprocessing),
    )


def from_frame(
    table: pd.DataFrame,
    roles: Roles,
    other: pd.DataFrame | None = None,
    *,
    name: str,
    source: str,
    task: str | None,
    test_size: float,
    test_seed: int,
    shuffle: bool,
    preprocessed: bool,
) -> Dataset:
    """A data set of a table whose columns have roles, see `from_table`.

    Args:
        table: All rows, or those to search on if there are others.
        roles: What its columns are for.
        other: The test rows, if they are apart.
        name: What to call the data.
        source: Where they come from.
        task: `classification` or `regression`; None to infer it.
        test_size: Share of the rows kept for the test, if nothing else says which.
        test_seed: Seed of that split.
        shuffle: Whether test rows are drawn at random.
        preprocessed: Whether models need numbers made of the columns.

    Raises:
        DataError: If it cannot be learned from.
    """
    roles.check(list(table.columns), name)
    table, notes = _complete(table, roles)
    if len(table) < 2:
        raise DataError(f"data={name} has {len(table)} row with a target; a search needs more.")
    y, task = read_target(table[roles.target], task, f"data.target={roles.target}")
    X = _features(table, roles, name)
    kinds = kinds_of(X)
    about: dict[str, Any] = {"target": roles.target, "columns": in_words(kinds)}
    rows = Rows(X, y, groups_of(table, roles.groups), weights_of(table, roles.sample_weight))
    if roles.time is not None:
        order = order_of(table[roles.time], roles.time)
        rows, table, shuffle = rows.at(order), table.iloc[order], False
    if other is not None:
        test, left_out = _others(other, roles, X, kinds, y)
        held_out = "in a file of their own"
        data = apart(rows, test, name, task, source, ordered=not shuffle, held_out=held_out, **about)
        notes += left_out
    elif roles.split is not None:
        test_rows = test_rows_of(table[roles.split], roles.split)
        dev, test = rows.at(np.flatnonzero(~test_rows)), rows.at(np.flatnonzero(test_rows))
        held_out = f"named by {roles.split}"
        data = apart(dev, test, name, task, source, ordered=not shuffle, held_out=held_out, **about)
    else:
        data = hold_out(
            rows.X,
            rows.y,
            name,
            task,
            source,
            test_size=test_size,
            test_seed=test_seed,
            shuffle=shuffle,
            groups=rows.groups,
            sample_weight=rows.sample_weight,
            **about,
        )
    return replace(
        data,
        preprocessing=preprocessing(kinds) if preprocessed else None,
        notes=(*notes, *_remarks(data.X, kinds)),
    )


def wants_preprocessing(given: Any) -> bool:
    """Read `data.preprocessing`.

    Raises:
        DataError: If it is neither `auto` nor `none`.
    """
    if given not in ("auto", "none", None):
        raise DataError(f"data.preprocessing must be auto or none, got {given!r}.")
    return bool(given == "auto")


def _names(given: Sequence[str] | str | None) -> tuple[str, ...]:
    return () if given is None else (given,) if isinstance(given, str) else tuple(str(name) for name in given)


def _complete(table: pd.DataFrame, roles: Roles) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The rows that have a target, the columns that have a name, and what was left out."""
    notes = []
    nameless = [name for name in table.columns if pd.Series([name]).str.fullmatch(_UNNAMED).all()]
    nameless = [name for name in nameless if name not in roles.features]
    if nameless:
        table = table.drop(columns=nameless)
        notes.append(f"left out: {_count(len(nameless), 'column')} without a name")
    known = table[roles.target].notna()
    if not known.any():
        raise DataError(f"data.target={roles.target} has no value in any of {len(table)} rows.")
    if missing := int((~known).sum()):
        table = table[known]
        notes.append(f"left out: {_count(missing, 'row')} without a value of {roles.target}")
    return table.reset_index(drop=True), tuple(notes)


def _features(table: pd.DataFrame, roles: Roles, name: str) -> pd.DataFrame:
    chosen = roles.of(list(table.columns))
    if not chosen:
        raise DataError(f"data={name} has no column left to predict {roles.target} from.")
    X = normalized(table[chosen], "data.path")
    if not any(X[column].nunique(dropna=False) > 1 for column in X):
        raise DataError(f"data={name}: every column to predict {roles.target} from has the same value in all rows.")
    return X


def _others(
    table: pd.DataFrame, roles: Roles, X: pd.DataFrame, kinds: Mapping[str, str], y: np.ndarray
) -> tuple[Rows, tuple[str, ...]]:
    """Test rows from a table of their own, their columns of the same kinds as those to search on."""
    for name in [*X.columns, roles.target]:
        if name not in table.columns:
            raise DataError(f"data.test_path lacks the column {name}; it has {', '.join(table.columns[:10])}.")
    table, notes = _complete(table, roles)
    rows = normalized(table[list(X.columns)], "data.test_path")
    for name, kind in kinds.items():
        found = kind_of(rows[name])
        if kind == TEXT and found != TEXT:
            rows[name] = rows[name].astype("object").map(str, na_action="ignore").where(rows[name].notna(), None)
        elif found != kind and rows[name].notna().any() and not {kind, found} <= {NUMBER, BOOLEAN}:
            raise DataError(
                f"data.test_path: the column {name} holds {plural(found)}, where data.path has {plural(kind)}."
            )
    return Rows(rows, targets_like(y, table[roles.target], f"data.test_path: {roles.target}")), notes


def _remarks(X: pd.DataFrame, kinds: Mapping[str, str]) -> tuple[str, ...]:
    """Columns that say nothing, or that may not be taken for what they are."""
    empty = [name for name in X if X[name].isna().all()]
    constant = [name for name in X if name not in empty and X[name].nunique(dropna=False) == 1]
    dates = [name for name in X if kinds[name] == TEXT and resembles_dates(X[name])]
    remarks = (
        (constant, "no help", "with one value"),
        (empty, "no help", "without any value"),
        (dates, "taken for text", "of what may be dates, see docs/data.md"),
    )
    return tuple(
        f"{said}: {_count(len(names), 'column')} {what}: {', '.join(map(str, names[:10]))}"
        for names, said, what in remarks
        if names
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
