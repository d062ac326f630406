"""Objectives and further scorers of a trial, against `sklearn.model_selection.cross_validate`."""

import pytest
from sklearn.datasets import make_classification, make_regression
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, cross_validate
from sklearn.svm import SVC

from trialbook.evaluate import Evaluator, Objective
from trialbook.testing import MemoryJournal
from trialbook.trial import Trial

CV = KFold(3, shuffle=True, random_state=0)
BINARY = make_classification(150, 5, flip_y=0.2, random_state=0)
MULTICLASS = make_classification(150, 6, n_informative=4, n_classes=3, flip_y=0.2, random_state=0)
NUMERIC = make_regression(80, 4, noise=10.0, random_state=0)


def test_a_trial_with_too_few_rows_fails_with_the_reason():
    evaluate = Evaluator(Ridge(), *NUMERIC, list(CV.split(*NUMERIC)), Objective.parse("r2"), keep_models=False)
    trial = Trial(0, {}, resources=2)
    result = evaluate(trial, MemoryJournal().open(trial))
    assert "2 of 80 rows leave fold 0 with 1 to train and 0 to validate on" in result.reason


@pytest.mark.parametrize(
    ("estimator", "data", "scorers"),
    [
        (LogisticRegression(), BINARY, ["roc_auc", "f1", "neg_log_loss", "average_precision"]),
        (SVC(), BINARY, ["roc_auc", "accuracy"]),
        (LogisticRegression(), MULTICLASS, ["f1_macro", "roc_auc_ovr", "balanced_accuracy", "neg_log_loss"]),
        (Ridge(), NUMERIC, ["neg_root_mean_squared_error", "r2", "neg_median_absolute_error"]),
    ],
)
def test_scores_are_those_of_cross_validate(estimator, data, scorers):
    theirs = cross_validate(estimator, *data, cv=CV, scoring=scorers)
    first, *others = scorers
    folds = list(CV.split(*data))
    evaluate = Evaluator(estimator, *data, folds, Objective.parse(first), scoring=others, keep_models=False)
    trial = Trial(0, {})
    result = evaluate(trial, MemoryJournal().open(trial))
    assert result.fold_scores == pytest.approx(tuple(theirs[f"test_{first}"]))
    assert result.objective == pytest.approx(theirs[f"test_{first}"].mean())
    assert result.metrics == pytest.approx({f"val_{name}": theirs[f"test_{name}"].mean() for name in others})
