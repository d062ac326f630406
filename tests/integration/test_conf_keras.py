"""Keras models and Keras Tuner's searches as `conf/` declares them, composed and run for a trial."""

import csv
import io

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits
from sklearn.model_selection import train_test_split
from sklearn.utils import Bunch

from trialbook import app
from trialbook.__main__ import conf_dir
from trialbook.data import catalogues
from trialbook.errors import DataError, ModelError, SpaceError
from trialbook.models import cnn


def config(*overrides):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("config", list(overrides))


def plan_of(search, model, data, *overrides):
    cfg = config(f"search={search}", f"model={model}", f"data={data}", *overrides)
    return app.compose(cfg, {"search": search, "model": model})


def test_a_net_that_takes_keywords_needs_a_space():
    with pytest.raises(SpaceError, match="space is empty"):
        plan_of("sklearn/grid", "mlp", "digits", "model.space=null")


@pytest.mark.slow
def test_callbacks_and_class_weights_come_from_the_command_line():
    stop = "model.callbacks=[{_target_: keras.callbacks.EarlyStopping, monitor: val_loss, patience: 3}]"
    plan = plan_of("sklearn/grid", "mlp", "breast_cancer", stop, "model.class_weight={0: 1, 1: 5}")
    net = plan.estimator[-1]
    assert [c.patience for c in net.callbacks] == [3]
    assert net.class_weight == {0: 1, 1: 5}


@pytest.mark.slow
def test_the_convolutional_net_learns_digits():
    plan = plan_of("keras_tuner/random", "cnn", "digits")
    X, X_val, y, y_val = train_test_split(*load_digits(return_X_y=True), random_state=0)
    net = clone(plan.estimator).set_params(epochs=4, learning_rate=0.01).fit(X, y)
    assert net.score(X_val, y_val) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pixels", "image_shape", "expected"),
    [(64, None, (8, 8, 1)), (784, None, (28, 28, 1)), (784, [14, 56], (14, 56, 1)), (192, [8, 8, 3], (8, 8, 3))],
)
def test_a_row_of_pixels_becomes_an_image(pixels, image_shape, expected):
    assert cnn((pixels,), 10, image_shape=image_shape).layers[0].target_shape == expected


@pytest.mark.slow
@pytest.mark.parametrize(("image_shape", "said"), [(None, "65 pixels are no square"), ([8, 8], "must be .* 65 pixels")])
def test_a_row_that_is_no_image_is_refused(image_shape, said):
    with pytest.raises(ModelError, match=said):
        cnn((65,), 10, image_shape=image_shape)


@pytest.mark.slow
def test_the_regression_net_predicts_numbers():
    cfg = config("model=mlp_regressor", "search=sklearn/grid")
    X, X_val, y, y_val = train_test_split(*load_diabetes(return_X_y=True), random_state=0)
    net = app.make("model.estimator", cfg.model.estimator).set_params(net__learning_rate=0.001, net__units=64)
    assert net.fit(X, y).score(X_val, y_val) > 0.3
    assert net.predict(X_val).shape == y_val.shape


PIMA = "6,148,72,35,0,33.6,0.627,50,1\n1,85,66,29,0,26.6,0.351,31,0\n"


def test_pima_is_the_same_data_from_a_file_and_from_openml(tmp_path, monkeypatch):
    rows = PIMA * 10
    (tmp_path / "pima.csv").write_text(rows)
    cells = [[float(cell) for cell in row] for row in csv.reader(io.StringIO(rows))]
    frame = pd.DataFrame(
        [row[:8] for row in cells], columns=["preg", "plas", "pres", "skin", "insu", "mass", "pedi", "age"]
    )
    target = pd.Series(["tested_positive" if row[8] else "tested_negative" for row in cells], dtype="category")

    def fetched(*, data_id, as_frame, **_):
        assert (data_id, as_frame) == (37, True)
        return Bunch(data=frame, target=target, details={"id": "37", "name": "diabetes"})

    monkeypatch.setattr(catalogues, "fetch_openml", fetched)
    online = app.make("data", config("data=pima").data)
    local = app.make("data", config("data=pima", f"data.path={tmp_path / 'pima.csv'}").data)
    assert list(online.X.columns) == list(local.X.columns)
    assert online.X.columns[0] == "pregnancies"
    np.testing.assert_array_equal(online.X.to_numpy(), local.X.to_numpy())
    np.testing.assert_array_equal(online.y, local.y)
    assert set(local.y_test) == {0, 1}


def test_data_that_cannot_be_had_are_refused_in_a_sentence(tmp_path, monkeypatch):
    def away(**_):
        raise OSError("no network")

    monkeypatch.setattr(catalogues, "fetch_openml", away)
    with pytest.raises(
        DataError, match=r"cannot be fetched from OpenML \(no network\); give a local copy as data\.path"
    ):
        app.make("data", config("data=pima").data)
    with pytest.raises(DataError, match=r"data\.path=nowhere\.csv does not exist"):
        app.make("data", config("data=pima", "data.path=nowhere.csv").data)
    (tmp_path / "short.csv").write_text("1,2\n")
    with pytest.raises(DataError, match="must have 9 columns without a header, got 2"):
        app.make("data", config("data=pima", f"data.path={tmp_path / 'short.csv'}").data)
