"""Arrays from files, and data sets that others keep, from their own caches as they lie on a disk."""

import gzip
import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from trialbook.data import from_numpy, from_openml
from trialbook.errors import DataError
from trialbook.signature import signature_of

N = 40
IMAGES = np.random.default_rng(0).integers(0, 256, (N, 6, 5), dtype="uint8")
LABELS = np.arange(N) % 3


def test_images_stay_as_they_are_and_have_a_signature(tmp_path):
    np.savez(tmp_path / "shapes.npz", images=IMAGES, labels=LABELS)
    data = from_numpy(path=str(tmp_path / "shapes.npz"))
    assert (data.X.shape, data.X.dtype, data.task) == ((32, 6, 5), "uint8", "classification")
    assert data.described[0] == (
        "shapes: 40 rows of 6×5 values; 32 to search on, 8 for the test (drawn by class with seed 0)"
    )
    assert str(signature_of(LogisticRegression(), data.X, data.y).inputs) == "[Tensor('uint8', (-1, 6, 5))]"
    other = from_numpy(path=str(tmp_path / "shapes.npz"), test_seed=1)
    assert data.digest != other.digest


def test_rows_and_targets_from_two_files(tmp_path):
    np.save(tmp_path / "rows.npy", IMAGES)
    np.save(tmp_path / "targets.npy", np.where(LABELS == 0, "no", "yes")[:, None])
    paths = {"path": str(tmp_path / "rows.npy"), "target_path": str(tmp_path / "targets.npy")}
    data = from_numpy(**paths, flatten=True)
    assert data.X.shape == (32, 30)
    assert set(data.y) == {"no", "yes"}
    assert from_numpy(**paths).X.reshape(32, 30).tolist() == data.X.tolist()


def test_test_rows_that_come_along_are_the_test_rows(tmp_path):
    np.savez(tmp_path / "my.npz", x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:9], y_test=LABELS[:9])
    data = from_numpy(path=str(tmp_path / "my.npz"))
    assert (len(data.X), len(data.X_test), data.held_out) == (40, 9, "those it comes with")


def test_vectors_with_holes_are_filled_inside_the_model(tmp_path):
    rows = np.random.default_rng(0).normal(size=(N, 4))
    rows[::5, 1] = np.nan
    np.savez(tmp_path / "my.npz", x=rows, y=rows[:, 0] * 2)
    data = from_numpy(path=str(tmp_path / "my.npz"))
    assert data.task == "regression"
    assert np.isfinite(data.preprocessing.fit(data.X).transform(data.X_test)).all()
    assert from_numpy(path=str(tmp_path / "my.npz"), preprocessing="none").preprocessing is None


ARFF = """@RELATION flowers
@ATTRIBUTE length REAL
@ATTRIBUTE colour {red,blue}
@ATTRIBUTE kind {rose,tulip}
@DATA
""" + "\n".join(
    f"{i / 3:.2f},{'?' if i % 9 == 0 else ('red', 'blue')[i % 2]},{('rose', 'tulip')[i % 2]}" for i in range(N)
)


@pytest.fixture(name="openml")
def give_openml(tmp_path, monkeypatch):
    """What scikit-learn keeps of a data set of OpenML; the network is not asked."""
    cache = tmp_path / "openml" / "openml.org"
    features = [("length", "numeric", "false"), ("colour", "nominal", "false"), ("kind", "nominal", "true")]
    description = {
        **{"id": "7", "name": "flowers", "version": "1", "format": "ARFF", "status": "active", "description": ""},
        **{"default_target_attribute": "kind", "url": "https://www.openml.org/data/v1/download/7/flowers.arff"},
        "md5_checksum": hashlib.md5(ARFF.encode(), usedforsecurity=False).hexdigest(),
    }
    files = {
        "data/v1/download/7/flowers.arff": ARFF,
        "api/v1/json/data/7": json.dumps({"data_set_description": description}),
        "api/v1/json/data/list/data_name/flowers/limit/2/status/active/": json.dumps(
            {"data": {"dataset": [{"did": 7, "version": 1, "status": "active"}]}}
        ),
        "api/v1/json/data/qualities/7": json.dumps(
            {"data_qualities": {"quality": [{"name": "NumberOfInstances", "value": str(N)}]}}
        ),
        "api/v1/json/data/features/7": json.dumps(
            {
                "data_features": {
                    "feature": [
                        {"index": str(i), "name": name, "data_type": kind, "is_target": target}
                        | {"is_ignore": "false", "is_row_identifier": "false", "number_of_missing_values": "0"}
                        for i, (name, kind, target) in enumerate(features)
                    ]
                }
            }
        ),
    }
    for name, content in files.items():
        path = cache / f"{name}.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content.encode()))
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path))
    monkeypatch.setattr("sklearn.datasets._openml.urlopen", away)


