"""What the searches propose, against Keras Tuner's own tuning loop with the same arguments and seed."""

import functools
import zlib

import keras_tuner
import pytest
from keras_tuner import oracles
from keras_tuner.engine.base_tuner import BaseTuner

from trialbook.errors import SpaceError
from trialbook.search.hyperparameters import declare
from trialbook.search.keras_tuner import OracleSearch
from trialbook.space import Space
from trialbook.testing import SearchContract, completed

pytestmark = [
    pytest.mark.slow,
    # Of Keras Tuner's own loop, which lets it through; the search under test must not.
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

SPACE = {
    "units": {"low": 32, "high": 512, "step": 32},
    "learning_rate": {"values": [1e-2, 1e-3, 1e-4]},
    "dropout": {"low": 0.0, "high": 0.5},
    "decay": {"low": 1e-5, "high": 1e-1, "log": True},
    "optimizer": {"values": ["adam", "sgd"]},
    "momentum": {"values": [0.5, 0.9], "when": {"optimizer": "sgd"}},
}


def space_by_hand():
    hp = keras_tuner.HyperParameters()
    hp.Int("units", 32, 512, step=32)
    hp.Choice("learning_rate", [1e-2, 1e-3, 1e-4])
    hp.Float("dropout", 0.0, 0.5)
    hp.Float("decay", 1e-5, 1e-1, sampling="log")
    hp.Choice("optimizer", ["adam", "sgd"])
    with hp.conditional_scope("optimizer", ["sgd"]):
        hp.Choice("momentum", [0.5, 0.9])
    return hp


# Keras Tuner's grid takes ten points of a range without a step; ours takes `num`, so both are given the points.
GRID = {
    "units": {"low": 32, "high": 128, "step": 32},
    "decay": {"low": 1e-4, "high": 1e-2, "log": True, "num": 3},
    "optimizer": {"values": ["adam", "sgd"]},
    "momentum": {"values": [0.5, 0.9], "when": {"optimizer": "sgd"}},
}


def grid_by_hand():
    hp = keras_tuner.HyperParameters()
    hp.Int("units", 32, 128, step=32)
    hp.Choice("decay", [1e-4, 1e-3, 1e-2])
    hp.Choice("optimizer", ["adam", "sgd"])
    with hp.conditional_scope("optimizer", ["sgd"]):
        hp.Choice("momentum", [0.5, 0.9])
    return hp


def objective(values, epochs):
    text = repr(sorted((name, value) for name, value in values.items() if not name.startswith("tuner/")))
    return zlib.crc32(f"{text}{epochs}".encode()) / 2**32


class Reference(BaseTuner):
    """Keras Tuner's own loop, told a number made of the hyperparameters instead of a training's result."""

    def run_trial(self, trial, **_):
        self.proposed.append(dict(trial.hyperparameters.values))
        score = objective(trial.hyperparameters.values, trial.hyperparameters.values.get("tuner/epochs"))
        return {"score": score}


def proposed_by_keras_tuner(tmp_path, oracle, hyperparameters, seed, direction="max"):
    made = oracle(objective=keras_tuner.Objective("score", direction), hyperparameters=hyperparameters, seed=seed)
    tuner = Reference(made, directory=str(tmp_path), project_name="reference", overwrite=True)
    tuner.proposed = []
    tuner.search(verbose=0)
    return tuner.proposed


def asked(search):
    trials = []
    while (trial := search.ask()) is not None:
        trials.append(trial)
        search.tell(trial, completed(objective(trial.params, trial.epochs), best_epoch=trial.epochs))
    return trials


@pytest.mark.parametrize("seed", [1, 7])
@pytest.mark.parametrize("direction", ["max", "min"])
@pytest.mark.parametrize(
    ("oracle", "declared", "by_hand"),
    [
        (oracles.GridSearchOracle, GRID, grid_by_hand),
        (functools.partial(oracles.GridSearchOracle, max_trials=7), GRID, grid_by_hand),
        (functools.partial(oracles.RandomSearchOracle, max_trials=25), SPACE, space_by_hand),
        (functools.partial(oracles.RandomSearchOracle, max_trials=60), GRID | {"decay": 1}, None),
        (
            functools.partial(oracles.BayesianOptimizationOracle, max_trials=7, num_initial_points=4, beta=2.0),
            {name: SPACE[name] for name in ("decay", "optimizer", "momentum")},
            None,
        ),
    ],
    ids=["grid", "grid-limited", "random", "random-exhausted", "bayesian"],
)
def test_same_hyperparameters_in_the_same_order(tmp_path, oracle, declared, by_hand, seed, direction):
    space = Space.parse(declared)
    expected = proposed_by_keras_tuner(tmp_path, oracle, by_hand() if by_hand else declare(space), seed, direction)
    search = OracleSearch(space, oracle=oracle, seed=seed, maximize=direction == "max")
    trials = asked(search)
    assert [trial.params for trial in trials] == expected
    assert len(trials) > 6
    assert [trial.number for trial in trials] == list(range(len(expected)))
    assert search.total in (len(expected), None)


def test_the_declared_space_is_the_one_written_by_hand():
    assert declare(Space.parse(SPACE)).get_config() == space_by_hand().get_config()


@pytest.mark.parametrize("seed", [1, 5])
@pytest.mark.parametrize(
    ("max_epochs", "factor", "iterations"), [(10, 3, 1), (9, 3, 2), (16, 4, 1), (8, 2, 1), (2, 3, 1), (1, 3, 1)]
)
def test_hyperband_hands_out_the_same_epochs(tmp_path, max_epochs, factor, iterations, seed):
    oracle = functools.partial(
        oracles.HyperbandOracle, max_epochs=max_epochs, factor=factor, hyperband_iterations=iterations
    )
    expected = proposed_by_keras_tuner(tmp_path, oracle, space_by_hand(), seed)
    search = OracleSearch(Space.parse(SPACE), oracle=oracle, seed=seed)
    trials = asked(search)
    assert [as_keras_tuner_says(trial) for trial in trials] == expected
    assert search.total == len(expected)
    # A trial keeps its state if, and only if, a later one might go on from it.
    continued = {trial.continues for trial in trials} - {None}
    assert all(trials[number].keep_state for number in continued)
    assert all(trial.epochs < max_epochs for trial in trials if trial.keep_state)


def as_keras_tuner_says(trial):
    said = dict(trial.params) | {"tuner/epochs": trial.epochs, "tuner/initial_epoch": trial.initial_epoch}
    said |= {f"tuner/{name}": value for name, value in trial.details.items()}
    if trial.continues is not None:
        said["tuner/trial_id"] = f"{trial.continues:04d}"
    return said


def test_a_step_reaches_the_upper_end_which_keras_tuner_rounds_away():
    space = Space.parse({"dropout": {"low": 0.0, "high": 0.5, "step": 0.1}})
    search = OracleSearch(space, oracle=functools.partial(oracles.RandomSearchOracle, max_trials=6), seed=3)
    assert sorted(trial.params["dropout"] for trial in asked(search)) == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    theirs = keras_tuner.HyperParameters()
    theirs.Float("dropout", 0.0, 0.5, step=0.1)
    assert 0.5 not in theirs.space[0].values


def test_a_grid_takes_num_points_and_refuses_a_range_without():
    space = Space.parse({"rate": {"low": 1e-3, "high": 1e-1, "log": True, "num": 3}})
    search = OracleSearch(space, oracle=oracles.GridSearchOracle, seed=1)
    assert search.total == 3
    assert [trial.params for trial in asked(search)] == [{"rate": 1e-3}, {"rate": 1e-2}, {"rate": 1e-1}]
    with pytest.raises(SpaceError, match=r"space\.rate is a continuous range.*num"):
        OracleSearch(Space.parse({"rate": {"low": 0.1, "high": 0.2}}), oracle=oracles.GridSearchOracle)


def test_hyperband_refuses_to_search_over_epochs():
    with pytest.raises(SpaceError, match="hands out the epochs"):
        OracleSearch(Space.parse({"epochs": [5, 10]}), oracle=functools.partial(oracles.HyperbandOracle, max_epochs=9))


@pytest.mark.parametrize(
    ("declared", "max_trials", "total"),
    [
        ({"a": [1, 2, 3], "b": ["x", "y"]}, 10, 6),  # exhausted
        ({"a": [1, 2, 3], "b": ["x", "y"]}, 4, 4),
        ({"a": {"low": 0.0, "high": 1.0, "num": 2}}, 10, 10),  # num is for grids
        ({"a": {"low": 0, "high": 2**31}}, 10, 10),
        ({"a": {"low": 1, "high": 4, "log": True}}, 10, 4),
    ],
)
def test_the_total_of_a_random_search_counts_points(declared, max_trials, total):
    oracle = functools.partial(oracles.RandomSearchOracle, max_trials=max_trials)
    search = OracleSearch(Space.parse(declared), oracle=oracle, seed=2)
    assert search.total == total == len(asked(search))


def test_the_total_of_a_bayesian_search_is_unknown_where_it_may_run_out_of_points():
    oracle = functools.partial(oracles.BayesianOptimizationOracle, max_trials=10)
    assert OracleSearch(Space.parse({"a": [1, 2]}), oracle=oracle).total is None
    assert OracleSearch(Space.parse({"a": {"low": 0.0, "high": 1.0}}), oracle=oracle).total == 10


class TestGrid(SearchContract):
    def make(self):
        return OracleSearch(Space.parse(GRID), oracle=oracles.GridSearchOracle, seed=0)


class TestRandom(SearchContract):
    def make(self):
        return OracleSearch(
            Space.parse(SPACE), oracle=functools.partial(oracles.RandomSearchOracle, max_trials=9), seed=0
        )


class TestBayesian(SearchContract):
    def make(self):
        oracle = functools.partial(oracles.BayesianOptimizationOracle, max_trials=6, num_initial_points=3)
        return OracleSearch(Space.parse({"a": {"low": 0.0, "high": 1.0}}), oracle=oracle, seed=4)
