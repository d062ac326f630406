"""Predictions of a saved estimator, in a module that stands alone.

A copy of this file travels inside every model, as its MLflow loader, so that loading and serving need what the
estimator is made of, but neither Trialbook nor a network.

Layout of the data folder: `estimator.json`, see `Description`; for a scikit-learn estimator `estimator.skops`, or
`estimator.pkl` where pickle was allowed; for a Keras net `model.keras`, and its preprocessing, if there is any, as
`preprocessing.skops` or `preprocessing.pkl`.
"""

from __future__ import annotations

import fnmatch
import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

NET = "model.keras"
ESTIMATOR = "estimator"
PREPROCESSING = "preprocessing"

_DESCRIPTION = "estimator.json"
# What a request may ask for with `params={"predict_method": …}`.
PREDICT = "predict"
PREDICT_PROBA = "predict_proba"

# Rows handed to the net at once: large enough that the overhead of a call does not count, small enough to fit.
_CHUNK = 2048


@dataclass(frozen=True)
class Description:
    """What loading an estimator must be told.

    Attributes:
        classes: Labels of a net's classes, in the order of its outputs; None for a regression, and for scikit-learn.
        classes_dtype: Their NumPy type.
        trusted: Names of the types, beyond those that skops trusts by itself, that the files may hold.
        inputs: Which columns each named input of a net gets; None for a net with one.
        columns: For each column of the raw rows, its type when the model was trained, and its categories if it has.
        modules: Modules that must be imported before a net is loaded, as they register its layers.
        safe: Whether the net is loaded in Keras's safe mode.
        target_mean: What output 0 of a regression's net stands for.
        target_scale: How much 1 more of it stands for.
    """

    classes: Sequence[Any] | None = None
    classes_dtype: str | None = None
    trusted: Sequence[str] = ()
    inputs: Mapping[str, Sequence[Any]] | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    modules: Sequence[str] = ()
    safe: bool = True
    target_mean: float = 0.0
    target_scale: float = 1.0

    @classmethod
    def read(cls, folder: Path) -> Description:
        """The description in a data folder."""
        return cls(**json.loads((folder / _DESCRIPTION).read_text()))

    def write(self, folder: Path) -> None:
        """Put it there."""
        (folder / _DESCRIPTION).write_text(json.dumps(asdict(self)))


def as_array(rows: Any) -> np.ndarray:
    """Rows as a net is fed with them: 32-bit floats, or strings if there are any; a data frame's columns in order."""
    if hasattr(rows, "dtypes") and any(dtype.kind not in "biuf" for dtype in rows.dtypes):
        return np.asarray(rows.astype(object).where(rows.notna(), "").to_numpy(), dtype=str)
    return np.asarray(rows.to_numpy() if hasattr(rows, "to_numpy") else rows, dtype="float32")


def feed(rows: Any, inputs: Mapping[str, Sequence[Any]] | None) -> Any:
    """Rows as an array, or, for a net with several inputs, an array for the name of each.

    Args:
        rows: Rows of shape (n_rows, …).
        inputs: For each input the columns it gets: names or patterns such as `city_*`, or positions.

    Raises:
        ValueError: For a column that is not there.
    """
    if not inputs:
        return as_array(rows)
    return {name: as_array(_columns(rows, name, wanted)) for name, wanted in inputs.items()}


def _columns(rows: Any, name: str, wanted: Sequence[Any]) -> Any:
    names = [str(column) for column in rows.columns] if hasattr(rows, "columns") else []
    positions: list[int] = []
    for column in wanted:
        if isinstance(column, int) and 0 <= column < rows.shape[1]:
            found = [column]
        else:
            found = [i for i, known in enumerate(names) if fnmatch.fnmatchcase(known, str(column))]
        if not found:
            allowed = ", ".join(names) or f"positions from 0 to {rows.shape[1] - 1}"
            raise ValueError(f"inputs.{name} names the column {column!r}, which is not there; allowed: {allowed}.")
        positions.extend(i for i in found if i not in positions)
    return rows.iloc[:, positions] if hasattr(rows, "iloc") else rows[:, positions]


def forward(net: Any, fed: Any) -> np.ndarray:
    """The net's outputs for what `feed` gives for n_rows rows, shape (n_rows, n_outputs)."""
    import keras

    n_rows = len(next(iter(fed.values())) if isinstance(fed, dict) else fed)
    if n_rows > _CHUNK:
        outputs = net.predict(fed, batch_size=_CHUNK, verbose=0)
    else:
        # A plain call: `predict` would first compile a function, which takes longer than these rows do.
        outputs = keras.ops.convert_to_numpy(net(_tensors(fed), training=False))
    return np.asarray(outputs).reshape(n_rows, -1)


def _tensors(fed: Any) -> Any:
    import keras

    if isinstance(fed, dict):
        return {name: _tensors(array) for name, array in fed.items()}
    return keras.ops.convert_to_tensor(fed) if fed.dtype.kind == "U" else fed


def probabilities(outputs: np.ndarray) -> np.ndarray:
    """Class probabilities, shape (n_rows, n_classes), from a net's outputs; one sigmoid output means two classes."""
    if outputs.shape[1] == 1:
        return np.hstack([1 - outputs, outputs])
    return outputs


def in_units(outputs: np.ndarray, mean: float, scale: float) -> np.ndarray:
    """A regression's outputs in the target's own units, shape (n_rows,)."""
    return outputs if (mean, scale) == (0.0, 1.0) else outputs.astype("float64") * scale + mean


