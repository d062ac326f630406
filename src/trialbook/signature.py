"""What a registered model takes and gives, as MLflow enforces it before the model sees a request."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import AnyType
from sklearn.base import is_classifier

from trialbook import serving


def signature_of(estimator: Any, X: pd.DataFrame | np.ndarray, y: np.ndarray) -> ModelSignature:
    """What a model takes and gives.

    Whole numbers, booleans and categories are of any type: MLflow would refuse them where one is missing, and again
    where none is, since they arrive as floats then and as integers now. The model gives them back their type.
    """
    outputs = infer_signature(model_output=y).outputs
    inputs = _inputs_of(X) if isinstance(X, pd.DataFrame) else infer_signature(X).inputs
    if not is_classifier(estimator):
        return ModelSignature(inputs, outputs)
    method = ParamSpec("predict_method", DataType.string, serving.PREDICT)
    return ModelSignature(inputs, outputs, ParamSchema([method]))


def _inputs_of(X: pd.DataFrame) -> Schema:
    """The columns: every one must be there, but any value of it may be missing."""
    # MLflow looks at every value, one by one. Most columns say by themselves of what type they are.
    by_value = [name for name in X if X[name].dtype.kind == "O"]
    parts = [X.iloc[:1].drop(columns=by_value), *(_distinct(X[[name]]) for name in by_value)]
    types = {spec.name: spec.type for part in parts if len(part.columns) for spec in infer_signature(part).inputs}
    # Of some types, such as periods, MLflow knows nothing.
    return Schema([ColSpec(AnyType() if _is_loose(X[name]) else types.get(name, AnyType()), name) for name in X])


def _distinct(column: pd.DataFrame) -> pd.DataFrame:
    """Each value of a column once, if they are all of one type: 1 and 1.0 and True are equal, and not the same."""
    values = column.iloc[:, 0]
    alike = isinstance(values.dtype, pd.CategoricalDtype) or pd.api.types.infer_dtype(values, skipna=True) == "string"
    return column.drop_duplicates() if alike else column


def _is_loose(column: pd.Series) -> bool:
    kinds = pd.api.types
    if isinstance(column.dtype, pd.CategoricalDtype) or kinds.infer_dtype(column, skipna=True) == "boolean":
        return True
    return kinds.is_numeric_dtype(column) and bool((column.dropna() % 1 == 0).all())
