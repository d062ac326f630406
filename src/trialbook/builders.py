"""The ways to describe a Keras net to the estimator.

- a function of keywords: `def net(input_shape, n_classes, units=64)`; its space is declared in YAML;
- a function `def net(hp)` that asks Keras Tuner's `HyperParameters` for what it wants, so that it declares its space;
- a `keras_tuner.HyperModel`, or its class, whose own `fit` trains the net where it has one.

Keras Tuner is imported when a builder of the last two kinds is used, not when this module is.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from trialbook import allowed
from trialbook.epochs import Epochs, set_seed
from trialbook.errors import ModelError

if TYPE_CHECKING:
    import keras
    import keras_tuner

FROM_DATA = ("input_shape", "n_classes")

# A function that takes one of these first is written for Keras Tuner.
_HYPERPARAMETERS = ("hp", "hyperparameters")


class Builder(Protocol):
    """What the estimator needs of a builder, however it is written.

    Attributes:
        keeps: Whether a net once built may be fitted again with its initial weights restored.
    """

    @property
    def keeps(self) -> bool:
        """See above."""

    def defaults(self) -> dict[str, Any]:
        """The hyperparameters that have a default which can be read off, with that default."""

    def refuses(self, name: str) -> str | None:
        """What hyperparameters there are, if `name` is not one of them."""

    def build(self, params: Mapping[str, Any], fit_params: Mapping[str, Any], from_data: Mapping[str, Any]) -> Net:
        """A new net.

        Args:
            params: Values of hyperparameters.
            fit_params: The estimator's own parameters that a builder may ask for, such as `batch_size`.
            from_data: `input_shape`, the shape of one row, and `n_classes`, None for a regression.
        """


class Net:
    """A built net, and how to train it.

    Attributes:
        model: The `keras.Model`.
        callbacks: After a fit, all callbacks that took part in it.
    """

    def __init__(self, model: keras.Model, own_fit: Callable[..., Any] | None = None) -> None:
        self.model = model
        self.callbacks: list[keras.callbacks.Callback] = []
        self._own_fit = own_fit
        self._epochs = Epochs(model)

    @property
    def restorable(self) -> bool:
        """Whether all that training has changed, so far as is known, are the variables of model and optimizer."""
        return self._epochs.keeps_to_its_own

    def fit(
        self,
        rows: Any,
        targets: Any,
        *,
        usual: Mapping[str, Any],
        fixed: Mapping[str, Any],
        whole_epochs: bool = True,
        seed: int | None = None,
        **given: Any,
    ) -> Any:
        """Train; returns what the builder's own `fit` does, else a `keras.callbacks.History`.

        Args:
            rows: Training rows.
            targets: Their targets.
            usual: Keywords of `keras.Model.fit` that the builder's own `fit` may set to something else.
            fixed: Such keywords that hold whatever it says.
            whole_epochs: Whether to train by whole epochs where that is possible.
            seed: Seed of all that is drawn meanwhile; None to go on drawing.
            **given: Such keywords that it is called with.
        """
        self.callbacks = list(given.get("callbacks") or ())

        def train(keras_fit: Callable[..., Any], options: Mapping[str, Any], seed: int | None = None) -> Any:
            if whole_epochs:
                return self._epochs.fit(keras_fit, options, seed)
            set_seed(seed)
            return keras_fit(**options)

        if self._own_fit is None:
            return train(self.model.fit, {"x": rows, "y": targets, **given, **usual, **fixed}, seed)
        set_seed(seed)
        keras_fit = self.model.fit

        def fit(*args: Any, **kwargs: Any) -> Any:
            said = inspect.signature(keras_fit).bind_partial(*args, **kwargs).arguments
            self.callbacks = list(said.get("callbacks") or ())
            return train(keras_fit, {**usual, **said, **fixed})

        named = inspect.signature(self._own_fit).parameters
        if "validation_data" in named and given.get("validation_data") is None:
            # The final retraining has no validation rows, and a fit that wants some cannot do without.
            given["validation_data"] = (rows, targets)
        with replaced_fit(self.model, fit):
            asked = {name: value for name, value in {**usual, **fixed}.items() if name in named}
            return self._own_fit(self.model, rows, targets, **given, **asked)


@contextlib.contextmanager
def replaced_fit(model: keras.Model, fit: Callable[..., Any]) -> Iterator[None]:
    """Let a model's `fit` be another function for a while."""
    # Past Keras, which looks into whatever is set on a model.
    attributes = vars(model)
    before = {name: value for name, value in attributes.items() if name == "fit"}
    attributes["fit"] = fit
    try:
        yield
    finally:
        del attributes["fit"]
        attributes.update(before)


