"""Our searches against scikit-learn's own, candidate by candidate, on the same estimator, splits and seed."""

import inspect
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.datasets import make_classification, make_regression
from sklearn.ensemble import RandomForestClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    KFold,
    RandomizedSearchCV,
    RepeatedStratifiedKFold,
    StratifiedKFold,
    TimeSeriesSplit,
)
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from trialbook.evaluate import Evaluator, Objective
from trialbook.executors import SerialExecutor
from trialbook.report import ranks
from trialbook.search import loop
from trialbook.search.sklearn import GridSearch, HalvingGridSearch, HalvingRandomSearch, RandomSearch
from trialbook.space import Space
from trialbook.testing import MemoryJournal
from trialbook.trial import Setting, State

SEED = 5
X, Y = make_classification(240, 6, n_informative=4, n_classes=3, flip_y=0.2, random_state=0)
X_REG, Y_REG = make_regression(90, 5, noise=20.0, random_state=0)
CV = StratifiedKFold(3, shuffle=True, random_state=SEED)
TREE = DecisionTreeClassifier(random_state=0)


def run(make, space, estimator, *, data=(X, Y), cv=CV, scoring="accuracy", groups=None, **options):
    """The records of our search, and its outcome."""
    rows, targets = data
    folds = list(cv.split(rows, targets, groups))
    n_classes = len(np.unique(targets)) if targets is Y else None
    smallest = min(len(part) for fold in folds for part in fold)
    setting = Setting(len(targets), len(folds), smallest, n_classes)
    offered = {"seed": SEED, "setting": setting}
    asked = {name: value for name, value in offered.items() if name in inspect.signature(make).parameters}
    search = make(Space.parse(space), **asked, **options)
    evaluate = Evaluator(estimator, rows, targets, folds, Objective.parse(scoring), keep_models=False, seed=SEED)
    return search, loop.run(search, SerialExecutor(), evaluate, MemoryJournal())


def same(records, theirs):
    """Assert that every candidate has the same parameters and scores, in the same order."""
    results = theirs.cv_results_
    assert [dict(r.trial.params) for r in records] == [dict(p) for p in results["params"]]
    close = {"rtol": 1e-12, "atol": 1e-12, "equal_nan": True}
    assert np.allclose([r.objective for r in records], results["mean_test_score"], **close)
    complete = [i for i, r in enumerate(records) if r.result.state is State.COMPLETE]
    std = [records[i].result.objective_std for i in complete]
    assert np.allclose(std, results["std_test_score"][complete], **close)
    for fold in range(theirs.n_splits_):
        scores = [records[i].result.fold_scores[fold] for i in complete]
        assert np.allclose(scores, results[f"split{fold}_test_score"][complete], **close)


@pytest.mark.parametrize("cv", [CV, RepeatedStratifiedKFold(n_splits=2, n_repeats=2, random_state=1)])
def test_grid(cv):
    space = {"max_depth": [1, 2, 3, None], "criterion": ["gini", "entropy"]}
    theirs = GridSearchCV(TREE, space, cv=cv, scoring="accuracy").fit(X, Y)
    _, outcome = run(GridSearch, space, TREE, cv=cv)
    same(outcome.records, theirs)
    assert ranks(outcome.records, maximize=True) == theirs.cv_results_["rank_test_score"].tolist()
    assert dict(outcome.best.trial.params) == theirs.best_params_


def test_grid_of_a_pipeline_with_conditional_hyperparameters():
    estimator = make_pipeline(StandardScaler(), SVC(random_state=0))
    space = {
        "kernel": ["linear", "rbf"],
        "C": {"low": 0.1, "high": 10.0, "log": True, "num": 3},
        "gamma": {"values": [0.01, 0.1], "when": {"kernel": "rbf"}},
    }
    grid = [
        {"svc__kernel": ["linear"], "svc__C": [0.1, 1.0, 10.0]},
        {"svc__kernel": ["rbf"], "svc__C": [0.1, 1.0, 10.0], "svc__gamma": [0.01, 0.1]},
    ]
    theirs = GridSearchCV(estimator, grid, cv=CV, scoring="f1_macro").fit(X, Y)
    _, outcome = run(GridSearch, space, estimator, scoring="f1_macro")
    ours = [{f"svc__{name}": v for name, v in r.trial.params.items()} for r in outcome.records]
    assert ours == theirs.cv_results_["params"]
    assert np.allclose([r.objective for r in outcome.records], theirs.cv_results_["mean_test_score"])
    assert ranks(outcome.records, maximize=True) == theirs.cv_results_["rank_test_score"].tolist()


