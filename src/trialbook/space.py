"""The declared search space, and the grid it spans.

One schema serves every search. A hyperparameter is a fixed value, a list of values, or a mapping::

    units:         {low: 32, high: 512, step: 32}       # a range of integers
    learning_rate: {low: 1.0e-4, high: 1.0e-1, log: true, num: 4}
    optimizer:     {values: [adam, sgd]}
    momentum:      {low: 0.0, high: 0.9, num: 3, when: {optimizer: sgd}}
    epochs:        10                                   # fixed: tried, and recorded, in every trial
    C:             {_target_: scipy.stats.loguniform, a: 1.0e-3, b: 1.0e+2}   # for scikit-learn's random searches

`num` is how many evenly spaced points (evenly in the logarithm with `log`) a grid takes from a range; the other
searches draw from the whole range. `when` makes a hyperparameter exist only for the named values of others.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from trialbook.errors import SpaceError
from trialbook.trial import ParamValue

_KEYS = ("values", "low", "high", "step", "log", "num", "type", "when")


@dataclass(frozen=True)
class Dimension:
    """One hyperparameter: `values`, or a range from `low` to `high`, both included, or a scipy distribution.

    Attributes:
        name: The hyperparameter's name.
        values: The values to choose from; empty for a range.
        low: Lower end of a range.
        high: Upper end of a range.
        step: Distance between neighbouring values of a range; None for every value.
        log: Whether a range is searched in the logarithm.
        num: How many points a grid takes from a range.
        integer: Whether a range is one of integers.
        when: For each controlling hyperparameter, the values for which this one exists.
        distribution: A distribution to draw from, as an object with `rvs` or as the `_target_` that makes one.
    """

    name: str
    values: tuple[ParamValue, ...] = ()
    low: float = 0
    high: float = 0
    step: float | None = None
    log: bool = False
    num: int | None = None
    integer: bool = False
    when: Mapping[str, tuple[ParamValue, ...]] = field(default_factory=dict)
    distribution: Any = None

    @property
    def is_range(self) -> bool:
        """Whether this is a range rather than a list of values or a distribution."""
        return not self.values and self.distribution is None

    def points(self) -> list[ParamValue]:
        """The values a grid takes, in ascending or in declared order.

        Raises:
            SpaceError: For a continuous range without `num`, and for a distribution.
        """
        if self.distribution is not None:
            raise SpaceError(
                f"space.{self.name} is a distribution, which only search=sklearn/random and "
                "search=sklearn/halving_random can use; for a grid give values, or a range (low, high) with num."
            )
        if not self.is_range:
            return list(self.values)
        if self.num is None:
            if self.step is not None:
                return self.steps()
            if self.integer and not self.log:
                return list(range(int(self.low), int(self.high) + 1))
            raise SpaceError(
                f"space.{self.name} is a continuous range, which a grid cannot enumerate: "
                "give it num (how many points to take), step, or values."
            )
        return self._spaced(self.num)

    def active(self, chosen: Mapping[str, ParamValue]) -> bool:
        """Whether the hyperparameter exists beside the values chosen for others."""
        return all(name in chosen and chosen[name] in allowed for name, allowed in self.when.items())

    def steps(self) -> list[ParamValue]:
        """All values of a range with a step."""
        assert self.step is not None
        count = math.floor((self.high - self.low) / self.step + 1e-9) + 1
        return [self.cast(self.low + i * self.step) for i in range(count)]

    def _spaced(self, num: int) -> list[ParamValue]:
        if num == 1:
            return [self.cast(self.low)]
        if self.step is not None:
            allowed = self.steps()
            picks = [round(i * (len(allowed) - 1) / (num - 1)) for i in range(num)]
            return [allowed[i] for i in sorted(set(picks))]
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        raw = [low + i * (high - low) / (num - 1) for i in range(num)]
        cast = [self.cast(math.exp(x) if self.log else x) for x in raw]
        # The ends are what the user wrote, not what rounding made of them.
        cast[0], cast[-1] = self.cast(self.low), self.cast(self.high)
        return list(dict.fromkeys(cast))

    def cast(self, value: float) -> ParamValue:
        """A number of the range, as the type and with the digits the user would write."""
        # Ten significant digits hide the rounding of sums like 0.1 + 0.2 without hiding a difference.
        return round(value) if self.integer else float(f"{value:.10g}")


@dataclass(frozen=True)
class Space:
    """A whole search space: its dimensions in the declared order."""

    dimensions: tuple[Dimension, ...]

    @classmethod
    def parse(cls, declared: Mapping[str, Any]) -> Space:
        """Read the schema above.

        Raises:
            SpaceError: Naming the key and what is allowed.
        """
        if not isinstance(declared, Mapping) or not declared:
            raise SpaceError(
                "space is empty: declare at least one hyperparameter, for example units: {values: [32, 64]}."
            )
        space = cls(tuple(_parse_dimension(str(name), value) for name, value in declared.items()))
        space._check_conditions()
        return space

    @property
    def names(self) -> tuple[str, ...]:
        """The hyperparameters' names."""
        return tuple(d.name for d in self.dimensions)

    def in_order(self, params: Mapping[str, ParamValue]) -> dict[str, ParamValue]:
        """Hyperparameters in the order the space declares them, in which people read them."""
        return {name: params[name] for name in self.names if name in params}

    def grid(self) -> list[dict[str, list[ParamValue]]]:
        """What `sklearn.model_selection.ParameterGrid` takes: one grid for each combination of controlling values."""
        grids = [{d.name: d.points() for d in case} for case in self.cases()]
        # By their text, in which 1 and true differ.
        return list({repr(grid): grid for grid in grids}.values())

    def cases(self) -> list[list[Dimension]]:
        """For each combination of controlling values, the hyperparameters that exist, controlling ones fixed.

        Combinations that differ only in a hyperparameter that does not exist are all listed, alike. So when a case is
        drawn at random, each value of a controlling hyperparameter that exists is as likely as its others.
        """
        controls = [d for d in self.dimensions if any(d.name in other.when for other in self.dimensions)]
        if not controls:
            return [list(self.dimensions)]
        cases = []
        for combination in itertools.product(*(d.values for d in controls)):
            chosen = _settle(controls, dict(zip((d.name for d in controls), combination, strict=True)))
            cases.append(
                [
                    replace(d, values=(chosen[d.name],)) if d.name in chosen else d
                    for d in self.dimensions
                    if d.name in chosen or (d not in controls and d.active(chosen))
                ]
            )
        return cases

    def _check_conditions(self) -> None:
        seen: dict[str, Dimension] = {}
        for d in self.dimensions:
            for parent, allowed in d.when.items():
                if parent not in seen:
                    raise SpaceError(
                        f"space.{d.name}.when names {parent!r}, which must be a hyperparameter declared above it; "
                        f"declared above: {', '.join(seen) or 'none'}."
                    )
                if not seen[parent].values:
                    kind = "range" if seen[parent].is_range else "distribution"
                    raise SpaceError(
                        f"space.{d.name}.when names {parent!r}, which is a {kind}; only one with values can control."
                    )
                if unknown := [v for v in allowed if v not in seen[parent].values]:
                    raise SpaceError(
                        f"space.{d.name}.when asks for {parent}={unknown[0]!r}; allowed: {list(seen[parent].values)}."
                    )
            seen[d.name] = d


