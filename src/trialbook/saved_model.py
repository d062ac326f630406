"""Fitted estimators as MLflow models on disk, and back.

scikit-learn estimators are saved as skops, for MLflow's `sklearn` flavor too; Keras nets as `.keras` files, for its
`keras` flavor too, with their preprocessing as skops beside them. MLflow serves both through a copy of
`trialbook.serving`. Neither format runs any code on loading but that of the libraries, and neither needs Trialbook.
What is of somebody's own making needs pickle, or its modules beside the model, and that only with the user's word.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle
import mlflow.pyfunc
import sklearn
import skops.io
import yaml
from mlflow.models import Model
from sklearn.pipeline import Pipeline
from skops.io.exceptions import UnsupportedTypeException

from trialbook import allowed, keras_files, serving, vetted
from trialbook.envelope import Envelope
from trialbook.errors import ModelError
from trialbook.evaluate import split

if TYPE_CHECKING:
    import keras

# The name under which the loader travels. It carries a version, because Python imports a module of one name only once
# and two models made by different versions of Trialbook may be loaded side by side.
_LOADER = "trialbook_serving_v3"
_DATA = "data/estimator"
_CODE = "code"
# Of files that may be needed again.
_KEPT_FILES, _KEPT_BYTES = 16, 1 << 20
_ENVIRONMENT_KEYS = {"conda_env": "conda.yaml", "python_env": "python_env.yaml"}
_YAML_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def check(estimator: Any, *, allow_pickle: bool) -> None:
    """That an unfitted estimator can be saved, and loaded elsewhere, so far as that can be told before it is fitted.

    Raises:
        ModelError: If it holds what only pickle can save, and that is not allowed.
    """
    preprocessing, net = split(estimator)
    part = estimator if net is None else preprocessing
    if part is not None and not allow_pickle and (foreign := vetted.foreign_in(part)):
        raise _needs_pickle(foreign)


def check_net(model: keras.Model, *, allow_pickle: bool) -> None:
    """The same for a net that has been built.

    Raises:
        ModelError: If it cannot be saved, or holds layers or functions of somebody's own, and that is not allowed.
    """
    try:
        config = json.loads(model.to_json())
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ModelError(f"the net cannot be saved: {' '.join(str(error).split())}") from error
    if not allow_pickle and (foreign := vetted.foreign_in_net(config)):
        raise _needs_pickle(foreign)


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
    write(estimator, path, model, envelope)
    describe(path, model, envelope)


def write(estimator: Any, path: Path, model: Model, envelope: Envelope) -> None:
    """The first half of `save`, which needs the estimator: its files, and the flavors of `model`."""
    folder = path / _DATA
    folder.mkdir(parents=True)
    (path / _CODE).mkdir()
    preprocessing, net = split(estimator)
    if net is None:
        description, foreign = _save_sklearn(estimator, folder, model, envelope)
    else:
        description, foreign = _save_keras(preprocessing, net, folder, model, envelope)
    if foreign:
        _add_code(path / _CODE)
    description.write(folder)


def describe(path: Path, model: Model, envelope: Envelope) -> None:
    """The second half of `save`: the loader, MLflow's description, what to install."""
    model.signature = envelope.signature
    model.saved_input_example_info = dict(envelope.example)
    shutil.copyfile(serving.__file__, path / _CODE / f"{_LOADER}.py")
    mlflow.pyfunc.add_to_model(model, loader_module=_LOADER, data=_DATA, code=_CODE, **_ENVIRONMENT_KEYS)
    for name, content in envelope.files.items():
        (path / name).write_text(content)
    model.model_size_bytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    _write_description(model, path / "MLmodel")


def _write_description(model: Model, file: Path) -> None:
    """What `Model.save` writes, with the YAML writer that is compiled where there is one: many times as fast."""
    with file.open("w") as out:
        yaml.dump(model.to_dict(), out, Dumper=_YAML_DUMPER, default_flow_style=False)


def _save_sklearn(
    estimator: Any, folder: Path, model: Model, envelope: Envelope
) -> tuple[serving.Description, Sequence[str]]:
    trusted, foreign = _dump(estimator, folder / serving.ESTIMATOR, allow_pickle=envelope.allow_pickle)
    model.add_flavor(
        "sklearn",
        pickled_model=f"{_DATA}/{serving.ESTIMATOR}{'.pkl' if foreign else '.skops'}",
        sklearn_version=sklearn.__version__,
        serialization_format="cloudpickle" if foreign else "skops",
        skops_trusted_types=trusted,
        code=_CODE if foreign else None,
    )
    return serving.Description(trusted=trusted, columns=envelope.columns), foreign


