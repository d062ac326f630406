"""A Keras net as a scikit-learn estimator.

Keras and TensorFlow are imported when a net is first built, not when this module is.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import inspect
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from trialbook.errors import ModelError
from trialbook.noise import without_native_notes
from trialbook.serving import as_array, forward, probabilities

if TYPE_CHECKING:
    import keras

Builder = Callable[..., "keras.Model"]
EpochHook = Callable[[int, Mapping[str, float]], None]

_FROM_DATA = ("input_shape", "n_classes")
_OWN = ("builder", "epochs", "batch_size", "seed", "callbacks", "fit_options")


def preload_keras() -> None:
    """Import Keras and its backend now, which takes seconds, rather than in the first fit."""
    with without_native_notes():
        import keras

        # The first operation makes TensorFlow look for devices, which it also comments on.
        keras.ops.convert_to_tensor(0.0)


@dataclass(frozen=True)
class Snapshot:
    """What a fit has learned: the fitted attributes and a copy of the net's weights."""

    attributes: Mapping[str, Any]
    weights: Sequence[np.ndarray]


class KerasEstimator(BaseEstimator):
    """What `KerasClassifier` and `KerasRegressor` share.

    Args:
        builder: A function that returns a compiled `keras.Model`, or its dotted path. It is called with the keywords
            `input_shape` (shape of one row) and `n_classes` (None for a regression) if it takes them, and with its
            hyperparameters.
        epochs: Number of passes over the training data.
        batch_size: Number of rows a training step sees.
        seed: Seed of initial weights, shuffling and dropout; None for a different net every time.
        callbacks: `keras.callbacks.Callback`s of every fit; each fit gets its own copies.
        fit_options: Further keywords of `keras.Model.fit`.
        **hyperparameters: Hyperparameters of the builder. They are parameters of the estimator like any other:
            `get_params` lists them, `set_params` sets them, searches find them.

    Attributes:
        model_: The fitted `keras.Model`.
        history_: For each metric, its value in every epoch of the last fit.
        n_features_in_: Number of columns seen, for rows that are vectors.
    """

    trains_in_epochs = True

    def __init__(
        self,
        builder: Builder | str,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        seed: int | None = None,
        callbacks: Sequence[Any] = (),
        fit_options: Mapping[str, Any] | None = None,
        **hyperparameters: Any,
    ) -> None:
        self.builder = builder
        self.epochs = epochs
        self.batch_size = batch_size
        self.seed = seed
        self.callbacks = callbacks
        self.fit_options = fit_options
        self.hyperparameters = hyperparameters

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The estimator's own parameters and the builder's, those left to their default included."""
        del deep
        defaults = {name: p.default for name, p in self._tunable().items() if p.default is not inspect.Parameter.empty}
        return {name: getattr(self, name) for name in _OWN} | defaults | self.hyperparameters

    def set_params(self, **params: Any) -> Self:
        """Set parameters of the estimator or of the builder.

        Raises:
            ModelError: For a name that neither takes.
        """
        tunable = self._tunable()
        open_ended = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(self._builder()).parameters.values())
        for name, value in params.items():
            if name in _OWN:
                setattr(self, name, value)
            elif name in tunable or open_ended:
                self.hyperparameters = self.hyperparameters | {name: value}
            else:
                raise ModelError(
                    f"{_describe(self.builder)} takes no hyperparameter {name!r}; "
                    f"allowed: {', '.join([*tunable, 'epochs', 'batch_size'])}."
                )
        return self

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        sample_weight: Any = None,
        validation_data: tuple[Any, Any] | None = None,
        epochs: int | None = None,
        initial_epoch: int = 0,
        initial_state: Path | None = None,
        on_epoch_end: EpochHook | None = None,
    ) -> Self:
        """Train the net.

        Args:
            X: Rows, shape (n_rows, …).
            y: Targets, shape (n_rows,).
            sample_weight: Weight of each row, shape (n_rows,).
            validation_data: Rows and targets on which each epoch is also judged.
            epochs: The epoch to train up to, instead of the parameter `epochs`.
            initial_epoch: The epoch to start from.
            initial_state: What `save_state` wrote, to go on from instead of from fresh weights.
            on_epoch_end: Called with the epoch, counted from 0, and its metrics.

        Raises:
            ModelError: If the builder fails to give a compiled model.
        """
        rows, targets = as_array(X), self._encode(y, fresh=True)
        self.n_features_in_ = rows.shape[-1]
        with _seeded(self.seed):
            net = self._net(rows.shape[1:])
        if initial_state is not None:
            net.load_weights(initial_state)
        self.model_ = net
        if validation_data is not None:
            validation_data = as_array(validation_data[0]), self._target(net, self._encode(validation_data[1]))
        # Seeded once more: a net that was kept and one just built must shuffle and drop out alike.
        with _seeded(None if self.seed is None else self.seed + initial_epoch):
            history = net.fit(
                rows,
                self._target(net, targets),
                batch_size=self.batch_size,
                sample_weight=None if sample_weight is None else np.asarray(sample_weight),
                validation_data=validation_data,
                epochs=self.epochs if epochs is None else epochs,
                initial_epoch=initial_epoch,
                callbacks=[*copy.deepcopy(list(self.callbacks)), *_hooks(on_epoch_end)],
                verbose=0,
                **(self.fit_options or {}),
            )
        self.history_ = {name: [float(v) for v in values] for name, values in history.history.items()}
        return self

    def save_state(self, path: Path) -> None:
        """Write weights and optimizer state; `path` ends in `.weights.h5`."""
        check_is_fitted(self, "model_")
        self.model_.save_weights(path)

    def snapshot(self) -> Snapshot:
        """What the net has learned, so that `restore` can bring it back after further fits."""
        attributes = {
            name: value for name, value in vars(self).items() if name.endswith("_") and not name.startswith("_")
        }
        return Snapshot(attributes, self.model_.get_weights())

    def restore(self, snapshot: Snapshot) -> None:
        """Become again what the estimator was when the snapshot was taken."""
        for name, value in snapshot.attributes.items():
            setattr(self, name, value)
        self.model_.set_weights(snapshot.weights)

    def evaluate(self, X: Any, y: Any) -> dict[str, float]:
        """The net's loss and its own metrics on rows X of shape (n_rows, …) and targets y of shape (n_rows,)."""
        targets = self._target(self.model_, self._encode(y))
        scores = self.model_.evaluate(as_array(X), targets, verbose=0, return_dict=True)
        return {name: float(value) for name, value in scores.items()}

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the compiled net kept for refitting, which only this process can use."""
        return {name: value for name, value in super().__getstate__().items() if name != "_kept"}

    def __sklearn_is_fitted__(self) -> bool:
        """Whether there is a trained net."""
        return hasattr(self, "model_")

    # What the two kinds of estimator do differently.

    def _encode(self, y: Any, *, fresh: bool = False) -> np.ndarray:
        raise NotImplementedError

    def _n_classes(self) -> int | None:
        raise NotImplementedError

    def _target(self, net: keras.Model, encoded: np.ndarray) -> np.ndarray:
        del net
        return encoded

    # The builder and its net.

    def _builder(self) -> Builder:
        if callable(self.builder):
            return self.builder
        return _locate(self.builder)

    def _tunable(self) -> dict[str, inspect.Parameter]:
        parameters = inspect.signature(self._builder()).parameters
        return {
            name: p
            for name, p in parameters.items()
            if name not in _FROM_DATA and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        }

    def _net(self, input_shape: tuple[int, ...]) -> keras.Model:
        """A net with fresh weights: the kept one reset, if it would be built the same, else a new one."""
        key = repr((self.builder, self.seed, input_shape, self._n_classes(), sorted(self.hyperparameters.items())))
        kept: _Kept | None = getattr(self, "_kept", None)
        # Without a seed every net must differ, so there is nothing to go back to.
        if kept is None or kept.key != key or self.seed is None:
            kept = self._kept = _Kept(key, self._build(input_shape))
        else:
            kept.reset()
        return kept.net

    def _build(self, input_shape: tuple[int, ...]) -> keras.Model:
        import keras

        builder = self._builder()
        taken = inspect.signature(builder).parameters
        from_data = {"input_shape": input_shape, "n_classes": self._n_classes()}
        net = builder(**{k: v for k, v in from_data.items() if k in taken}, **self.hyperparameters)
        if not isinstance(net, keras.Model):
            raise ModelError(f"{_describe(self.builder)} must return a keras.Model, got {type(net).__name__}.")
        if not net.compiled:
            raise ModelError(
                f"{_describe(self.builder)} returned a model that is not compiled; call its compile first."
            )
        if not net.built:
            net.build((None, *input_shape))
        return net


class KerasClassifier(ClassifierMixin, KerasEstimator):
    """A Keras net as a scikit-learn classifier. Labels may be numbers, booleans or strings.

    The net ends in one sigmoid output, for two classes, or in one output for each class.

    Attributes:
        classes_: The class labels in ascending order, shape (n_classes,).
    """

    def predict_proba(self, X: Any) -> np.ndarray:
        """Class probabilities, shape (n_rows, n_classes)."""
        check_is_fitted(self)
        return probabilities(forward(self.model_, X))

    def predict(self, X: Any) -> np.ndarray:
        """Class labels, shape (n_rows,)."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])

    def _encode(self, y: Any, *, fresh: bool = False) -> np.ndarray:
        labels = np.asarray(y)
        if fresh:
            self.classes_ = np.unique(labels)
        return np.searchsorted(self.classes_, labels)

    def _n_classes(self) -> int:
        return len(self.classes_)

    def _target(self, net: keras.Model, encoded: np.ndarray) -> np.ndarray:
        loss = net.loss if isinstance(net.loss, str) else type(net.loss).__name__
        if loss.replace("_", "").lower() == "categoricalcrossentropy":
            return np.asarray(np.eye(len(self.classes_), dtype="float32")[encoded])
        return encoded


