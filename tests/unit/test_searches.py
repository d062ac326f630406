import functools

import pytest

from trialbook.search.sklearn import GridSearch
from trialbook.space import Space
from trialbook.testing import SearchContract

SPACE = {
    "units": {"low": 32, "high": 128, "step": 32},
    "rate": [0.01, 0.001],
    "dropout": {"values": [None, 0.5], "when": {"rate": 0.01}},
}


class TestGridSearch(SearchContract):
    def make(self):
        return GridSearch(Space.parse(SPACE))


@pytest.mark.slow
class TestHyperband(SearchContract):
    def make(self):
        import keras_tuner

        from trialbook.search.keras_tuner import OracleSearch

        oracle = functools.partial(keras_tuner.oracles.HyperbandOracle, max_epochs=9, factor=3)
        return OracleSearch(Space.parse(SPACE), oracle=oracle, seed=0)
