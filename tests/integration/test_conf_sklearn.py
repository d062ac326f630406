"""scikit-learn's searches, models, splitters and data as `conf/` declares them, composed and checked."""

import pytest
from hydra import compose, initialize_config_dir
from sklearn.pipeline import Pipeline

from trialbook import app
from trialbook.__main__ import conf_dir
from trialbook.errors import RequestError
from trialbook.evaluate import configure, weighted
from trialbook.executors import SerialExecutor
from trialbook.search import loop
from trialbook.testing import MemoryJournal
from trialbook.trial import State

SEARCHES = ["grid", "random", "halving_grid", "halving_random"]
VALIDATIONS = ["holdout", "kfold", "stratified_kfold", "repeated", "group", "time_series"]
NEEDS = {"group": ["data.groups=mean texture"], "time_series": ["data.shuffle=false"]}


def plan_of(search="sklearn/grid", model="logistic_regression", data="breast_cancer", validation="holdout", **options):
    overrides = [
        f"search={search}",
        f"model={model}",
        f"data={data}",
        f"validation={validation}",
        "objective.epoch=last",
    ]
    overrides += [key if key[0] == "~" else f"{key}={value}" for key, value in options.items()] + NEEDS.get(
        validation, []
    )
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("config", overrides)
    return app.compose(cfg, {"search": search, "model": model})


@pytest.mark.parametrize("validation", VALIDATIONS)
@pytest.mark.parametrize("search", SEARCHES)
def test_every_search_takes_every_splitter(search, validation):
    plan = plan_of(f"sklearn/{search}", validation=validation)
    trial = plan.search.ask()
    result = plan.evaluator(keep_models=False)(trial, MemoryJournal().open(trial))
    assert result.state is State.COMPLETE, result.reason


@pytest.mark.parametrize("validation", ["stratified_kfold", "repeated"])
def test_a_regression_refuses_a_stratified_splitter(validation):
    with pytest.raises(RequestError, match="choose validation=kfold"):
        plan_of(model="ridge", data="diabetes", validation=validation, **{"objective.metric": "r2"})


def test_a_regression_refuses_accuracy():
    plan = plan_of(model="ridge", data="diabetes", **{"objective.metric": "accuracy"})
    with pytest.raises(RequestError, match=r"objective\.metric=accuracy scores classes.*r2"):
        plan.evaluator(keep_models=False)


def test_a_resource_that_the_model_does_not_take_is_refused():
    plan = plan_of("sklearn/halving_grid", **{"search.resource": "n_estimators", "search.max_resources": 9})
    with pytest.raises(RequestError, match="takes no hyperparameter 'n_estimators'"):
        plan.evaluator(keep_models=False)


def test_a_scipy_distribution_is_written_in_yaml():
    space = {"+model.space.tol": "{_target_: scipy.stats.loguniform, a: 1e-5, b: 1e-3}"}
    plan = plan_of("sklearn/random", **space)
    assert 1e-5 <= plan.search.ask().params["tol"] <= 1e-3
    with pytest.raises(RequestError, match=r"space\.tol is a distribution"):
        plan_of("sklearn/grid", **space)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("resource", "most", "epochs"), [("epochs", 4, [1, 1, 1, 1, 2, 2, 4]), ("n_samples", 80, [1, 1, 1, 1, 1, 1, 1])]
)
def test_a_net_is_halved_by_epochs_and_by_rows(resource, most, epochs):
    few = {"model.space.units.low": 8, "model.space.units.high": 16, "model.space.units.step": 8}
    few |= {"model.space.learning_rate.values": "[0.01,0.001]", "~model.space.dropout": "null"}
    halving = {"search.resource": resource, "search.max_resources": most, "search.factor": 2}
    plan = plan_of("sklearn/halving_grid", "mlp", **few, **halving, **{"model.estimator.steps.1.1.epochs": 1})
    journal = MemoryJournal()
    outcome = loop.run(plan.search, SerialExecutor(), plan.evaluator(keep_models=False), journal)
    assert [len(journal.logs[r.trial.number].epochs) for r in outcome.records] == epochs
    assert [r.trial.resources for r in outcome.records] == (
        [None] * 7 if resource == "epochs" else [20] * 4 + [40] * 2 + [80]
    )
    assert outcome.best.trial.number == 6


def test_a_hyperparameter_is_found_in_what_a_step_holds():
    plan = plan_of(model="svm", data="diabetes", **{"objective.metric": "r2"})
    configured = configure(plan.estimator, {"C": 7.0})
    assert configured[-1].regressor.C == 7.0
    weights = weighted(configured, plan.data.y)
    assert list(weights) == ["regressor__sample_weight"]
    configured.fit(plan.data.X, plan.data.y, **weights)
    two = Pipeline([(name, configured[-1]) for name in ("first", "second")])
    with pytest.raises(RequestError, match="take 'C'; name one of them: first__regressor__C, second__regressor__C"):
        configure(two, {"C": 7.0})