def test_grid_for_a_regression():
    space = {"alpha": [0.01, 1.0, 100.0], "fit_intercept": [True, False]}
    cv, scoring = KFold(4, shuffle=True, random_state=1), "neg_root_mean_squared_error"
    theirs = GridSearchCV(Ridge(), space, cv=cv, scoring=scoring).fit(X_REG, Y_REG)
    _, outcome = run(GridSearch, space, Ridge(), data=(X_REG, Y_REG), cv=cv, scoring=scoring)
    same(outcome.records, theirs)
    assert ranks(outcome.records, maximize=True) == theirs.cv_results_["rank_test_score"].tolist()


def test_grid_with_groups():
    groups = np.arange(len(Y)) % 7
    theirs = GridSearchCV(TREE, {"max_depth": [1, 2, 3]}, cv=GroupKFold(3), scoring="accuracy")
    theirs.fit(X, Y, groups=groups)
    _, outcome = run(GridSearch, {"max_depth": [1, 2, 3]}, TREE, cv=GroupKFold(3), groups=groups)
    same(outcome.records, theirs)


def test_grid_with_a_candidate_that_fails():
    space = {"n_neighbors": [1, 200, 5]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of the failure that is wanted here
        theirs = GridSearchCV(KNeighborsClassifier(), space, cv=CV, scoring="accuracy").fit(X, Y)
    _, outcome = run(GridSearch, space, KNeighborsClassifier())
    same(outcome.records, theirs)
    assert [r.result.state for r in outcome.records] == [State.COMPLETE, State.FAILED, State.COMPLETE]
    assert ranks(outcome.records, maximize=True) == theirs.cv_results_["rank_test_score"].tolist()


LOGISTIC = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
RANDOM = {
    "finite": (
        TREE,
        {"max_depth": [1, 2, 3, 4, None], "min_samples_leaf": {"low": 1, "high": 9, "step": 4}},
        {"max_depth": [1, 2, 3, 4, None], "min_samples_leaf": [1, 5, 9]},
    ),
    "ranges": (
        TREE,
        {
            "max_depth": {"low": 1, "high": 6},
            "max_features": {"low": 0.2, "high": 1.0},
            "ccp_alpha": {"low": 1e-4, "high": 1e-1, "log": True},
            "criterion": ["gini", "entropy"],
        },
        {
            "max_depth": stats.randint(1, 7),
            "max_features": stats.uniform(0.2, 0.8),
            "ccp_alpha": stats.loguniform(1e-4, 1e-1),
            "criterion": ["gini", "entropy"],
        },
    ),
    "scipy": (
        TREE,
        {"ccp_alpha": {"_target_": "scipy.stats.expon", "scale": 0.01}, "max_depth": [2, 4]},
        {"ccp_alpha": stats.expon(scale=0.01), "max_depth": [2, 4]},
    ),
    "conditional": (
        TREE,
        {
            "splitter": ["best", "random"],
            "max_features": {"low": 0.2, "high": 1.0, "when": {"splitter": "random"}},
        },
        [{"splitter": ["best"]}, {"splitter": ["random"], "max_features": stats.uniform(0.2, 0.8)}],
    ),
}


@pytest.mark.parametrize("kind", RANDOM)
def test_random(kind):
    estimator, space, distributions = RANDOM[kind]
    theirs = RandomizedSearchCV(estimator, distributions, n_iter=8, cv=CV, scoring="accuracy", random_state=SEED)
    theirs.fit(X, Y)
    _, outcome = run(RandomSearch, space, estimator, n_iter=8)
    same(outcome.records, theirs)
    assert ranks(outcome.records, maximize=True) == theirs.cv_results_["rank_test_score"].tolist()
    assert dict(outcome.best.trial.params) == theirs.best_params_


def test_random_of_fewer_points_than_draws():
    estimator, space, distributions = RANDOM["finite"]
    theirs = RandomizedSearchCV(estimator, distributions, n_iter=20, cv=CV, scoring="accuracy", random_state=SEED)
    with pytest.warns(UserWarning, match="smaller than n_iter"):
        theirs.fit(X, Y)
    search, outcome = run(RandomSearch, space, estimator, n_iter=20)
    same(outcome.records, theirs)
    assert search.total == len(outcome.records) == 15


def same_halving(search, outcome, theirs):
    """Assert the same schedule, the same survivors in every iteration, and the same winner."""
    records = outcome.records
    assert [rung.n_candidates for rung in search.rungs] == theirs.n_candidates_
    assert [rung.n_resources for rung in search.rungs] == theirs.n_resources_
    assert search.total == len(records)
    same(records, theirs)
    assert [r.trial.details["iteration"] for r in records] == theirs.cv_results_["iter"].tolist()
    assert [r.trial.details["resources"] for r in records] == theirs.cv_results_["n_resources"].tolist()
    assert dict(outcome.best.trial.params) == theirs.best_params_
    assert outcome.best.objective == pytest.approx(theirs.best_score_, abs=1e-12)
    assert ranks(records, maximize=True)[outcome.best.trial.number] == 1


def halve(kind, estimator, space, theirs_space, *, data=(X, Y), cv=CV, scoring="accuracy", **options):
    """Run both, without the warnings scikit-learn gives for candidates that fail."""
    ours, cls = {
        "grid": (HalvingGridSearch, HalvingGridSearchCV),
        "random": (HalvingRandomSearch, HalvingRandomSearchCV),
    }[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = cls(estimator, theirs_space, cv=cv, scoring=scoring, random_state=SEED, **options).fit(*data)
    search, outcome = run(ours, space, estimator, data=data, cv=cv, scoring=scoring, **options)
    return search, outcome, theirs


DEPTHS = {"max_depth": [1, 2, 3, 4, 5, 6, 8, None], "min_samples_leaf": [1, 3, 9]}
LEAVES = {"max_leaf_nodes": [2, 3, 4, 5, 6, 7, 8, 9, 10, None]}
FOREST = RandomForestClassifier(random_state=0)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"min_resources": "smallest"},
        {"min_resources": "smallest", "factor": 2},
        {"factor": 1.5},
        {"min_resources": 40, "max_resources": 130, "factor": 2},
        {"min_resources": 100, "aggressive_elimination": True},
        {"min_resources": 60, "max_resources": 240, "factor": 2, "aggressive_elimination": True},
        {"min_resources": 240},
        {"cv": TimeSeriesSplit(3), "min_resources": 60},
    ],
    ids=str,
)
def test_halving_grid_on_rows(options):
    same_halving(*halve("grid", TREE, DEPTHS, DEPTHS, **options))


