import pytest

from trialbook.errors import SpaceError
from trialbook.space import Space


def points(declared):
    return Space.parse({"x": declared}).dimensions[0].points()


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ({"values": ["relu", None, True, 3]}, ["relu", None, True, 3]),
        (["a", "b"], ["a", "b"]),
        (7, [7]),
        ({"low": 1, "high": 4}, [1, 2, 3, 4]),
        ({"low": 32, "high": 128, "step": 32}, [32, 64, 96, 128]),
        ({"low": 0.0, "high": 0.5, "step": 0.1}, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]),
        ({"low": 32, "high": 512, "step": 32, "num": 3}, [32, 288, 512]),
        ({"low": 0.0, "high": 1.0, "num": 3}, [0.0, 0.5, 1.0]),
        ({"low": 1e-3, "high": 10, "log": True, "num": 5}, [1e-3, 1e-2, 1e-1, 1.0, 10.0]),
        ({"low": 1, "high": 1000, "log": True, "num": 4}, [1, 10, 100, 1000]),
        ({"low": 0, "high": 1, "type": "float", "num": 2}, [0.0, 1.0]),
        ({"low": 5, "high": 9, "num": 1}, [5]),
    ],
)
def test_the_points_a_grid_takes(declared, expected):
    found = points(declared)
    assert found == expected
    assert [type(value) for value in found] == [type(value) for value in expected]


def test_conditional_hyperparameters_make_a_grid_for_each_controlling_value():
    space = Space.parse(
        {
            "kernel": ["linear", "rbf"],
            "C": [1, 10],
            "gamma": {"values": [0.1, 0.2], "when": {"kernel": "rbf"}},
        }
    )
    assert space.grid() == [
        {"kernel": ["linear"], "C": [1, 10]},
        {"kernel": ["rbf"], "C": [1, 10], "gamma": [0.1, 0.2]},
    ]


def test_a_condition_may_depend_on_a_condition():
    space = Space.parse(
        {
            "a": [True, False],
            "b": {"values": ["x", "y"], "when": {"a": True}},
            "c": {"values": [1, 2], "when": {"b": "y"}},
        }
    )
    assert space.grid() == [
        {"a": [True], "b": ["x"]},
        {"a": [True], "b": ["y"], "c": [1, 2]},
        {"a": [False]},
    ]


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({}, "space is empty"),
        ({"x": {"low": 2, "high": 1}}, "low=2 above high=1"),
        ({"x": {"low": 1}}, "needs high"),
        ({"x": {"value": [1]}}, "unknown key 'value'; allowed: values, low"),
        ({"x": {"values": []}}, "at least one value"),
        ({"x": {"values": [1, 1]}}, "1 twice"),
        ({"x": {"values": [[1]]}}, "allowed: numbers, strings"),
        ({"x": {"values": [1], "low": 1}}, "both values and low"),
        ({"x": {"low": 0, "high": 1, "log": True}}, "low must be above 0"),
        ({"x": {"low": 1, "high": 2, "log": True, "step": 1}}, "both log and step"),
        ({"x": {"low": 1, "high": 2, "step": 0}}, "step must be above 0"),
        ({"x": {"low": 1, "high": 2, "num": 0}}, "num must be a whole number"),
        ({"x": {"low": "a", "high": 2}}, "low must be a finite number, got 'a'"),
        ({"x": {"low": 1, "high": float("inf")}}, "high must be a finite number"),
        ({"x": {"low": 1, "high": 2, "type": "real"}}, "type must be int or float"),
        ({"x": {"values": [1], "when": {"y": 1}}}, "names 'y', which must be a hyperparameter declared above"),
        ({"y": [1], "x": {"values": [1], "when": {"y": 2}}}, "asks for y=2; allowed: [1]"),
        ({"y": {"low": 1, "high": 2}, "x": {"values": [1], "when": {"y": 2}}}, "'y', which is a range"),
    ],
)
def test_a_malformed_space_is_refused_naming_the_key(declared, said):
    with pytest.raises(SpaceError) as refused:
        Space.parse(declared)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_grid_over_a_continuous_range_needs_num():
    with pytest.raises(SpaceError, match=r"space\.x is a continuous range.*num"):
        Space.parse({"x": {"low": 0.0, "high": 1.0}}).grid()
