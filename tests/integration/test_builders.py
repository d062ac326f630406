"""Builders as Keras Tuner's users write them, in every search for which they make sense."""

import functools

import keras
import keras_tuner
import numpy as np
import pandas as pd
import pytest
from keras_tuner import oracles
from keras_tuner.engine.base_tuner import BaseTuner
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from trialbook.data import hold_out
from trialbook.errors import ModelError, RequestError, SpaceError
from trialbook.estimator import KerasClassifier, KerasRegressor
from trialbook.evaluate import Evaluator, Objective
from trialbook.executors import SerialExecutor
from trialbook.plan import space_of
from trialbook.search import loop
from trialbook.search.hyperparameters import discover
from trialbook.search.keras_tuner import OracleSearch
from trialbook.search.sklearn import GridSearch
from trialbook.space import Space
from trialbook.testing import MemoryJournal, SearchContract, completed
from trialbook.trial import State, Trial

pytestmark = [
    pytest.mark.slow,
    # Keras 3 converts TensorFlow's variables in a way that NumPy 2 calls old.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4)).astype("float32")
y = np.where(X[:, 0] > 0, "yes", "no")


def compiled(units, activation="relu", optimizer="adam"):
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, activation), keras.layers.Dense(1, "sigmoid")])
    net.compile(optimizer, "binary_crossentropy", metrics=["accuracy"])
    return net


def plain(hp):
    return compiled(hp.Int("units", 2, 6, step=2), hp.Choice("activation", ["relu", "tanh"]))


def conditional(hp):
    kind = hp.Choice("optimizer", ["adam", "sgd"])
    rate = hp.Float("rate", 1e-4, 1e-1, sampling="log")
    with hp.conditional_scope("optimizer", ["sgd"]):
        momentum = hp.Float("momentum", 0.0, 0.9, step=0.3)
        if hp.Boolean("nesterov"):
            pass
    optimizer = keras.optimizers.SGD(rate, momentum=momentum) if kind == "sgd" else keras.optimizers.Adam(rate)
    return compiled(hp.Fixed("units", 3), optimizer=optimizer)


def nested(hp):
    kind = hp.Choice("kind", ["a", "b"])
    with hp.conditional_scope("kind", ["b"]):
        hp.Int("layers", 1, 3)
        if kind == "b":
            with hp.conditional_scope("layers", [2, 3]):
                hp.Int("width", 1, 4)
    return compiled(2)


def guarded(hp):
    """Opens its scopes only where they hold, so that Keras Tuner learns of them late."""
    if hp.Choice("kind", ["a", "b"]) == "b":
        with hp.conditional_scope("kind", ["b"]):
            hp.Int("layers", 1, 3)
            with hp.conditional_scope("layers", [2, 3]):
                hp.Int("width", 1, 4)
    return compiled(2)


def looping(hp):
    for i in range(hp.Int("layers", 1, 3)):
        hp.Int(f"units_{i}", 2, 4)
    if hp.Choice("optimizer", ["adam", "sgd"]) == "sgd":
        hp.Float("momentum", 0.0, 0.9)
    return compiled(2)


class Tuned(keras_tuner.HyperModel):
    """Tunes how it is trained, too."""

    def build(self, hp):
        return compiled(hp.Choice("units", [2, 4]))

    def fit(self, hp, model, *args, **kwargs):
        return model.fit(*args, batch_size=hp.Choice("batch_size", [10, 20]), epochs=hp.Int("epochs", 2, 3), **kwargs)


class Patient(keras_tuner.HyperModel):
    """Leaves epochs and batch size to who calls, and stops early."""

    def build(self, hp):
        return compiled(hp.Int("units", 1, 20))

    def fit(self, hp, model, x, y, validation_data, callbacks=None, **kwargs):
        stop = keras.callbacks.EarlyStopping(monitor="val_loss", patience=50, restore_best_weights=True, mode="max")
        return model.fit(x, y, validation_data=validation_data, callbacks=[*callbacks, stop], **kwargs)


class Looped(keras_tuner.HyperModel):
    """A training loop of its own, as in Keras Tuner's guide, on a model that is not even compiled."""

    def __init__(self, units=2):
        super().__init__()
        self.units = units

    def build(self, hp):
        assert hp is not None
        return keras.Sequential([keras.layers.Dense(self.units), keras.layers.Dense(1, "sigmoid")])

    def fit(self, hp, model, x, y, validation_data, callbacks=None, epochs=1, **kwargs):
        scale = hp.Choice("scale", [0.5, 2.0])
        for callback in callbacks:
            callback.set_model(model)
        for epoch in range(epochs):
            model(x[: hp.Int("batch_size", 5, 15, step=5)])
            model.layers[0].kernel.assign(model.layers[0].kernel * scale)
            for callback in callbacks:
                callback.on_epoch_end(epoch, logs={"made_up": float(epoch)})
        return 0.0


