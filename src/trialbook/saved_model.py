"""Fitted estimators as MLflow models on disk, and back.

scikit-learn estimators are saved in MLflow's `sklearn` flavor, as skops; Keras nets as `.keras` files in the `keras`
flavor, with their preprocessing as skops beside them and `trialbook.serving` as the loader. Neither format runs code
on loading, and neither needs Trialbook.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import mlflow.sklearn
import numpy as np
import pandas as pd
import sklearn
import skops.io
import yaml
from mlflow.models import Model, ModelSignature
from sklearn.dummy import DummyRegressor
from sklearn.pipeline import Pipeline

from trialbook import serving
from trialbook.errors import ModelError
from trialbook.evaluate import split
from trialbook.signature import signature_of

# The name under which the loader travels. It carries a version, because Python imports a module of one name only once
# and two models made by different versions of Trialbook may be loaded side by side.
_LOADER = "trialbook_serving_v1"
_DATA = "data/estimator"
_CODE = "code"
_EXAMPLE_ROWS = 5
_ENVIRONMENT_KEYS = {"conda_env": "conda.yaml", "python_env": "python_env.yaml"}
# Types beyond scikit-learn's own that a preprocessing may hold: they make arrays, tables and dates, and no more.
_VETTED = ("numpy.dtype", "numpy.asarray", "pandas.DataFrame", "pandas.to_datetime", "functools.partial")
_SKLEARN_PACKAGES = ("mlflow", "scikit-learn", "skops", "numpy", "scipy", "pandas")
_KERAS_PACKAGES = ("keras", "tensorflow")
_YAML_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@dataclass(frozen=True)
class Envelope:
    """What the models of one search have in common, found out once.

    Attributes:
        signature: Types of rows and predictions.
        files: Contents of the files beside the model, by name: what to install, and an example of its input.
        example: MLflow's description of that example.
    """

    signature: ModelSignature
    files: Mapping[str, str]
    example: Mapping[str, Any]


def envelope_of(estimator: Any, X: pd.DataFrame | np.ndarray, y: np.ndarray) -> Envelope:
    """The envelope of models like `estimator` that predict targets like `y` from rows like `X`.

    MLflow takes a while to write these files, and for one search they are always the same; so it is asked once, with
    a model that is thrown away.
    """
    rows = X[:_EXAMPLE_ROWS]
    with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="trialbook-model-") as scratch:
        # Whether an integer column may lack values is for the data to say, and these data do say it.
        warnings.filterwarnings("ignore", message="(?s).*integer column", category=UserWarning)
        signature = signature_of(estimator, X, y)
        model, folder = Model(), Path(scratch, "model")
        mlflow.sklearn.save_model(
            DummyRegressor().fit([[0.0]], [0.0]),
            str(folder),
            mlflow_model=model,
            signature=signature,
            input_example=rows,
            pip_requirements=requirements_of(estimator),
            serialization_format="skops",
            skops_trusted_types=["sklearn.dummy.DummyRegressor"],
        )
        written = [f for f in folder.iterdir() if f.name not in ("MLmodel", "model.skops")]
        return Envelope(signature, {f.name: f.read_text() for f in written}, model.saved_input_example_info or {})


def requirements_of(estimator: Any) -> list[str]:
    """The exact versions, as installed here, of what a saved estimator needs to be loaded."""
    packages = _SKLEARN_PACKAGES + (_KERAS_PACKAGES if split(estimator)[1] is not None else ())
    found = []
    for package in packages:
        try:
            found.append(f"{package}=={version(package)}")
        except PackageNotFoundError:
            if package != "tensorflow":
                raise
            found.append(f"tensorflow-cpu=={version('tensorflow-cpu')}")
    return found


def save(estimator: Any, path: Path, model: Model, envelope: Envelope) -> None:
    """Save a fitted estimator as an MLflow model.

    Args:
        estimator: The fitted estimator or pipeline.
        path: Folder to create.
        model: MLflow's description of the model, completed and written by this call.
        envelope: What it has in common with the other models of its search.

    Raises:
        ModelError: If the estimator holds types that cannot be saved without pickle.
    """
    model.signature = envelope.signature
    model.saved_input_example_info = dict(envelope.example)
    path.mkdir(parents=True)
    if split(estimator)[1] is None:
        _save_sklearn(estimator, path, model)
    else:
        _save_keras(estimator, path, model)
    for name, content in envelope.files.items():
        (path / name).write_text(content)
    model.model_size_bytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    _write_description(model, path / "MLmodel")


def _write_description(model: Model, file: Path) -> None:
    """What `Model.save` writes, with the YAML writer that is compiled where there is one: many times as fast."""
    with file.open("w") as out:
        yaml.dump(model.to_dict(), out, Dumper=_YAML_DUMPER, default_flow_style=False)


def _save_sklearn(estimator: Any, path: Path, model: Model) -> None:
    file = path / "model.skops"
    # Most of it is a description in JSON, which packs to a twentieth.
    skops.io.dump(estimator, file, compression=zipfile.ZIP_DEFLATED)
    model.add_flavor(
        "sklearn",
        pickled_model=file.name,
        sklearn_version=sklearn.__version__,
        serialization_format="skops",
        skops_trusted_types=_vetted(skops.io.get_untrusted_types(file=file)),
        code=None,
    )
    mlflow.pyfunc.add_to_model(
        model, loader_module="mlflow.sklearn", model_path=file.name, predict_fn="predict", **_ENVIRONMENT_KEYS
    )


def _save_keras(estimator: Any, path: Path, model: Model) -> None:
    preprocessing, net = split(estimator)
    folder = path / _DATA
    folder.mkdir(parents=True)
    net.model_.save(folder / serving.NET)
    trusted: list[str] | None = None
    if preprocessing is not None:
        skops.io.dump(preprocessing, folder / serving.PREPROCESSING, compression=zipfile.ZIP_DEFLATED)
        trusted = _vetted(skops.io.get_untrusted_types(file=folder / serving.PREPROCESSING))
    classes = getattr(net, "classes_", None)
    description = {
        "classes": None if classes is None else classes.tolist(),
        "classes_dtype": None if classes is None else str(classes.dtype),
        "trusted": trusted,
    }
    (folder / serving.DESCRIPTION).write_text(json.dumps(description))
    (path / _CODE).mkdir()
    shutil.copyfile(serving.__file__, path / _CODE / f"{_LOADER}.py")
    _add_keras_flavor(model)
    mlflow.pyfunc.add_to_model(model, loader_module=_LOADER, data=_DATA, code=_CODE, **_ENVIRONMENT_KEYS)


def load(path: Path) -> Any:
    """A fitted estimator from the folder `save` wrote."""
    if "keras" not in Model.load(str(path)).flavors:
        return mlflow.sklearn.load_model(str(path))
    from trialbook.estimator import KerasClassifier, KerasRegressor

    predictor = serving.KerasPredictor(path / _DATA)
    net: Any
    if predictor.classes_ is None:
        net = KerasRegressor(_rebuild)
    else:
        net = KerasClassifier(_rebuild)
        net.classes_ = predictor.classes_
    net.model_ = predictor.net
    if predictor.preprocessing is None:
        return net
    return Pipeline([*predictor.preprocessing.steps, ("net", net)])


def _rebuild() -> Any:
    raise ModelError("an estimator loaded from a saved model predicts, but cannot be fitted again.")


def _add_keras_flavor(model: Model) -> None:
    """Let `mlflow.keras.load_model` find the bare net."""
    import keras

    model.add_flavor(
        "keras",
        data=_DATA,
        keras_version=keras.__version__,
        keras_backend=keras.backend.backend(),
        save_exported_model=False,
    )


def _vetted(unknown: list[str]) -> list[str]:
    """Types that skops does not know, if all of them are scikit-learn's own or known to be harmless."""
    if foreign := [name for name in unknown if not name.startswith("sklearn.") and name not in _VETTED]:
        raise ModelError(
            f"the model holds {foreign[0]}, which cannot be saved without pickle; only scikit-learn's own types can."
        )
    return unknown
