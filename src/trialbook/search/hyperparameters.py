"""A search space as Keras Tuner's `HyperParameters`, and back; and the space that a builder declares as it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trialbook.errors import SpaceError
from trialbook.noise import without_native_notes
from trialbook.space import Dimension, Space
from trialbook.trial import ParamValue

with without_native_notes():
    import keras_tuner
    from keras_tuner.engine.hyperparameters import Boolean, Choice, Fixed, HyperParameter, Int

# A builder that goes on asking for something new is not one whose space can be known.
_MOST_BUILDS = 500


@dataclass(frozen=True)
class BuilderSpace(Space):
    """The space a builder declares as it runs.

    Attributes:
        hyperparameters: The same space as Keras Tuner's own object, which its oracles take as it is.
    """

    hyperparameters: Any = None


def declare(space: Space) -> keras_tuner.HyperParameters:
    """The space as Keras Tuner's `HyperParameters`, conditions as conditional scopes."""
    if isinstance(space, BuilderSpace):
        return space.hyperparameters.copy()
    return _declare(space, _register)


def declare_grid(space: Space) -> keras_tuner.HyperParameters:
    """The space with each range as the points that a grid takes from it.

    Raises:
        SpaceError: For a continuous range without `num`.
    """
    if isinstance(space, BuilderSpace):
        return space.hyperparameters.copy()
    return _declare(space, lambda hp, d: _register_values(hp, d.name, d.points()))


def decode(space: Space, values: Mapping[str, Any]) -> dict[str, ParamValue]:
    """The hyperparameters that exist among the values of a Keras Tuner trial, as the space writes them."""
    params: dict[str, ParamValue] = {}
    for d in space.dimensions:
        if d.name not in values or not d.active(params):
            continue
        value = values[d.name]
        if not d.is_range:
            codes = _codes(d.values)
            value = next(v for v in d.values if codes[repr(v)] == value)
        elif d.step is not None:
            value = d.cast(value)
        params[d.name] = value
    return params


def discover(ask: Callable[[keras_tuner.HyperParameters], object]) -> BuilderSpace:
    """The space of a builder that declares it as it runs.

    Like Keras Tuner's, the builder is run with the defaults and then so that every conditional scope is entered. It
    is also run with every single choice and with the high end of every range, so that what it asks for in a plain
    `if` or in a loop is found as well. Unlike in Keras Tuner's, nothing is drawn at random.

    Args:
        ask: Runs the builder with a `HyperParameters`, in which whatever is asked for gets registered.

    Raises:
        SpaceError: If it asks for nothing, or for something that the space cannot say.
    """
    known = keras_tuner.HyperParameters()
    waiting: list[dict[str, Any]] = [{}]
    seen: list[dict[str, Any]] = []
    while waiting:
        hp = _with_values(known, waiting.pop(0))
        if hp.values in seen:
            continue
        seen.append(dict(hp.values))
        if len(seen) > _MOST_BUILDS:
            raise SpaceError(f"the builder still asks for something new after {_MOST_BUILDS} runs; declare its space.")
        ask(hp)
        found = hp.space[len(known.space) :]
        known.merge(found)
        waiting += [hp.values | {h.name: value} for h in found for value in _others(h)]
        waiting += [hp.values | {c.name: c.values[0] for c in scope} for scope in hp.inactive_scopes]
    if not known.space:
        raise SpaceError("space is empty: neither the configuration nor the builder declares a hyperparameter.")
    # Once more from the start: with the defaults as values, which is where a grid begins.
    clean = keras_tuner.HyperParameters()
    clean.merge(known.space)
    return BuilderSpace(tuple(_translate(clean)), clean)


def _with_values(known: keras_tuner.HyperParameters, values: Mapping[str, Any]) -> keras_tuner.HyperParameters:
    """The known space at these values, at the default where there is none; only what exists has a value."""
    hp = keras_tuner.HyperParameters()
    for h in known.space:
        hp.merge([h])
        if h.name in values and hp.is_active(hp.space[-1]):
            hp.values[h.name] = values[h.name]
    return hp


