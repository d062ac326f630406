"""Weights of rows, from a column of the data to the estimator that is trained with them."""

import dataclasses

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from trialbook.data import from_sklearn
from trialbook.errors import DataError, ModelError
from trialbook.estimator import KerasClassifier
from trialbook.evaluate import Evaluator, Objective, weighted
from trialbook.executors import SerialExecutor
from trialbook.promote import retrain
from trialbook.search import loop
from trialbook.search.sklearn import GridSearch
from trialbook.space import Space
from trialbook.testing import MemoryJournal

CV = StratifiedKFold(3, shuffle=True, random_state=0)


def load(**options):
    def loader():
        bunch = load_breast_cancer(as_frame=True)
        # Nearly nothing counts but malignant tumours, so that the weights show.
        bunch.data["importance"] = np.where(bunch.target == 0, 1.0, 0.001)
        return bunch

    return from_sklearn(loader, name="weighed", task="classification", test_size=0.2, test_seed=0, **options)


def scores(estimator, data, space):
    evaluator = Evaluator(
        estimator,
        data.X,
        data.y,
        list(CV.split(data.X, data.y)),
        Objective.parse("accuracy"),
        sample_weight=data.sample_weight,
    )
    return loop.run(GridSearch(Space.parse(space)), SerialExecutor(), evaluator, MemoryJournal()).records


def test_the_column_is_taken_out_of_the_features_and_changes_the_digest():
    data = load(sample_weight="importance")
    assert "importance" not in data.X.columns
    assert data.sample_weight.shape == data.y.shape
    assert set(data.sample_weight[data.y == 0]) == {1.0}
    assert data.digest != load().digest


def test_weights_count_in_training_and_not_in_scores_as_for_a_pipeline_in_grid_search_cv():
    data = load(sample_weight="importance")
    estimator = Pipeline([("scale", StandardScaler()), ("model", LogisticRegression())])
    peer = GridSearchCV(estimator, {"model__C": [0.1, 1.0]}, cv=CV)
    expected = peer.fit(data.X, data.y, model__sample_weight=data.sample_weight).cv_results_["mean_test_score"]
    found = [r.objective for r in scores(estimator, data, {"C": [0.1, 1.0]})]
    np.testing.assert_array_equal(found, expected)
    assert list(peer.fit(data.X, data.y).cv_results_["mean_test_score"]) != found


def load_scaled(data):
    return dataclasses.replace(data, X=(data.X - data.X.mean()) / data.X.std())


def test_the_final_training_is_weighted_too():
    data = load_scaled(load(sample_weight="importance"))
    fitted = retrain(LogisticRegression(), data, epochs=None)
    expected = LogisticRegression().fit(data.X, data.y, sample_weight=data.sample_weight)
    np.testing.assert_array_equal(fitted.coef_, expected.coef_)


@pytest.mark.slow
def test_weights_reach_a_net():
    data = load(sample_weight="importance")
    net = KerasClassifier("trialbook.models.mlp", epochs=3, seed=1, units=8)
    estimator = Pipeline([("scale", StandardScaler()), ("net", net)])
    (weighed,) = scores(estimator, data, {"units": [8]})
    (plain,) = scores(estimator, load(), {"units": [8]})
    # Nearly all rows that count are of one class.
    assert weighed.objective < plain.objective
    fitted = retrain(estimator, data, epochs=3)
    assert (fitted.predict(data.X) == 0).mean() > (data.y == 0).mean()


def test_an_estimator_that_takes_no_weights_is_refused():
    with pytest.raises(ModelError, match="KNeighborsClassifier takes no sample_weight"):
        weighted(Pipeline([("model", KNeighborsClassifier())]), np.ones(3))


def test_a_column_that_is_not_there_is_refused():
    with pytest.raises(
        DataError, match=r"data.sample_weight='nothing' is not a column of weighed; allowed: mean radius"
    ):
        load(sample_weight="nothing")
