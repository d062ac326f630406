"""A Keras net as a scikit-learn estimator, held to plain Keras and to scikit-learn."""

import functools
import pickle
import re

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
from mlflow.models import Model
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from trialbook import model_files, saved_model
from trialbook.envelope import envelope_of
from trialbook.errors import ModelError, RequestError
from trialbook.estimator import KeptNets, KerasClassifier, KerasRegressor
from trialbook.evaluate import Evaluator, Objective
from trialbook.executors import SerialExecutor
from trialbook.models import mlp
from trialbook.report import leaderboard
from trialbook.search import loop
from trialbook.search.sklearn import GridSearch
from trialbook.space import Space
from trialbook.testing import MemoryJournal

pytestmark = pytest.mark.slow


@pytest.fixture(name="iris", scope="module")
def load_rows():
    X, y = load_iris(return_X_y=True)
    return X, y


def compiled(input_shape, n_classes, loss="sparse_categorical_crossentropy", shuffle=True):

    net = mlp(input_shape, n_classes, units=8)
    net.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    return net


def test_it_trains_as_plain_keras_does(iris):
    import keras

    X, y = iris
    estimator = KerasClassifier(mlp, epochs=3, seed=7, units=8, dropout=0.2).fit(X, y)
    keras.utils.set_random_seed(7)
    net = mlp((4,), 3, units=8, dropout=0.2)
    keras.utils.set_random_seed(7)
    history = net.fit(X.astype("float32"), y, epochs=3, batch_size=32, verbose=0).history
    assert estimator.history_ == history


def test_a_kept_net_trains_like_one_newly_built(iris):
    X, y = iris
    estimator = KerasClassifier(mlp, epochs=3, seed=7, units=8, dropout=0.2)
    first = estimator.fit(X[::2], y[::2]).history_
    kept = estimator.model_
    second = estimator.fit(X, y).history_
    assert estimator.model_ is kept
    assert estimator.fit(X[::2], y[::2]).history_ == first
    assert clone(estimator).fit(X, y).history_ == second


def test_estimators_that_share_their_nets_train_like_others(iris):
    X, y = iris
    nets = KeptNets(2)

    def fitted(shared, **hyperparameters):
        estimator = KerasClassifier(mlp, epochs=3, seed=7, dropout=0.2, **hyperparameters)
        if shared:
            estimator.share(nets)
        return estimator.fit(X, y)

    narrow, wide = fitted(True, units=8), fitted(True, units=16)
    again = fitted(True, units=8, batch_size=16)
    assert again.model_ is narrow.model_
    assert again.history_ == fitted(False, units=8, batch_size=16).history_
    fitted(True, units=4)
    assert fitted(True, units=16).model_ is not wide.model_, "only two are kept, those used last"
    assert pickle.loads(pickle.dumps(nets)).fresh("any") is None


def test_another_hyperparameter_is_another_net(iris):
    X, y = iris
    estimator = KerasClassifier(mlp, seed=7, units=8).fit(X, y)
    kept = estimator.model_
    assert estimator.set_params(units=9).fit(X, y).model_ is not kept
    assert estimator.model_.layers[0].units == 9


