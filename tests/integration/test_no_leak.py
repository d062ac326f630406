"""The rows kept for the test are seen by nobody before the final step."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from sklearn.base import BaseEstimator, ClassifierMixin

from trialbook import app
from trialbook.__main__ import conf_dir
from trialbook.evaluate import configure
from trialbook.executors import SerialExecutor
from trialbook.promote import retrain
from trialbook.search import loop
from trialbook.testing import MemoryJournal
from trialbook.trial import State

N = 120
RNG = np.random.default_rng(0)
TABLE = pd.DataFrame(
    {
        "id": np.arange(N),
        "size": RNG.normal(size=N).round(3),
        "city": RNG.choice(["Oslo", "Lima", "Pune"], N),
        "day": pd.date_range("2024-01-01", periods=N).strftime("%Y-%m-%d"),
        "part": np.where(np.arange(N) % 4, "train", "test"),
    }
).assign(label=lambda t: np.where(t["size"] + (t.city == "Oslo") > 0.3, "yes", "no"))
TEST = TABLE.part == "test"
IDS = set(TABLE.id[TEST])


@pytest.fixture(name="plan")
def give_plan(tmp_path):
    def plan(table=TABLE, search="sklearn/random", model="logistic_regression", *overrides):
        table.to_csv(tmp_path / "my.csv", index=False)
        words = ["data=csv", f"data.path={tmp_path}/my.csv", "data.target=label", "data.split=part"]
        words += [f"search={search}", f"model={model}", "validation=stratified_kfold", *overrides]
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            cfg = compose("config", words)
        return app.compose(cfg, {"search": search, "model": model})

    return plan


def run(plan):
    """The records of a search, and the models its trials left."""
    journal = MemoryJournal()
    outcome = loop.run(plan.search, SerialExecutor(), plan.evaluator(keep_models=True), journal, budget=plan.budget)
    assert [r.result.state for r in outcome.records] == [State.COMPLETE] * len(outcome.records)
    return outcome, [log.models for log in journal.logs.values()]


class Poison:
    """Test rows that nobody can look at."""

    def __getattribute__(self, name):
        raise AssertionError(f"the test rows were asked for {name}")

    def __len__(self):
        raise AssertionError("the test rows were counted")


def test_a_search_and_its_retraining_go_through_with_test_rows_that_nobody_can_look_at(plan):
    made = plan(TABLE, "sklearn/random", "logistic_regression", "budget.max_trials=3")
    poisoned = dataclasses.replace(made, data=dataclasses.replace(made.data, X_test=Poison(), y_test=Poison()))
    outcome, _ = run(poisoned)
    fitted = retrain(configure(poisoned.estimator, outcome.best.trial.params), poisoned.data, epochs=None)
    with pytest.raises(AssertionError, match="the test rows were"):  # so the poison does work
        poisoned.objective.score(fitted, poisoned.data.X_test, poisoned.data.y_test)


@pytest.mark.parametrize(
    "search",
    ["sklearn/random", "sklearn/halving_random", pytest.param("keras_tuner/bayesian", marks=pytest.mark.exhaustive)],
)
def test_trials_do_not_depend_on_the_test_rows(plan, search):
    rubbish = TABLE.copy()
    rubbish.loc[TEST, "size"] = 1e6
    rubbish.loc[TEST, "city"] = "Atlantis"
    rubbish.loc[TEST, "day"] = "1970-01-01"
    rubbish.loc[TEST, "label"] = np.where(TABLE.label[TEST] == "yes", "no", "yes")
    few = ["budget.max_trials=3", "data.drop=[id]"]
    sound, spoilt = (plan(table, search, "logistic_regression", *few) for table in (TABLE, rubbish))
    assert sound.data.test_digest != spoilt.data.test_digest
    assert sound.data.digest == spoilt.data.digest
    (first, models), (second, others) = run(sound), run(spoilt)
    assert [(r.trial, r.result.fold_scores) for r in first.records] == [
        (r.trial, r.result.fold_scores) for r in second.records
    ]
    rows = sound.data.X
    for kept, other in zip(models, others, strict=True):
        np.testing.assert_array_equal(kept[0][1].predict_proba(rows), other[0][1].predict_proba(rows))


class Recorder(ClassifierMixin, BaseEstimator):
    """Writes down which rows it gets to see."""

    seen: set[int] = set()  # noqa: RUF012 - of the class, so that clones write into it too

    def __init__(self, C=1.0, class_weight=None):
        self.C = C
        self.class_weight = class_weight

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self._note(X)

    def predict(self, X):
        self._note(X)
        return np.full(len(X), self.classes_[0])

    def _note(self, X):
        Recorder.seen |= set(X["id"])
        return self


@pytest.mark.parametrize(
    "search", ["sklearn/grid", "sklearn/halving_grid", pytest.param("keras_tuner/random", marks=pytest.mark.exhaustive)]
)
def test_no_trial_sees_a_test_row(plan, search):
    Recorder.seen.clear()
    made = dataclasses.replace(plan(TABLE, search), estimator=Recorder())
    outcome, _ = run(made)
    retrain(configure(made.estimator, outcome.best.trial.params), made.data, epochs=None)
    assert Recorder.seen == set(TABLE.id) - IDS


def test_what_is_fitted_on_columns_is_fitted_on_a_folds_training_rows_alone(plan):
    # A category of one fold's validation rows is no category of the transformer that was fitted beside them.
    made = plan(TABLE.assign(city=[f"city {i // 2}" for i in range(N)]))
    trial = made.search.ask()
    log = MemoryJournal().open(trial)
    assert made.evaluator(keep_models=True)(trial, log).state is State.COMPLETE
    ((fold, fitted),) = log.models
    train, _ = made.folds[fold]
    (known,) = fitted[0].named_transformers_["text"][-1].categories_
    assert set(known) == set(made.data.X.city.iloc[train])
    assert set(known) < set(made.data.X.city)