@dataclass(frozen=True)
class KeywordBuilder:
    """A function that takes its hyperparameters as keywords."""

    function: Callable[..., keras.Model]

    @property
    def keeps(self) -> bool:
        """A net depends on nothing but the keywords."""
        return True

    def defaults(self) -> dict[str, Any]:
        """The defaults of the keywords."""
        return {name: p.default for name, p in self._tunable().items() if p.default is not p.empty}

    def refuses(self, name: str) -> str | None:
        """The keywords, if `name` is not one."""
        tunable = self._tunable()
        kinds = [p.kind for p in inspect.signature(self.function).parameters.values()]
        if name in tunable or inspect.Parameter.VAR_KEYWORD in kinds:
            return None
        return ", ".join([*tunable, "epochs", "batch_size"])

    def build(self, params: Mapping[str, Any], fit_params: Mapping[str, Any], from_data: Mapping[str, Any]) -> Net:
        """Call the function; the estimator's own parameters are not its affair."""
        del fit_params
        return Net(self.function(**_taken(self.function, from_data), **params))

    def _tunable(self) -> dict[str, inspect.Parameter]:
        parameters = inspect.signature(self.function).parameters
        return {
            name: p
            for name, p in parameters.items()
            if name not in FROM_DATA and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        }


@dataclass(frozen=True)
class HyperBuilder:
    """A builder written for Keras Tuner, which asks a `HyperParameters` for values.

    Attributes:
        build_model: Gives a model, called with a `HyperParameters`.
        own_fit: Trains it, called with the `HyperParameters`, the model, rows and targets; None for Keras's way.
        declare: Registers hyperparameters ahead of building.
    """

    build_model: Callable[..., keras.Model]
    own_fit: Callable[..., Any] | None = None
    declare: Callable[[keras_tuner.HyperParameters], None] | None = None

    @property
    def keeps(self) -> bool:
        """What a `fit` of its own does to a net, nobody knows."""
        return self.own_fit is None

    def defaults(self) -> dict[str, Any]:
        """Not known before a net is built."""
        return {}

    def refuses(self, name: str) -> str | None:
        """Nothing: what it asks for is not known before a net is built."""
        del name
        return None

    def build(self, params: Mapping[str, Any], fit_params: Mapping[str, Any], from_data: Mapping[str, Any]) -> Net:
        """Build with a `HyperParameters` that holds these values; what else is asked for has its default."""
        import keras_tuner

        hp = keras_tuner.HyperParameters()
        hp.values.update({**fit_params, **params})
        return self._ask(hp, from_data)

    def asker(
        self, rows: Any, targets: Any, from_data: Mapping[str, Any]
    ) -> Callable[[keras_tuner.HyperParameters], None]:
        """What asks a `HyperParameters` for all that a trial would, without training.

        A `fit` of its own runs up to where it calls Keras's. One that never does has to train: on these few rows,
        and only once.
        """
        trains = False

        def ask(hp: keras_tuner.HyperParameters) -> None:
            nonlocal trains
            try:
                if self.declare is not None:
                    self.declare(hp)
                net = self._ask(hp, from_data)
                if self.own_fit is not None and not trains:
                    trains = not _reaches_keras(net, rows, targets)
            except Exception as error:
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                raise ModelError(f"the builder failed when asked for its hyperparameters: {reason}") from error

        return ask

    def _ask(self, hp: keras_tuner.HyperParameters, from_data: Mapping[str, Any]) -> Net:
        model = self.build_model(hp, **_taken(self.build_model, from_data))
        return Net(model, None if self.own_fit is None else functools.partial(self.own_fit, hp))


def read(given: Any) -> Builder:
    """The builder in whichever way it is given: a function, a `HyperModel`, its class, or the dotted path of one.

    Raises:
        ModelError: If it is none of these.
    """
    found = allowed.locate(given, "builder") if isinstance(given, str) else given
    if isinstance(found, type) and hasattr(found, "build"):
        try:
            found = found()
        except TypeError as error:
            raise ModelError(
                f"{describe(given)} cannot be made without arguments ({error}); name it by _target_ with them."
            ) from error
    if hasattr(found, "build"):
        return _read_hypermodel(found)
    if not callable(found):
        raise ModelError(f"{describe(given)} must be a function or a keras_tuner.HyperModel, got {found!r}.")
    parameters = list(inspect.signature(found).parameters)
    if parameters and parameters[0] in _HYPERPARAMETERS:
        return HyperBuilder(found)
    return KeywordBuilder(found)


def describe(given: Any) -> str:
    """The builder, for messages."""
    if isinstance(given, str):
        return f"the builder {given}"
    return f"the builder {getattr(given, '__qualname__', type(given).__qualname__)}"


def _read_hypermodel(hypermodel: Any) -> HyperBuilder:
    import keras_tuner

    if not isinstance(hypermodel, keras_tuner.HyperModel):
        raise ModelError(f"{describe(hypermodel)} has a build method but is not a keras_tuner.HyperModel.")
    own = type(hypermodel).fit is not keras_tuner.HyperModel.fit
    return HyperBuilder(hypermodel.build, hypermodel.fit if own else None, hypermodel.declare_hyperparameters)


class _Reached(BaseException):
    """Keras's fit was called."""


def _reaches_keras(net: Net, rows: Any, targets: Any) -> bool:
    def stop(*args: Any, **kwargs: Any) -> None:
        raise _Reached

    with replaced_fit(net.model, stop):
        try:
            usual = {"batch_size": len(rows), "epochs": 1}
            net.fit(rows, targets, usual=usual, fixed={}, validation_data=(rows, targets), callbacks=[], verbose=0)
        except _Reached:
            return True
    return False


def _taken(function: Callable[..., Any], from_data: Mapping[str, Any]) -> dict[str, Any]:
    names = inspect.signature(function).parameters
    return {name: value for name, value in from_data.items() if name in names}