def _settle(controls: Sequence[Dimension], values: dict[str, ParamValue]) -> dict[str, ParamValue]:
    """Of the values of controlling hyperparameters, those that exist: a controlling one may itself be conditional."""
    chosen: dict[str, ParamValue] = {}
    for d in controls:
        if d.active(chosen):
            chosen[d.name] = values[d.name]
    return chosen


def _parse_dimension(name: str, declared: Any) -> Dimension:
    if isinstance(declared, Mapping):
        spec = dict(declared)
    elif hasattr(declared, "rvs"):
        return Dimension(name, distribution=declared)
    elif isinstance(declared, Sequence) and not isinstance(declared, str):
        spec = {"values": list(declared)}
    else:
        spec = {"values": [declared]}
    if "_target_" in spec:
        when = _parse_when(name, spec.pop("when", None))
        return Dimension(name, distribution=spec, when=when)
    if unknown := [str(key) for key in spec if key not in _KEYS]:
        raise SpaceError(f"space.{name} has the unknown key {unknown[0]!r}; allowed: {', '.join(_KEYS)}.")
    when = _parse_when(name, spec.pop("when", None))
    if "values" in spec:
        if extra := [key for key in spec if key not in ("values", "type")]:
            raise SpaceError(
                f"space.{name} has both values and {extra[0]}; give either values or a range (low, high). "
                f"On the command line, remove it before giving it anew: ~model.space.{name} +model.space.{name}=[…]."
            )
        return Dimension(name, values=_parse_values(name, spec["values"]), when=when)
    return _parse_range(name, spec, when)


def _parse_values(name: str, values: Any) -> tuple[ParamValue, ...]:
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise SpaceError(f"space.{name}.values must be a list with at least one value, got {values!r}.")
    for i, value in enumerate(values):
        if not isinstance(value, bool | int | float | str | type(None)):
            raise SpaceError(f"space.{name}.values holds {value!r}; allowed: numbers, strings, true, false, null.")
        if any(value == other and type(value) is type(other) for other in values[:i]):
            raise SpaceError(f"space.{name}.values holds {value!r} twice.")
    return tuple(values)


def _parse_when(name: str, when: Any) -> dict[str, tuple[ParamValue, ...]]:
    if when is None:
        return {}
    if not isinstance(when, Mapping):
        raise SpaceError(f"space.{name}.when must be a mapping like {{optimizer: sgd}}, got {when!r}.")
    return {
        str(parent): tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
        for parent, value in when.items()
    }


def _parse_range(name: str, spec: Mapping[str, Any], when: Mapping[str, tuple[ParamValue, ...]]) -> Dimension:
    for key in ("low", "high"):
        if key not in spec:
            raise SpaceError(f"space.{name} needs {key}: give a range (low, high) or values.")
    numbers = {key: spec[key] for key in ("low", "high", "step") if spec.get(key) is not None}
    for key, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise SpaceError(f"space.{name}.{key} must be a finite number, got {value!r}.")
    low, high, step = spec["low"], spec["high"], spec.get("step")
    kind = spec.get("type", "int" if all(isinstance(v, int) for v in numbers.values()) else "float")
    if kind not in ("int", "float"):
        raise SpaceError(f"space.{name}.type must be int or float, got {kind!r}.")
    log = spec.get("log", False)
    if not isinstance(log, bool):
        raise SpaceError(f"space.{name}.log must be true or false, got {log!r}.")
    if low > high:
        raise SpaceError(f"space.{name} has low={low} above high={high}.")
    if step is not None and step <= 0:
        raise SpaceError(f"space.{name}.step must be above 0, got {step}.")
    if log and low <= 0:
        raise SpaceError(f"space.{name} is logarithmic, so low must be above 0, got {low}.")
    if log and step is not None:
        raise SpaceError(f"space.{name} has both log and step; a logarithmic range takes num instead of step.")
    num = spec.get("num")
    if num is not None and (isinstance(num, bool) or not isinstance(num, int) or num < 1):
        raise SpaceError(f"space.{name}.num must be a whole number of at least 1, got {num!r}.")
    return Dimension(name, low=low, high=high, step=step, log=log, num=num, integer=kind == "int", when=when)
