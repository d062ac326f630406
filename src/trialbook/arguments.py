"""What `trialbook.tune` is given, as the parts of a search."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.multiclass import type_of_target

from trialbook.__main__ import conf_dir
from trialbook.app import call_with, make
from trialbook.data import CLASSIFICATION, REGRESSION, Dataset, hold_out
from trialbook.data.columns import in_words, kinds_of, normalized, preprocessing, taken_by
from trialbook.errors import DataError, ModelError, RequestError
from trialbook.estimator import KerasClassifier, KerasRegressor
from trialbook.space import Space
from trialbook.trial import Search

# What a bare builder is trained for, as the nets of conf/model are.
_EPOCHS = 10


@dataclass(frozen=True)
class Option:
    """An option of a group of the configuration, or an object in its place.

    Attributes:
        group: The group: `search`, `validation` or `executor`.
        name: What it is called.
        arguments: What to set of it.
        given: The object; None for an option that the configuration names.
    """

    group: str
    name: str
    arguments: Mapping[str, Any]
    given: Any = None

    @classmethod
    def read(cls, group: str, given: Any) -> Option:
        """Read a name, a mapping from one name to arguments, or an object.

        Raises:
            RequestError: For a mapping of any other form.
        """
        if isinstance(given, str):
            return cls(group, given, {})
        if not isinstance(given, Mapping):
            # A class or function goes by its own name, an object by that of its class.
            target = getattr(given, "func", given)
            return cls(group, getattr(target, "__name__", type(target).__name__), {}, given)
        if len(given) != 1 or not all(isinstance(arguments, Mapping) for arguments in given.values()):
            raise RequestError(
                f"{group} must be a name, an object, or a mapping from one name to its arguments such as "
                f"{{'sklearn/random': {{'n_iter': 20}}}}; got {given!r}."
            )
        ((name, arguments),) = given.items()
        return cls(group, str(name), dict(arguments))


def composed(options: list[Option], sections: Mapping[str, Any]) -> DictConfig:
    """The configuration with these options chosen and these values set, as the command would compose it.

    Args:
        options: The chosen options; objects leave theirs at its default.
        sections: Values of the top level, such as `seed`, or of a section, such as `budget`.

    Raises:
        RequestError: For an option or a key that does not exist, or a value of the wrong type.
    """
    words = [f"{option.group}={option.name}" for option in options if option.given is None]
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            cfg = compose("config", overrides=words)
        for section, values in sections.items():
            _check_keys(section, values, cfg[section])
            OmegaConf.update(cfg, section, values)
        for option in options:
            node = cfg[option.group]
            # Keras Tuner's searches take the arguments of its oracles.
            node = node.oracle if "oracle" in node else node
            with open_dict(node):
                node.update(dict(option.arguments))
    except MissingConfigException as error:
        group, _, name = str(error.missing_cfg_file or "").partition("/")
        raise RequestError(
            f"{group}={name!r} is not available; allowed: {', '.join(_options_of(group))}, or an object."
        ) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise RequestError(" ".join(str(error).split())) from error
    return cfg


def _check_keys(section: str, given: Any, known: Any) -> None:
    for key in given if isinstance(given, Mapping) else ():
        if key not in known:
            raise RequestError(f"{section} takes no {key!r}; allowed: {', '.join(map(str, known))}.")


def _options_of(group: str) -> list[str]:
    folder = conf_dir() / group
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))


def search_maker(option: Option, cfg: DictConfig) -> Callable[..., Search]:
    """What makes the search: the configuration's class, the given class or function, or nothing for a ready object."""
    if option.given is None:
        return functools.partial(make, "search", cfg.search)
    if callable(getattr(option.given, "ask", None)) and not inspect.isclass(option.given):
        return lambda **_: option.given
    if not callable(option.given):
        raise RequestError(
            f"search={option.given!r} must be a name such as 'sklearn/random', an object with ask and tell, or what "
            "makes one from a space."
        )
    return functools.partial(call_with, "search", option.given)


def splitter_of(validation: Any, task: str, seed: int | None, cfg: DictConfig) -> Any:
    """The splitter: the configuration's, as many folds as the given number says, or the given one."""
    if isinstance(validation, int) and not isinstance(validation, bool):
        kind = StratifiedKFold if task == CLASSIFICATION else KFold
        try:
            return kind(validation, shuffle=True, random_state=seed)
        except ValueError as error:
            raise RequestError(f"validation={validation} cannot be used: {error}") from error
    if isinstance(validation, str | Mapping):
        return make("validation", cfg.validation)
    if not callable(getattr(validation, "split", None)):
        raise RequestError(
            f"validation={validation!r} must be a number of folds, a name such as 'holdout', or a splitter of "
            "scikit-learn."
        )
    return validation


def estimator_of(model: Any, task: str, seed: int | None) -> tuple[str, Any]:
    """The unfitted estimator and what to call it; a builder of nets is wrapped into one.

    Raises:
        ModelError: For anything else.
    """
    if inspect.isclass(model) and issubclass(model, BaseEstimator):
        raise ModelError(f"{model.__name__} is a class; give an estimator, such as {model.__name__}().")
    if isinstance(model, BaseEstimator):
        return _name_of(model), model
    if callable(model) or hasattr(model, "build"):
        kind = KerasClassifier if task == CLASSIFICATION else KerasRegressor
        name = getattr(model, "__name__", type(model).__name__)
        return name, kind(model, epochs=_EPOCHS, seed=seed)
    raise ModelError(
        f"{model!r} cannot be tuned: give an unfitted scikit-learn estimator or pipeline, or a function that builds a "
        "compiled keras.Model."
    )


