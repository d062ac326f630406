"""The types of rows and predictions, as MLflow writes them on a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import ModelSignature, infer_signature
from mlflow.types.schema import AnyType, ColSpec, DataType, Schema
from pandas.api import types
from sklearn.pipeline import Pipeline

from trialbook.evaluate import COLUMNS


def signature_of(estimator: Any, X: pd.DataFrame | np.ndarray, y: np.ndarray) -> ModelSignature:
    """The signature of models like `estimator` that predict targets like `y` from rows like `X`.

    MLflow's `long` and `boolean` cannot be missing, and its `double` refuses whole numbers of a data frame. So where a
    model copes with missing values, columns of whole numbers and booleans are of `any` type.
    """
    if isinstance(X, pd.DataFrame) and isinstance(estimator, Pipeline) and estimator.steps[0][0] == COLUMNS:
        inputs = Schema([ColSpec(_type_of(X[name]), str(name)) for name in X.columns])
        return ModelSignature(inputs, infer_signature(y[:1], y).outputs)
    return infer_signature(X, y)


def _type_of(column: pd.Series) -> DataType | AnyType:
    if types.is_float_dtype(column.dtype):
        whole = (column.dropna() % 1 == 0).all()
        return AnyType() if whole else DataType.double
    if types.is_datetime64_any_dtype(column.dtype):
        return DataType.datetime
    text = column.dropna().map(lambda value: isinstance(value, str)).all()
    return DataType.string if types.is_object_dtype(column.dtype) and text else AnyType()
