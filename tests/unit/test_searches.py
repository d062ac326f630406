import functools

import pytest

from trialbook.errors import RequestError, SpaceError
from trialbook.search.sklearn import GridSearch, HalvingGridSearch, HalvingRandomSearch, RandomSearch
from trialbook.space import Space
from trialbook.testing import SearchContract, completed, failed
from trialbook.trial import Setting

SETTING = Setting(n_samples=400, n_splits=3, smallest_part=100, n_classes=2)
SPACE = {
    "units": {"low": 32, "high": 128, "step": 32},
    "rate": [0.01, 0.001],
    "dropout": {"values": [None, 0.5], "when": {"rate": 0.01}},
}


class TestGridSearch(SearchContract):
    def make(self):
        return GridSearch(Space.parse(SPACE))


class TestRandomSearch(SearchContract):
    def make(self):
        return RandomSearch(Space.parse(SPACE | {"C": {"low": 0.1, "high": 10.0, "log": True}}), n_iter=15, seed=3)


class TestRandomSearchOfFewPoints(SearchContract):
    def make(self):
        return RandomSearch(Space.parse(SPACE), n_iter=100, seed=3)


class TestHalvingGridSearch(SearchContract):
    def make(self):
        return HalvingGridSearch(Space.parse(SPACE), setting=SETTING, min_resources="smallest", factor=2)


class TestHalvingRandomSearch(SearchContract):
    def make(self):
        return HalvingRandomSearch(
            Space.parse(SPACE), setting=SETTING, n_candidates=9, resource="trees", max_resources=30, seed=3
        )


def test_a_random_search_of_few_points_runs_them_all_and_says_so():
    search = RandomSearch(Space.parse({"a": [1, 2, 3], "b": [True, False]}), n_iter=10, seed=0)
    assert search.total == 6
    assert search.note == "The space has only 6 points, so 6 trials are run instead of n_iter=10."
    assert len({repr(search.ask().params) for _ in range(6)}) == 6
    assert RandomSearch(Space.parse({"a": [1, 2, 3]}), n_iter=3, seed=0).note is None


def test_draws_are_plain_values():
    search = RandomSearch(Space.parse({"a": {"low": 0.0, "high": 1.0}, "b": {"low": 1, "high": 5}}), n_iter=2, seed=0)
    assert {type(v) for v in search.ask().params.values()} == {float, int}


def play(search, score):
    trials = []
    while (trial := search.ask()) is not None:
        trials.append(trial)
        search.tell(trial, score(trial))
    return trials


def halving(n=9, **options):
    return HalvingGridSearch(Space.parse({"x": list(range(n))}), setting=SETTING, **options)


def test_a_rung_is_asked_only_when_the_one_below_is_told_in_any_order():
    search = halving(min_resources=100)
    first = [search.ask() for _ in range(9)]
    assert search.ask() is None
    for trial in reversed(first):
        search.tell(trial, completed(trial.params["x"]))
    second = [search.ask() for _ in range(3)]
    assert [t.params["x"] for t in second] == [6, 7, 8]
    assert [t.details for t in second] == [{"iteration": 1, "resources": 300, "candidate": c} for c in (6, 7, 8)]
    assert [(t.number, t.resources, t.rungs_above) for t in second] == [(9, 300, 0), (10, 300, 0), (11, 300, 0)]


def test_the_least_goes_on_when_minimizing():
    search = halving(min_resources=100, maximize=False)
    assert [t.params["x"] for t in play(search, lambda t: completed(t.params["x"]))[9:]] == [2, 1, 0]


def test_a_failed_trial_never_goes_on():
    search = halving(min_resources=100)
    trials = play(search, lambda t: completed(0.0) if t.params["x"] in (2, 5) else failed())
    assert [t.params["x"] for t in trials[9:]] == [2, 5]
    assert len(play(halving(min_resources=100), lambda t: failed())) == 9


def test_a_hyperparameter_may_be_the_resource():
    trial = halving(resource="trees", max_resources=30).ask()
    assert trial.params == {"x": 0, "trees": 3}
    assert trial.resources is None
    assert trial.details["resources"] == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"factor": 1}, "search.factor must be a number above 1, got 1"),
        ({"min_resources": "most"}, "search.min_resources must be a whole number of at least 1, or smallest or exh"),
        ({"max_resources": 0}, "search.max_resources must be a whole number of at least 1, or auto, got 0"),
        ({"max_resources": True}, "got True"),
        ({"resource": "trees"}, "search.max_resources=auto means all rows"),
        ({"resource": "x", "max_resources": 9}, "space.x cannot be searched while search.resource=x"),
        ({"min_resources": 500}, "search.min_resources=500 is above search.max_resources=400"),
        ({"min_resources": 3, "factor": 2}, "gets 3 of 400 rows, .* give search.min_resources=4 or more"),
        ({"max_resources": 500}, "search.max_resources=500 is above the 400 development rows"),
    ],
)
def test_resources_that_do_not_fit_are_refused(options, said):
    with pytest.raises(RequestError, match=said):
        halving(**options)


def test_candidates_and_resources_cannot_both_be_exhaust():
    with pytest.raises(RequestError, match="cannot both be exhaust"):
        HalvingRandomSearch(Space.parse(SPACE), setting=SETTING, min_resources="exhaust")


def test_a_grid_refuses_a_distribution():
    space = Space.parse({"C": {"_target_": "scipy.stats.loguniform", "a": 1e-3, "b": 1e2}})
    with pytest.raises(SpaceError, match=r"space\.C is a distribution, which only search=sklearn/random"):
        GridSearch(space)
    with pytest.raises(SpaceError, match=r"space\.C is a distribution"):
        HalvingGridSearch(space, setting=SETTING)


@pytest.mark.slow
def test_keras_tuner_refuses_a_distribution():
    from trialbook.search.keras_tuner import declare

    with pytest.raises(SpaceError, match=r"space\.C is a distribution"):
        declare(Space.parse({"C": {"_target_": "scipy.stats.loguniform", "a": 1e-3, "b": 1e2}}))


@pytest.mark.slow
class TestHyperband(SearchContract):
    def make(self):
        import keras_tuner

        from trialbook.search.keras_tuner import OracleSearch

        oracle = functools.partial(keras_tuner.oracles.HyperbandOracle, max_epochs=9, factor=3)
        return OracleSearch(Space.parse(SPACE), oracle=oracle, seed=0)
