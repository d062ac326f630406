"""A Keras net as a scikit-learn estimator.

Keras and TensorFlow are imported when a net is first built, not when this module is.
"""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.validation import check_is_fitted

from trialbook import builders, garbage, keras_files
from trialbook.builders import Builder, HyperBuilder, Net, describe
from trialbook.epochs import is_known, is_usual, set_seed
from trialbook.errors import ModelError
from trialbook.noise import without_native_notes
from trialbook.serving import feed, forward, in_units, probabilities

if TYPE_CHECKING:
    import keras

    from trialbook.space import Space

# The shape of one row; for a net with several inputs, of each one's part of it.
Shapes = tuple[int, ...] | dict[str, tuple[int, ...]]

EpochHook = Callable[[int, Mapping[str, float]], None]

_OWN = (
    *("builder", "inputs", "epochs", "batch_size", "seed", "callbacks", "class_weight", "fit_options", "whole_epochs"),
    "standardize_target",
)

# Of these a builder written for Keras Tuner may ask, too, and gets what the estimator was given.
_SHARED = ("epochs", "batch_size", "seed")

_KEPT_NETS = 8

# Of kept nets, the variables of all together.
_KEPT_BYTES = 256 << 20

# Rows that a builder's own `fit` gets to see when it is only asked for its hyperparameters.
_ASKING_ROWS = 8


