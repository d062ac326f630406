"""Rows 1 and 2: a grid over a net with one hidden layer, three folds, ten epochs, 768 rows of eight columns.

The search of `trialbook experiment=hidden_units_grid data=pima`, in its Python form on both sides, with the best
hyperparameters retrained on all rows, as `GridSearchCV` does by itself. The rows are those of a file without a header,
or made up; all of them are searched on.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from sklearn.datasets import make_classification
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks import measure

SPACE = {"hidden_units": [50, 100, 200], "activation": ["relu", "sigmoid"]}
FOLDS = StratifiedKFold(3, shuffle=True, random_state=1)


def rows(path: str | None) -> tuple[np.ndarray, np.ndarray]:
    """The rows and their classes."""
    if path is None:
        return make_classification(768, 8, n_informative=5, flip_y=0.2, random_state=0)
    table = np.loadtxt(path, delimiter=",")
    return table[:, :-1], table[:, -1].astype(int)


def net(hidden_units: int, activation: str) -> Any:
    """The net, compiled."""
    import keras

    hidden = keras.layers.Dense(hidden_units, activation=activation)
    model = keras.Sequential([keras.Input((8,)), hidden, keras.layers.Dense(1, activation="sigmoid")])
    model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
    return model


def peer(path: str | None, epochs: int, tracked: bool) -> dict[str, Any]:
    """`GridSearchCV` of scikeras's classifier."""
    import keras
    import mlflow.sklearn
    from scikeras.wrappers import KerasClassifier
    from sklearn.model_selection import GridSearchCV

    X, y = rows(path)
    keras.utils.set_random_seed(1)
    classifier = KerasClassifier(net, epochs=epochs, batch_size=32, hidden_units=100, activation="relu", verbose=0)
    grid = {f"kerasclassifier__{name}": values for name, values in SPACE.items()}
    search = GridSearchCV(make_pipeline(StandardScaler(), classifier), grid, cv=FOLDS)
    if tracked:
        measure.open_store()
        mlflow.sklearn.autolog(max_tuning_runs=None)
    started = time.perf_counter()
    search.fit(X, y)
    seconds = time.perf_counter() - started
    scores = search.cv_results_["mean_test_score"]
    trials = measure.recorded("tags.`mlflow.parentRunId` LIKE '%'") if tracked else len(scores)
    return {"seconds": seconds, "trials": trials, "score": scores.mean()}


def tuned(path: str | None, epochs: int) -> dict[str, Any]:
    """`trialbook.tune`."""
    import trialbook
    from trialbook.estimator import KerasClassifier, preload_keras

    tune = trialbook.tune
    preload_keras()
    measure.open_store()
    X, y = rows(path)
    model = make_pipeline(StandardScaler(), KerasClassifier(builder, epochs=epochs, batch_size=32, seed=1))
    started = time.perf_counter()
    found = tune(model, SPACE, X, y, search="sklearn/grid", validation=FOLDS, test=None)
    seconds = time.perf_counter() - started
    trials = measure.recorded("tags.`trialbook.kind` = 'trial'")
    return {"seconds": seconds, "trials": trials, "score": found.leaderboard["mean_test_score"].mean()}


def untracked(path: str | None, epochs: int) -> dict[str, Any]:
    """The parts of `trialbook.tune` with a journal in memory, which keeps no models."""
    from trialbook import app, arguments, promote
    from trialbook.estimator import KerasClassifier, preload_keras
    from trialbook.evaluate import configure
    from trialbook.executors import SerialExecutor
    from trialbook.garbage import libraries_set_aside
    from trialbook.search import loop
    from trialbook.search.sklearn import GridSearch
    from trialbook.space import Space
    from trialbook.testing import MemoryJournal

    preload_keras()
    X, y = rows(path)
    model = make_pipeline(StandardScaler(), KerasClassifier(builder, epochs=epochs, batch_size=32, seed=1))
    started = time.perf_counter()
    plan = app.assemble(
        app.aims_of(arguments.composed([arguments.Option.read("search", "sklearn/grid")], {})),
        names={"search": "sklearn/grid", "model": "net"},
        estimator=model,
        data=arguments.data_of(X, y, "rows", "classification", None, 0, model, preprocessed=False),
        splitter=FOLDS,
        declared=Space.parse(SPACE),
        make_search=lambda space, **_: GridSearch(space),
    )
    work = plan.evaluator(keep_models=False)
    with libraries_set_aside():
        outcome = loop.run(plan.search, SerialExecutor(), work, MemoryJournal(), maximize=plan.objective.maximize)
        configured = configure(plan.estimator, outcome.best.trial.params)
        promote.retrain(configured, plan.data, epochs=None, nets=plan.nets)
    seconds = time.perf_counter() - started
    score = float(np.mean([record.objective for record in outcome.records]))
    return {"seconds": seconds, "trials": len(outcome.records), "score": score}


def builder(input_shape: tuple[int, ...], hidden_units: int = 100, activation: str = "relu") -> Any:
    """The net, as Trialbook's estimator asks for it."""
    return net(hidden_units, activation)


if __name__ == "__main__":
    measure.main(peer=peer, tuned=tuned, untracked=untracked)