def space(builder):
    return KerasClassifier(builder).search_space(X, y)


def discovered_by_keras_tuner(builder, tmp_path):
    oracle = oracles.RandomSearchOracle(objective=keras_tuner.Objective("score", "max"), seed=1)
    BaseTuner(oracle, builder, directory=str(tmp_path), project_name="discovery", overwrite=True)
    return oracle.get_space()


@pytest.mark.parametrize("builder", [plain, conditional, nested])
def test_the_space_is_discovered_as_keras_tuner_does_it(builder, tmp_path):
    ours, theirs = space(builder).hyperparameters, discovered_by_keras_tuner(builder, tmp_path)
    assert ours.get_config() == theirs.get_config()


def test_the_space_is_translated():
    assert (
        space(conditional).dimensions
        == Space.parse(
            {
                "optimizer": ["adam", "sgd"],
                "rate": {"low": 1e-4, "high": 1e-1, "log": True},
                "momentum": {"low": 0.0, "high": 0.9, "step": 0.3, "when": {"optimizer": "sgd"}},
                "nesterov": {"values": [True, False], "when": {"optimizer": "sgd"}},
                "units": 3,
            }
        ).dimensions
    )
    assert space(nested).grid() == [
        {"kind": ["a"]},
        {"kind": ["b"], "layers": [1]},
        {"kind": ["b"], "layers": [2], "width": [1, 2, 3, 4]},
        {"kind": ["b"], "layers": [3], "width": [1, 2, 3, 4]},
    ]


def test_what_is_asked_for_without_a_scope_is_found_too():
    assert space(guarded).dimensions == space(nested).dimensions
    assert space(looping).names == ("layers", "units_0", "optimizer", "units_1", "units_2", "momentum")


def test_a_fit_is_asked_without_training():
    assert space(Tuned).names == ("units", "batch_size", "epochs")
    assert space(Looped(3)).names == ("scale", "batch_size")


@pytest.mark.parametrize(
    ("oracle", "builder"),
    [
        (oracles.GridSearchOracle, plain),
        (functools.partial(oracles.RandomSearchOracle, max_trials=12), conditional),
        (functools.partial(oracles.HyperbandOracle, max_epochs=4), conditional),
        (functools.partial(oracles.GridSearchOracle, max_trials=9), nested),
    ],
)
def test_oracles_propose_what_keras_tuner_itself_proposes_for_the_builder(oracle, builder, tmp_path):
    made = oracle(objective=keras_tuner.Objective("score", "max"), seed=5)

    class Reference(BaseTuner):
        def run_trial(self, trial, **_):
            self.hypermodel.build(trial.hyperparameters)
            proposed.append({n: v for n, v in trial.hyperparameters.values.items() if not n.startswith("tuner/")})
            return {"score": float(len(proposed))}

    proposed = []
    Reference(made, builder, directory=str(tmp_path), project_name="reference", overwrite=True).search(verbose=0)
    search = OracleSearch(space(builder), oracle=oracle, seed=5)
    trials = []
    while (trial := search.ask()) is not None:
        trials.append(trial.params)
        search.tell(trial, completed(float(len(trials))))
    assert trials == [pytest.approx(values, abs=1e-9) for values in proposed]
    assert search.total == len(trials)


class TestDefineByRun(SearchContract):
    def make(self):
        oracle = functools.partial(oracles.HyperbandOracle, max_epochs=4, factor=2)
        return OracleSearch(space(conditional), oracle=oracle, seed=2)


def evaluator(builder, objective="accuracy", epoch="last", **options):
    estimator = KerasClassifier(builder, seed=1, **options)
    folds = [(np.arange(40), np.arange(40, 60)), (np.arange(20, 60), np.arange(20))]
    return Evaluator(estimator, X, y, folds, Objective.parse(objective, epoch=epoch))


def run(builder, search, **options):
    journal = MemoryJournal()
    outcome = loop.run(search, SerialExecutor(), evaluator(builder, **options), journal)
    assert [r.result.reason for r in outcome.records] == [None] * len(outcome.records)
    return outcome.records, journal


@pytest.mark.exhaustive
def test_a_hypermodel_that_tunes_its_training_works_with_a_grid_of_scikit_learn():
    records, journal = run(Tuned, GridSearch(space(Tuned)), epochs=7)
    # In scikit-learn's own order, the names in alphabetical order.
    grid = [{"batch_size": b, "epochs": e, "units": u} for b in (10, 20) for e in (2, 3) for u in (2, 4)]
    assert [r.trial.params for r in records] == grid
    for record in records:
        steps = {step for step, _ in journal.logs[record.trial.number].epochs}
        assert steps == set(range(record.trial.params["epochs"]))
        assert record.result.best_epoch == record.trial.params["epochs"]


