"""Predictions of a saved Keras estimator, in a module that stands alone.

A copy of this file travels inside every model that holds a Keras net, as its MLflow loader, so that loading and
serving need Keras, NumPy and (where there is preprocessing) skops, but neither Trialbook nor a network.

Layout of the data folder: `model.keras`; `estimator.json` with the class labels (null for a regression) and the types
trusted in the preprocessing; `preprocessing.skops` if there is any.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

NET = "model.keras"
DESCRIPTION = "estimator.json"
PREPROCESSING = "preprocessing.skops"

# Rows handed to the net at once: large enough that the overhead of a call does not count, small enough to fit.
_CHUNK = 2048


def as_array(rows: Any) -> np.ndarray:
    """Rows as the 32-bit floats a net is fed with; a data frame's columns in their order."""
    return np.asarray(rows.to_numpy() if hasattr(rows, "to_numpy") else rows, dtype="float32")


def forward(net: Any, rows: Any) -> np.ndarray:
    """The net's outputs for rows of shape (n_rows, …), shape (n_rows, n_outputs)."""
    import keras

    array = as_array(rows)
    if len(array) > _CHUNK:
        outputs = net.predict(array, batch_size=_CHUNK, verbose=0)
    else:
        # A plain call: `predict` would first compile a function, which takes longer than these rows do.
        outputs = keras.ops.convert_to_numpy(net(array, training=False))
    return np.asarray(outputs).reshape(len(array), -1)


def probabilities(outputs: np.ndarray) -> np.ndarray:
    """Class probabilities, shape (n_rows, n_classes), from a net's outputs; one sigmoid output means two classes."""
    if outputs.shape[1] == 1:
        return np.hstack([1 - outputs, outputs])
    return outputs


class KerasPredictor:
    """A saved Keras estimator that predicts on raw rows.

    Args:
        folder: The data folder described above.
    """

    def __init__(self, folder: Path) -> None:
        import keras

        description = json.loads((folder / DESCRIPTION).read_text())
        classes = description["classes"]
        self.classes_ = None if classes is None else np.array(classes, dtype=description["classes_dtype"])
        self.net = keras.saving.load_model(folder / NET)
        self.preprocessing = None
        if (folder / PREPROCESSING).exists():
            import skops.io

            self.preprocessing = skops.io.load(folder / PREPROCESSING, trusted=description["trusted"])

    def outputs(self, rows: Any) -> np.ndarray:
        """The net's outputs for raw rows, shape (n_rows, n_outputs)."""
        return forward(self.net, rows if self.preprocessing is None else self.preprocessing.transform(rows))

    def predict_proba(self, rows: Any) -> np.ndarray:
        """Class probabilities for raw rows, shape (n_rows, n_classes)."""
        return probabilities(self.outputs(rows))

    def predict(self, rows: Any, params: dict[str, Any] | None = None) -> np.ndarray:
        """Class labels, or the regression's values, for raw rows, shape (n_rows,)."""
        del params
        if self.classes_ is None:
            return np.asarray(self.outputs(rows)[:, 0])
        return np.asarray(self.classes_[self.predict_proba(rows).argmax(axis=1)])


def _load_pyfunc(path: str) -> KerasPredictor:
    """What `mlflow.pyfunc.load_model` calls."""
    return KerasPredictor(Path(path))