def preload_keras() -> None:
    """Import Keras and its backend now, which takes seconds, rather than in the first fit."""
    with without_native_notes(), garbage.uncollected(aside=False):
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
        builder: A function that returns a compiled `keras.Model`, a `keras_tuner.HyperModel`, or the dotted path of
            either; see `trialbook.builders`. A function is called with the keywords `input_shape` (shape of one row)
            and `n_classes` (None for a regression) if it takes them, and with its hyperparameters as keywords, or, if
            its first argument is called `hp`, in a `keras_tuner.HyperParameters`.
        inputs: For a net with several inputs, which columns each gets, by the name of the input: names of columns of
            a data frame or patterns such as `city_*`, or positions of columns. The builder's `input_shape` is then a
            dictionary as well. None for a net with one input, which gets all columns.
        epochs: Number of passes over the training data.
        batch_size: Number of rows a training step sees.
        seed: Seed of initial weights, shuffling and dropout; None for a different net every time.
        callbacks: `keras.callbacks.Callback`s of every fit; each fit gets its own copies. One that monitors a
            validation metric takes no part in a fit without validation data.
        class_weight: For a classifier, `balanced`, or the weight of each label; 1 for labels that are not named.
        fit_options: Further keywords of `keras.Model.fit`.
        whole_epochs: Whether to train by whole epochs where that is possible, see `trialbook.epochs`: the same numbers,
            several times as fast for small nets on data that fit into memory.
        standardize_target: For a regressor, whether the net learns the target in standard deviations from its mean over
            the training rows, which nets need where the target is large. `predict` gives the target's own units; losses
            and metrics of the net are those of what it learns.
        **hyperparameters: Hyperparameters of the builder. They are parameters of the estimator like any other:
            `get_params` lists them, `set_params` sets them, searches find them.

    Attributes:
        model_: The fitted `keras.Model`.
        history_: For each metric, its value in every epoch of the last fit.
        epoch_: The epoch, counted from 1, whose weights the net has: an earlier one than the last if early stopping
            has restored the best; None if a builder's own `fit` reported no epochs.
        n_features_in_: Number of columns seen, for rows that are vectors.
    """

    trains_in_epochs = True

    def __init__(
        self,
        builder: Any,
        *,
        inputs: Mapping[str, Sequence[Any]] | None = None,
        epochs: int = 1,
        batch_size: int = 32,
        seed: int | None = None,
        callbacks: Sequence[Any] = (),
        class_weight: Mapping[Any, float] | str | None = None,
        fit_options: Mapping[str, Any] | None = None,
        whole_epochs: bool = True,
        standardize_target: bool = False,
        **hyperparameters: Any,
    ) -> None:
        self.builder = builder
        self.inputs = inputs
        self.epochs = epochs
        self.batch_size = batch_size
        self.seed = seed
        self.callbacks = callbacks
        self.class_weight = class_weight
        self.fit_options = fit_options
        self.whole_epochs = whole_epochs
        self.standardize_target = standardize_target
        self.hyperparameters = hyperparameters

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The estimator's own parameters and the builder's, those left to their default included."""
        del deep
        defaults = builders.read(self.builder).defaults()
        return {name: getattr(self, name) for name in _OWN} | defaults | self.hyperparameters

    def set_params(self, **params: Any) -> Self:
        """Set parameters of the estimator or of the builder.

        Raises:
            ModelError: For a name that neither takes.
        """
        builder = builders.read(params.get("builder", self.builder))
        for name, value in params.items():
            if name in _OWN:
                setattr(self, name, value)
            elif (allowed := builder.refuses(name)) is not None:
                raise ModelError(f"{describe(self.builder)} takes no hyperparameter {name!r}; allowed: {allowed}.")
            else:
                self.hyperparameters = self.hyperparameters | {name: value}
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
        rows, targets = self._feed(X), self._encode(y, fresh=True)
        self.n_features_in_ = np.shape(X)[-1]
        net = self._net(_shapes(rows), epochs)
        if initial_state is not None:
            net.model.load_weights(initial_state)
        self.model_ = net.model
        if validation_data is not None:
            validation_data = self._feed(validation_data[0]), self._target(net.model, self._encode(validation_data[1]))
        # Filled as the epochs go by, and so also right in a snapshot taken at one of them.
        self.history_: dict[str, list[float]] = {}
        self.epoch_: int | None = None
        given = {
            "sample_weight": self._weights(y, sample_weight),
            "validation_data": validation_data,
            "callbacks": [*self._callbacks(validation=validation_data is not None), self._recorder(on_epoch_end)],
            "verbose": 0,
            **(self.fit_options or {}),
            # A builder's own fit may say how long to train, but not against a search that hands out the epochs.
            "usual": {"batch_size": self.batch_size} | ({"epochs": self.epochs} if epochs is None else {}),
            "fixed": {} if epochs is None else {"epochs": epochs, "initial_epoch": initial_epoch},
        }
        # Seeded once more: a net that was kept and one just built must shuffle and drop out alike.
        seed = None if self.seed is None else self.seed + initial_epoch
        with _drawing_apart(seed):
            targets = self._target(net.model, targets)
            options = {name: value for name, value in given.items() if value is not None}
            net.fit(rows, targets, whole_epochs=self.whole_epochs, seed=seed, **options)
        self.epoch_ = _restored_epoch(net.callbacks) or self.epoch_
        return self

    @property
    def declares_space(self) -> bool:
        """Whether the builder is one written for Keras Tuner, which declares its search space itself."""
        return isinstance(builders.read(self.builder), HyperBuilder)

    def search_space(self, X: Any, y: Any) -> Space:
        """The space that a builder written for Keras Tuner declares.

        Args:
            X: Rows it will be trained on, of which it sees a few, shape (n_rows, …).
            y: All targets, shape (n_targets,).

        Raises:
            SpaceError: If it declares nothing, or something that a search could not say.
            ModelError: If it is of another kind, or fails.
        """
        builder = builders.read(self.builder)
        if not isinstance(builder, HyperBuilder):
            raise ModelError(f"{describe(self.builder)} declares no search space; only one that takes hp does.")
        preload_keras()
        from trialbook.search.hyperparameters import discover

        asking = clone(self)
        rows, targets = self._feed(X[:_ASKING_ROWS]), asking._encode(y, fresh=True)[:_ASKING_ROWS]
        space = discover(builder.asker(rows, targets, asking._from_data(_shapes(rows))))
        if taken := [name for name in space.names if name in _OWN and name not in _SHARED]:
            raise ModelError(f"{describe(self.builder)} asks for {taken[0]!r}, which is the estimator's; rename it.")
        return space

    def save_state(self, path: Path) -> None:
        """Write weights and optimizer state; `path` ends in `.weights.h5`."""
        check_is_fitted(self, "model_")
        keras_files.save_weights(self.model_, path)

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
        scores = self.model_.evaluate(self._feed(X), targets, verbose=0, return_dict=True)
        return {name: float(value) for name, value in scores.items()}

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the compiled net kept for refitting, which only this process can use."""
        return {name: value for name, value in super().__getstate__().items() if name != "_nets"}

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

    def _weights(self, y: Any, sample_weight: Any) -> np.ndarray | None:
        """The weight of each row: its own, times that of its class. Keras itself takes only one of the two."""
        own = None if sample_weight is None else np.asarray(sample_weight)
        if self.class_weight is None:
            return own
        if self._n_classes() is None:
            raise ModelError(f"class_weight={self.class_weight!r} needs classes; a regression has none.")
        try:
            weights = compute_sample_weight(self.class_weight, y)
        except ValueError as error:
            raise ModelError(f"class_weight={self.class_weight!r} cannot be used: {error}") from error
        return np.asarray(weights if own is None else weights * own)

    def _callbacks(self, *, validation: bool) -> list[Any]:
        wanted = [c for c in self.callbacks if validation or not str(getattr(c, "monitor", "")).startswith("val_")]
        return copy.deepcopy(wanted)

    def _recorder(self, on_epoch_end: EpochHook | None) -> keras.callbacks.Callback:
        """Writes down every epoch, and passes it on."""
        import keras

        estimator = self

        class Recorder(keras.callbacks.Callback):
            def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
                metrics = {name: float(value) for name, value in (logs or {}).items()}
                for name, value in metrics.items():
                    estimator.history_.setdefault(name, []).append(value)
                estimator.epoch_ = epoch + 1
                if on_epoch_end is not None:
                    on_epoch_end(epoch, metrics)

        return Recorder()

    def share(self, nets: KeptNets) -> None:
        """Take nets from among these, where other estimators find them again: only one of them is trained at a time."""
        self._nets = nets

    def rehearse(self, X: Any, y: Any) -> keras.Model:
        """Build a net as a fit on X of shape (n_rows, …) and y of shape (n_rows,) would, and train nothing.

        Raises:
            ModelError: If the builder fails to give a compiled model that fits the inputs and the targets.
        """
        for name in ("epochs", "batch_size"):
            if not isinstance(value := getattr(self, name), int) or value < 1:
                raise ModelError(
                    f"{name} of {type(self).__name__} must be a whole number of at least 1, got {value!r}."
                )
        rehearsing = clone(self)
        rows, _ = rehearsing._feed(X[:_ASKING_ROWS]), rehearsing._encode(y, fresh=True)
        model = rehearsing._net(_shapes(rows), None).model
        outputs, classes = getattr(model, "output_shape", None), rehearsing._n_classes()
        wanted = [1] if classes is None else [1, 2] if classes == 2 else [classes]
        # A model of the user's own class may not know before it is called.
        if outputs is not None and (not isinstance(outputs, tuple) or outputs[-1] not in wanted):
            raise ModelError(
                f"{describe(self.builder)} returned a model whose output has the shape {outputs}; for "
                f"{'a number' if classes is None else f'{classes} classes'} its last dimension must be "
                f"{' or '.join(map(str, wanted))}."
            )
        return model

    # The builder and its net.

    def _feed(self, X: Any) -> Any:
        """Rows as the net takes them."""
        try:
            return feed(X, self.inputs)
        except ValueError as error:
            raise ModelError(str(error)) from error

    def _from_data(self, input_shape: Shapes) -> dict[str, Any]:
        return {"input_shape": input_shape, "n_classes": self._n_classes()}

    def _net(self, input_shape: Shapes, epochs: int | None) -> Net:
        """A net with fresh weights: the kept one reset, if it would be built the same, else a new one."""
        builder = builders.read(self.builder)
        shared = {name: value for name in _SHARED if (value := getattr(self, name)) is not None}
        if epochs is not None:
            shared["epochs"] = epochs
        # Without a seed every net must differ. A callback of somebody's own may change more than comes back.
        if not builder.keeps or self.seed is None or not all(map(is_known, self.callbacks)):
            return self._build(builder, shared, input_shape)
        values = (shared if isinstance(builder, HyperBuilder) else {}) | self.hyperparameters
        key = repr((self.builder, self.seed, self._from_data(input_shape), sorted(values.items())))
        if not hasattr(self, "_nets"):
            self._nets = KeptNets(1)
        if (net := self._nets.fresh(key)) is None:
            net = self._build(builder, shared, input_shape)
            if is_usual(net.model):
                self._nets.keep(key, net)
        return net

    def _build(self, builder: Builder, shared: Mapping[str, Any], input_shape: Shapes) -> Net:
        with _drawing_apart(self.seed):
            set_seed(self.seed)
            net = builder.build(self.hyperparameters, shared, self._from_data(input_shape))
            self._complete(net, builder, input_shape)
        return net

    def _complete(self, net: Net, builder: Builder, input_shape: Shapes) -> None:
        """Have a net that was just built make its variables, or say what is wrong with it."""
        import keras

        model = net.model
        if not isinstance(model, keras.Model):
            raise ModelError(f"{describe(self.builder)} must return a keras.Model, got {type(model).__name__}.")
        # A builder with a fit of its own may well train without Keras's.
        if builder.keeps and not model.compiled:
            raise ModelError(f"{describe(self.builder)} returned a model that is not compiled; call its compile first.")
        self._check_inputs(model)
        if not model.built:
            if isinstance(input_shape, dict):
                model.build({name: (None, *shape) for name, shape in input_shape.items()})
            else:
                model.build((None, *input_shape))
        if model.compiled:
            # So that its state is there to be kept, or to be loaded.
            model.optimizer.build(model.trainable_variables)

    def _check_inputs(self, model: keras.Model) -> None:
        """A net with several inputs must have those that the configuration names."""
        try:
            names = sorted(str(tensor.name) for tensor in model.inputs)
        except (AttributeError, TypeError, ValueError):
            return  # a model that has not been built yet does not know its inputs
        wanted = sorted(self.inputs or ())
        if (wanted or len(names) > 1) and names != wanted:
            raise ModelError(
                f"{describe(self.builder)} returned a model with the inputs {', '.join(names)}, but inputs of the "
                f"estimator names {', '.join(wanted) or 'none'}; give inputs={{name: [columns]}} for each of them."
            )


class KerasClassifier(ClassifierMixin, KerasEstimator):
    """A Keras net as a scikit-learn classifier. Labels may be numbers, booleans or strings.

    The net ends in one sigmoid output, for two classes, or in one output for each class.

    Attributes:
        classes_: The class labels in ascending order, shape (n_classes,).
    """

    def predict_proba(self, X: Any) -> np.ndarray:
        """Class probabilities, shape (n_rows, n_classes)."""
        check_is_fitted(self)
        return probabilities(forward(self.model_, self._feed(X)))

    def predict(self, X: Any) -> np.ndarray:
        """Class labels, shape (n_rows,)."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])

    def _encode(self, y: Any, *, fresh: bool = False) -> np.ndarray:
        if self.standardize_target:
            raise ModelError("standardize_target=True needs a target of numbers; a classification has labels.")
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
    """A Keras net with one linear output as a scikit-learn regressor.

    Attributes:
        target_mean_: What the net's output 0 stands for; 0 unless the target is standardized.
        target_scale_: How much 1 more of it stands for; 1 unless the target is standardized.
    """

    def predict(self, X: Any) -> np.ndarray:
        """Predicted values, shape (n_rows,)."""
        check_is_fitted(self)
        return in_units(forward(self.model_, self._feed(X))[:, 0], self.target_mean_, self.target_scale_)

    def _encode(self, y: Any, *, fresh: bool = False) -> np.ndarray:
        targets = np.asarray(y, dtype="float64")
        if fresh:
            mean, scale = (targets.mean(), targets.std()) if self.standardize_target else (0.0, 1.0)
            # A fold may happen to hold a single value.
            self.target_mean_, self.target_scale_ = float(mean), float(scale) or 1.0
        return ((targets - self.target_mean_) / self.target_scale_).astype("float32")

    def _n_classes(self) -> None:
        return None