@pytest.mark.parametrize(
    "options",
    [
        {"max_resources": 9},
        {"max_resources": 10, "min_resources": "smallest", "factor": 2},
        {"max_resources": 12, "min_resources": 5, "aggressive_elimination": True},
        {"max_resources": 8, "min_resources": 4, "factor": 2},
    ],
    ids=str,
)
def test_halving_grid_on_trees(options):
    search, outcome, theirs = halve("grid", FOREST, LEAVES, LEAVES, resource="n_estimators", **options)
    same_halving(search, outcome, theirs)
    assert outcome.best.trial.params["n_estimators"] == theirs.n_resources_[-1]


def test_halving_grid_for_a_regression():
    space = {"alpha": [0.01, 0.1, 1.0, 10.0, 100.0], "fit_intercept": [True, False]}
    cv = KFold(3, shuffle=True, random_state=1)
    options = {"data": (X_REG, Y_REG), "cv": cv, "scoring": "neg_root_mean_squared_error"}
    same_halving(*halve("grid", Ridge(), space, space, min_resources="smallest", factor=2, **options))


def test_halving_grid_on_a_data_frame_with_a_pipeline():
    frame = pd.DataFrame(X, columns=list("abcdef"))
    search, outcome, theirs = halve(
        "grid",
        LOGISTIC,
        {"logisticregression__C": [0.01, 0.1, 1.0, 10.0]},
        {"logisticregression__C": [0.01, 0.1, 1.0, 10.0]},
        data=(frame, Y),
        factor=2,
    )
    same_halving(search, outcome, theirs)


def test_halving_grid_with_candidates_that_fail():
    # At first there are too few rows for so many neighbours.
    space = {"n_neighbors": [20, 1, 3, 50, 5, 7, 60, 9, 30]}
    search, outcome, theirs = halve("grid", KNeighborsClassifier(), space, space, min_resources=24)
    assert np.isnan(theirs.cv_results_["mean_test_score"]).sum() == 4
    same_halving(search, outcome, theirs)


TREE_SPACE = {"max_features": {"low": 0.2, "high": 1.0}, "max_depth": {"low": 1, "high": 8}}
TREE_DISTRIBUTIONS = {"max_features": stats.uniform(0.2, 0.8), "max_depth": stats.randint(1, 9)}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n_candidates": 10},
        {"n_candidates": 10, "min_resources": "exhaust"},
        {"factor": 2, "min_resources": 30},
        {"n_candidates": 20, "min_resources": 50, "factor": 2, "aggressive_elimination": True},
        {"max_resources": 120, "min_resources": 20},
    ],
    ids=str,
)
def test_halving_random_on_rows(options):
    same_halving(*halve("random", TREE, TREE_SPACE, TREE_DISTRIBUTIONS, **options))


@pytest.mark.parametrize("options", [{"max_resources": 9}, {"max_resources": 12, "n_candidates": 8, "factor": 2}])
def test_halving_random_on_trees(options):
    same_halving(*halve("random", FOREST, TREE_SPACE, TREE_DISTRIBUTIONS, resource="n_estimators", **options))


def test_halving_random_of_fewer_points_than_candidates():
    same_halving(*halve("random", TREE, LEAVES, LEAVES, min_resources=20))
