"""Where values stand when they are drawn."""

import pytest

from trialbook.report.scale import Scale


@pytest.mark.parametrize(
    ("values", "log", "places"),
    [
        ([1, 2, 5], False, [0, 0.25, 1]),
        ([0.001, 0.01, 0.1], False, [0, 0.5, 1]),
        ([1.0, 2.0, 4.0], True, [0, 0.5, 1]),
        ([-1.0, 0.0, 1000.0], True, [0, 1 / 1001, 1]),
        (["relu", "tanh", "elu"], False, [0, 0.5, 1]),
        ([1, True, None], False, [0, 0.5, 1]),
        ([3, 3], False, [0.5, 0.5]),
        (["a"], False, [0]),
        ([0.1, 1.0, float("inf")], True, [0, 0.5, 1]),
    ],
)
def test_values_stand_where_they_belong(values, log, places):
    scale = Scale.of(values, log=log)
    assert [scale.place(value) for value in values] == pytest.approx(places)


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.0, *(i / 10 for i in range(10)), 1.0], ["0", "0.25", "0.5", "0.75", "1"]),
        ([16, 64, 32, 16], ["16", "32", "64"]),
        ([*range(1, 8)], ["1", "2", "4", "6", "7"]),
        ([10.0**-i for i in range(7)], ["1e-06", "3.162e-05", "0.001", "0.03162", "1"]),
        ([2**i for i in range(1, 11)], ["2", "10", "45", "215", "1024"]),
        ([True, False], ["True", "False"]),
        ([7.0], ["7"]),
        ([100001, 100002], ["100001", "100002"]),
    ],
)
def test_ticks_name_values_where_these_stand(values, ticks):
    scale = Scale.of(values)
    found = scale.ticks()
    assert [label for _, label in found] == ticks
    assert [place for place, _ in found] == sorted(place for place, _ in found)
    assert all(0 <= place <= 1 for place, _ in found)
