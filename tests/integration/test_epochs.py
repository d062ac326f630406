"""Training by whole epochs, held to Keras's own `fit`: the numbers are equal, not merely close."""

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_digits

from trialbook.epochs import Epochs
from trialbook.estimator import KerasClassifier
from trialbook.models import cnn, mlp

pytestmark = pytest.mark.slow

X, LABELS = load_digits(return_X_y=True)
X = (X / 16).astype("float32")
# 203 and 100 rows: the last batch of 32 is a partial one.
TRAINING = {"x": X[:203], "y": LABELS[:203]}
VALIDATION = {"validation_data": (X[300:400], LABELS[300:400])}
WEIGHTS = np.random.default_rng(0).uniform(0, 2, 203)


def dense():
    return mlp((64,), 10, units=16, learning_rate=0.01)


def normalized():
    import keras

    net = keras.Sequential([keras.Input((64,)), keras.layers.Dense(16), keras.layers.BatchNormalization()])
    for layer in (keras.layers.Activation("gelu"), keras.layers.Dropout(0.3), keras.layers.Dense(10)):
        net.add(layer)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(optimizer=keras.optimizers.AdamW(0.01), loss=loss, metrics=["accuracy"])
    return net


def weighted():
    import keras

    net = dense()
    net.compile(
        optimizer=keras.optimizers.SGD(0.1, momentum=0.9),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        weighted_metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2, name="two")],
    )
    return net


def regularized():
    import keras

    net = keras.Sequential([keras.Input((64,)), keras.layers.Dense(8, "tanh", kernel_regularizer="l2")])
    net.add(keras.layers.GaussianNoise(0.1))
    net.add(keras.layers.Dense(10, "softmax", activity_regularizer="l1"))
    # Averages of the weights, which replace them at the end, and a rate that falls with every step.
    rate = keras.optimizers.schedules.ExponentialDecay(0.01, 10, 0.9)
    net.compile(
        optimizer=keras.optimizers.Adam(rate, use_ema=True, clipnorm=1.0), loss="sparse_categorical_crossentropy"
    )
    return net


def judged_by(metrics, **optimizer):
    """A net with metrics of Keras by name, or of one's own, that make their variables when they first see targets."""
    import keras

    class Own(keras.metrics.Metric):
        total = None

        def update_state(self, y_true, y_pred, sample_weight=None):
            if self.total is None:
                self.total = self.add_weight(shape=(y_pred.shape[-1],), initializer="zeros", name="total")
            self.total.assign_add(keras.ops.sum(y_pred, axis=0))

        def result(self):
            return keras.ops.max(self.total)

        def reset_state(self):
            if self.total is not None:
                self.total.assign(keras.ops.zeros_like(self.total))

    made = [
        Own(name="own") if name == "own" else getattr(keras.metrics, name)(**kwargs) for name, kwargs in metrics.items()
    ]
    net = dense()
    net.compile(optimizer=keras.optimizers.Adam(0.01, **optimizer), loss="categorical_crossentropy", metrics=made)
    return net


