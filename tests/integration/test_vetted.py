"""What a model is said to hold, asked once for models that are made of the same."""

import operator
import os

import numpy as np
import pytest
import skops.io
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

from trialbook import vetted


def shout(x):
    return x


class Mine(StandardScaler):
    def shout(self, x):
        return x


MADE = [
    HistGradientBoostingClassifier(max_iter=2),
    RandomForestClassifier(2),
    KNeighborsClassifier(),
    SVC(),
    make_pipeline(StandardScaler(), LogisticRegression()),
    make_pipeline(Mine(), LogisticRegression()),
    *(make_pipeline(FunctionTransformer(f), SVC()) for f in (None, np.log1p, np.abs, shout, os.path.abspath)),
    make_pipeline(FunctionTransformer(operator.methodcaller("strip")), SVC()),
    make_pipeline(FunctionTransformer(operator.attrgetter("real")), SVC()),
    FunctionTransformer(Mine().shout),
    FunctionTransformer(kw_args={"a": shout}),
    FunctionTransformer(kw_args={"a": StandardScaler(), "b": [StandardScaler()]}),
    FunctionTransformer(kw_args={"a": StandardScaler(), "b": [StandardScaler]}),
    VotingClassifier([("a", SVC()), ("b", LogisticRegression())]),
    TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1),
]


@pytest.mark.parametrize("order", [MADE, MADE[::-1]], ids=["forth", "back"])
def test_each_model_is_said_to_hold_what_skops_finds_in_it(tmp_path, order, monkeypatch):
    monkeypatch.setattr(vetted, "_unknown", {})
    for number, estimator in enumerate([*order, *order]):
        file = tmp_path / f"{number}.skops"
        skops.io.dump(estimator, file)
        assert vetted.unknown_in_dump(file) == skops.io.get_untrusted_types(file=file), estimator


def test_of_models_made_of_the_same_one_is_looked_into(tmp_path, monkeypatch):
    monkeypatch.setattr(vetted, "_unknown", {})
    rows, classes = np.arange(40.0).reshape(20, 2), np.arange(20) % 2
    asked = []
    ask = skops.io.get_untrusted_types
    monkeypatch.setattr(skops.io, "get_untrusted_types", lambda **given: asked.append(given) or ask(**given))
    for trees in (1, 2, 5):
        file = tmp_path / f"{trees}.skops"
        skops.io.dump(HistGradientBoostingClassifier(max_iter=trees, learning_rate=1 / trees).fit(rows, classes), file)
        (name,) = vetted.unknown_in_dump(file)
        assert name.endswith("TreePredictor")
    assert len(asked) == 1