def _shapes(rows: Any) -> Shapes:
    if isinstance(rows, dict):
        return {name: part.shape[1:] for name, part in rows.items()}
    return tuple(rows.shape[1:])


class KeptNets:
    """The last few nets that were built, with their initial variables: fitting again need not build and compile again.

    Args:
        most: How many; only the last one if together they are large.
    """

    def __init__(self, most: int = _KEPT_NETS) -> None:
        self._most = most
        self._kept: dict[str, _Kept] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Nets are of use in this process only."""
        return {"_most": self._most, "_kept": {}}

    def fresh(self, key: str) -> Net | None:
        """A kept net as it was when it was built; None if there is none, or it cannot be brought back."""
        if (kept := self._kept.pop(key, None)) is None or not kept.net.restorable:
            return None
        self._kept[key] = kept  # the last to go
        kept.reset()
        return kept.net

    def keep(self, key: str, net: Net) -> None:
        """Keep a net that has just been built."""
        self._kept[key] = _Kept(net)
        while len(self._kept) > 1 and (
            len(self._kept) > self._most or sum(kept.n_bytes for kept in self._kept.values()) > _KEPT_BYTES
        ):
            del self._kept[next(iter(self._kept))]


class _Kept:
    """A net and its initial variables."""

    def __init__(self, net: Net) -> None:
        model = net.model
        self.net = net
        self._initial = [(v, v.numpy()) for v in [*model.variables, *model.optimizer.variables]]
        self.n_bytes = sum(value.nbytes for _, value in self._initial)

    def reset(self) -> None:
        for variable, value in self._initial:
            variable.assign(value)


@contextlib.contextmanager
def _drawing_apart(seed: int | None) -> Iterator[None]:
    """Where there is a seed to draw from, leave Python's and NumPy's generators as they were found."""
    if seed is None:
        yield
        return
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _restored_epoch(callbacks: Sequence[Any]) -> int | None:
    """The epoch, counted from 1, whose weights early stopping has put back; None if it has not."""
    import keras

    epochs = [
        callback.best_epoch + 1
        for callback in callbacks
        if isinstance(callback, keras.callbacks.EarlyStopping)
        and callback.restore_best_weights
        and callback.best_weights is not None
    ]
    # Of several, the last has the last word.
    return epochs[-1] if epochs else None
