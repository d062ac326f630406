"""Row 4: a random search of 50 candidates, histogram gradient boosting, five folds, 10,000 rows, on two cores.

Both sides try the same candidates on the same folds, and their scores must be the same; both retrain the best on all
rows. Trialbook's trials are on record, each with its model.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from scipy.stats import loguniform, randint
from sklearn.datasets import make_classification
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import RandomizedSearchCV, StratifiedKFold

from benchmarks import measure

CANDIDATES = 50
FOLDS = StratifiedKFold(5, shuffle=True, random_state=1)
SPACE = {
    "learning_rate": loguniform(0.01, 0.5),
    "max_leaf_nodes": randint(4, 65),
    "l2_regularization": [0.0, 0.1, 1.0],
}


def work(n_trees: int) -> tuple[HistGradientBoostingClassifier, np.ndarray, np.ndarray]:
    """The classifier, the rows and their classes."""
    X, y = make_classification(10_000, 20, n_informative=10, flip_y=0.05, random_state=0)
    return HistGradientBoostingClassifier(max_iter=n_trees, random_state=1), X, y


def peer(n_trees: int) -> dict[str, Any]:
    """`RandomizedSearchCV`."""
    classifier, X, y = work(n_trees)
    search = RandomizedSearchCV(classifier, SPACE, n_iter=CANDIDATES, cv=FOLDS, n_jobs=2, random_state=1)
    started = time.perf_counter()
    search.fit(X, y)
    seconds = time.perf_counter() - started
    scores = search.cv_results_["mean_test_score"]
    return {"seconds": seconds, "trials": len(scores), "score": scores.mean()}


def tuned(n_trees: int) -> dict[str, Any]:
    """`trialbook.tune`."""
    import trialbook

    tune = trialbook.tune
    measure.open_store()
    classifier, X, y = work(n_trees)
    started = time.perf_counter()
    found = tune(
        classifier,
        SPACE,
        X,
        y,
        search={"sklearn/random": {"n_iter": CANDIDATES}},
        validation=FOLDS,
        executor={"processes": {"workers": 2}},
        test=None,
    )
    seconds = time.perf_counter() - started
    trials = measure.recorded("tags.`trialbook.kind` = 'trial'")
    return {"seconds": seconds, "trials": trials, "score": found.leaderboard["mean_test_score"].mean()}


if __name__ == "__main__":
    measure.main(peer=peer, tuned=tuned)
