"""What the columns of a table hold, and how a model gets numbers of them.

The preprocessing consists of scikit-learn's own parts, so that it is saved with every model and loads without
Trialbook. It takes rows as they come from a file or a JSON request: dates as ISO 8601 text, missing values as null or
NaN, categories never seen before. It is fitted inside each fold, like the model behind it.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.utils import get_tags

from trialbook.errors import DataError

NUMBER, BOOLEAN, TEXT, DATE = "number", "boolean", "text", "date"

# Of a text column, this many categories get a column each, the others one together; as do those that occur only once,
# so that a column of names or numbers of customers does not become one column for each.
_CATEGORIES = 50
_OFTEN_ENOUGH = 2
# Categories are told apart by so many characters.
_CATEGORY_TYPE = "U50"

_WEEK = 7 * 86400.0
_YEAR = 365.2425 * 86400.0
# The year first, then nobody can take the day for the month.
_ISO_DATE = r"\d{4}([-/.])\d{1,2}\1\d{1,2}(?!\d)"
_OTHER_DATE = r"\d{1,2}([-/.])\d{1,2}\1(\d{2}|\d{4})(?!\d)"
# What NumPy's "not a time" becomes as a number.
_NO_TIME = float(np.iinfo("int64").min)


def normalized(frame: pd.DataFrame, key: str) -> pd.DataFrame:
    """The table with every column in the plainest type that holds it, whatever file format it came from.

    Whole numbers are int64 unless some are missing, other numbers float64, booleans bool unless some are missing, dates
    datetime64 in UTC, or text as they were written; all other text is object, its missing values None.

    Args:
        frame: The table.
        key: The key of the configuration it was named by, for messages.

    Raises:
        DataError: For a column that a model can make nothing of.
    """
    return pd.DataFrame({name: _plain(frame[name], key) for name in frame.columns}, index=frame.index)


def kind_of(column: pd.Series) -> str:
    """What a normalized column holds: `number`, `boolean`, `date` or `text`."""
    if types.is_bool_dtype(column.dtype):
        return BOOLEAN
    if types.is_numeric_dtype(column.dtype):
        return NUMBER
    if types.is_datetime64_any_dtype(column.dtype):
        return DATE
    values = column.dropna()
    if values.map(lambda value: isinstance(value, bool)).all():
        return BOOLEAN
    return DATE if _are_dates(values) else TEXT


def kinds_of(frame: pd.DataFrame) -> dict[str, str]:
    """For each column of a normalized table, what it holds."""
    return {name: kind_of(frame[name]) for name in frame.columns}


def in_words(kinds: Mapping[str, str]) -> str:
    """How many columns of each kind: `3 numbers, 1 date`."""
    counts = Counter(kinds.values())
    return ", ".join(
        f"{counts[kind]} {kind if counts[kind] == 1 else plural(kind)}"
        for kind in (NUMBER, BOOLEAN, TEXT, DATE)
        if counts[kind]
    )


def plural(kind: str) -> str:
    """What several columns of a kind hold, or one in its rows."""
    return kind if kind == TEXT else f"{kind}s"


def as_instants(column: pd.Series) -> pd.Series:
    """A column of dates as instants, those without a time zone taken as UTC."""
    return pd.to_datetime(column, utc=True, format="ISO8601")


def preprocessing(kinds: Mapping[str, str]) -> ColumnTransformer:
    """An unfitted transformer that makes of each row one row of finite numbers.

    Numbers stay as they are, for the model to scale if it needs that; what is missing becomes the median, with a column
    that says so. Text becomes a column for each frequent category. A date becomes a trend, and its place in the week
    and in the year.

    Args:
        kinds: For each column, what it holds.
    """

    def named(kind: str) -> list[str]:
        return [name for name, held in kinds.items() if held == kind]

    dates = [(f"date_{i}", _dates(), name) for i, name in enumerate(named(DATE))]
    parts = [(NUMBER, _numbers(), named(NUMBER)), (BOOLEAN, _booleans(), named(BOOLEAN)), (TEXT, _text(), named(TEXT))]
    return ColumnTransformer([*((name, part, columns) for name, part, columns in parts if columns), *dates])


def taken_by(estimator: Any, frame: pd.DataFrame) -> bool:
    """Whether an estimator takes the columns of a data frame as they are, as far as it says.

    What is not of scikit-learn's, or says that it takes anything, is let alone: it may well be made for these columns.

    Args:
        estimator: The unfitted estimator or pipeline.
        frame: Rows as somebody gives them, not normalized.
    """
    first = estimator.steps[0][1] if isinstance(estimator, Pipeline) else estimator
    numeric = {name: types.is_numeric_dtype(column) or types.is_bool_dtype(column) for name, column in frame.items()}
    if getattr(first, "trains_in_epochs", False):
        # A net may take text, but a table of text alone.
        return bool(first.inputs) or not any(numeric.values()) or (all(numeric.values()) and not _gaps_in(frame))
    if isinstance(first, ColumnTransformer) or not type(first).__module__.startswith("sklearn."):
        return True
    tags = get_tags(first)
    categories = isinstance(first, HistGradientBoostingClassifier | HistGradientBoostingRegressor) and all(
        numeric[name] or isinstance(column.dtype, pd.CategoricalDtype) for name, column in frame.items()
    )
    takes = tags.input_tags
    if not (all(numeric.values()) or tags.no_validation or takes.string or takes.categorical or categories):
        return False
    return tags.no_validation or takes.allow_nan or not _gaps_in(frame)


def _gaps_in(frame: pd.DataFrame) -> bool:
    return bool(frame.isna().any(axis=None))


def numbers_filled() -> SimpleImputer:
    """An unfitted transformer for vectors of numbers of which some are missing."""
    return SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)


def _numbers() -> Pipeline:
    return Pipeline([("floats", _floats()), ("fill", numbers_filled())])


def _booleans() -> Pipeline:
    fill = SimpleImputer(strategy="most_frequent", add_indicator=True, keep_empty_features=True)
    return Pipeline([("floats", _floats()), ("fill", fill)])


def _text() -> Pipeline:
    encode = OneHotEncoder(
        handle_unknown="infrequent_if_exist",
        max_categories=_CATEGORIES,
        min_frequency=_OFTEN_ENOUGH,
        sparse_output=False,
    )
    # A missing value is NaN in a table and None in a JSON request.
    return Pipeline(
        [
            ("fill_nan", SimpleImputer(strategy="constant", fill_value="missing")),
            ("fill_none", SimpleImputer(missing_values=None, strategy="constant", fill_value="missing")),
            # Text of fixed width, which a saved model holds as an array and not as one object for each category.
            ("cut", _applied(np.asarray, dtype=_CATEGORY_TYPE)),
            ("encode", encode),
        ]
    )


def _dates() -> Pipeline:
    # Sine and cosine, which is a sine a quarter of a turn on, of the place in the week and in the year.
    waves = [
        (
            f"{wave}_of_{period}",
            Pipeline(
                [
                    ("turn", _applied(functools.partial(np.multiply, 2 * math.pi / seconds))),
                    ("shift", _applied(functools.partial(np.add, shift))),
                    ("wave", _applied(np.sin)),
                ]
            ),
        )
        for period, seconds in (("week", _WEEK), ("year", _YEAR))
        for wave, shift in (("sine", 0.0), ("cosine", math.pi / 2))
    ]
    return Pipeline(
        [
            ("parse", _applied(pd.to_datetime, utc=True, format="ISO8601")),
            ("instants", _applied(np.asarray, dtype="datetime64[s]")),
            ("column", _applied(np.expand_dims, axis=1)),
            ("seconds", _floats()),
            ("fill", SimpleImputer(missing_values=_NO_TIME, strategy="median", keep_empty_features=True)),
            ("parts", FeatureUnion([("trend", StandardScaler()), *waves])),
        ]
    )


def _floats() -> FunctionTransformer:
    """Numbers of any type, and None, as 64-bit floats and NaN."""
    return _applied(np.asarray, dtype="float64")


def _applied(function: Callable[..., Any], **kwargs: Any) -> FunctionTransformer:
    """A function of a library's as a step that keeps the columns and their names."""
    return FunctionTransformer(function, kw_args=kwargs or None, feature_names_out="one-to-one")