def _name_of(estimator: Any) -> str:
    """The class that does the work: of a pipeline, that of its last step; of a net, its builder."""
    last = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
    builder = getattr(last, "builder", None)
    return str(getattr(builder, "__name__", None) or type(last).__name__)


def task_of(model: Any, y: np.ndarray) -> str:
    """`classification` or `regression`: what the estimator does, or for a builder of nets what the targets are."""
    if isinstance(model, BaseEstimator):
        if is_classifier(model):
            return CLASSIFICATION
        if is_regressor(model):
            return REGRESSION
    return REGRESSION if type_of_target(y).startswith("continuous") else CLASSIFICATION


def data_of(X: Any, y: Any, name: str, task: str, test: Any, seed: int, estimator: Any, preprocessed: bool) -> Dataset:
    """The data set: development rows and the rows to test on.

    Args:
        X: Rows, shape (n_rows, …).
        y: Targets, shape (n_rows,).
        name: What to call it.
        task: `classification` or `regression`.
        test: The share of rows to hold out, or the pair of test rows and their targets, or None for none.
        seed: Seed of the split.
        estimator: What they are for; it decides whether it takes a data frame's columns as they are.
        preprocessed: Whether numbers are made of them where it does not.

    Raises:
        DataError: If rows and targets do not go together, or cannot be split.
    """
    rows, targets = rows_of(X, "X"), targets_of(y, "y", X)
    about: dict[str, Any] = {}
    made = preprocessed and isinstance(rows, pd.DataFrame) and not taken_by(estimator, rows)
    if made:
        rows = as_read(rows)
        kinds = kinds_of(rows)
        about = {"preprocessing": preprocessing(kinds), "columns": in_words(kinds)}
    if test is None:
        return Dataset(name, task, rows, targets, rows[:0], targets[:0], "trialbook.tune", **about)
    if isinstance(test, tuple) and len(test) == 2:
        X_test, y_test = rows_of(test[0], "test rows"), targets_of(test[1], "test targets", test[0])
        X_test = as_read(X_test, "test rows") if made else X_test
        if _columns(X_test) != _columns(rows):
            raise DataError("the test rows must have the columns of X, in their order.")
        return Dataset(name, task, rows, targets, X_test, y_test, "trialbook.tune", **about)
    if isinstance(test, bool) or not isinstance(test, float) or not 0 < test < 1:
        raise DataError(
            f"test must be a share of the rows such as 0.2, a pair (X_test, y_test), or None; got {test!r}."
        )
    return hold_out(rows, targets, name, task, "trialbook.tune", test_size=test, test_seed=seed, **about)


def as_read(rows: Any, key: str = "X") -> pd.DataFrame:
    """Rows as `data=csv` would have read them, so that a registered model takes them from a file or a request."""
    return normalized(rows.set_axis([str(column) for column in rows.columns], axis="columns"), key)


def taking_raw_rows(fitted: Pipeline) -> Pipeline:
    """A fitted pipeline, trained on rows as they would be read, made to take a data frame as its user has it."""
    return Pipeline([("as_read", FunctionTransformer(as_read)), *fitted.steps])


def _columns(rows: pd.DataFrame | np.ndarray) -> list[Any]:
    """What two sets of rows must have in common: the names of columns, or the shape of a row."""
    return list(rows.columns) if isinstance(rows, pd.DataFrame) else list(rows.shape[1:])


def rows_of(X: Any, key: str) -> pd.DataFrame | np.ndarray:
    """Rows as a data frame with a fresh index, the columns of an array called x0, x1, …; or as an array of images.

    Raises:
        DataError: If they are neither.
    """
    if isinstance(X, pd.DataFrame):
        if (repeated := X.columns[X.columns.duplicated()]).size:
            raise DataError(f"{key} has more than one column {repeated[0]!r}; each must have a name of its own.")
        return X.reset_index(drop=True)
    array = np.asarray(X)
    if array.ndim < 2:
        raise DataError(
            f"{key} must be a data frame or an array of two or more dimensions, the first for the rows; got shape "
            f"{array.shape}."
        )
    if array.ndim > 2:
        if array.dtype.kind not in "fiub":
            raise DataError(f"{key} must hold numbers where rows have more than one dimension, got {array.dtype}.")
        return array
    return pd.DataFrame(array, columns=[f"x{i}" for i in range(array.shape[1])])


def targets_of(y: Any, key: str, X: Any) -> np.ndarray:
    """Targets as an array.

    Raises:
        DataError: If there is not one for each row.
    """
    targets = np.asarray(y)
    if targets.ndim == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    if targets.ndim != 1 or len(targets) != len(X):
        raise DataError(f"{key} must hold one target for each of the {len(X)} rows, got shape {targets.shape}.")
    return targets


def space_given(space: Any) -> Space | None:
    """The declared space; None where the builder declares it."""
    return space if space is None or isinstance(space, Space) else Space.parse(space)