def away(*_, **__):
    raise OSError("no network")


@pytest.mark.usefixtures("openml")
@pytest.mark.parametrize("which", [{"data_id": 7}, {"dataset": "flowers"}])
def test_a_data_set_of_openml_by_number_or_name(which):
    data = from_openml(**which)
    assert (data.name, data.target, data.task) == ("flowers", "kind", "classification")
    assert data.source == "https://www.openml.org/d/7"
    assert data.columns == "1 number, 1 text"
    assert len(data.X) + len(data.X_test) == N
    assert np.isfinite(data.preprocessing.fit(data.X).transform(data.X_test)).all()


@pytest.mark.usefixtures("openml")
def test_another_column_of_openml_as_the_target():
    data = from_openml(data_id=7, target="length")
    assert (data.target, data.task, list(data.X)) == ("length", "regression", ["colour", "kind"])
    with pytest.raises(DataError, match=r"data=7 cannot be had from OpenML: .*size"):
        from_openml(data_id=7, target="size")


@pytest.mark.usefixtures("openml")
def test_what_openml_cannot_give_is_refused_in_a_sentence():
    with pytest.raises(DataError, match=r"data=8 cannot be fetched from OpenML \(.*no network.*\); give a local copy"):
        from_openml(data_id=8)
    for which in ({}, {"data_id": 7, "dataset": "flowers"}):
        with pytest.raises(DataError, match=r"needs data\.data_id, its number there, or data\.dataset, its name"):
            from_openml(**which)


def idx(array, kind):
    """Bytes as MNIST's own file format has them: eight bytes of heading for labels, sixteen for images."""
    return gzip.compress(bytes(8 if kind == "labels" else 16) + array.tobytes())


def keras_cache(folder):
    """Fashion-MNIST as Keras keeps it, of few images."""
    rng = np.random.default_rng(0)
    place = folder / "datasets" / "fashion-mnist"
    place.mkdir(parents=True)
    for part, count in (("train", 60), ("t10k", 20)):
        labels = (np.arange(count) % 10).astype("uint8")
        images = rng.integers(0, 60, (count, 28, 28), dtype="uint8")
        images[np.arange(count), 2 * labels] = 255  # a row of the image tells its class
        (place / f"{part}-labels-idx1-ubyte.gz").write_bytes(idx(labels, "labels"))
        (place / f"{part}-images-idx3-ubyte.gz").write_bytes(idx(images, "images"))
    return folder


READ = """
from trialbook.data import from_keras
data = from_keras("fashion_mnist")
print(data.X.shape, data.X_test.shape, from_keras("fashion_mnist", flatten=True).X.shape, data.described[0])
from trialbook.errors import DataError
for name in ("mnist", "reuter"):
    try: from_keras(name)
    except DataError as error: print(error)
"""


@pytest.mark.slow
def test_a_data_set_of_keras_comes_from_its_cache(workplace, tmp_path):
    # Behind a proxy that is not there, so that nothing is fetched, whatever network there is.
    proxy = "http://127.0.0.1:9"
    environment = workplace.environment(KERAS_HOME=str(keras_cache(tmp_path)), https_proxy=proxy, HTTPS_PROXY=proxy)
    done = subprocess.run([sys.executable, "-c", READ], env=environment, capture_output=True, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if not line.startswith("Downloading")]
    assert lines[0].startswith(
        "(60, 28, 28) (20, 28, 28) (60, 784) fashion_mnist: 80 rows of 28×28 values; 60 to search"
    )
    assert "data=mnist is not in Keras's cache (~/.keras/datasets) and cannot be fetched: " in lines[-2]
    assert lines[-1].startswith("data.dataset='reuter' is no data set of keras.datasets")


@pytest.mark.exhaustive
def test_hyperband_on_images_of_keras(workplace, tmp_path):
    words = ["experiment=image_hyperband", "data=fashion_mnist", "search.oracle.max_epochs=3"]
    home = str(keras_cache(tmp_path / "keras"))
    done = subprocess.run(
        [sys.executable, "-m", "trialbook", *words],
        cwd=workplace.folder,
        env=workplace.environment(KERAS_HOME=home),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (retrain,) = workplace.runs("retrain")
    assert "test_accuracy" in retrain.data.metrics
    (search,) = workplace.runs("search")
    training, testing = sorted(
        search.inputs.dataset_inputs, key=lambda given: -json.loads(given.dataset.profile)["num_rows"]
    )
    assert json.loads(training.dataset.profile) == {
        "num_rows": 60,
        "num_elements": 60 * 784,
        "test_rows": "those it comes with",
    }
    assert "mlflow_tensorspec" in json.loads(testing.dataset.schema)
