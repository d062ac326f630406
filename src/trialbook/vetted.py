"""What a saved model may hold, so that loading it runs no code but that of the libraries it is made of.

skops and Keras's safe mode refuse what they do not know; of that, scikit-learn's own parts are let through here.
Whatever remains is somebody's code, and needs the user's word: `tracking.allow_pickle=true`.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import skops.io
from skops.io.exceptions import UnsupportedTypeException

# Types without behaviour of their own that fitted estimators of scikit-learn hold, by where they are defined; what is
# not there, such as `sklearn.utils` and `sklearn.datasets`, can read files or start processes.
_VETTED = (
    *("numpy.asarray", "numpy.dtype", "numpy.expand_dims", "numpy.mean", "numpy.median"),
    *("pandas.to_datetime", "functools.partial", "scipy.interpolate._bsplines.BSpline"),
    *("scipy._lib.array_api_compat.numpy._aliases.asarray", "scipy.sparse._", "sklearn._loss.", "sklearn.calibration."),
    *("sklearn.cluster.", "sklearn.compose.", "sklearn.covariance.", "sklearn.cross_decomposition."),
    *("sklearn.decomposition.", "sklearn.discriminant_analysis.", "sklearn.dummy.", "sklearn.ensemble."),
    *("sklearn.feature_extraction.", "sklearn.feature_selection.", "sklearn.gaussian_process.", "sklearn.impute."),
    *("sklearn.isotonic.", "sklearn.kernel_approximation.", "sklearn.linear_model.", "sklearn.manifold."),
    *("sklearn.metrics.", "sklearn.mixture.", "sklearn.model_selection.", "sklearn.multiclass."),
    *("sklearn.multioutput.", "sklearn.naive_bayes.", "sklearn.neighbors.", "sklearn.neural_network."),
    *("sklearn.pipeline.", "sklearn.preprocessing.", "sklearn.semi_supervised.", "sklearn.svm.", "sklearn.tree."),
)

# What a file of skops calls something by: all texts in its description but values and the names of arrays.
# What something is, where that is defined and how it is loaded belong together.
_NAMES = re.compile(
    rb'("__class__": "[^"]*",\s*"__module__": "[^"]*"(?:,\s*"__loader__": "[^"]*")?)'
    rb'|"(?!content"|file")([^"]+": "[^"]*)"'
)
_unknown: dict[frozenset[tuple[bytes, bytes]], list[str]] = {}


def is_vetted(name: str) -> bool:
    """Whether a type that skops does not know may be in a model, by its full name."""
    return any(name == known or (known.endswith((".", "_")) and name.startswith(known)) for known in _VETTED)


def unknown_in_dump(file: Path) -> list[str]:
    """The types that skops does not know in a file that it has written just now.

    skops finds them by building all that is in it. Most models of a search are made of the same, so it is asked once
    for each set of names; a file that somebody else may have written is always its own to judge.
    """
    with zipfile.ZipFile(file) as dump:
        names = frozenset(_NAMES.findall(dump.read("schema.json")))
    if names not in _unknown:
        _unknown[names] = skops.io.get_untrusted_types(file=file)
    return list(_unknown[names])


def foreign_in(estimator: Any) -> list[str]:
    """The types in a scikit-learn object, fitted or not, that only pickle can save."""
    try:
        unknown = skops.io.get_untrusted_types(data=skops.io.dumps(estimator))
    except UnsupportedTypeException as error:
        return [str(error).removeprefix("Objects of type ").partition(" ")[0]]
    return [name for name in unknown if not is_vetted(name)]


def foreign_in_net(config: Any) -> list[str]:
    """The layers and functions in a Keras model's configuration that are not Keras's own.

    Args:
        config: The model as Keras describes it, plain dictionaries and lists.
    """
    return list(dict.fromkeys(_foreign(config)))


def foreign_in_file(path: Path) -> list[str]:
    """The same for a `.keras` file."""
    with zipfile.ZipFile(path) as file:
        return foreign_in_net(json.loads(file.read("config.json")))


def _foreign(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for value in node:
            yield from _foreign(value)
    if not isinstance(node, dict):
        return
    name, module = str(node.get("class_name")), str(node.get("module"))
    if name == "__lambda__":
        yield "a lambda"
    elif name == "function" and module != "builtins":
        yield f"{module}.{node.get('config')}"
    elif "config" in node and not _is_keras(name, module, node.get("registered_name")):
        yield f"{module}.{name}"
    for key, value in node.items():
        # How it was trained is not loaded for predictions.
        if key != "compile_config":
            yield from _foreign(value)


def _is_keras(name: str, module: str, registered: Any) -> bool:
    # Tensors, tuples and the like have names such as __tuple__, and no module.
    plain = name.startswith("__") or name in ("None", "function")
    return plain or (module.partition(".")[0] == "keras" and registered in (None, name))
