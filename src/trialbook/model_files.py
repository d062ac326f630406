"""Fitted estimators in files, and back.

scikit-learn estimators are saved as skops; Keras nets as `.keras` files, with their preprocessing as skops beside them.
Neither format runs any code on loading but that of the libraries, and neither needs Trialbook. What is of somebody's
own making needs pickle, or its modules beside the model, and that only with the user's word.

Nothing here needs MLflow, which a worker therefore need not load.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle
import sklearn
import skops.io
from sklearn.pipeline import Pipeline
from skops.io.exceptions import UnsupportedTypeException

from trialbook import allowed, keras_files, serving, vetted
from trialbook.errors import ModelError, StoreError, disk_is_full
from trialbook.evaluate import split

if TYPE_CHECKING:
    import keras

DATA = "data/estimator"
CODE = "code"
NO_ROOM = "there is no space left on this machine to save a model"
# Of files that may be needed again.
_KEPT_FILES, _KEPT_BYTES = 16, 1 << 20

# What MLflow is told of a model, by the name of the flavor.
Flavors = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Form:
    """How the estimators of one search are written.

    Attributes:
        columns: Types of the columns of raw rows, see `serving.types_of`.
        allow_pickle: Whether they may hold what only pickle can save.
        written: Files of preprocessing that have been written, and the types to trust in each, by what they hold:
            every net of a fold has the same before it.
    """

    columns: Mapping[str, Any] = field(default_factory=dict)
    allow_pickle: bool = False
    written: dict[str, tuple[bytes, Sequence[str]]] = field(default_factory=dict, compare=False, repr=False)


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


def write(estimator: Any, path: Path, form: Form) -> Flavors:
    """Write a fitted estimator into a folder.

    Args:
        estimator: The fitted estimator or pipeline.
        path: Folder to create.
        form: How.

    Returns:
        The flavors with which MLflow loads it.

    Raises:
        ModelError: If the estimator holds what only pickle can save, and that is not allowed.
        StoreError: If the disk is full.
    """
    try:
        return _write(estimator, path, form)
    except OSError as error:
        if disk_is_full(error):
            raise StoreError(NO_ROOM) from error
        raise


def _write(estimator: Any, path: Path, form: Form) -> Flavors:
    folder = path / DATA
    folder.mkdir(parents=True)
    (path / CODE).mkdir()
    preprocessing, net = split(estimator)
    if net is None:
        flavors, description, foreign = _save_sklearn(estimator, folder, form)
    else:
        flavors, description, foreign = _save_keras(preprocessing, net, folder, form)
    if foreign:
        _add_code(path / CODE)
    description.write(folder)
    return flavors


def _save_sklearn(estimator: Any, folder: Path, form: Form) -> tuple[Flavors, serving.Description, Sequence[str]]:
    trusted, foreign = _dump(estimator, folder / serving.ESTIMATOR, allow_pickle=form.allow_pickle)
    flavor = {
        "pickled_model": f"{DATA}/{serving.ESTIMATOR}{'.pkl' if foreign else '.skops'}",
        "sklearn_version": sklearn.__version__,
        "serialization_format": "cloudpickle" if foreign else "skops",
        "skops_trusted_types": trusted,
        "code": CODE if foreign else None,
    }
    return {"sklearn": flavor}, serving.Description(trusted=trusted, columns=form.columns), foreign


def _save_keras(
    preprocessing: Any, net: Any, folder: Path, form: Form
) -> tuple[Flavors, serving.Description, Sequence[str]]:
    keras_files.save(net.model_, folder / serving.NET)
    layers = vetted.foreign_in_file(folder / serving.NET)
    if layers and not form.allow_pickle:
        raise _needs_pickle(layers)
    trusted: Sequence[str] = ()
    before: Sequence[str] = ()
    if preprocessing is not None:
        trusted, before = _dump_again(preprocessing, folder / serving.PREPROCESSING, form)
    classes = getattr(net, "classes_", None)
    description = serving.Description(
        classes=None if classes is None else classes.tolist(),
        classes_dtype=None if classes is None else str(classes.dtype),
        trusted=trusted,
        inputs=net.inputs,
        columns=form.columns,
        modules=sorted({name.rpartition(".")[0] for name in layers} - {""}),
        safe=not layers,
        target_mean=getattr(net, "target_mean_", 0.0),
        target_scale=getattr(net, "target_scale_", 1.0),
    )
    return {"keras": _keras_flavor()}, description, [*layers, *before]


def _dump(part: Any, path: Path, *, allow_pickle: bool) -> tuple[Sequence[str], Sequence[str]]:
    """Save a scikit-learn object; returns the types to trust in it, and those for which it had to be pickled."""
    file = path.with_suffix(".skops")
    try:
        # Most of it is a description in JSON, which packs to a twentieth, however little effort is made.
        skops.io.dump(part, file, compression=zipfile.ZIP_DEFLATED, compresslevel=1)
        unknown = vetted.unknown_in_dump(file)
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


def _dump_again(part: Any, path: Path, form: Form) -> tuple[Sequence[str], Sequence[str]]:
    """As `_dump`, but what has been written before is merely copied."""
    key = hashlib.sha256(cloudpickle.dumps(part)).hexdigest()
    file = path.with_suffix(".skops")
    if (known := form.written.get(key)) is not None:
        content, trusted = known
        file.write_bytes(content)
        return trusted, []
    trusted, foreign = _dump(part, path, allow_pickle=form.allow_pickle)
    if not foreign and file.stat().st_size <= _KEPT_BYTES:
        while len(form.written) >= _KEPT_FILES:
            del form.written[next(iter(form.written))]
        form.written[key] = file.read_bytes(), trusted
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
    """A fitted estimator from the folder that `write` has filled.

    Raises:
        ModelError: If it holds what only pickle can save, and that is not allowed.
    """
    folder = path / DATA
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


def _keras_flavor() -> dict[str, Any]:
    """With which `mlflow.keras.load_model` finds the bare net."""
    import keras

    return {
        "data": DATA,
        "keras_version": keras.__version__,
        "keras_backend": keras.backend.backend(),
        "save_exported_model": False,
    }