class KerasRegressor(RegressorMixin, KerasEstimator):
    """A Keras net with one linear output as a scikit-learn regressor."""

    def predict(self, X: Any) -> np.ndarray:
        """Predicted values, shape (n_rows,)."""
        check_is_fitted(self)
        return forward(self.model_, X)[:, 0]

    def _encode(self, y: Any, *, fresh: bool = False) -> np.ndarray:
        del fresh
        return np.asarray(y, dtype="float32")

    def _n_classes(self) -> None:
        return None


class _Kept:
    """A built net with its initial variables, so that fitting again need not build and compile again."""

    def __init__(self, key: str, net: keras.Model) -> None:
        net.optimizer.build(net.trainable_variables)
        self.key = key
        self.net = net
        self._initial = [(v, v.numpy()) for v in [*net.variables, *net.optimizer.variables]]

    def reset(self) -> None:
        for variable, value in self._initial:
            variable.assign(value)


@contextlib.contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Seed what Keras draws from, and leave Python's and NumPy's generators as they were found."""
    if seed is None:
        yield
        return
    import keras

    python, numpy = random.getstate(), np.random.get_state()
    keras.utils.set_random_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _hooks(on_epoch_end: EpochHook | None) -> list[keras.callbacks.Callback]:
    if on_epoch_end is None:
        return []
    import keras

    return [keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: on_epoch_end(epoch, dict(logs or {})))]


def _locate(path: str) -> Builder:
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ModelError(f"the builder {path!r} cannot be imported: {error}.") from error
    if not callable(found):
        raise ModelError(f"the builder {path!r} must be a function, got {type(found).__name__}.")
    builder: Builder = found
    return builder


def _describe(builder: Builder | str) -> str:
    return f"the builder {builder if isinstance(builder, str) else getattr(builder, '__qualname__', repr(builder))}"