def _others(h: HyperParameter) -> list[Any]:
    if isinstance(h, Choice | Boolean | Fixed):
        return [value for value in h.values if value != h.default]
    return [] if h.max_value == h.default else [h.max_value]


def _translate(hp: keras_tuner.HyperParameters) -> Iterator[Dimension]:
    controls = {condition.name for h in hp.space for condition in h.conditions}
    names = [h.name for h in hp.space]
    for h in hp.space:
        if h.name in controls and names.count(h.name) > 1:
            raise SpaceError(f"the builder asks for {h.name!r} in several scopes, so it cannot control a scope itself.")
        yield _dimension(h, control=h.name in controls)


def _dimension(h: HyperParameter, *, control: bool) -> Dimension:
    when = _when(h)
    if isinstance(h, Choice | Boolean | Fixed):
        return Dimension(h.name, values=tuple(dict.fromkeys(h.values)), when=when)
    integer = isinstance(h, Int)
    if h.step is None and (control or h.sampling == "reverse_log"):
        raise SpaceError(
            f"the builder asks for {h.name!r} without step, "
            + ("so it cannot control a scope." if control else "with sampling='reverse_log'; use 'log' or 'linear'.")
        )
    if h.step is not None and (control or h.sampling != "linear"):
        # Keras Tuner gives the steps of an integer's logarithm as floats.
        values = dict.fromkeys(int(value) if integer else value for value in h.values)
        return Dimension(h.name, values=tuple(values), when=when)
    step = None if integer and h.step == 1 else h.step
    log = h.sampling == "log"
    return Dimension(h.name, low=h.min_value, high=h.max_value, step=step, log=log, integer=integer, when=when)


def _when(h: HyperParameter) -> dict[str, tuple[ParamValue, ...]]:
    when: dict[str, tuple[ParamValue, ...]] = {}
    for condition in h.conditions:
        allowed = when.get(condition.name, tuple(condition.values))
        when[condition.name] = tuple(value for value in condition.values if value in allowed)
    return when


def _declare(
    space: Space, register: Callable[[keras_tuner.HyperParameters, Dimension], None]
) -> keras_tuner.HyperParameters:
    hp = keras_tuner.HyperParameters()
    dimensions = {d.name: d for d in space.dimensions}
    for d in space.dimensions:
        if d.distribution is not None:
            raise SpaceError(
                f"space.{d.name} is a distribution, which only search=sklearn/random and search=sklearn/halving_random "
                "can use; for Keras Tuner give values or a range (low, high)."
            )
        with contextlib.ExitStack() as scopes:
            for parent, allowed in d.when.items():
                codes = _codes(dimensions[parent].values)
                scopes.enter_context(hp.conditional_scope(parent, [codes[repr(value)] for value in allowed]))
            register(hp, d)
    return hp


def _register(hp: keras_tuner.HyperParameters, d: Dimension) -> None:
    sampling = "log" if d.log else "linear"
    if not d.is_range:
        _register_values(hp, d.name, d.values)
    elif d.integer:
        step = None if d.step is None else int(d.step)
        hp.Int(d.name, int(d.low), int(d.high), step=step, sampling=sampling)
    elif d.step is not None:
        # Keras Tuner would count the steps of 0.1 from 0 to 0.5 as four, for the rounding, and never try 0.5.
        _register_values(hp, d.name, replace(d, num=None).points())
    else:
        hp.Float(d.name, float(d.low), float(d.high), sampling=sampling)


def _register_values(hp: keras_tuner.HyperParameters, name: str, values: Sequence[ParamValue]) -> None:
    codes = list(_codes(values).values())
    if len(codes) == 1:
        hp.Fixed(name, codes[0])
    else:
        hp.Choice(name, codes)


def _codes(values: Sequence[ParamValue]) -> dict[str, ParamValue]:
    """What stands for each value, by its repr, in Keras Tuner: its choices share one type and hold no null."""
    types = {type(value) for value in values}
    plain = len(types) == 1 and types <= {int, float, str, bool}
    return {repr(value): value if plain else repr(value) for value in values}