def test_going_on_from_saved_state_is_training_without_a_break(iris, tmp_path):
    X, y = iris
    make = functools.partial(KerasClassifier, mlp, seed=3, units=8, fit_options={"shuffle": False})
    whole = make(epochs=5).fit(X, y)
    begun = make().fit(X, y, epochs=2)
    begun.save_state(tmp_path / "state.weights.h5")
    went_on = make().fit(X, y, epochs=5, initial_epoch=2, initial_state=tmp_path / "state.weights.h5")
    assert begun.history_["loss"] + went_on.history_["loss"] == pytest.approx(whole.history_["loss"], rel=1e-6)
    for a, b in zip(whole.model_.get_weights(), went_on.model_.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    assert int(went_on.model_.optimizer.iterations.numpy()) == int(whole.model_.optimizer.iterations.numpy())


@pytest.mark.parametrize("labels", [np.array([0, 1, 2]), np.array(["a", "b", "c"]), np.array([5, 7, 9])])
def test_labels_may_be_anything(iris, labels):
    X, y = iris
    estimator = KerasClassifier(mlp, epochs=30, seed=1, units=16, learning_rate=0.01).fit(X, labels[y])
    assert list(estimator.classes_) == list(labels)
    assert estimator.score(X, labels[y]) > 0.8
    probabilities = estimator.predict_proba(X)
    assert probabilities.shape == (150, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_two_classes_share_one_sigmoid_output(iris):
    X, y = iris
    X, y = X[y > 0], np.array(["no", "no", "yes"])[y[y > 0]]
    estimator = KerasClassifier(mlp, epochs=60, seed=1, units=16, learning_rate=0.01).fit(X, y)
    assert estimator.model_.output_shape == (None, 1)
    assert estimator.score(X, y) > 0.8
    assert list(estimator.classes_) == ["no", "yes"]


def test_a_categorical_loss_gets_one_column_for_each_class(iris):
    X, y = iris
    builder = functools.partial(compiled, loss="categorical_crossentropy")
    assert KerasClassifier(builder, epochs=2, seed=1).fit(X, y).predict(X).shape == (150,)


def test_a_regression(iris):
    X, _ = iris
    estimator = KerasRegressor(mlp, epochs=60, seed=1, units=16, learning_rate=0.01).fit(X[:, :3], X[:, 3])
    assert estimator.predict(X[:, :3]).shape == (150,)
    assert estimator.score(X[:, :3], X[:, 3]) > 0.7


# MLflow compares the columns with a range.
@pytest.mark.filterwarnings("ignore:Operation with range:DeprecationWarning")
def test_a_large_target_is_learned_in_standard_deviations(iris, tmp_path):
    X, rows = iris[0][:, :3], pd.DataFrame(iris[0][:, :3], columns=["a", "b", "c"])
    small = iris[0][:, 3]
    large = 1e6 + 1e5 * small
    make = functools.partial(KerasRegressor, mlp, epochs=60, seed=1, units=16, learning_rate=0.01)
    estimator = make(standardize_target=True).fit(X, large)
    assert estimator.score(X, large) > 0.9
    assert make().fit(X, large).score(X, large) < 0
    # The curves are those of the target in standard deviations, whatever its units.
    assert estimator.history_["loss"] == pytest.approx(make(standardize_target=True).fit(X, small).history_["loss"])
    assert estimator.evaluate(X, large)["loss"] == pytest.approx(1 - estimator.score(X, large), rel=1e-4)
    # What is saved predicts the target's own units, behind MLflow and loaded as an estimator.
    saved_model.save(estimator, tmp_path / "model", Model(), envelope_of(estimator, rows, large))
    assert mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(rows) == pytest.approx(estimator.predict(X))
    loaded = model_files.load(tmp_path / "model")
    assert loaded.predict(X) == pytest.approx(estimator.predict(X))
    assert loaded.evaluate(X, large) == pytest.approx(estimator.evaluate(X, large))


def test_each_fold_is_put_back_into_units_of_its_own(iris):
    X, y = iris[0][:, :3], 1e6 + 1e5 * iris[0][:, 3]
    estimator = KerasRegressor(mlp, epochs=20, seed=1, units=16, learning_rate=0.01, standardize_target=True)
    first = estimator.fit(X[:75], y[:75])
    predicted, snapshot = first.predict(X), first.snapshot()
    estimator.fit(X[75:], y[75:])
    estimator.restore(snapshot)
    assert estimator.predict(X) == pytest.approx(predicted)


def test_labels_are_not_standardized(iris):
    X, y = iris
    with pytest.raises(ModelError, match="standardize_target=True needs a target of numbers"):
        KerasClassifier(mlp, standardize_target=True).fit(X, y)


def test_parameters_are_those_of_a_scikit_learn_estimator():
    estimator = KerasClassifier("trialbook.models.mlp", epochs=3, units=8)
    params = estimator.get_params()
    assert params["units"] == 8
    assert params["dropout"] == 0.0
    assert params["epochs"] == 3
    assert clone(estimator).get_params() == params
    assert estimator.set_params(learning_rate=0.5, batch_size=4).get_params()["learning_rate"] == 0.5
    with pytest.raises(ModelError, match="takes no hyperparameter 'unit'; allowed: units, hidden_layers"):
        estimator.set_params(unit=3)


def test_a_fitted_estimator_can_be_pickled(iris):
    X, y = iris
    estimator = KerasClassifier(mlp, seed=1, units=8).fit(X, y)
    copy = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(copy.predict_proba(X), estimator.predict_proba(X))


def test_other_generators_are_left_alone(iris):
    X, y = iris
    np.random.seed(0)
    expected = np.random.rand(2)
    np.random.seed(0)
    first = np.random.rand()
    KerasClassifier(mlp, seed=1, units=8).fit(X, y)
    assert [first, np.random.rand()] == list(expected)


@pytest.mark.parametrize(
    ("builder", "said"),
    [
        (lambda input_shape: None, "must return a keras.Model, got NoneType"),
        (lambda input_shape, n_classes: mlp(input_shape, n_classes + 1), "has the shape (None, 4); for 3 classes"),
        (3, "must be a function or a keras_tuner.HyperModel"),
        ("nowhere.to_be_found", "builder=nowhere.to_be_found cannot be found: no module nowhere is installed"),
        ("trialbook.models.nothing", "trialbook.models has no nothing"),
        ("trialbook.__version__", "is not allowed to run"),
        ("os.system", "builder=os.system is not allowed to run"),
        ("trialbook.models.math.sqrt", "is not allowed to run"),
    ],
)
def test_a_builder_that_cannot_be_used_is_refused_in_a_sentence(iris, builder, said):
    with pytest.raises(RequestError, match=re.escape(said)):
        KerasClassifier(builder).rehearse(*iris)


def test_a_model_that_is_not_compiled_is_refused(iris):
    def build(input_shape):
        import keras

        return keras.Sequential([keras.Input(input_shape), keras.layers.Dense(3)])

    with pytest.raises(ModelError, match="not compiled"):
        KerasClassifier(build).fit(*iris)


def test_a_grid_over_a_net_scores_and_ranks_as_grid_search_cv_does():
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    X, y = X[:200], y[:200].to_numpy()
    net = KerasClassifier(mlp, epochs=3, seed=1)
    estimator = Pipeline([("scale", StandardScaler()), ("net", net)])
    cv = StratifiedKFold(3, shuffle=True, random_state=0)
    grid = {"units": [2, 8], "learning_rate": [0.1, 0.001], "dropout": [0.0, 0.3]}

    peer = GridSearchCV(clone(estimator), {f"net__{name}": values for name, values in grid.items()}, cv=cv, refit=False)
    expected = peer.fit(X, y).cv_results_

    evaluator = Evaluator(estimator, X, y, list(cv.split(X, y)), Objective.parse("accuracy"))
    search = GridSearch(Space.parse(grid))
    outcome = loop.run(search, SerialExecutor(), evaluator, MemoryJournal())
    board = leaderboard(outcome.records, maximize=True).sort_values("trial")

    ours = [{f"net__{name}": value for name, value in r.trial.params.items()} for r in outcome.records]
    assert ours == expected["params"]
    for column in ["mean_test_score", "std_test_score", *(f"split{i}_test_score" for i in range(3))]:
        np.testing.assert_array_equal(board[column].to_numpy(), expected[column])
    assert list(board["rank_test_score"]) == list(expected["rank_test_score"])


class TestHyperbandOverANet:
    """Hyperband through the loop, on a few rows."""

    def play(self, iris, **builder):
        import keras_tuner

        from trialbook.search.keras_tuner import OracleSearch

        X, y = iris
        folds = [(np.arange(0, 150, 2), np.arange(1, 150, 2))]
        journal = MemoryJournal()
        estimator = KerasClassifier(mlp, seed=1, fit_options={"shuffle": False}, **builder)
        evaluator = Evaluator(estimator, X, y, folds, Objective.parse("accuracy", epoch="best"))
        search = OracleSearch(
            Space.parse({"units": {"low": 2, "high": 32, "step": 2}}),
            oracle=functools.partial(keras_tuner.oracles.HyperbandOracle, max_epochs=4, factor=2),
            seed=5,
        )
        loop.run(search, SerialExecutor(), evaluator, journal)
        return journal

    def test_continued_trials_go_on_where_the_earlier_one_ended(self, iris):
        journal = self.play(iris)
        continued = [t for t in journal.opened if t.continues is not None]
        assert continued
        X, y = iris
        for trial in continued:
            # Without a break: the same epochs from the start, in one go.
            whole = KerasClassifier(mlp, seed=1, fit_options={"shuffle": False}, units=trial.params["units"])
            whole.fit(X[::2], y[::2], epochs=trial.epochs)
            steps = [step for step, _ in journal.logs[trial.number].epochs]
            losses = [metrics["loss"] for _, metrics in journal.logs[trial.number].epochs]
            assert steps == list(range(trial.initial_epoch, trial.epochs))
            assert losses == pytest.approx(whole.history_["loss"][trial.initial_epoch :], rel=1e-5)

    def test_the_same_seed_gives_the_same_trials_and_scores(self, iris):
        first, second = self.play(iris), self.play(iris)
        assert [r.trial for r in first.records] == [r.trial for r in second.records]
        assert [r.objective for r in first.records] == [r.objective for r in second.records]

    def test_a_trials_model_is_the_net_of_its_best_epoch(self, iris):
        X, y = iris
        journal = self.play(iris)
        record = journal.records[-1]
        ((_, estimator),) = journal.logs[record.trial.number].models
        assert estimator.score(X[1::2], y[1::2]) == record.objective
