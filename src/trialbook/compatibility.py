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
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags

from trialbook.data import CLASSIFICATION, REGRESSION, Dataset
from trialbook.data.dataset import shape_of
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


def check_rows(estimator: Any, model_name: str, data: Dataset) -> None:
    """An estimator of scikit-learn's own takes rows of numbers; only a net takes an image as it is.

    Raises:
        ModelError: For rows of more than one dimension that such an estimator would see.
    """
    if data.X.ndim < 3:
        return
    first = estimator[0] if isinstance(estimator, Pipeline) else estimator
    tags = get_tags(first)
    own = type(first).__module__.startswith("sklearn.") and not tags.no_validation
    if own and tags.input_tags.two_d_array and not tags.input_tags.three_d_array:
        raise ModelError(
            f"model={model_name} takes rows of numbers, but a row of data={data.name} has {shape_of(data.X)}; make "
            "vectors of them, with data.flatten=true, or choose a net such as model=cnn."
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
            "data.shuffle=false if they come in that order, data.time to sort them, or choose validation=kfold."
        )
    if data.ordered and getattr(splitter, "shuffle", False):
        raise DataError(
            f"validation={name} shuffles rows, but those of data={data.name} are in order of time; choose "
            "validation=time_series, validation=holdout or validation.shuffle=false."
        )
    if data.groups is not None and type(splitter).__module__.startswith("sklearn.") and not _needs_groups(splitter):
        raise DataError(
            f"validation={name} would tear the groups of data={data.name} apart; choose validation=group or "
            "validation=holdout."
        )
    if isinstance(splitter, _STRATIFIED) and not isinstance(splitter, StratifiedShuffleSplit):
        _check_classes(splitter, data)


def _check_classes(splitter: Any, data: Dataset) -> None:
    """Each class must be in every fold."""
    labels, counts = np.unique(data.y, return_counts=True)
    folds = splitter.get_n_splits(data.X, data.y, data.groups) // getattr(splitter, "n_repeats", 1)
    rarest = counts.argmin()
    if counts[rarest] >= folds:
        return
    raise DataError(
        f"validation={type(splitter).__name__} cannot split the {len(data.y)} rows of {data.name} into {folds} folds: "
        f"only {counts[rarest]} of them are of the class {labels[rarest]}; leave that class out, or choose fewer folds "
        "or validation=kfold."
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
