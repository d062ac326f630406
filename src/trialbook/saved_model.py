"""Fitted estimators as MLflow models on disk.

MLflow loads them through its `sklearn` or `keras` flavor too, and serves them through a copy of `trialbook.serving`.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import yaml
from mlflow.models import Model

from trialbook import model_files, serving
from trialbook.envelope import Envelope
from trialbook.model_files import CODE, DATA, Flavors

# The name under which the loader travels. It carries a version, because Python imports a module of one name only once
# and two models made by different versions of Trialbook may be loaded side by side.
_LOADER = "trialbook_serving_v3"
_ENVIRONMENT_KEYS = {"conda_env": "conda.yaml", "python_env": "python_env.yaml"}
_YAML_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def save(estimator: Any, path: Path, model: Model, envelope: Envelope) -> None:
    """Save a fitted estimator as an MLflow model.

    Args:
        estimator: The fitted estimator or pipeline.
        path: Folder to create.
        model: MLflow's description of the model, completed and written by this call.
        envelope: What it has in common with the other models of its search.

    Raises:
        ModelError: If the estimator holds what only pickle can save, and that is not allowed.
    """
    describe(path, model, envelope, model_files.write(estimator, path, envelope.form))


def describe(path: Path, model: Model, envelope: Envelope, flavors: Flavors) -> None:
    """Complete what `model_files.write` has written: the loader, MLflow's description, what to install."""
    for name, flavor in flavors.items():
        model.add_flavor(name, **flavor)
    model.signature = envelope.signature
    model.saved_input_example_info = dict(envelope.example)
    shutil.copyfile(serving.__file__, path / CODE / f"{_LOADER}.py")
    mlflow.pyfunc.add_to_model(model, loader_module=_LOADER, data=DATA, code=CODE, **_ENVIRONMENT_KEYS)
    for name, content in envelope.files.items():
        (path / name).write_text(content)
    model.model_size_bytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    _write_description(model, path / "MLmodel")


def _write_description(model: Model, file: Path) -> None:
    """What `Model.save` writes, with the YAML writer that is compiled where there is one: many times as fast."""
    with file.open("w") as out:
        yaml.dump(model.to_dict(), out, Dumper=_YAML_DUMPER, default_flow_style=False)
