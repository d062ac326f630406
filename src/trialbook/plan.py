"""What a search consists of, checked as a whole before anything runs."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.base import clone

from trialbook.compatibility import check_estimator, check_rows, check_scorer, check_splitter
from trialbook.data import REGRESSION, Dataset, Holdout
from trialbook.errors import DataError, RequestError, SpaceError
from trialbook.estimator import KeptNets
from trialbook.evaluate import Evaluator, Objective, configure, split, weighted
from trialbook.search.loop import Budget
from trialbook.space import Space
from trialbook.trial import Search, Setting


def space_of(declared: Space | None, estimator: Any, data: Dataset) -> Space:
    """The space to search: as declared, or as a builder written for Keras Tuner declares it.

    Args:
        declared: The space of the configuration, None if it declares none.
        estimator: The unfitted estimator.
        data: The data it will be fitted on.

    Raises:
        RequestError: If there is no space, or one with a name that the builder does not ask for.
    """
    preprocessing, net = split(estimator)
    asked = None
    if net is not None and net.declares_space:
        X = data.X if preprocessing is None else clone(preprocessing).fit_transform(data.X, data.y)
        asked = net.search_space(X, data.y)
    if declared is None:
        return Space.parse({}) if asked is None else asked
    known = {name.rpartition("__")[2] for name in estimator.get_params()}
    for name in declared.names:
        if asked is not None and name.rpartition("__")[2] not in known.union(asked.names):
            raise SpaceError(f"space.{name} is nothing the builder asks for; it asks for: {', '.join(asked.names)}.")
    return declared


@dataclass(frozen=True)
class Plan:
    """One search, complete and ready to run.

    Attributes:
        search_name: What the search is called, for example `sklearn/grid`.
        model_name: What the model is called, for example `mlp`.
        space: The declared search space.
        search: Proposes the trials.
        estimator: The unfitted estimator, hyperparameters at their defaults.
        data: The data set.
        splitter: Splits the development rows into folds; any splitter of scikit-learn.
        objective: What to optimise.
        scoring: Names of further scikit-learn scorers to record.
        budget: When to stop.
        seed: Seed of the search.
        nets: Nets that have been built for trials, for the retraining of one of them.
    """

    search_name: str
    model_name: str
    space: Space
    search: Search
    estimator: Any
    data: Dataset
    splitter: Any
    objective: Objective
    scoring: Sequence[str]
    budget: Budget
    seed: int | None = None
    nets: KeptNets = field(default_factory=KeptNets, compare=False, repr=False)

    @property
    def title(self) -> str:
        """The search in a few words."""
        return f"{self.search_name} {self.model_name} on {self.data.name}"

    @property
    def total(self) -> int | None:
        """How many trials will be run, unless the budget ends the search before; None if that cannot be known."""
        known = [n for n in (self.search.total, self.budget.max_trials) if n is not None]
        return min(known, default=None)

    @property
    def trains_in_epochs(self) -> bool:
        """Whether the model is a net."""
        return split(self.estimator)[1] is not None

    @property
    def first_values(self) -> dict[str, Any]:
        """A value for each hyperparameter of the space."""
        return {d.name: (d.values or (d.low,))[0] for d in self.space.dimensions}

    def evaluator(self, *, keep_models: bool) -> Evaluator:
        """What runs each trial.

        Raises:
            RequestError: If the parts do not fit together.
        """
        if getattr(self.search, "trains_in_epochs", False) and not self.trains_in_epochs:
            raise RequestError(
                f"search={self.search_name} hands out training epochs, which model={self.model_name} does not have; "
                "choose a Keras model such as model=mlp, or another search such as search=sklearn/grid."
            )
        if not self.trains_in_epochs and self.objective.keras_metric is not None:
            raise RequestError(
                f"objective.metric={self.objective.metric} is a Keras metric, which model={self.model_name} does not "
                f"report; choose a scikit-learn scorer such as {self.objective.name} or accuracy."
            )
        check_estimator(self.estimator, self.model_name, self.data)
        check_rows(self.estimator, self.model_name, self.data)
        if self.objective.keras_metric is None:
            check_scorer("objective.metric", self.objective.metric, self.data)
        for name in self.scoring:
            check_scorer("scoring", name, self.data)
        # Every name of the space must lead somewhere; the values are the trials' affair.
        tried = self.first_values
        if (resource := getattr(self.search, "resource", None)) is not None:
            tried[resource] = 1
        configure(self.estimator, tried)
        weighted(self.estimator, self.data.sample_weight)
        return Evaluator(
            self.estimator,
            self.data.X,
            self.data.y,
            self.folds,
            self.objective,
            self.scoring,
            keep_models,
            seed=self.seed,
            sample_weight=self.data.sample_weight,
            nets=self.nets,
        )

    @functools.cached_property
    def folds(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The folds, see `folds_of`."""
        return folds_of(self.data, self.splitter)


def folds_of(data: Dataset, splitter: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each fold, the positions of its training and of its validation rows.

    Raises:
        DataError: If the development rows cannot be split so.
    """
    check_splitter(splitter, data)
    if data.ordered and isinstance(splitter, Holdout):
        return [splitter.in_order(data.X)]
    # Holdout tells classes by their values, and the values of a numeric target may look like classes.
    y = None if data.task == REGRESSION and isinstance(splitter, Holdout) else data.y
    try:
        return list(splitter.split(data.X, y, data.groups))
    except ValueError as error:
        raise DataError(
            f"validation={type(splitter).__name__} cannot split the {len(data.y)} rows of {data.name}: {error}"
        ) from error


def setting_of(data: Dataset, splitter: Any) -> Setting:
    """What a search may need to know of the data and their folds.

    Raises:
        DataError: If the development rows cannot be split so.
    """
    n_classes = None if data.task == REGRESSION else len(np.unique(data.y))
    folds = folds_of(data, splitter)
    return Setting(len(data.y), len(folds), min(len(part) for fold in folds for part in fold), n_classes)
