"""Row 3: Keras Tuner's Hyperband over a dense net, on scikit-learn's digits and on 10,000 images of 28x28 pixels.

The search of `trialbook experiment=image_hyperband`, in its Python form on both sides, with the best hyperparameters
retrained on all rows, as Keras Tuner's guide goes on. The peer is tracked by hand: a nested run for each trial, with
its hyperparameters, its curves and its model. Or it is not tracked at all; Trialbook is all the same, with two workers.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from benchmarks import measure


def rows(data: str) -> tuple[np.ndarray, np.ndarray]:
    """The rows, pixels from 0 to 1, and their classes: `digits`, or `images` made of them."""
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype("float32")
    if data == "images":
        rng = np.random.default_rng(0)
        drawn = rng.integers(len(X), size=10_000)
        large = np.kron(X[drawn].reshape(-1, 8, 8), np.ones((1, 3, 3)))
        X = np.pad(large, ((0, 0), (2, 2), (2, 2))) + rng.normal(0, 0.2, (10_000, 28, 28))
        X, y = X.clip(0, 1).reshape(-1, 784).astype("float32"), y[drawn]
    return X, y


def net(hp: Any, input_shape: tuple[int, ...], n_classes: int) -> Any:
    """The net, compiled, as Keras Tuner's users write it."""
    import keras

    units = hp.Int("units", min_value=32, max_value=512, step=32)
    learning_rate = hp.Choice("learning_rate", values=[1e-2, 1e-3, 1e-4])
    hidden = keras.layers.Dense(units, activation="relu")
    model = keras.Sequential([keras.Input(input_shape), hidden, keras.layers.Dense(n_classes, activation="softmax")])
    adam = keras.optimizers.Adam(learning_rate)
    model.compile(optimizer=adam, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def peer(data: str, max_epochs: int, tracked: bool) -> dict[str, Any]:
    """`keras_tuner.Hyperband`."""
    import keras_tuner
    import mlflow.tensorflow

    class Tracked(keras_tuner.Hyperband):
        """Every trial in a run below the active one."""

        def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> Any:
            with mlflow.start_run(run_name=trial.trial_id, nested=True):
                mlflow.log_params(trial.hyperparameters.values)
                histories = super().run_trial(trial, *args, **kwargs)
                for epoch, values in enumerate(zip(*histories[0].history.values(), strict=True)):
                    mlflow.log_metrics(dict(zip(histories[0].history, values, strict=True)), step=epoch)
                mlflow.tensorflow.log_model(self.load_model(trial), name="model")
            return histories

    X, y = rows(data)
    train, test, y_train, y_test = train_test_split(X, y, test_size=0.2, stratify=y, random_state=1)

    def build(hp: Any) -> Any:
        return net(hp, X.shape[1:], 10)

    kind = Tracked if tracked else keras_tuner.Hyperband
    tuner = kind(build, objective="val_accuracy", max_epochs=max_epochs, factor=3, seed=1, directory="tuner")
    if tracked:
        measure.open_store()
        mlflow.start_run()
    started = time.perf_counter()
    tuner.search(train, y_train, validation_data=(test, y_test), verbose=0)
    (best,) = tuner.oracle.get_best_trials(1)
    tuner.hypermodel.build(best.hyperparameters).fit(X, y, epochs=best.best_step + 1, verbose=0)
    seconds = time.perf_counter() - started
    trials = len(tuner.oracle.trials)
    if tracked:
        mlflow.end_run()
        trials = measure.recorded("tags.`mlflow.parentRunId` LIKE '%'")
    return {"seconds": seconds, "trials": trials, "score": best.score}


def tuned(data: str, max_epochs: int, executor: Any) -> dict[str, Any]:
    """`trialbook.tune`."""
    import trialbook
    from trialbook.estimator import KerasClassifier, preload_keras
    from trialbook.search import keras_tuner

    del keras_tuner  # loaded, as on the other side
    tune = trialbook.tune
    preload_keras()
    measure.open_store()
    X, y = rows(data)
    started = time.perf_counter()
    found = tune(
        KerasClassifier(net, seed=1),
        None,
        X,
        y,
        search={"keras_tuner/hyperband": {"max_epochs": max_epochs, "factor": 3}},
        objective="val_accuracy",
        executor=executor,
        test=None,
    )
    seconds = time.perf_counter() - started
    trials = measure.recorded("tags.`trialbook.kind` = 'trial'")
    return {"seconds": seconds, "trials": trials, "score": found.best_score}


if __name__ == "__main__":
    measure.main(peer=peer, tuned=tuned)
