"""What a configuration may call: the one place that decides.

A configuration names code by dotted paths: `_target_`s, builders. It may come from anywhere, the record of an
interrupted search included, so a path leads only to

- the kinds of objects of scikit-learn, Keras, Keras Tuner, NumPy, SciPy and Trialbook that a search is made of;
- the user's own modules: those that Python finds outside the folders of installed packages, such as the working folder
  and the folder in which `conf/` stands;
- what the user allows on the command line (`--allow=my_package`) or in the environment (`TRIALBOOK_ALLOW`).

The path decides what may be imported; what is found there decides the rest, by where it was defined, so that a detour
such as `sklearn.datasets.os.system` leads nowhere. Hydra gets the objects that were judged, not their names.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import os
import pkgutil
import re
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from trialbook.errors import NotAllowedError, RequestError

ALLOW = "TRIALBOOK_ALLOW"
TARGET = "_target_"

_TRIALBOOK = ("cluster", "data", "estimator", "executors", "models", "processes", "search", "sweep")
_SKLEARN_FUNCTIONS = ("compose", "feature_selection", "metrics", "model_selection", "pipeline", "preprocessing")
# Of these modules nothing is needed, and some of it writes files, starts processes or unpickles.
_SKLEARN_NO_CLASSES = ("datasets", "externals", "tests", "utils")
_KERAS_FUNCTIONS = ("activations", "losses", "metrics")
_KERAS_BASES = (
    *("callbacks.Callback", "constraints.Constraint", "initializers.Initializer", "layers.Layer", "losses.Loss"),
    *("metrics.Metric", "optimizers.Optimizer", "optimizers.schedules.LearningRateSchedule"),
    "regularizers.Regularizer",
)
# A layer that runs whatever graph a file holds, and functions that import whatever a dictionary names.
_KERAS_REFUSED = ("TFSMLayer", "get", "deserialize")
_NUMPY_FUNCTIONS = ("linspace", "logspace", "geomspace", "arange")


def add(prefixes: str) -> None:
    """Allow further packages or modules, comma-separated, in this process and those it starts.

    Raises:
        RequestError: For what is no dotted name.
    """
    for prefix in prefixes.split(","):
        if not all(part.isidentifier() for part in prefix.strip().split(".")):
            raise RequestError(
                f"--allow={prefixes} must name packages or modules, such as --allow=xgboost,my_lab.nets."
            )
    os.environ[ALLOW] = ",".join([*_added(), *(prefix.strip() for prefix in prefixes.split(","))])


def flags() -> list[str]:
    """The flag that allows again what is allowed here beyond the usual, for a command to repeat."""
    return [f"--allow={','.join(_added())}"] if _added() else []


def resolve(key: str, node: Any) -> Any:
    """A part of a configuration with each `_target_` replaced by the object it names.

    Args:
        key: Where the part stands, for messages.
        node: Plain dictionaries, lists and values, interpolations resolved.

    Raises:
        NotAllowedError: For the first `_target_` that must not be called.
        RequestError: For one that does not exist.
    """
    if isinstance(node, Mapping):
        resolved = {name: resolve(f"{key}.{name}", value) for name, value in node.items() if name != TARGET}
        if TARGET in node:
            check_cache(f"{key}.memory", node.get("memory"))
            resolved[TARGET] = locate(node[TARGET], f"{key}.{TARGET}")
        return resolved
    if isinstance(node, list | tuple):
        return [resolve(f"{key}.{i}", value) for i, value in enumerate(node)]
    return node


def locate(path: Any, key: str) -> Any:
    """What a dotted path names, if it may be called.

    Args:
        path: The dotted path.
        key: The key of the configuration that gives it.

    Raises:
        NotAllowedError: If it must not be called.
        RequestError: If it does not exist.
    """
    if not isinstance(path, str) or not all(part.isidentifier() for part in path.split(".")):
        raise RequestError(f"{key} must be a dotted path such as sklearn.svm.SVC, got {path!r}.")
    root = path.partition(".")[0]
    if not (root in _JUDGES or _is_added(path) or _is_own(root)):
        if importlib.util.find_spec(root) is None:
            raise RequestError(
                f"{key}={path} cannot be found: no module {root} is installed, or in this folder, or next to the "
                "folder of --config-dir."
            )
        raise _refusal(path, key)
    found = find(path, key)
    home = _home(found)
    home_root, *parts = home.split(".")
    # Trialbook itself is not the user's own, even where it is found beside their work.
    if _is_added(home) or ("trialbook" not in home.split(".") and _is_own(home_root)):
        return found
    if home_root in _JUDGES and _JUDGES[home_root](found, parts):
        return found
    raise _refusal(path, key, home=f"{home}.{getattr(found, '__qualname__', type(found).__name__)}")


def check_cache(key: str, value: Any) -> None:
    """A pipeline's cache must be no folder, for it would be one of pickles.

    Raises:
        NotAllowedError: If it is.
    """
    if isinstance(value, str) and not _is_added("joblib"):
        raise NotAllowedError(
            f"{key}={value} is a folder of pickles, and reading those can run anything; if you trust it, say so with "
            f"--allow=joblib or {ALLOW}=joblib."
        )


def own_modules() -> dict[str, Path]:
    """The user's own top-level modules that have been imported: for each name, its file or its package's folder."""
    found = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if "." not in name and name not in ("__main__", "__mp_main__", "trialbook") and file and _is_own(name):
            path = Path(file)
            found[name] = path.parent if path.name == "__init__.py" else path
    return found


def find(path: str, key: str) -> Any:
    """What a dotted path names, whatever it is; its modules are imported."""
    try:
        return pkgutil.resolve_name(path)
    except (ImportError, AttributeError) as error:
        raise RequestError(f"{key}={path} cannot be found: {_why(path, error)}") from error
    except Exception as error:  # a user's own module may fail in any way
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise RequestError(f"{key}={path} cannot be imported: {reason}") from error


def _why(path: str, error: Exception) -> str:
    """What went wrong, and what may have been meant."""
    parent, _, name = path.rpartition(".")
    try:
        names = dir(pkgutil.resolve_name(parent))
    except (ImportError, AttributeError, ValueError):
        return f"{str(error) or f'there is no {parent}'}."
    nearest = get_close_matches(name, names, n=1)
    return f"{parent} has no {name}." + (f" Did you mean {parent}.{nearest[0]}?" if nearest else "")


def _refusal(path: str, key: str, home: str | None = None) -> NotAllowedError:
    detour = "" if home is None or home == path else f" (which is {home})"
    root = (home or path).partition(".")[0]
    return NotAllowedError(
        f"{key}={path}{detour} is not allowed to run: allowed are the parts of a search in scikit-learn, Keras, Keras "
        "Tuner, NumPy, SciPy and Trialbook, and modules of your own beside your work; if you trust it, say so with "
        f"--allow={root} or {ALLOW}={root}."
    )


def _home(found: Any) -> str:
    """The module in which something was defined."""
    while isinstance(found, functools.partial):
        found = found.func
    if inspect.ismethod(found):
        # Of a method the class it is called on counts, too: its code is the caller's to choose.
        owner = found.__self__ if isinstance(found.__self__, type) else type(found.__self__)
        homes = {str(owner.__module__), str(found.__func__.__module__)}
        return homes.pop() if len(homes) == 1 else "nowhere"
    if hasattr(found, "nin") and type(found).__module__ == "numpy":
        return "numpy"  # a ufunc does not say
    return str(getattr(found, "__module__", None) or type(found).__module__)


# Each judges an object by what it is and where in its library it was defined.


def _judge_sklearn(found: Any, home: Sequence[str]) -> bool:
    part = home[0] if home else ""
    if isinstance(found, type):
        return part not in _SKLEARN_NO_CLASSES and not part.startswith("_")
    if not _is_public_function(found):
        return False
    name = str(found.__name__)
    if part == "datasets":  # the others fetch pickles, or write
        return name.startswith(("load_", "make_")) or name == "fetch_openml"
    return part in _SKLEARN_FUNCTIONS


def _judge_keras(found: Any, home: Sequence[str]) -> bool:
    import keras

    if isinstance(found, type):
        bases = tuple(pkgutil.resolve_name(f"keras.{base}") for base in _KERAS_BASES)
        return issubclass(found, bases) and str(found.__name__) not in _KERAS_REFUSED
    parts = [part for part in home if part != "src"]
    name = getattr(found, "__name__", "")
    if not (parts and parts[0] in _KERAS_FUNCTIONS and _is_public_function(found)) or name in _KERAS_REFUSED:
        return False
    known: Any = getattr(keras, parts[0])
    return getattr(known, name, None) is found


def _judge_keras_tuner(found: Any, home: Sequence[str]) -> bool:
    import keras_tuner

    return isinstance(found, type) and issubclass(found, (keras_tuner.Oracle, keras_tuner.HyperModel))


def _judge_numpy(found: Any, home: Sequence[str]) -> bool:
    import numpy as np

    if isinstance(found, np.ufunc):
        return True
    functions = [getattr(np, name) for name in _NUMPY_FUNCTIONS]
    return any(found is known for known in (*functions, np.random.default_rng, np.random.RandomState))


def _judge_scipy(found: Any, home: Sequence[str]) -> bool:
    from scipy import stats

    return isinstance(found, stats.rv_continuous | stats.rv_discrete)


def _judge_trialbook(found: Any, home: Sequence[str]) -> bool:
    public = isinstance(found, type) or _is_public_function(found)
    return bool(home) and home[0] in _TRIALBOOK and public and not found.__name__.startswith("_")


_JUDGES = {
    "sklearn": _judge_sklearn,
    "keras": _judge_keras,
    "keras_tuner": _judge_keras_tuner,
    "numpy": _judge_numpy,
    "scipy": _judge_scipy,
    "trialbook": _judge_trialbook,
}


def _is_public_function(found: Any) -> bool:
    """Whether something is a function at the top of a module, and not one of its details."""
    return inspect.isfunction(found) and found.__qualname__ == found.__name__ and not found.__name__.startswith("_")


def _added() -> list[str]:
    return [prefix for prefix in re.split(r"[,\s]+", os.environ.get(ALLOW, "")) if prefix]


def _is_added(path: str) -> bool:
    return any(path == prefix or path.startswith(f"{prefix}.") for prefix in _added())


def _is_own(root: str) -> bool:
    """Whether a top-level module stands in a folder that the user has put on Python's path."""
    try:
        spec = importlib.util.find_spec(root)
    except (ImportError, ValueError):
        return False
    if spec is None:
        return False
    if spec.submodule_search_locations is not None:
        folders = [Path(location).parent for location in spec.submodule_search_locations]
    else:
        folders = [Path(spec.origin).parent] if spec.has_location and spec.origin else []
    return bool(folders) and not any(_is_installed(folder) for folder in folders)


def _is_installed(folder: Path) -> bool:
    """Whether a folder belongs to Python or to its installed packages."""
    if {"site-packages", "dist-packages"}.intersection(folder.parts):
        return True
    standard = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")}
    return bool(standard.intersection([folder.resolve(), *folder.resolve().parents]))
