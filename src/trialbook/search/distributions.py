"""The declared search space as what `sklearn.model_selection.ParameterSampler` draws from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats

from trialbook.errors import SpaceError
from trialbook.space import Dimension, Space
from trialbook.trial import ParamValue


def distributions(space: Space) -> list[dict[str, Any]]:
    """What `ParameterSampler` and `RandomizedSearchCV` take: lists, and scipy distributions for ranges.

    A space of lists alone (values and stepped ranges) is sampled without replacement, each point as likely as any
    other. Else one of the dictionaries is drawn first, so for conditional hyperparameters there is one for each
    combination of controlling values: a controlling hyperparameter takes each of its values with the same probability
    wherever it exists.

    Raises:
        SpaceError: For a distribution that scipy does not have or cannot make.
    """
    cases = [{d.name: _source(d) for d in case} for case in space.cases()]
    if any(hasattr(source, "rvs") for case in cases for source in case.values()):
        return cases
    # A point listed twice would be tried twice.
    return list({repr(case): case for case in cases}.values())


@dataclass(frozen=True)
class LogIntegers:
    """Whole numbers from `low` to `high`, both included, evenly in the logarithm; scipy has no such distribution."""

    low: int
    high: int

    def rvs(self, random_state: np.random.RandomState | None = None) -> int:
        """Draw one: the nearest whole number to a log-uniform one, each end with its full half step."""
        raw = scipy.stats.loguniform(self.low - 0.5, self.high + 0.5).rvs(random_state=random_state)
        return min(max(round(float(raw)), self.low), self.high)


def _source(d: Dimension) -> Any:
    """The list or the distribution that one hyperparameter is drawn from."""
    if d.distribution is not None:
        return _from_scipy(d.name, d.distribution)
    if not d.is_range:
        return list(d.values)
    if d.low == d.high:
        return [d.cast(d.low)]
    if d.step is not None:
        return d.steps()
    if d.integer and d.log:
        return LogIntegers(int(d.low), int(d.high))
    if d.integer:
        return scipy.stats.randint(int(d.low), int(d.high) + 1)
    if d.log:
        return scipy.stats.loguniform(d.low, d.high)
    return scipy.stats.uniform(d.low, d.high - d.low)


def _from_scipy(name: str, declared: Any) -> Any:
    if not isinstance(declared, Mapping):
        return declared
    path = str(declared["_target_"])
    module, _, kind = path.rpartition(".")
    family = getattr(scipy.stats, kind, None) if module == "scipy.stats" else None
    if not isinstance(family, scipy.stats.rv_continuous | scipy.stats.rv_discrete):
        raise SpaceError(
            f"space.{name}._target_={path!r} is not a distribution of scipy.stats; "
            "allowed: for example scipy.stats.loguniform."
        )
    arguments: dict[str, ParamValue] = {key: value for key, value in declared.items() if key != "_target_"}
    try:
        made = family(**arguments)
        # scipy accepts any numbers here, and says that they make no distribution only when it should draw.
        valid = not math.isnan(made.support()[0])
    except TypeError as error:
        raise SpaceError(f"space.{name}: {path} cannot be made: {error}.") from error
    if not valid:
        raise SpaceError(f"space.{name}: {path} makes no distribution of {arguments}.")
    return made