@pytest.mark.exhaustive
def test_hyperband_hands_out_the_epochs_of_a_fit_that_leaves_them_to_its_caller():
    oracle = functools.partial(oracles.HyperbandOracle, max_epochs=4, factor=2)
    records, journal = run(Patient(), OracleSearch(space(Patient), oracle=oracle, seed=1), epochs=99)
    continued = [r for r in records if r.trial.continues is not None]
    assert continued
    for record in records:
        steps = sorted({step for step, _ in journal.logs[record.trial.number].epochs})
        assert steps == list(range(record.trial.initial_epoch, record.trial.epochs))


def test_hyperband_has_the_last_word_over_a_fit_that_says_how_long():
    estimator = KerasClassifier(Tuned(), seed=1).set_params(units=2)
    seen = []
    estimator.fit(X, y, epochs=5, initial_epoch=3, on_epoch_end=lambda epoch, _: seen.append(epoch))
    assert seen == [3, 4]


def test_early_stopping_inside_a_fit_is_noticed():
    net = KerasClassifier(Patient(), epochs=4, seed=1).fit(X, y, validation_data=(X, y))
    # It was told that more loss is better, and the loss falls.
    assert net.epoch_ == 1
    assert len(net.history_["val_loss"]) == 4


def test_a_training_loop_of_its_own_reports_its_epochs():
    record, journal = run(Looped(3), GridSearch(space(Looped)), epochs=2)
    assert journal.logs[0].epochs == [
        (0, {"fold_0/made_up": 0.0}),
        (1, {"fold_0/made_up": 1.0}),
        (0, {"fold_1/made_up": 0.0}),
        (1, {"fold_1/made_up": 1.0}),
    ]
    assert len(record) == 6


def test_without_validation_rows_a_fit_that_wants_some_gets_the_training_rows():
    assert KerasClassifier(Patient(), epochs=2, seed=1).fit(X, y).predict(X).shape == (60,)


def test_values_reach_the_builder_and_the_estimator_alike():
    net = KerasClassifier(plain, seed=1).set_params(units=6, activation="tanh")
    assert clone(net).get_params()["units"] == 6
    layer = net.fit(X, y).model_.layers[0]
    assert (layer.units, layer.activation.__name__) == (6, "tanh")
    # What nobody sets has the builder's own default.
    assert KerasClassifier(plain).fit(X, y).model_.layers[0].units == 2


def test_a_builder_that_asks_for_the_batch_size_gets_the_estimators():
    asked = []

    def nosy(hp):
        asked.append((hp.Int("batch_size", 1, 99), hp.Int("epochs", 1, 99)))
        return compiled(2)

    KerasClassifier(nosy, batch_size=15, epochs=2, seed=1).fit(X, y)
    assert asked == [(15, 2)]


def test_scikit_learns_own_search_takes_such_a_builder():
    search = GridSearchCV(KerasClassifier(plain, seed=1), {"units": [2, 4]}, cv=2).fit(X, y)
    assert set(search.best_params_) == {"units"}
    assert len(search.cv_results_["rank_test_score"]) == 2


