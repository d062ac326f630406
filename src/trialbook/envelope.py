"""What the saved models of one search have in common: what they take and give, what to install, an example.

The files are those that MLflow puts beside a model, in the formats that it documents for models and their environments.
MLflow itself would look through all installed packages first, which takes longer than the rest of a search's opening,
to warn of versions that are not installed; these are the installed ones.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from typing import Any

import numpy as np
import pandas as pd
import yaml
from mlflow.models import ModelSignature, convert_input_example_to_serving_input

from trialbook import serving, vetted
from trialbook.evaluate import split
from trialbook.model_files import Form
from trialbook.signature import signature_of

_EXAMPLE, _SERVING_EXAMPLE = "input_example.json", "serving_input_example.json"
_EXAMPLE_ROWS = 5
_REQUIREMENTS = "requirements.txt"
_BUILD_PACKAGES = ("pip", "setuptools", "wheel")
_SKLEARN_PACKAGES = ("mlflow", "scikit-learn", "skops", "numpy", "scipy", "pandas")
_KERAS_PACKAGES = ("keras", "tensorflow")


@dataclass(frozen=True)
class Envelope:
    """What the models of one search have in common, found out once.

    Attributes:
        signature: Types of rows and predictions.
        files: Contents of the files beside the model, by name: what to install, and an example of its input.
        example: MLflow's description of that example.
        form: How their files are written.
    """

    signature: ModelSignature
    files: Mapping[str, str]
    example: Mapping[str, Any]
    form: Form = field(default_factory=Form)


def envelope_of(estimator: Any, X: pd.DataFrame | np.ndarray, y: np.ndarray, *, allow_pickle: bool = False) -> Envelope:
    """The envelope of models like `estimator` that predict targets like `y` from rows like `X`."""
    with warnings.catch_warnings():
        # Whether an integer column may lack values is for the data to say, and these data do say it.
        warnings.filterwarnings("ignore", message="(?s).*integer column", category=UserWarning)
        signature = signature_of(estimator, X, y)
        files, example = example_of(X[:_EXAMPLE_ROWS])
    files |= environment_of(requirements_of(estimator, allow_pickle=allow_pickle))
    return Envelope(signature, files, example, Form(serving.types_of(X), allow_pickle))


def example_of(rows: pd.DataFrame | np.ndarray) -> tuple[dict[str, str], dict[str, Any]]:
    """The files of an example, by name, and MLflow's description of them."""
    asked = str(convert_input_example_to_serving_input(rows))
    # A request names what it holds; an example is that alone.
    (content,) = json.loads(asked).values()
    files = {_EXAMPLE: json.dumps(content), _SERVING_EXAMPLE: asked}
    kind = {"type": "ndarray"}
    if isinstance(rows, pd.DataFrame):
        # Columns that are merely counted are left out.
        kind = {"type": "dataframe", "pandas_orient": "split" if "columns" in content else "values"}
    return files, {"artifact_path": _EXAMPLE, **kind, "serving_input_path": _SERVING_EXAMPLE}


def environment_of(requirements: Iterable[str]) -> dict[str, str]:
    """The files that describe the environment a model needs, by name."""
    requirements = list(requirements)
    python = ".".join(map(str, sys.version_info[:3]))
    # pip is not there in every environment, nor are the others.
    build = {package: _installed(package) for package in _BUILD_PACKAGES}
    python_env = {
        "python": python,
        "build_dependencies": [name if found is None else f"{name}=={found}" for name, found in build.items()],
        "dependencies": [f"-r {_REQUIREMENTS}"],
    }
    pip = "pip" if build["pip"] is None else f"pip<={build['pip']}"
    conda_env = {
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", pip, {"pip": requirements}],
        "name": "mlflow-env",
    }
    return {
        _REQUIREMENTS: "\n".join(requirements),
        "python_env.yaml": yaml.safe_dump(python_env, sort_keys=False),
        "conda.yaml": yaml.safe_dump(conda_env, sort_keys=False),
    }


def requirements_of(estimator: Any, *, allow_pickle: bool = False) -> list[str]:
    """The exact versions, as installed here, of what a saved estimator needs to be loaded."""
    preprocessing, net = split(estimator)
    packages = [*_SKLEARN_PACKAGES, *(_KERAS_PACKAGES if net is not None else ())]
    if allow_pickle:
        part = estimator if net is None else preprocessing
        roots = {name.partition(".")[0] for name in ([] if part is None else vetted.foreign_in(part))}
        installed = packages_distributions()
        packages.append("cloudpickle")
        packages += sorted({p for root in roots for p in installed.get(root, ())} - set(packages))
    found = []
    for package in packages:
        try:
            found.append(f"{package}=={version(package)}")
        except PackageNotFoundError:
            if package != "tensorflow":
                raise
            found.append(f"tensorflow-cpu=={version('tensorflow-cpu')}")
    return found


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
