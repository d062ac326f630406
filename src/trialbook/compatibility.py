"""Whether the parts of a search fit together, told in one sentence before anything runs."""

from __future__ import annotations

import functools
import warnings
from difflib import get_close_matches
from typing import Any

import numpy as np
from sklearn.base import is_classifier, is_regressor
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.metrics import get_scorer, get_scorer_names
from sklearn.model_selection import (
    RepeatedStratifiedKFold,
    StratifiedGroupKFold,
    StratifiedKFold,
    StratifiedShuffleSplit,
    TimeSeriesSplit,
)

from trialbook.data import CLASSIFICATION, REGRESSION, Dataset
from trialbook.errors import DataError, ModelError, RequestError

_COMMON = ("accuracy", "roc_auc", "neg_root_mean_squared_error")
_STRATIFIED = (StratifiedKFold, RepeatedStratifiedKFold, StratifiedShuffleSplit, StratifiedGroupKFold)


def check_estimator(estimator: Any, model_name: str, data: Dataset) -> None:
    """An estimator must predict what the data have.

    Raises:
        ModelError: For a classifier on numbers, or a regressor on classes.
    """
    if data.task == REGRESSION and is_classifier(estimator):
        raise ModelError(
            f"model={model_name} is a classifier, but data={data.name} has a numeric target; choose a regressor such "
            "as model=ridge, or data with classes."
        )
    if data.task == CLASSIFICATION and is_regressor(estimator):
        raise ModelError(
            f"model={model_name} is a regressor, but data={data.name} has classes; choose a classifier such as "
            "model=logistic_regression, or data with a numeric target."
        )


def check_splitter(splitter: Any, data: Dataset) -> None:
    """A splitter must find in the data what it splits by.

    Raises:
        DataError: For classes, groups or an order of time that the data do not have.
    """
    name = type(splitter).__name__
    if data.task == REGRESSION and isinstance(splitter, _STRATIFIED):
        raise DataError(
            f"validation={name} spreads classes, but data={data.name} has a numeric target; choose validation=kfold "
            "or validation=holdout."
        )
    if data.groups is None and _needs_groups(splitter):
        raise DataError(
            f"validation={name} keeps groups together, but data={data.name} has none; name their column with "
            "data.groups, or choose validation=stratified_kfold or validation=kfold."
        )
    if not data.ordered and isinstance(splitter, TimeSeriesSplit):
        raise DataError(
            f"validation={name} needs rows in order of time, but those of data={data.name} are shuffled; give "
            "data.shuffle=false if they come in that order, or choose validation=kfold."
        )


def check_scorer(key: str, name: str, data: Dataset) -> None:
    """A scorer must be able to score the data's targets.

    Args:
        key: The key of the configuration that names it.
        name: The scorer.
        data: The data.

    Raises:
        RequestError: If it does not exist, scores the other kind of target, or not this number of classes.
    """
    if name not in get_scorer_names():
        near = get_close_matches(name, get_scorer_names(), n=3)
        raise RequestError(
            f"{key}={name!r} is no scorer of scikit-learn; allowed: names such as {', '.join(near or _COMMON)}."
        )
    if data.task == REGRESSION:
        if not _scores_numbers(name):
            raise RequestError(
                f"{key}={name} scores classes, but data={data.name} has a numeric target; choose for example r2, "
                "neg_root_mean_squared_error or neg_mean_absolute_error."
            )
        return
    if _scores_numbers(name):
        raise RequestError(
            f"{key}={name} scores numbers, but data={data.name} has classes; choose for example accuracy, "
            "balanced_accuracy or f1_macro."
        )
    if (said := _refusal(name, data.y)) is not None:
        raise RequestError(
            f"{key}={name} cannot score the {len(np.unique(data.y))} classes of data={data.name} ({said}); choose for "
            "example accuracy, f1_macro or roc_auc_ovr."
        )


def _needs_groups(splitter: Any) -> bool:
    if not hasattr(splitter, "get_metadata_routing"):
        return False
    return bool(splitter.get_metadata_routing().split.requests.get("groups"))


@functools.cache
def _scores_numbers(name: str) -> bool:
    """Whether a scorer takes targets that are no classes: scikit-learn does not say, but it can be tried."""
    X, y = np.zeros((4, 1)), np.array([0.5, 1.5, 2.25, 3.75])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a score that nobody looks at
        try:
            get_scorer(name)(DummyRegressor().fit(X, y), X, y)
        except (ValueError, AttributeError):
            return False
    return True


def _refusal(name: str, y: np.ndarray) -> str | None:
    """What a scorer says against these classes, None if it scores them."""
    X = np.zeros((len(y), 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a constant prediction is ill-defined for some scores
        try:
            get_scorer(name)(DummyClassifier().fit(X, y), X, y)
        except ValueError as error:
            return " ".join(str(error).split()).rstrip(".")
    return None