class NetPredictor:
    """A saved Keras net with its preprocessing.

    Args:
        folder: The data folder described above.
        compiled: Whether the net must be able to evaluate a loss, and not only to predict.

    Attributes:
        classes_: The class labels, shape (n_classes,); None for a regression.
        net: The `keras.Model`.
        preprocessing: What comes before it, or None.
        inputs: Which columns each of its inputs gets, or None.
        target_mean: What output 0 of a regression's net stands for.
        target_scale: How much 1 more of it stands for.
    """

    def __init__(self, folder: Path, *, compiled: bool = False) -> None:
        import keras

        description = Description.read(folder)
        classes = description.classes
        self.classes_ = None if classes is None else np.array(classes, dtype=description.classes_dtype)
        for module in description.modules:
            importlib.import_module(module)
        self.net = keras.saving.load_model(folder / NET, compile=compiled, safe_mode=description.safe)
        self.preprocessing = load_part(folder, PREPROCESSING, description.trusted)
        self.inputs = description.inputs
        self.target_mean, self.target_scale = description.target_mean, description.target_scale

    def predict_proba(self, rows: Any) -> np.ndarray:
        """Class probabilities for raw rows, shape (n_rows, n_classes)."""
        return probabilities(self._outputs(rows))

    def predict(self, rows: Any) -> np.ndarray:
        """Class labels, or the regression's values, for raw rows, shape (n_rows,)."""
        if self.classes_ is None:
            return in_units(self._outputs(rows)[:, 0], self.target_mean, self.target_scale)
        return np.asarray(self.classes_[self.predict_proba(rows).argmax(axis=1)])

    def _outputs(self, rows: Any) -> np.ndarray:
        prepared = rows if self.preprocessing is None else self.preprocessing.transform(rows)
        return forward(self.net, feed(prepared, self.inputs))


def load_part(folder: Path, name: str, trusted: Sequence[str]) -> Any:
    """A scikit-learn object of the data folder, None if it is not there."""
    if (folder / f"{name}.skops").exists():
        import skops.io

        return skops.io.load(folder / f"{name}.skops", trusted=list(trusted))
    if (folder / f"{name}.pkl").exists():
        import cloudpickle

        return cloudpickle.loads((folder / f"{name}.pkl").read_bytes())
    return None


class Predictor:
    """What MLflow serves: an estimator that is asked by `params` for labels or for probabilities.

    Args:
        folder: The data folder described above.
    """

    def __init__(self, folder: Path) -> None:
        description = Description.read(folder)
        self._columns = description.columns
        net = (folder / NET).exists()
        self.estimator = NetPredictor(folder) if net else load_part(folder, ESTIMATOR, description.trusted)

    def predict(self, rows: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Class labels or a regression's values, shape (n_rows,); or a data frame with the probability of each class.

        Args:
            rows: Raw rows, as in training.
            params: `{"predict_method": "predict_proba"}` for probabilities.

        Raises:
            ValueError: If another method is asked for, or the model has no probabilities.
        """
        method = (params or {}).get("predict_method", PREDICT)
        if method not in (PREDICT, PREDICT_PROBA) or not hasattr(self.estimator, method):
            allowed = [name for name in (PREDICT, PREDICT_PROBA) if hasattr(self.estimator, name)]
            raise ValueError(f"predict_method={method!r} is nothing this model has; allowed: {', '.join(allowed)}.")
        found: Any = getattr(self.estimator, method)(as_trained(rows, self._columns))
        if method == PREDICT:
            return found
        import pandas as pd

        labels: Any = self.estimator.classes_
        return pd.DataFrame(found, columns=[str(label) for label in labels])


def types_of(rows: Any) -> dict[str, Any]:
    """For each column of a data frame, what `as_trained` needs: its type, whether it is text, its categories."""
    if not hasattr(rows, "columns"):
        return {}
    import pandas as pd

    found: dict[str, dict[str, Any]] = {}
    for name, column in rows.items():
        found[str(name)] = {"dtype": str(column.dtype)}
        if isinstance(column.dtype, pd.CategoricalDtype):
            found[str(name)]["categories"] = column.cat.categories.tolist()
        elif pd.api.types.infer_dtype(column, skipna=True) == "string":
            found[str(name)]["text"] = True
    return found


def as_trained(rows: Any, columns: Mapping[str, Any]) -> Any:
    """Rows with the types they had in training, as far as missing values let them.

    A request has types of its own: in JSON and in a file of the same columns, numbers come as whole ones or not, and
    digits of a code as a number.
    """
    if not hasattr(rows, "columns"):
        return rows
    changed = {name: _as_trained(column, columns.get(str(name), {})) for name, column in rows.items()}
    return rows.assign(**changed) if columns else rows


def _as_trained(column: Any, known: Mapping[str, Any]) -> Any:
    import pandas as pd

    dtype = known.get("dtype", str(column.dtype))
    if dtype == str(column.dtype) or dtype.startswith("datetime"):  # which the signature has seen to
        return column
    if "categories" in known:
        return pd.Categorical(column, categories=known["categories"])
    if known.get("text") and pd.api.types.is_numeric_dtype(column):
        whole = column.dropna().mod(1).eq(0).all()
        return column.astype("Int64" if whole else column.dtype).astype("string").astype(dtype)
    if column.isna().any() and not dtype.startswith(("float", "object", "str")):
        return column.astype("float64") if dtype.startswith(("int", "uint")) else column
    return column.astype(dtype)


def _load_pyfunc(path: str) -> Predictor:
    """What `mlflow.pyfunc.load_model` calls."""
    return Predictor(Path(path))
