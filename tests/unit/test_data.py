import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    LeaveOneGroupOut,
    RepeatedStratifiedKFold,
    StratifiedKFold,
    TimeSeriesSplit,
)

from trialbook.compatibility import check_estimator, check_scorer
from trialbook.data import Holdout, hold_out
from trialbook.errors import RequestError
from trialbook.plan import folds_of, setting_of
from trialbook.trial import Setting

N = 60
X = pd.DataFrame({"a": np.arange(N), "b": np.arange(N) % 7})


def make(task="classification", y=None, **options):
    y = np.arange(N) % 3 if y is None else y
    return hold_out(X, y, "toy", task, "here", test_size=0.2, test_seed=0, **options)


NUMBERS = make("regression", y=np.arange(N) * 1.0)  # whole numbers, each once: they look like classes
TWO = make(y=np.arange(N) % 2)
WORDS = make(y=np.array(["no", "yes"])[np.arange(N) % 2])
THREE = make()


def test_groups_stay_together_in_the_test_rows_and_in_the_folds():
    groups = np.arange(N) // 5
    data = make(groups=groups)
    assert len(data.groups) == len(data.X)
    assert np.array_equal(data.groups, data.X["a"] // 5)
    assert not set(data.groups) & set(data.X_test["a"] // 5)
    for train, validation in folds_of(data, GroupKFold(3)):
        assert not set(data.groups[train]) & set(data.groups[validation])
    assert setting_of(data, LeaveOneGroupOut()).n_splits == len(set(data.groups))
    assert data.digest != make().digest


def test_rows_in_order_keep_it_and_are_tested_at_the_end():
    data = make(shuffle=False)
    assert data.X["a"].tolist() == list(range(48))
    assert data.X_test["a"].tolist() == list(range(48, 60))
    assert all(train.max() < validation.min() for train, validation in folds_of(data, TimeSeriesSplit(3)))


def test_a_regression_is_held_out_without_classes():
    [(train, validation)] = folds_of(NUMBERS, Holdout(0.25, random_state=0))
    assert (len(train), len(validation)) == (36, 12)


def test_the_setting_counts_rows_folds_and_classes():
    assert setting_of(THREE, RepeatedStratifiedKFold(n_splits=2, n_repeats=3)) == Setting(48, 6, 24, 3)
    assert setting_of(NUMBERS, KFold(4)) == Setting(48, 4, 12, None)


@pytest.mark.parametrize(
    ("data", "splitter", "said"),
    [
        (NUMBERS, StratifiedKFold(3), "choose validation=kfold"),
        (NUMBERS, RepeatedStratifiedKFold(n_splits=3), "choose validation=kfold"),
        (THREE, GroupKFold(3), r"name their column with data\.groups"),
        (THREE, LeaveOneGroupOut(), r"name their column with data\.groups"),
        (THREE, TimeSeriesSplit(3), r"give data\.shuffle=false"),
        (THREE, StratifiedKFold(40), "cannot split the 48 rows of toy"),
    ],
)
def test_a_splitter_that_does_not_fit_is_refused(data, splitter, said):
    with pytest.raises(RequestError, match=said):
        folds_of(data, splitter)


def test_groups_cannot_be_kept_together_in_order():
    with pytest.raises(RequestError, match=r"data\.shuffle=false"):
        make(groups=np.arange(N) // 5, shuffle=False)


@pytest.mark.parametrize(
    ("scorer", "fits"),
    [
        ("accuracy", [TWO, WORDS, THREE]),
        ("f1", [TWO]),
        ("f1_macro", [TWO, WORDS, THREE]),
        ("roc_auc", [TWO, WORDS]),
        ("roc_auc_ovr", [TWO, WORDS, THREE]),
        ("neg_log_loss", [TWO, WORDS, THREE]),
        ("r2", [NUMBERS]),
        ("neg_root_mean_squared_error", [NUMBERS]),
        ("neg_mean_absolute_percentage_error", [NUMBERS]),
    ],
)
def test_a_scorer_is_refused_for_targets_it_cannot_score(scorer, fits):
    for data in (TWO, WORDS, THREE, NUMBERS):
        if any(data is one for one in fits):
            check_scorer("objective.metric", scorer, data)
        else:
            with pytest.raises(RequestError, match=rf"^objective.metric={scorer} .*data=toy.*; choose for example "):
                check_scorer("objective.metric", scorer, data)


def test_a_scorer_that_does_not_exist_is_refused_with_the_nearest():
    with pytest.raises(RequestError, match=r"scoring='f1_makro' is no scorer.*f1_macro"):
        check_scorer("scoring", "f1_makro", TWO)


def test_an_estimator_must_predict_what_the_data_have():
    check_estimator(LogisticRegression(), "logistic_regression", THREE)
    check_estimator(Ridge(), "ridge", NUMBERS)
    with pytest.raises(RequestError, match=r"model=svm is a classifier, but data=toy .* model=ridge"):
        check_estimator(LogisticRegression(), "svm", NUMBERS)
    with pytest.raises(RequestError, match=r"model=ridge is a regressor, but data=toy has classes"):
        check_estimator(Ridge(), "ridge", TWO)
