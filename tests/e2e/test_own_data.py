"""A stranger's data through the command: tuned with nothing else said, recorded, registered, and predicted on."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import mlflow.keras
import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
import servers

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
OWN = ROOT / "tests" / "own"
GRID = ("search=sklearn/grid", "budget.max_trials=2")
N = 240


def messy():
    """Numbers with gaps, whole numbers, booleans, text, dates, and columns that are all alike or all different."""
    rng = np.random.default_rng(0)
    size, city, member = rng.normal(size=N), rng.choice(["Oslo", "Lima", "Pune", "Bonn"], N), rng.random(N) < 0.5
    day = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 700, N), unit="D")
    score = size + (city == "Oslo") - member + 1.5 * (day.day_of_week >= 5)
    return pd.DataFrame(
        {
            "size": np.where(rng.random(N) < 0.1, np.nan, size.round(3)),
            "count": rng.integers(0, 50, N),
            "member": member,
            "city": np.where(rng.random(N) < 0.1, None, city),
            "day": day.strftime("%Y-%m-%d"),
            "customer": [f"c{i:05d}" for i in rng.integers(0, 2 * N, N)],
            "country": "NO",
            "empty": None,
            "label": np.where(score > 0.3, "yes", "no"),
        }
    )


TABLE = messy()


def rows_to_predict():
    """Rows as they come in a request: each lacks a value somewhere, one has categories never seen."""
    rows = TABLE.drop(columns="label").head(9).astype("object")
    for i, name in enumerate(rows.columns):
        rows.loc[i, name] = None
    return pd.concat([rows, rows.head(1).assign(city="Atlantis", customer="nobody", country="XX", day="2031-05-05")])


def champion(workplace, name):
    mlflow.set_tracking_uri(workplace.uri)
    return mlflow.pyfunc.load_model(f"models:/{name}@champion")


@pytest.fixture(scope="module", name="done")
def run(make_workplace_in):
    workplace = make_workplace_in("sales")
    elsewhere = workplace.folder / "elsewhere"
    elsewhere.mkdir()
    TABLE.to_csv(elsewhere / "My sales.csv", index=False)
    words = (f"data.path='{elsewhere}/My sales.csv'", "data.target=label")
    out, _ = workplace.run(
        "data=csv", *words, "model=logistic_regression", "search=sklearn/grid", "budget.max_trials=3"
    )
    return workplace, out


class TestATableOfOnesOwn:
    def test_what_was_found_in_it_is_shown(self, done):
        _, out = done
        assert "My sales: 240 rows of 8 columns (3 numbers, 1 boolean, 3 text, 1 date); 192 to search on, 48 for" in out
        assert "classification of label: 2 classes: no (" in out
        assert "no help: 1 column with one value: country" in out
        assert "no help: 1 column without any value: empty" in out
        assert "Registered My sales version 1 as champion: accuracy 0." in out

    def test_hyperparameters_keep_their_plain_names(self, done):
        workplace, _ = done
        assert [set(t.data.params) for t in workplace.runs("trial")] == [{"C", "class_weight"}] * 3

    def test_it_is_on_record_with_its_digest_schema_and_split(self, done):
        workplace, _ = done
        search = workplace.search_run()
        inputs = {given.tags[0].value: given.dataset for given in search.inputs.dataset_inputs}
        assert set(inputs) == {"training", "testing"}
        assert inputs["training"].digest == search.data.tags["trialbook.data_digest"]
        assert inputs["testing"].digest == search.data.tags["trialbook.test_digest"]
        assert "elsewhere/My sales.csv" in inputs["training"].source
        schema = {column["name"]: column["type"] for column in json.loads(inputs["training"].schema)["mlflow_colspec"]}
        assert list(schema) == list(TABLE.columns[:-1])
        assert (schema["size"], schema["city"], schema["day"]) == ("double", "string", "string")
        profile = json.loads(inputs["testing"].profile)
        assert profile == {"num_rows": 48, "num_elements": 48 * 8, "test_rows": "drawn by class with seed 0"}

    def test_what_is_registered_predicts_raw_rows(self, done):
        workplace, _ = done
        model = champion(workplace, "My sales")
        assert (model.predict(TABLE.drop(columns="label")) == TABLE.label).mean() > 0.8
        rows = rows_to_predict()
        predicted = model.predict(rows)
        assert set(predicted) <= {"yes", "no"}
        # As one by one, where a column may hold nothing but a missing value.
        assert [model.predict(rows.iloc[[i]])[0] for i in range(len(rows))] == list(predicted)

    def test_bad_data_end_in_a_sentence_and_leave_nothing(self, done):
        workplace, _ = done
        bad = workplace.inside("bad")
        (bad.folder / "bad.csv").write_text("size;label\n1;a\n2;b\n")
        _, err = bad.run("data=csv", "data.path=bad.csv", "data.target=label", code=2)
        assert err == (
            "trialbook: data.path=bad.csv has only one column with ',' between fields; try \"data.separator=';'\".\n"
        )
        assert not (bad.folder / "mlflow.db").exists()


@pytest.mark.exhaustive
def test_mlflow_run_of_a_git_address(workplace):
    TABLE.to_csv(workplace.folder / "sales.csv", index=False)
    clones = workplace.folder / "clones"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clones / "trialbook")], check=True)
    words = ("data=csv", f"data.path={workplace.folder}/sales.csv", "data.target=label", "model=logistic_regression")
    with servers.git(clones) as address:
        code, output = workplace.mlflow_run(*words, *GRID, project=f"{address}/trialbook")
    assert code == 0, output
    search = workplace.search_run()
    assert search.data.tags["mlflow.project.entryPoint"] == "main"
    assert "Registered sales version 1 as champion" in output


@pytest.mark.exhaustive
def test_a_net_on_a_table(workplace):
    TABLE.to_csv(workplace.folder / "sales.csv", index=False)
    words = ["data=csv", "data.path=sales.csv", "data.target=label", "model=mlp", "search=sklearn/random"]
    workplace.run(*words, "search.n_iter=2", "validation=stratified_kfold", "+model.space.epochs=[30]")
    model = champion(workplace, "sales")
    assert (model.predict(TABLE.drop(columns="label")) == TABLE.label).mean() > 0.8
    rows = rows_to_predict()
    assert [model.predict(rows.iloc[[i]])[0] for i in range(len(rows))] == list(model.predict(rows))


@pytest.mark.exhaustive
def test_a_net_with_several_inputs_on_a_table(workplace):
    TABLE.to_csv(workplace.folder / "sales.csv", index=False)
    words = ["data=csv", "data.path=sales.csv", "data.target=label", "search=sklearn/grid"]
    _, err = workplace.run(f"--config-dir={OWN}/conf", *words, "model=wide_and_deep_table")
    assert "Warning" not in err
    model = champion(workplace, "sales")
    rows = rows_to_predict()
    assert [model.predict(rows.iloc[[i]])[0] for i in range(len(rows))] == list(model.predict(rows))
    # Each input got its columns and no others.
    net = mlflow.keras.load_model("models:/sales@champion")
    widths = {tensor.name: tensor.shape[1] for tensor in net.inputs}
    assert set(widths) == {"wide", "deep"}
    assert widths["deep"] == 1 + 1 + 5  # the size, the membership, a date's parts


@pytest.mark.exhaustive
@pytest.mark.parametrize("model", ["mlp", "random_forest", "gradient_boosting", "svm"])
def test_a_regression_with_nothing_else_said(workplace, model):
    rng = np.random.default_rng(0)
    kind = rng.choice(["x", "y"], N)
    table = pd.DataFrame({"size": rng.normal(size=N), "kind": kind}).assign(
        price=lambda t: 300_000 + 90_000 * t["size"] + 30_000 * (kind == "x")
    )
    table.to_csv(workplace.folder / "prices.csv", index=False)
    search = ["search.oracle.max_epochs=3"] if model == "mlp" else ["search=sklearn/random", "budget.max_trials=3"]
    out, _ = workplace.run("data=csv", "data.path=prices.csv", "data.target=price", f"model={model}", *search)
    assert "regression of price: from " in out
    (retrain,) = workplace.runs("retrain")
    assert retrain.data.metrics["test_r2"] > 0.7
    known = champion(workplace, "prices").predict(table.drop(columns="price"))
    assert np.corrcoef(known, table.price)[0, 1] > 0.8
    assert known.mean() == pytest.approx(table.price.mean(), rel=0.1)
    assert np.isfinite(champion(workplace, "prices").predict(pd.DataFrame({"size": [None], "kind": ["z"]}))).all()


@pytest.mark.exhaustive
def test_every_format_gives_the_same_trials(workplace):
    found = []
    for name in ("my.csv", "my.tsv", "my.csv.gz", "my.parquet"):
        place = workplace.inside(name)
        if name.endswith("parquet"):
            TABLE.to_parquet(place.folder / name)
        else:
            TABLE.to_csv(place.folder / name, index=False, sep="\t" if "tsv" in name else ",")
        words = ["data=csv", f"data.path={name}", "data.target=label", "model=logistic_regression"]
        place.run(*words, "search=sklearn/random", "budget.max_trials=3")
        trials = [(t.data.params, t.data.metrics["objective"]) for t in place.runs("trial")]
        found.append((place.search_run().data.tags["trialbook.data_digest"], trials))
    assert found == [found[0]] * 4


@pytest.mark.exhaustive
def test_images_from_a_file(workplace):
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    images = rng.integers(0, 60, (120, 12, 12), dtype="uint8")
    for image, label in zip(images, labels, strict=True):
        image[4 * label : 4 * label + 4] = 200
    np.save(workplace.folder / "images.npy", images)
    np.save(workplace.folder / "labels.npy", labels)
    words = ["data=numpy", "data.path=images.npy", "data.target_path=labels.npy", "model=cnn", "search=sklearn/random"]
    workplace.run(*words, "search.n_iter=2")
    model = champion(workplace, "images")
    assert (model.predict(images) == labels).mean() > 0.9
    (retrain,) = workplace.runs("retrain")
    assert retrain.data.metrics["test_accuracy"] > 0.9
    assert "test_roc_auc" in retrain.data.metrics  # MLflow's own evaluation had class probabilities


@pytest.mark.exhaustive
def test_a_saved_table_model_loads_without_trialbook(workplace):
    TABLE.to_csv(workplace.folder / "sales.csv", index=False)
    words = ["data=csv", "data.path=sales.csv", "data.target=label", "model=logistic_regression", "search=sklearn/grid"]
    workplace.run(*words, "budget.max_trials=1")
    (workplace.folder / "rows.json.gz").write_bytes(gzip.compress(rows_to_predict().to_json(orient="records").encode()))
    code = (
        "import sys, gzip, json, mlflow.pyfunc, pandas\n"
        f"mlflow.set_tracking_uri({workplace.uri!r})\n"
        "rows = pandas.DataFrame(json.loads(gzip.open('rows.json.gz').read()))\n"
        "print(list(mlflow.pyfunc.load_model('models:/sales@champion').predict(rows)))\n"
        "assert 'trialbook' not in sys.modules"
    )
    environment = {name: value for name, value in workplace.environment().items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=workplace.folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(list(champion(workplace, "sales").predict(rows_to_predict())))
