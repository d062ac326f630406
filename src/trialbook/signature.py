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
    found = infer_signature(X, y)
    inputs = found.inputs
    if not inputs.is_tensor_spec():
        loose = [_is_loose(X[name]) for name in inputs.input_names()]
        # Every column must be there, but any value of it may be missing.
        columns = zip(inputs.inputs, loose, strict=True)
        inputs = Schema([ColSpec(AnyType() if any_type else spec.type, spec.name) for spec, any_type in columns])
    if not is_classifier(estimator):
        return ModelSignature(inputs, found.outputs)
    method = ParamSpec("predict_method", DataType.string, serving.PREDICT)
    return ModelSignature(inputs, found.outputs, ParamSchema([method]))


def _is_loose(column: pd.Series) -> bool:
    kinds = pd.api.types
    if isinstance(column.dtype, pd.CategoricalDtype) or kinds.infer_dtype(column, skipna=True) == "boolean":
        return True
    return kinds.is_numeric_dtype(column) and bool((column.dropna() % 1 == 0).all())
