"""What a search consists of, checked as a whole before anything runs."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone

from trialbook.data import Dataset
from trialbook.errors import DataError, RequestError, SpaceError
from trialbook.evaluate import Evaluator, Objective, configure, split
from trialbook.search.loop import Budget
from trialbook.space import Space
from trialbook.trial import Search


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

    @property
    def title(self) -> str:
        """The search in a few words."""
        return f"{self.search_name} {self.model_name} on {self.data.name}"

    @property
    def trains_in_epochs(self) -> bool:
        """Whether the model is a net."""
        return split(self.estimator)[1] is not None

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
        # Every name of the space must lead somewhere; the values are the trials' affair.
        configure(self.estimator, {d.name: (d.values or (d.low,))[0] for d in self.space.dimensions})
        return Evaluator(
            self.estimator, self.data.X, self.data.y, self.folds, self.objective, self.scoring, keep_models
        )

    @functools.cached_property
    def folds(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each fold, the positions of its training and of its validation rows.

        Raises:
            DataError: If the development rows cannot be split so.
        """
        try:
            return list(self.splitter.split(self.data.X, self.data.y))
        except ValueError as error:
            raise DataError(
                f"validation={type(self.splitter).__name__} cannot split the {len(self.data.y)} rows of "
                f"{self.data.name}: {error}"
            ) from error