def _save_keras(
    preprocessing: Any, net: Any, folder: Path, model: Model, envelope: Envelope
) -> tuple[serving.Description, Sequence[str]]:
    keras_files.save(net.model_, folder / serving.NET)
    layers = vetted.foreign_in_file(folder / serving.NET)
    if layers and not envelope.allow_pickle:
        raise _needs_pickle(layers)
    trusted: Sequence[str] = ()
    before: Sequence[str] = ()
    if preprocessing is not None:
        trusted, before = _dump_again(preprocessing, folder / serving.PREPROCESSING, envelope)
    classes = getattr(net, "classes_", None)
    _add_keras_flavor(model)
    description = serving.Description(
        classes=None if classes is None else classes.tolist(),
        classes_dtype=None if classes is None else str(classes.dtype),
        trusted=trusted,
        inputs=net.inputs,
        columns=envelope.columns,
        modules=sorted({name.rpartition(".")[0] for name in layers} - {""}),
        safe=not layers,
        target_mean=getattr(net, "target_mean_", 0.0),
        target_scale=getattr(net, "target_scale_", 1.0),
    )
    return description, [*layers, *before]


def _dump(part: Any, path: Path, *, allow_pickle: bool) -> tuple[Sequence[str], Sequence[str]]:
    """Save a scikit-learn object; returns the types to trust in it, and those for which it had to be pickled."""
    file = path.with_suffix(".skops")
    try:
        # Most of it is a description in JSON, which packs to a twentieth.
        skops.io.dump(part, file, compression=zipfile.ZIP_DEFLATED)
        unknown = skops.io.get_untrusted_types(file=file)
        foreign = [name for name in unknown if not vetted.is_vetted(name)]
    except UnsupportedTypeException:
        unknown, foreign = [], vetted.foreign_in(part)
    if not foreign:
        return unknown, []
    if not allow_pickle:
        raise _needs_pickle(foreign)
    file.unlink(missing_ok=True)
    path.with_suffix(".pkl").write_bytes(cloudpickle.dumps(part))
    return [], foreign


def _dump_again(part: Any, path: Path, envelope: Envelope) -> tuple[Sequence[str], Sequence[str]]:
    """As `_dump`, but what has been written before is merely copied."""
    key = hashlib.sha256(cloudpickle.dumps(part)).hexdigest()
    file = path.with_suffix(".skops")
    if (known := envelope.written.get(key)) is not None:
        content, trusted = known
        file.write_bytes(content)
        return trusted, []
    trusted, foreign = _dump(part, path, allow_pickle=envelope.allow_pickle)
    if not foreign and file.stat().st_size <= _KEPT_BYTES:
        while len(envelope.written) >= _KEPT_FILES:
            del envelope.written[next(iter(envelope.written))]
        envelope.written[key] = file.read_bytes(), trusted
    return trusted, foreign


def _needs_pickle(foreign: Sequence[str]) -> ModelError:
    return ModelError(
        f"the model holds {foreign[0]}, which needs pickle, or its code beside the model, to be saved, and loading "
        "such a model runs whatever is in it; if those who load it may trust it, give tracking.allow_pickle=true, else "
        "tracking.models=none promote.enabled=false."
    )


def _add_code(folder: Path) -> None:
    """Put the user's own modules beside a model that holds something of theirs."""
    for name, source in allowed.own_modules().items():
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, folder / source.name)


def load(path: Path, *, allow_pickle: bool = False) -> Any:
    """A fitted estimator from the folder `save` wrote.

    Raises:
        ModelError: If it holds what only pickle can save, and that is not allowed.
    """
    folder = path / _DATA
    if not allow_pickle:
        _check_saved(folder)
    if not (folder / serving.NET).exists():
        return serving.load_part(folder, serving.ESTIMATOR, serving.Description.read(folder).trusted)
    from trialbook.estimator import KerasClassifier, KerasRegressor

    predictor = serving.NetPredictor(folder, compiled=True)
    net: Any
    if predictor.classes_ is None:
        net = KerasRegressor(_rebuild, inputs=predictor.inputs)
        net.target_mean_, net.target_scale_ = predictor.target_mean, predictor.target_scale
    else:
        net = KerasClassifier(_rebuild, inputs=predictor.inputs)
        net.classes_ = predictor.classes_
    net.model_ = predictor.net
    if predictor.preprocessing is None:
        return net
    return Pipeline([*predictor.preprocessing.steps, ("net", net)])


def _check_saved(folder: Path) -> None:
    """What a saved model says of itself is not asked: somebody else may have saved it."""
    foreign = [str(file.name) for file in folder.glob("*.pkl")]
    for file in folder.glob("*.skops"):
        foreign += [name for name in skops.io.get_untrusted_types(file=file) if not vetted.is_vetted(name)]
    if (folder / serving.NET).exists():
        foreign += vetted.foreign_in_file(folder / serving.NET)
    description = serving.Description.read(folder)
    foreign += [*description.modules] + ([] if description.safe else ["an unsafe net"])
    if foreign:
        raise _needs_pickle(foreign)


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