def _plain(column: pd.Series, key: str) -> pd.Series:
    dtype, values = column.dtype, column.dropna()
    if types.is_datetime64_any_dtype(dtype):
        return column.dt.tz_convert(None) if isinstance(dtype, pd.DatetimeTZDtype) else column
    if types.is_bool_dtype(dtype):
        return _booleans_of(column, complete=len(values) == len(column))
    if values.empty:
        return column.astype("object").where(column.notna(), None).astype("float64")
    if types.is_numeric_dtype(dtype) and not types.is_complex_dtype(dtype):
        return _numbers_of(column, key)
    found = types.infer_dtype(values, skipna=True)
    if found == "boolean":
        return _booleans_of(column, complete=len(values) == len(column))
    if found in ("integer", "floating", "mixed-integer-float", "decimal"):
        return _numbers_of(column.astype("float64"), key)
    if found in ("date", "datetime", "datetime64"):
        return as_instants(column).dt.tz_convert(None)
    if found in ("string", "mixed-integer", "categorical") or isinstance(dtype, pd.CategoricalDtype):
        return column.astype("object").map(str, na_action="ignore").astype("object").where(column.notna(), None)
    raise DataError(
        f"{key}: the column {column.name} holds values of type {type(values.iloc[0]).__name__}, of which a model can "
        f"make nothing; leave it out with data.drop=[{column.name}]."
    )


def _booleans_of(column: pd.Series, *, complete: bool) -> pd.Series:
    return column.astype("bool") if complete else column.astype("object").where(column.notna(), None)


def _numbers_of(column: pd.Series, key: str) -> pd.Series:
    if types.is_integer_dtype(column.dtype) and column.notna().all():
        return column.astype("int64")
    numbers = column.astype("float64")
    if infinite := int(np.isinf(numbers).sum()):
        raise DataError(
            f"{key}: the column {column.name} is infinite in {infinite} of {len(column)} rows; give finite numbers, or "
            f"leave it out with data.drop=[{column.name}]."
        )
    return numbers


def resembles_dates(column: pd.Series) -> bool:
    """Whether a column of text looks as if it held dates, in an order of day and month that only its author knows."""
    values = column.dropna()
    return not values.empty and bool(values.str.match(_OTHER_DATE).all())


def _are_dates(values: pd.Series) -> bool:
    if values.empty or not values.str.match(_ISO_DATE).all():
        return False
    try:
        as_instants(values)
    except ValueError:  # for one, the 31st of February
        return False
    return True