def test_the_same_seed_gives_the_same_net_in_every_style():
    nets = [
        KerasClassifier(lambda units=2: compiled(units), seed=3, epochs=2, units=4).fit(X, y),
        KerasClassifier(lambda hp: compiled(hp.Int("units", 2, 6)), seed=3, epochs=2, units=4).fit(X, y),
        KerasClassifier(Patient(), seed=3, epochs=2, units=4).fit(X, y),
    ]
    first = nets[0].predict_proba(X)
    np.testing.assert_allclose(nets[1].predict_proba(X), first, rtol=1e-5)
    assert nets[0].history_["loss"] == pytest.approx(nets[2].history_["loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("builder", "said"),
    [
        (lambda hp: compiled(2), "neither the configuration nor the builder declares"),
        (lambda hp: compiled(2 * bool(hp.Float("x", 1, 2, sampling="reverse_log"))), "reverse_log"),
        (lambda hp: compiled(hp.Int("callbacks", 1, 2)), "'callbacks', which is the estimator's"),
        (lambda hp: 1 / 0, "failed when asked for its hyperparameters: ZeroDivisionError"),
        (lambda units: compiled(units), "declares no search space"),
        ("tests.nowhere", "cannot be found"),
        (7, "must be a function or a keras_tuner.HyperModel"),
        (keras.Sequential(), "is not a keras_tuner.HyperModel"),
    ],
)
def test_what_cannot_work_is_refused_in_a_sentence(builder, said):
    with pytest.raises(RequestError) as refused:
        space(builder)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_builder_that_never_stops_asking_is_refused():
    names = iter(range(10**6))
    with pytest.raises(SpaceError, match="still asks for something new"):
        discover(lambda hp: hp.Choice(f"x{next(names)}", [1, 2]))


def test_a_declared_space_may_be_narrower_but_not_misspelt():
    data = hold_out(pd.DataFrame(X), y, "made", "classification", "", test_size=0.2, test_seed=0)
    net = KerasClassifier(plain)
    declared = Space.parse({"units": [2, 4], "batch_size": [16, 32]})
    assert space_of(declared, net, data) == declared
    assert space_of(None, net, data).names == ("units", "activation")
    with pytest.raises(SpaceError, match=r"space\.unitz is nothing the builder asks for; it asks for: units, activ"):
        space_of(Space.parse({"unitz": [2]}), net, data)
    with pytest.raises(SpaceError, match="space is empty"):
        space_of(None, KerasClassifier(compiled), data)


# Callbacks and weights, for builders of any kind.


def early(**options):
    return keras.callbacks.EarlyStopping(**{"monitor": "val_loss", "restore_best_weights": True, **options})


@pytest.mark.parametrize("objective", ["accuracy", "val_loss"])
def test_the_epoch_on_record_is_the_one_early_stopping_put_back(objective):
    # Told that more loss is better, it goes back to the first epoch.
    work = evaluator(plain, objective=objective, epochs=4, callbacks=[early(mode="max", patience=2)])
    log = MemoryJournal().open(Trial(0, {}))
    result = work(Trial(0, {"units": 4}), log)
    assert result.state is State.COMPLETE, result.reason
    assert result.best_epoch == 1
    if objective == "val_loss":
        first = [
            metrics[f"fold_{fold}/val_loss"]
            for fold in (0, 1)
            for step, metrics in log.epochs
            if step == 0 and f"fold_{fold}/val_loss" in metrics
        ]
        assert result.fold_scores == pytest.approx(first)


def test_without_restoring_the_last_epoch_counts():
    work = evaluator(plain, epochs=9, callbacks=[early(mode="max", patience=2, restore_best_weights=False)])
    log = MemoryJournal().open(Trial(0, {}))
    assert work(Trial(0, {}), log).best_epoch == 3
    assert max(step for step, _ in log.epochs) == 2


def test_each_fit_has_fresh_callbacks_and_a_fresh_learning_rate():
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    net = KerasClassifier(plain, seed=1, epochs=2, callbacks=[schedule])
    rates = [float(net.fit(X, y).model_.optimizer.learning_rate) for _ in range(2)]
    assert rates == pytest.approx([0.00025, 0.00025])
    assert not hasattr(schedule, "_model") or schedule._model is None


def test_what_watches_validation_data_takes_no_part_without(recwarn):
    net = KerasClassifier(plain, seed=1, epochs=3, callbacks=[early(patience=0)]).fit(X, y)
    assert net.epoch_ == 3
    # TensorFlow is behind in what Python deprecates; nobody is shown that.
    assert not [w for w in recwarn if w.category is not DeprecationWarning]


def test_class_weights_are_sample_weights():
    labels = np.where(np.arange(60) < 10, "rare", "usual")
    weights = np.where(labels == "rare", 6.0, 1.0)
    by_class = KerasClassifier(plain, seed=1, class_weight={"rare": 6.0}).fit(X, labels)
    by_row = KerasClassifier(plain, seed=1).fit(X, labels, sample_weight=weights)
    plainly = KerasClassifier(plain, seed=1).fit(X, labels)
    np.testing.assert_array_equal(by_class.predict_proba(X), by_row.predict_proba(X))
    assert not np.allclose(by_class.predict_proba(X), plainly.predict_proba(X))
    balanced = KerasClassifier(plain, seed=1, class_weight="balanced").fit(X, labels)
    by_hand = KerasClassifier(plain, seed=1, class_weight={"rare": 3.0, "usual": 0.6}).fit(X, labels)
    np.testing.assert_allclose(balanced.predict_proba(X), by_hand.predict_proba(X), rtol=1e-6)
    both = KerasClassifier(plain, seed=1, class_weight={"rare": 2.0}).fit(
        X, labels, sample_weight=np.where(labels == "rare", 3.0, 1.0)
    )
    np.testing.assert_allclose(both.predict_proba(X), by_row.predict_proba(X), rtol=1e-6)


def test_class_weights_that_cannot_be_are_refused():
    with pytest.raises(ModelError, match="a regression has none"):
        KerasRegressor(plain, class_weight="balanced").fit(X, X[:, 0])
    with pytest.raises(ModelError, match="class_weight='even' cannot be used"):
        KerasClassifier(plain, class_weight="even").fit(X, y)
