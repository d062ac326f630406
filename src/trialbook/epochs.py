"""Training a Keras net by whole epochs, with the numbers of Keras's own `fit`.

Keras calls a compiled step once for every batch and starts an input pipeline for every epoch. With a small net and a
small data set most of the time goes there, and into compiling the step twice. Here the rows stay in memory as tensors,
and one compiled loop runs over many batches. The steps themselves are the net's own `train_step` and `test_step`, on
the same batches in the same order.

What is not plainly within reach of that is left to Keras: see `Epochs.fit`.

Keras and TensorFlow are imported when a net is first trained, not when this module is.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

# Batches that one call runs: many, so that calls do not count, and few enough that an interrupt is soon heard.
_STRETCH = 100

# Bytes of rows, targets and weights, training and validation together, beyond which Keras is left to feed them.
_LARGEST = 1_000_000_000

# Rows that chance does not shuffle the same way twice. Where a seed is set, Keras shuffles all epochs of a fit alike;
# drawing that order again and again takes longer than many an epoch.
_MANY = 20

# Keras's batch size where none is given.
_BATCH_SIZE = 32

# What a model or a callback that does things its own way may have of its own.
_OF_A_MODEL = (
    *("train_step", "test_step", "make_train_function", "make_test_function"),
    *("evaluate", "compute_loss", "compute_metrics", "get_metrics_result", "reset_metrics", "metrics"),
)
_OF_A_CALLBACK = (
    *("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end"),
    *("on_test_batch_begin", "on_test_batch_end"),
)

_CALLS_OF_PYTHON = {"EagerPyFunc", "PyFunc", "PyFuncStateless"}

_UNDERSTOOD = {
    *("x", "y", "sample_weight", "batch_size", "epochs", "initial_epoch", "shuffle", "verbose", "callbacks"),
    *("validation_data", "validation_batch_size"),
}


class Epochs:
    """Trains one model, and keeps what is compiled for it from one fit to the next.

    Args:
        model: The `keras.Model`.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._loops: dict[Any, _Loop] = {}
        self._compiled_for: list[Any] = []
        # Orders of rows by their number, as this seed has TensorFlow draw them.
        self._orders: dict[tuple[int, bool], Callable[[], Any]] = {}
        self._seed: int | None = None

    def fit(self, keras_fit: Callable[..., Any], options: Mapping[str, Any], seed: int | None = None) -> Any:
        """Train as `keras_fit` would, and give what it gives, a `keras.callbacks.History`.

        It is `keras_fit` itself that trains if the model, a callback or an option may ask for more than whole epochs:
        a callback that looks at batches, a step of the model's own, several outputs, eager execution, XLA, several
        steps in one execution, a distribution, another backend, progress bars, data that are not arrays of numbers
        or are larger than 1 GB, metrics that cannot be set up without numbers, and options such as `steps_per_epoch`
        or `class_weight`.

        Args:
            keras_fit: The model's `fit`, bound to it.
            options: Its arguments by name: `x` of shape (n_rows, …), or a dictionary or sequence of such arrays, `y`
                of shape (n_rows, …), and so on.
            seed: Seed of all that is drawn meanwhile; None to go on drawing.

        Raises:
            Exception: Whatever the model, its loss, a callback or Keras raises.
        """
        plan = self._plan(keras_fit, options)
        if plan is None or not self._prepare(plan.training):
            self._start_drawing(seed)
            return keras_fit(**options)
        if seed is None or not self._draws_alike(seed, plan):
            self._start_drawing(seed)
        return self._train(plan)

    @property
    def keeps_to_its_own(self) -> bool:
        """Whether what has been compiled has no variables but those of the model, its optimizer and its metrics.

        A layer that draws from Keras's common generator, for instance, has that one's.
        """
        model = self._model
        own = [*model.variables, *model.optimizer.variables, *(v for metric in model.metrics for v in metric.variables)]
        known = {id(variable.value) for variable in own}
        try:
            return all(id(variable) in known for loop in self._loops.values() for variable in loop.variables)
        except AssertionError:  # one of them is no more
            return False

    def _start_drawing(self, seed: int | None) -> None:
        self._orders.clear()
        if seed != self._seed:
            # TensorFlow writes its seed into what it compiles.
            self._loops = {key: loop for key, loop in self._loops.items() if not loop.draws}
        self._seed = seed
        set_seed(seed)

    def _draws_alike(self, seed: int, plan: _Plan) -> bool:
        """Begin to draw from a seed that is set already, if that is all the same to TensorFlow.

        With its seed TensorFlow also forgets what it has made ready to run, and makes it ready again, which takes
        longer than some fits. So it is left alone if its seed is this one, and neither what has been compiled for this
        model draws from it nor, perhaps, somebody's callback: then only the orders of rows do, and these are always
        the same.
        """
        import tensorflow as tf

        if seed != self._seed or tf.compat.v1.get_seed(0)[0] != seed or not all(map(is_known, plan.callbacks)):
            return False
        keys = [(plan.training.kind, True), *([] if plan.validation is None else [(plan.validation.kind, False)])]
        if any(key not in self._loops or self._loops[key].draws for key in keys):
            return False
        random.seed(seed)
        np.random.seed(seed)
        return True

    def _plan(self, keras_fit: Callable[..., Any], options: Mapping[str, Any]) -> _Plan | None:
        """What is to be done; None if that is left to Keras."""
        if not (_is_plain_fit(keras_fit) and _is_plain_model(self._model)):
            return None
        usual = {name: parameter.default for name, parameter in inspect.signature(keras_fit).parameters.items()}
        for name, value in options.items():
            if name not in _UNDERSTOOD and not (
                name in usual and type(value) is type(usual[name]) and value == usual[name]
            ):
                return None
        asked = usual | dict(options)
        callbacks = asked["callbacks"] or []
        numbers = [asked["epochs"], asked["initial_epoch"]]
        sizes = [
            asked["batch_size"] or _BATCH_SIZE,
            asked["validation_batch_size"] or asked["batch_size"] or _BATCH_SIZE,
        ]
        if not (
            asked["verbose"] == 0
            and isinstance(asked["shuffle"], bool)
            and isinstance(callbacks, (list, tuple))
            and all(_looks_at_epochs_only(callback) for callback in callbacks)
            and all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in [*numbers, *sizes])
            and min(sizes) >= 1
        ):
            return None
        training = _Rows.of((asked["x"], asked["y"], asked["sample_weight"]), int(sizes[0]))
        if training is None:
            return None
        validation = None
        if (data := asked["validation_data"]) is not None:
            if not isinstance(data, tuple) or len(data) not in (2, 3):
                return None
            validation = _Rows.of((*data, None)[:3], int(sizes[1]))
            if validation is None:
                return None
        if training.n_bytes + (validation.n_bytes if validation else 0) > _LARGEST:
            return None
        return _Plan(training, validation, list(callbacks), asked["initial_epoch"], asked["epochs"], asked["shuffle"])

    def _train(self, plan: _Plan) -> Any:
        """The loop of Keras's `fit`, over epochs."""
        import keras

        model = self._model
        callbacks = keras.callbacks.CallbackList(
            plan.callbacks,
            add_history=True,
            verbose=0,
            epochs=plan.epochs,
            steps=plan.training.n_batches,
            model=model,
        )
        draw = self._orders_of(plan.training.n_rows, shuffle=plan.shuffle)
        training = plan.training.tensors()
        validation = plan.validation.tensors() if plan.validation is not None else []
        model.stop_training = False
        callbacks.on_train_begin()
        logs: dict[str, Any] | None = None
        # A callback may have read another from what it has saved.
        initial_epoch = getattr(model, "_initial_epoch", None) or plan.initial_epoch
        for epoch in range(initial_epoch, plan.epochs):
            model.reset_metrics()
            callbacks.on_epoch_begin(epoch)
            logs = dict(self._run(plan.training, training, draw(), cut_short=model.stop_training))
            if plan.validation is not None:
                model.stop_evaluating = False
                callbacks.on_test_begin()
                model.reset_metrics()
                judged = dict(self._run(plan.validation, validation, None, cut_short=model.stop_evaluating))
                callbacks.on_test_end(judged)
                logs |= {f"val_{name}": value for name, value in judged.items()}
            callbacks.on_epoch_end(epoch, logs)
            if model.stop_training:
                break
        if isinstance(model.optimizer, keras.optimizers.Optimizer) and plan.epochs > 0:
            model.optimizer.finalize_variable_values(model.trainable_weights)
        callbacks.on_train_end(logs)
        return model.history

    def _orders_of(self, n_rows: int, *, shuffle: bool) -> Callable[[], Any]:
        """`_order_of_rows`, asked once for a seed."""
        if self._seed is None:
            return _order_of_rows(n_rows, shuffle=shuffle)
        if (n_rows, shuffle) not in self._orders:
            self._orders[n_rows, shuffle] = _order_of_rows(n_rows, shuffle=shuffle)
        return self._orders[n_rows, shuffle]

    def _prepare(self, rows: _Rows) -> bool:
        """Make all variables now, as the loop over batches cannot; whether that can be done."""
        model = self._model
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        parts = self._parts()
        # Compiling the model anew replaces its optimizer and its metrics.
        if len(parts) != len(self._compiled_for) or any(
            a is not b for a, b in zip(parts, self._compiled_for, strict=True)
        ):
            self._loops.clear()
            try:
                self._make_metrics(rows)
            except Exception:
                # Of a kind that cannot do without numbers, or simply wrong; then Keras will tell.
                return False
            self._compiled_for = self._parts()
        return True

    def _parts(self) -> list[Any]:
        return [self._model.optimizer, *self._model.metrics, *self._model.trainable_variables]

    def _make_metrics(self, rows: _Rows) -> None:
        """Have the metrics see what they will be given, as shapes and without numbers; some make variables then."""
        import keras

        model = self._model

        class Metrics(keras.Operation):  # type: ignore[misc]
            def call(self, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
                return model.compute_metrics(None, y, y_pred, sample_weight)

        _, *given = rows.data
        y, *weights = [keras.KerasTensor((None, *array.shape[1:]), rows.dtype_of(array)) for array in given]
        Metrics().compute_output_spec(y, model.outputs[0], *weights)

    def _run(self, rows: _Rows, tensors: list[Any], order: Any, *, cut_short: bool) -> Mapping[str, Any]:
        """One pass over all rows, or one batch; in the given order it trains, without one it only judges."""
        import tensorflow as tf

        key = rows.kind, order is not None
        if key not in self._loops:
            self._loops[key] = self._loop(rows, trains=order is not None)
        loop = self._loops[key].function
        logs: Mapping[str, Any] = {}
        # Keras looks only after a batch whether a callback wants to stop.
        n_batches = 1 if cut_short else rows.n_batches
        for first in range(0, n_batches, _STRETCH):
            last = min(first + _STRETCH, n_batches)
            counts = [tf.constant(number, tf.int64) for number in (first, last, rows.batch_size)]
            logs = loop(tensors, counts, *([] if order is None else [order]))
        return logs

    def _loop(self, rows: _Rows, *, trains: bool) -> _Loop:
        import tensorflow as tf

        model, structure, (size, specs, _) = self._model, rows.structure, rows.kind

        def run(tensors: Any, counts: Any, order: Any = None) -> Any:
            first, last, batch_size = counts
            n_rows = tf.shape(tensors[0], out_type=tf.int64)[0]

            def one_step(step: Any) -> Any:
                begin = step * batch_size
                end = tf.minimum(begin + batch_size, n_rows)
                picked = None if order is None else order[begin:end]

                def cut(tensor: Any) -> Any:
                    part = tensor[begin:end] if picked is None else tf.gather(tensor, picked, axis=0)
                    part.set_shape([size, *tensor.shape[1:]])
                    return part

                batch = tf.nest.pack_sequence_as(structure, [cut(tensor) for tensor in tensors])
                if trains:
                    model.train_step(batch)
                else:
                    model.test_step(batch)
                return (step + 1,)

            # A step begins with what the one before has left behind, so there is nothing to run in parallel.
            tf.while_loop(lambda step: step < last, one_step, [first], parallel_iterations=1)
            return model.get_metrics_result()

        count = tf.TensorSpec([], tf.int64)
        signature = [list(specs), [count] * 3, *([tf.TensorSpec([None], tf.int64)] if trains else [])]
        # As an object, which no other equals: TensorFlow takes functions made at one place for a single one, and warns
        # of nets that follow one another.
        loop = _Callable(tf.autograph.experimental.do_not_convert(run))
        return _Loop(tf.function(loop, input_signature=signature, autograph=False))


@dataclass(frozen=True, eq=False)
class _Loop:
    """A compiled function of tensors, of the first and last batch and their size, and of the order of rows."""

    function: Any

    @functools.cached_property
    def draws(self) -> bool:
        """Whether something in it, once it has run, draws from TensorFlow's seed.

        That is an operation that was given it, or perhaps one that calls Python.
        """
        graph = self.function.get_concrete_function().graph.as_graph_def()
        functions = (node for function in graph.library.function for node in function.node_def)
        nodes = itertools.chain(graph.node, functions)
        return any("seed2" in node.attr or node.op in _CALLS_OF_PYTHON for node in nodes)

    @property
    def variables(self) -> Sequence[Any]:
        """TensorFlow's variables that it reads or changes, once it has run."""
        variables: Sequence[Any] = self.function.get_concrete_function().variables
        return variables


@dataclass(frozen=True, eq=False)
class _Callable:
    function: Callable[..., Any]

    def __call__(self, tensors: Any, counts: Any, order: Any = None) -> Any:
        return self.function(tensors, counts, order)


@dataclass(frozen=True)
class _Rows:
    """Rows, targets and, where there are any, weights, in the structure that a step takes."""

    data: tuple[Any, ...]
    n_rows: int
    n_bytes: int
    batch_size: int

    @classmethod
    def of(cls, data: tuple[Any, Any, Any], batch_size: int) -> _Rows | None:
        """None if they are not plainly arrays of numbers, with as many rows each."""
        x, y, weights = data
        if isinstance(x, dict):
            parts = list(x.values())
        elif isinstance(x, (list, tuple)):
            parts = list(x)
            x = tuple(x)
        else:
            parts = [x]
        arrays = [*parts, y, *([] if weights is None else [weights])]
        if not parts or not all(
            type(a) is np.ndarray and a.dtype.kind in "biuf" and a.dtype.isnative and a.ndim for a in arrays
        ):
            return None
        counts = {len(array) for array in arrays}
        if len(counts) != 1 or not min(counts):
            return None
        n_bytes = sum(array.nbytes for array in arrays)
        return cls((x, y) if weights is None else (x, y, weights), counts.pop(), n_bytes, batch_size)

    @functools.cached_property
    def kind(self) -> tuple[int | None, tuple[Any, ...], str]:
        """What a loop is compiled for: the size of batches, the types of tensors, and their structure."""
        import tensorflow as tf

        # Keras compiles its steps for this size of batches if all have it, else for any.
        size = self.batch_size if self.n_rows % self.batch_size == 0 else None
        arrays = tf.nest.flatten(self.data)
        specs = tuple(tf.TensorSpec([None, *array.shape[1:]], self.dtype_of(array)) for array in arrays)
        return size, specs, str(self.structure)

    @property
    def structure(self) -> Any:
        """The structure of the data, with nothing in it."""
        import tensorflow as tf

        return tf.nest.map_structure(lambda _: None, self.data)

    @property
    def n_batches(self) -> int:
        return -(-self.n_rows // self.batch_size)

    def tensors(self) -> list[Any]:
        """All arrays one after the other."""
        import tensorflow as tf

        return [
            tf.convert_to_tensor(array.astype(self.dtype_of(array), copy=False)) for array in tf.nest.flatten(self.data)
        ]

    @staticmethod
    def dtype_of(array: np.ndarray) -> str:
        """The type that Keras takes an array as: floats are all of one kind."""
        import keras

        return str(keras.config.floatx() if array.dtype.kind == "f" else array.dtype.name)


@dataclass(frozen=True)
class _Plan:
    training: _Rows
    validation: _Rows | None
    callbacks: list[Any]
    initial_epoch: int
    epochs: int
    shuffle: bool


def is_known(callback: Any) -> bool:
    """Whether a callback is one of Keras's, or the estimator's own; any other may do anything to a net."""
    import keras

    home = type(callback).__module__.partition(".")[0]
    return home in ("keras", "trialbook") and not isinstance(callback, keras.callbacks.LambdaCallback)


def is_usual(model: keras.Model) -> bool:
    """Whether a model trains and is judged as Keras's own classes do, so far as its class tells."""
    import keras

    kind = type(model)
    return all(getattr(kind, name, None) is getattr(keras.Model, name, None) for name in _OF_A_MODEL)


def set_seed(seed: int | None) -> None:
    """Let Keras, TensorFlow, NumPy and Python draw from this seed; from where they are if it is None."""
    import keras

    if seed is not None:
        keras.utils.set_random_seed(seed)


def _order_of_rows(n_rows: int, *, shuffle: bool) -> Callable[[], Any]:
    """A function that draws the positions of rows for an epoch, as a tensor of shape (n_rows,)."""
    import tensorflow as tf

    if not shuffle:
        in_turn = tf.range(n_rows, dtype=tf.int64)
        return lambda: in_turn

    # Inside a data set, as Keras does it: with a seed, the same operation elsewhere would draw another order.
    def shuffled(_: Any) -> Any:
        return tf.random.shuffle(tf.range(n_rows, dtype=tf.int64))

    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    orders = tf.data.Dataset.range(1).map(shuffled).with_options(options)
    drawn: list[Any] = []

    def draw() -> Any:
        if n_rows >= _MANY and len(drawn) == 2 and np.array_equal(*drawn):
            return drawn[0]
        drawn[:] = [*drawn[-1:], next(iter(orders))]
        return drawn[-1]

    return draw


def _is_plain_fit(keras_fit: Callable[..., Any]) -> bool:
    import keras

    return keras.backend.backend() == "tensorflow" and getattr(keras_fit, "__func__", None) is keras.Model.fit


def _is_plain_model(model: keras.Model) -> bool:
    """Whether nothing about the model asks for another way of training than the usual."""
    import keras
    import tensorflow as tf

    return bool(
        model.compiled
        and model.built
        # Known for models that are made of layers, in a row or as a graph, so that there is no layer left to be built.
        and len(getattr(model, "outputs", None) or ()) == 1
        and is_usual(model)
        and not any(name in vars(model) for name in _OF_A_MODEL)
        # Those that Keras itself has left there from an earlier fit do no harm.
        and all(
            function is None or str(getattr(function, "__module__", "")).startswith("keras.")
            for function in (model.train_function, model.test_function)
        )
        and model.optimizer is not None
        and not model.run_eagerly
        and not model.jit_compile
        and model.steps_per_execution == 1
        and not tf.config.functions_run_eagerly()
        and not tf.distribute.has_strategy()
        and model.distribute_strategy is tf.distribute.get_strategy()
        and keras.distribution.distribution() is None
        and not any(limit() for limit in _limits())
    )


def _limits() -> list[Callable[[], Any]]:
    """What Keras caps every training with, for debugging; its earlier versions know no such thing."""
    import keras

    names = ("max_epochs", "max_steps_per_epoch")
    return [getattr(keras.config, name) for name in names if hasattr(keras.config, name)]


def _looks_at_epochs_only(callback: Any) -> bool:
    import keras

    return isinstance(callback, keras.callbacks.Callback) and all(
        getattr(getattr(callback, name), "__func__", None) is getattr(keras.callbacks.Callback, name)
        for name in _OF_A_CALLBACK
    )