def two_inputs():
    import keras

    left, right = keras.Input((24,), name="left"), keras.Input((40,), name="right")
    joined = keras.layers.Concatenate()([keras.layers.Dense(8, "relu")(left), keras.layers.Dense(8, "relu")(right)])
    net = keras.Model([left, right], keras.layers.Dense(10, "softmax")(joined))
    net.compile(optimizer="rmsprop", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return net


def recurrent():
    import keras

    net = keras.Sequential([keras.Input((64,)), keras.layers.Reshape((8, 8)), keras.layers.LSTM(6)])
    net.add(keras.layers.Dense(10, "softmax"))
    net.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return net


def diverging():
    import keras

    net = dense()
    net.compile(optimizer=keras.optimizers.SGD(1e30), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return net


def fed(rows):
    return {"left": rows[:, :24], "right": rows[:, 24:]}


def callbacks(*names, **options):
    import keras

    return [getattr(keras.callbacks, name)(**options) for name in names]


COLUMNS = {"x": X[:203], "y": np.eye(10)[LABELS[:203]]}
DIABETES = load_diabetes(return_X_y=True)
CASES = {
    "classifier": (dense, TRAINING | VALIDATION),
    "no validation data": (dense, TRAINING),
    "no partial batch": (dense, {"x": X[:192], "y": LABELS[:192], "validation_data": (X[300:364], LABELS[300:364])}),
    # Keras divides by a constant where batches are all of one size, and this one is not a power of two.
    "an odd batch size": (dense, {"x": X[:209], "y": LABELS[:209], "batch_size": 19} | VALIDATION),
    "few rows": (dense, {"x": X[:7], "y": LABELS[:7], "batch_size": 3}),
    "fewer rows than a batch": (dense, {"x": X[:20], "y": LABELS[:20], "validation_data": (X[:5], LABELS[:5])}),
    "several stretches": (dense, TRAINING | VALIDATION | {"batch_size": 1, "epochs": 2}),
    "no shuffling": (dense, TRAINING | {"shuffle": False}),
    "larger batches for validation": (dense, TRAINING | VALIDATION | {"validation_batch_size": 50}),
    "regression": (
        lambda: mlp((10,), None, units=8),
        {"x": DIABETES[0][:100], "y": DIABETES[1][:100], "validation_data": (DIABETES[0][100:], DIABETES[1][100:])},
    ),
    "two classes": (
        lambda: mlp((64,), 2, units=8),
        {"x": X[:203], "y": LABELS[:203] % 2, "validation_data": (X[300:], LABELS[300:] % 2)},
    ),
    "one column for each class": (
        lambda: recompiled(dense(), "categorical_crossentropy"),
        COLUMNS,
    ),
    "metrics that see targets first": (
        lambda: judged_by(
            {"F1Score": {"average": "macro"}, "AUC": {"multi_label": True, "name": "auc"}, "R2Score": {}}
        ),
        COLUMNS | {"sample_weight": WEIGHTS},
    ),
    "a metric of one's own": (lambda: judged_by({"own": {}}), COLUMNS),
    "gradients of several batches": (lambda: judged_by({}, gradient_accumulation_steps=3), COLUMNS),
    "dropout": (lambda: mlp((64,), 10, units=16, dropout=0.4, hidden_layers=2), TRAINING | VALIDATION),
    "batch normalization and dropout": (normalized, TRAINING | VALIDATION),
    "regularization, averages, schedule": (regularized, TRAINING | VALIDATION),
    "images": (
        lambda: cnn((8, 8), 10, filters=4, units=8, dropout=0.2),
        {"x": X[:203].reshape(-1, 8, 8), "y": LABELS[:203]},
    ),
    "recurrent": (recurrent, TRAINING | VALIDATION | {"epochs": 2}),
    "two inputs": (two_inputs, {"x": fed(X[:203]), "y": LABELS[:203], "validation_data": (fed(X[300:]), LABELS[300:])}),
    "two inputs in a row": (two_inputs, {"x": [*fed(X[:203]).values()], "y": LABELS[:203]}),
    "weights": (weighted, TRAINING | VALIDATION | {"sample_weight": WEIGHTS}),
    "weights of validation rows": (
        weighted,
        TRAINING | {"validation_data": (*VALIDATION["validation_data"], WEIGHTS[:100]), "sample_weight": WEIGHTS},
    ),
    "whole numbers as rows": (dense, {"x": (X[:203] * 16).astype("uint8"), "y": LABELS[:203].astype("int32")}),
    "early stopping": (
        lambda: mlp((64,), 10, units=16, learning_rate=0.1),
        TRAINING
        | VALIDATION
        | {
            "epochs": 30,
            "callbacks": lambda: callbacks("EarlyStopping", patience=2, restore_best_weights=True),
        },
    ),
    "a rate that falls on a plateau": (
        lambda: mlp((64,), 10, units=16, learning_rate=0.1),
        TRAINING
        | VALIDATION
        | {"epochs": 8, "callbacks": lambda: callbacks("ReduceLROnPlateau", patience=0, min_delta=0.1)},
    ),
    "a rate by epoch": (
        dense,
        TRAINING | {"callbacks": lambda: callbacks("LearningRateScheduler", schedule=lambda epoch: 0.1 / (epoch + 1))},
    ),
    "no epochs": (dense, TRAINING | {"epochs": 2, "initial_epoch": 2}),
    "NaN": (diverging, TRAINING | VALIDATION),
}


def recompiled(net, loss):
    net.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    return net


def trained(build, options, *, fit=None, state=None):
    """The net and its history after training it from the same seed; `fit` is given Keras's and the options."""
    import keras

    keras.utils.set_random_seed(3)
    net = build()
    net.optimizer.build(net.trainable_variables)
    if state is not None:
        net.load_weights(state)
    options = {"epochs": 3, "batch_size": 32, "verbose": 0} | options
    options["callbacks"] = options.get("callbacks", list)()
    keras.utils.set_random_seed(4)
    history = net.fit(**options) if fit is None else fit(Epochs(net), net, options)
    return net, history


def by_epochs(epochs, net, options):
    plan = epochs._plan(net.fit, options)
    assert plan is not None
    assert epochs._prepare(plan.training)
    return epochs._train(plan)


def assert_equal(ours, theirs):
    (net, history), (expected_net, expected) = ours, theirs
    np.testing.assert_equal(history.history, expected.history)  # NaN equals NaN
    assert history.epoch == expected.epoch
    assert history.params == expected.params
    for a, b in zip(net.get_weights(), expected_net.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(net.optimizer.variables, expected_net.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("case", CASES)
def test_it_gives_the_numbers_of_keras(case):
    build, options = CASES[case]
    assert_equal(trained(build, options, fit=by_epochs), trained(build, options))


def test_going_on_from_saved_state_gives_the_numbers_of_keras(tmp_path):
    state = tmp_path / "state.weights.h5"
    trained(normalized, TRAINING, fit=by_epochs)[0].save_weights(state)
    further = TRAINING | VALIDATION | {"initial_epoch": 3, "epochs": 6}
    ours = trained(normalized, further, fit=by_epochs, state=state)
    assert ours[1].epoch == [3, 4, 5]
    assert_equal(ours, trained(normalized, further, state=state))


def test_without_a_seed_every_epoch_has_its_own_order():
    import tensorflow as tf

    from trialbook.epochs import _order_of_rows

    tf.random.set_seed(None)
    draw = _order_of_rows(100, shuffle=True)
    orders = [tuple(draw().numpy()) for _ in range(4)]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert len(set(orders)) == 4


def counted():
    """A net, and a layer in it that counts how often the steps are compiled."""
    import keras

    class Counting(keras.layers.Layer):
        times = 0

        def call(self, inputs):
            Counting.times += 1
            return inputs

    net = keras.Sequential([keras.Input((64,)), Counting(), keras.layers.Dense(10, "softmax")])
    net.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    Counting.times = 0
    return net, Counting


def test_steps_are_compiled_once_whatever_the_number_of_rows():
    net, counting = counted()
    epochs = Epochs(net)
    for n_rows, batch_size in ((203, 32), (150, 32), (100, 16)):
        data = {
            "x": X[:n_rows],
            "y": LABELS[:n_rows],
            "validation_data": (X[300 : 301 + n_rows], LABELS[300 : 301 + n_rows]),
        }
        epochs.fit(net.fit, {**data, "batch_size": batch_size, "epochs": 2, "verbose": 0})
    assert counting.times == 2  # once to train, once to judge


def test_a_model_compiled_anew_is_trained_anew():
    import keras

    def fit_twice(fit):
        keras.utils.set_random_seed(3)
        net = dense()
        epochs = Epochs(net)
        options = TRAINING | VALIDATION | {"epochs": 2, "verbose": 0}
        fit(epochs, net, options)
        net.layers[0].trainable = False
        net.compile(optimizer="sgd", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        return net, fit(epochs, net, options)

    assert_equal(fit_twice(by_epochs), fit_twice(lambda epochs, net, options: net.fit(**options)))


def test_other_uses_of_the_model_do_not_matter():
    import keras

    net = dense()
    keras.utils.set_random_seed(1)
    start = net.get_weights()
    net.evaluate(X, LABELS, verbose=0)
    net.predict(X, verbose=0)
    history = by_epochs(Epochs(net), net, TRAINING | VALIDATION | {"epochs": 2, "verbose": 0})
    judged = net.evaluate(*VALIDATION["validation_data"], verbose=0, return_dict=True)
    assert judged == {name: history.history[f"val_{name}"][-1] for name in judged}
    assert not np.array_equal(start[0], net.get_weights()[0])


def hooks_of(fit, said):
    """Trains with a callback that writes down when it is called and with what."""
    import keras

    def noting(name):
        def note(self, *args, **kwargs):
            logs = args[-1] if args else kwargs.get("logs")
            said.append((name, args[:-1], logs, float(self.model.optimizer.iterations)))
            if name == "on_epoch_end" and args[0] == 1:
                self.model.stop_training = True

        return note

    names = ("train_begin", "train_end", "epoch_begin", "epoch_end", "test_begin", "test_end")
    Noting = type("Noting", (keras.callbacks.Callback,), {f"on_{name}": noting(f"on_{name}") for name in names})
    return trained(dense, TRAINING | VALIDATION | {"epochs": 5, "callbacks": lambda: [Noting()]}, fit=fit)


def test_callbacks_hear_of_the_same_in_the_same_order():
    ours, theirs = [], []
    assert_equal(hooks_of(by_epochs, ours), hooks_of(None, theirs))
    assert ours == theirs
    assert [name for name, *_ in ours].count("on_epoch_end") == 2


@pytest.mark.parametrize("hook", ["on_train_begin", "on_epoch_begin", "on_test_begin"])
def test_a_callback_may_want_to_stop_before_it_begins(hook):
    import keras

    def stop(self, *args):
        self.model.stop_training = self.model.stop_evaluating = True

    Stopping = type("Stopping", (keras.callbacks.Callback,), {hook: stop})
    options = TRAINING | VALIDATION | {"callbacks": lambda: [Stopping()]}
    assert_equal(trained(dense, options, fit=by_epochs), trained(dense, options))


def test_folds_share_what_is_compiled():
    made = []

    def build(input_shape, n_classes):
        made.append(counted())
        return made[-1][0]

    estimator = KerasClassifier(build, seed=1, epochs=2, whole_epochs=True)
    for n_rows in (203, 150):
        estimator.fit(X[:n_rows], LABELS[:n_rows], validation_data=(X[300:], LABELS[300:]))
    ((_, counting),) = made
    assert counting.times == 2


def noisy(draw):
    """Builds a net to whose rows something drawn is added with every batch of a training."""

    def build(input_shape, n_classes):
        import keras

        class Noise(keras.layers.Layer):
            def call(self, inputs, training=False):
                return inputs + draw(inputs) if training else inputs

        net = keras.Sequential([keras.Input(input_shape), Noise(), keras.layers.Dense(n_classes, "softmax")])
        net.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return net

    return build


def of_tensorflow(inputs):
    import tensorflow as tf

    return tf.random.normal(tf.shape(inputs))


def of_keras(inputs):
    """From the generator that all who have none of their own have in common."""
    import keras

    return keras.random.normal(keras.ops.shape(inputs))


def of_python(inputs):
    import tensorflow as tf

    drawn = tf.py_function(lambda rows: tf.random.normal(tf.shape(rows)), [inputs], tf.float32)
    drawn.set_shape(inputs.shape)
    return drawn


def dropping(input_shape, n_classes):
    return mlp(input_shape, n_classes, units=16, dropout=0.3)


def counting(build):
    """The builder, and a list with what it has built."""
    built = []

    def build_and_count(input_shape, n_classes):
        built.append(build(input_shape, n_classes))
        return built[-1]

    return build_and_count, built


@pytest.fixture
def seeds(monkeypatch):
    """The seeds that have been set."""
    import keras

    said, set_random_seed = [], keras.utils.set_random_seed

    def note(seed):
        said.append(seed)
        set_random_seed(seed)

    monkeypatch.setattr(keras.utils, "set_random_seed", note)
    return said


def fitted(estimator, rows=203):
    """The history of a fit."""
    estimator.fit(X[:rows], LABELS[:rows], validation_data=(X[300:400], LABELS[300:400]))
    return estimator.history_


@pytest.mark.parametrize("draw", [None, of_tensorflow, of_keras, of_python])
def test_a_net_that_is_fitted_again_draws_as_a_new_one_does(draw):
    build = dropping if draw is None else noisy(draw)
    again = KerasClassifier(build, seed=1, epochs=2)
    for rows in (203, 150, 203, 192, 15):
        assert fitted(again, rows) == fitted(KerasClassifier(build, seed=1, epochs=2), rows)


def shaking(draw):
    """A callback that adds something drawn to the weights before each epoch."""
    import keras

    class Shaking(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            for weights in self.model.trainable_weights:
                weights.assign_add(0.1 * draw(weights))

    return Shaking()


@pytest.mark.parametrize("draw", [of_tensorflow, of_keras, lambda weights: np.random.normal(size=weights.shape)])
def test_a_callback_draws_the_same_in_every_fit(draw):
    build, built = counting(dropping)
    estimator = KerasClassifier(build, seed=1, epochs=2, callbacks=[shaking(draw)])
    assert fitted(estimator) == fitted(estimator)
    assert len(built) == 2, "it may have changed more than the variables"


def test_a_callback_of_keras_lets_a_net_be_kept(seeds):
    import keras

    build, built = counting(dropping)
    stopping = keras.callbacks.EarlyStopping("loss", patience=1, restore_best_weights=True)
    estimator = KerasClassifier(build, seed=1, epochs=3, callbacks=[stopping])
    assert fitted(estimator) == fitted(estimator)
    assert len(built) == 1
    assert seeds == [1, 1]


def test_a_seed_that_stays_as_it_is_is_not_set_again(seeds):
    estimator = KerasClassifier(dropping, seed=1, epochs=2)
    for _ in range(3):
        fitted(estimator)
    assert seeds == [1, 1], "for the net, and for its first fit"


def test_a_seed_that_somebody_else_has_set_is_set_again(seeds):
    import tensorflow as tf

    estimator = KerasClassifier(dropping, seed=1, epochs=2)
    first = fitted(estimator)
    tf.random.set_seed(5)
    assert fitted(estimator) == first
    assert seeds == [1, 1, 1]


def test_a_net_that_draws_from_the_seed_of_tensorflow_has_it_set_again(seeds):
    estimator = KerasClassifier(noisy(of_tensorflow), seed=1, epochs=2)
    for _ in range(3):
        fitted(estimator)
    assert seeds == [1, 1, 1, 1]


def test_a_net_that_draws_goes_on_from_another_seed_as_a_new_one_does(tmp_path):
    build, state = noisy(of_tensorflow), tmp_path / "state.weights.h5"

    def going_on(estimator):
        estimator.fit(X[:203], LABELS[:203], epochs=3, initial_epoch=2, initial_state=state)
        return estimator.history_

    kept = KerasClassifier(build, seed=1, epochs=2).fit(X[:203], LABELS[:203])
    kept.save_state(state)
    first = kept.history_
    assert going_on(kept) == going_on(KerasClassifier(build, seed=1))
    assert kept.fit(X[:203], LABELS[:203]).history_ == first


def test_without_a_seed_none_is_set(seeds):
    estimator = KerasClassifier(dropping, epochs=2)
    assert fitted(estimator) != fitted(estimator)
    assert seeds == []


def test_what_is_left_to_keras_takes_the_options_of_its_fit():
    by_option, by_parameter = (
        KerasClassifier(dropping, seed=1, epochs=2, whole_epochs=False, **size)
        for size in ({"fit_options": {"batch_size": 50}}, {"batch_size": 32})
    )
    # The parameter has the last word, as it always has.
    assert fitted(by_option) == fitted(by_parameter)


def test_an_estimator_trains_alike_either_way():
    def build(input_shape, n_classes):
        return counted()[0]

    by_keras, by_epochs = (
        KerasClassifier(build, seed=1, epochs=3, whole_epochs=whole).fit(X, LABELS, validation_data=(X, LABELS))
        for whole in (False, True)
    )
    assert by_epochs.history_ == by_keras.history_
    assert np.array_equal(by_epochs.predict_proba(X), by_keras.predict_proba(X))


class TestLeftToKeras:
    """What is not plainly supported is trained by Keras's own `fit`."""

    def plan(self, net, **options):
        return Epochs(net)._plan(net.fit, TRAINING | {"verbose": 0} | options)

    def test_the_rest_is_not(self):
        assert self.plan(dense()) is not None
        assert self.plan(dense(), validation_freq=1, class_weight=None, validation_split=0.0) is not None

    @pytest.mark.parametrize(
        "options",
        [
            {"verbose": 1},
            {"shuffle": "batch"},
            {"validation_split": 0.2},
            {"steps_per_epoch": 2},
            {"validation_freq": 2},
            {"class_weight": {0: 2.0}},
            {"x": [[0.0] * 64] * 203},
            {"x": X[:203].astype(str)},
            {"y": LABELS[:202]},
            {"sample_weight": list(WEIGHTS)},
            {"validation_data": [X[300:], LABELS[300:]]},
            {"batch_size": -1},
            {"batch_size": 32.0},
            {"epochs": "3"},
            {"callbacks": object()},
        ],
        ids=",".join,
    )
    def test_an_option(self, options):
        assert self.plan(dense(), **options) is None

    def test_a_data_set_of_tensorflow(self):
        import tensorflow as tf

        rows = tf.data.Dataset.from_tensor_slices((X[:203], LABELS[:203])).batch(32)
        options = {"x": rows, "batch_size": None, "shuffle": False}
        _, history = trained(dense, options, fit=lambda epochs, net, options: epochs.fit(net.fit, options))
        assert len(history.history["loss"]) == 3

    def test_rows_too_large_for_one_tensor(self, monkeypatch):
        monkeypatch.setattr("trialbook.epochs._LARGEST", X[:203].nbytes)
        assert self.plan(dense()) is None

    @pytest.mark.parametrize(
        "compiling", [{"run_eagerly": True}, {"jit_compile": True}, {"steps_per_execution": 4}], ids=str
    )
    def test_a_way_of_execution(self, compiling):
        net = dense()
        net.compile(optimizer="adam", loss="sparse_categorical_crossentropy", **compiling)
        assert self.plan(net) is None

    @pytest.mark.parametrize(
        "method", ["train_step", "test_step", "make_train_function", "compute_loss", "compute_metrics"]
    )
    @pytest.mark.parametrize("of_its_class", [True, False], ids=["class", "object"])
    def test_a_method_of_the_models_own(self, method, of_its_class):
        import keras

        called = []

        def own(self, *args, **kwargs):
            called.append(method)
            return getattr(keras.Model, method)(self, *args, **kwargs)

        net = dense()
        if of_its_class:
            net = type("Own", (keras.Model,), {method: own})(net.inputs, net.outputs)
            net.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
        else:
            setattr(net, method, own.__get__(net))
        assert self.plan(net) is None
        Epochs(net).fit(net.fit, TRAINING | VALIDATION | {"verbose": 0})
        assert called

    def test_a_fit_of_the_models_own(self):
        net = dense()
        fit = net.fit
        net.fit = lambda **options: ("my own", fit(**options))[0]
        assert Epochs(net).fit(net.fit, TRAINING | {"verbose": 0}) == "my own"

    def test_a_model_whose_call_is_all_that_is_known_of_it(self):
        import keras

        class Own(keras.Model):
            def __init__(self):
                super().__init__()
                self.last = keras.layers.Dense(10, "softmax")

            def build(self, input_shape):
                self.last.build(input_shape)

            def call(self, inputs):
                return self.last(inputs)

        def build():
            net = Own()
            net.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
            net.build((None, 64))
            return net

        assert self.plan(build()) is None
        assert_equal(
            trained(build, TRAINING, fit=lambda epochs, net, o: epochs.fit(net.fit, o)), trained(build, TRAINING)
        )

    def test_several_outputs(self):
        import keras

        rows = keras.Input((64,))
        net = keras.Model(rows, [keras.layers.Dense(10)(rows), keras.layers.Dense(1)(rows)])
        net.compile(optimizer="adam", loss=["mse", "mse"])
        assert self.plan(net) is None

    def test_a_metric_that_cannot_be_set_up_without_numbers(self, monkeypatch):
        def fail(self, rows):
            raise ValueError("numbers, please")

        monkeypatch.setattr(Epochs, "_make_metrics", fail)
        monkeypatch.setattr(Epochs, "_train", None)
        ours = trained(dense, TRAINING, fit=lambda epochs, net, options: epochs.fit(net.fit, options))
        assert_equal(ours, trained(dense, TRAINING))

    def test_a_distribution(self):
        import tensorflow as tf

        with tf.distribute.OneDeviceStrategy("/cpu:0").scope():
            net = dense()
        assert self.plan(net) is None

    @pytest.mark.parametrize("hook", ["on_train_batch_end", "on_batch_begin", "on_test_batch_end"])
    def test_a_callback_that_looks_at_batches(self, hook):
        import keras

        seen = []
        Looking = type(
            "Looking", (keras.callbacks.Callback,), {hook: lambda self, batch, logs=None: seen.append(batch)}
        )
        options = TRAINING | VALIDATION | {"epochs": 1, "callbacks": lambda: [Looking()]}
        ours = trained(dense, options, fit=lambda epochs, net, options: epochs.fit(net.fit, options))
        assert set(seen) == set(range(4 if "test" in hook else 7))
        assert_equal(ours, trained(dense, options))

    def test_a_lambda_that_looks_at_batches(self):
        import keras

        looking = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None)
        assert self.plan(dense(), callbacks=[looking]) is None
        assert self.plan(dense(), callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=print)]) is not None
