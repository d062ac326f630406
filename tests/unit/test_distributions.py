from collections import Counter

import numpy as np
import pytest
import scipy.stats
from sklearn.model_selection import ParameterSampler

from trialbook.errors import SpaceError
from trialbook.search.distributions import LogIntegers, distributions
from trialbook.space import Space


def source(declared):
    [[drawn_from]] = [list(case.values()) for case in distributions(Space.parse({"x": declared}))]
    return drawn_from


def draws(declared, n=2000):
    return [p["x"] for p in ParameterSampler({"x": source(declared)}, n, random_state=0)]


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ({"values": ["relu", None, True]}, ["relu", None, True]),
        (7, [7]),
        ({"low": 32, "high": 128, "step": 32}, [32, 64, 96, 128]),
        ({"low": 32, "high": 128, "step": 32, "num": 2}, [32, 64, 96, 128]),
        ({"low": 3, "high": 3}, [3]),
        ({"low": 2.0, "high": 2.0, "log": True}, [2.0]),
    ],
)
def test_what_is_counted_is_a_list(declared, expected):
    assert source(declared) == expected


@pytest.mark.parametrize(
    ("declared", "same"),
    [
        ({"low": 1, "high": 4}, scipy.stats.randint(1, 5)),
        ({"low": -1.0, "high": 3.0, "num": 2}, scipy.stats.uniform(-1, 4)),
        ({"low": 1e-3, "high": 10.0, "log": True}, scipy.stats.loguniform(1e-3, 10)),
        ({"_target_": "scipy.stats.loguniform", "a": 1e-3, "b": 1e2}, scipy.stats.loguniform(1e-3, 1e2)),
        ({"_target_": "scipy.stats.norm", "loc": 2}, scipy.stats.norm(loc=2)),
        (scipy.stats.expon(), scipy.stats.expon()),
    ],
)
def test_a_range_is_the_distribution_of_scipy(declared, same):
    assert np.array_equal(source(declared).rvs(5, random_state=1), same.rvs(5, random_state=1))


def test_ends_of_an_integer_range_are_drawn():
    assert set(draws({"low": 1, "high": 4})) == {1, 2, 3, 4}


def test_integers_on_a_logarithmic_range_are_even_in_the_logarithm():
    drawn = draws({"low": 1, "high": 1000, "log": True})
    assert all(type(value) is int for value in drawn)
    assert min(drawn) == 1
    assert max(drawn) > 900
    share = sum(value <= 31 for value in drawn) / len(drawn)
    expected = np.log(31.5 / 0.5) / np.log(1000.5 / 0.5)
    assert share == pytest.approx(expected, abs=0.03)
    assert {LogIntegers(1, 2).rvs(np.random.RandomState(i)) for i in range(50)} == {1, 2}


def test_a_conditional_hyperparameter_is_drawn_only_where_it_exists():
    space = Space.parse(
        {
            "kernel": ["linear", "rbf"],
            "C": {"low": 1.0, "high": 10.0},
            "gamma": {"low": 0.1, "high": 1.0, "when": {"kernel": "rbf"}},
        }
    )
    drawn = list(ParameterSampler(distributions(space), 200, random_state=0))
    assert all(("gamma" in params) == (params["kernel"] == "rbf") for params in drawn)
    assert 70 < sum(params["kernel"] == "rbf" for params in drawn) < 130


def test_each_value_of_a_controlling_hyperparameter_is_as_likely_as_its_others():
    space = Space.parse(
        {
            "a": [True, False],
            "b": {"values": ["x", "y"], "when": {"a": True}},
            "c": {"low": 0.0, "high": 1.0, "when": {"b": "y"}},
        }
    )
    drawn = Counter((p["a"], p.get("b")) for p in ParameterSampler(distributions(space), 4000, random_state=0))
    assert drawn[False, None] / 4000 == pytest.approx(1 / 2, abs=0.03)
    assert drawn[True, "x"] / 4000 == pytest.approx(1 / 4, abs=0.03)


def test_points_of_a_finite_conditional_space_are_drawn_once_each():
    space = Space.parse({"a": [1, True, False], "b": {"values": ["x", "y"], "when": {"a": False}}})
    drawn = [repr(p) for p in ParameterSampler(distributions(space), 4, random_state=0)]
    assert len(set(drawn)) == 4


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"_target_": "os.system", "command": "ls"}, "'os.system' is not a distribution of scipy.stats"),
        ({"_target_": "scipy.stats.ttest_ind"}, "is not a distribution of scipy.stats"),
        ({"_target_": "scipy.stats._distn_infrastructure.rv_continuous"}, "is not a distribution"),
        ({"_target_": "scipy.stats.loguniform", "a": 1}, "cannot be made"),
        ({"_target_": "scipy.stats.loguniform", "a": 2, "b": 1}, "makes no distribution of {'a': 2, 'b': 1}"),
    ],
)
def test_what_is_no_distribution_is_refused(declared, said):
    with pytest.raises(SpaceError) as refused:
        source(declared)
    assert said in str(refused.value)
