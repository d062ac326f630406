"""What a user may have beside their configurations: a loader, builders, a transformer, a layer. Copied by tests."""

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import Bunch


def people(target="segment"):
    """Rows as they come: whole and other numbers, text, booleans, dates' worth of codes, and some of it missing."""
    rng = np.random.default_rng(0)
    n = 240
    age, income = rng.integers(18, 80, n), rng.normal(40_000.5, 9_000, n)
    city = rng.choice(["Bern", "Oslo", "Rome"], n)
    spent = age * 3 + income / 1000 + 40 * (city == "Rome")
    segment = np.array(["low", "middle", "high"])[np.digitize(spent, np.quantile(spent, [0.33, 0.66]))]
    rows = pd.DataFrame({"age": age, "income": income, "city": city, "member": rng.random(n) < 0.5})
    rows.loc[::17, "income"] = np.nan
    rows.loc[::23, "city"] = None
    return Bunch(data=rows, target=pd.Series(segment if target == "segment" else spent))


def tree(max_depth=3):
    return DecisionTreeClassifier(max_depth=max_depth, random_state=0)


def net(input_shape, n_classes, units=8):
    """A builder in keyword style."""
    from trialbook.models import mlp

    return mlp(input_shape, n_classes, units=units, learning_rate=1e-2)


def tuned(hp, input_shape, n_classes):
    """A builder as for Keras Tuner."""
    from trialbook.models import mlp

    return mlp(input_shape, n_classes, units=hp.Int("units", 4, 8, step=4), learning_rate=1e-2)


def wide_and_deep(input_shape, n_classes, units=8):
    """A functional model with two inputs."""
    import keras

    wide, deep = (keras.Input(input_shape[name], name=name) for name in ("wide", "deep"))
    hidden = keras.layers.Dense(units, activation="relu")(deep)
    outputs = keras.layers.Dense(n_classes, activation="softmax")(keras.layers.Concatenate()([wide, hidden]))
    model = keras.Model({"wide": wide, "deep": deep}, outputs)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def nothing(input_shape, n_classes, units=8):
    return None


def uncompiled(input_shape, n_classes, units=8):
    import keras

    return keras.Sequential([keras.Input(input_shape), keras.layers.Dense(n_classes)])


class Clip(TransformerMixin, BaseEstimator):
    """A transformer of one's own, which only pickle can save."""

    def __init__(self, high=1e6):
        self.high = high

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def transform(self, X):
        return np.clip(np.asarray(X, dtype=float), None, self.high)
