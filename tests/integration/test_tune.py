"""Tuning from Python: `trialbook.tune`."""

import gc
import json
import re
import subprocess
import sys
from functools import partial

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.utils.proto_json_utils import dataframe_from_parsed_json
from scipy.stats import loguniform
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import Ridge
from sklearn.metrics import accuracy_score
from sklearn.model_selection import ShuffleSplit, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC

import trialbook
from trialbook.errors import DataError, ModelError, RequestError, SearchError, SpaceError
from trialbook.evaluate import Evaluator
from trialbook.executors import SerialExecutor
from trialbook.search.sklearn import RandomSearch
from trialbook.space import Space

pytestmark = [
    pytest.mark.slow,
    # MLflow's use of pandas, which the command's own processes do not turn into errors.
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),
]

X, y = load_breast_cancer(return_X_y=True, as_frame=True)
SVM = make_pipeline(StandardScaler(), SVC())
SPACE = {"kernel": ["linear", "rbf"], "C": loguniform(1e-2, 1e2)}
GRID = {"C": [0.1, 1]}


@pytest.fixture(scope="module", name="store")
def make_store(tmp_path_factory):
    """Where this module's searches are recorded; making a store takes longer than a search."""
    return {"uri": f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db", "models": "none"}


@pytest.fixture(scope="module", name="tuned")
def tune_once(store):
    search = {"sklearn/random": {"n_iter": 4}}
    options = {"search": search, "validation": 3, "objective": "roc_auc", "scoring": ["accuracy"], "seed": 5}
    return trialbook.tune(SVM, SPACE, X, y, tracking={**store, "models": "all"}, registered_model="tumours", **options)


def grid(store, model=SVM, space=GRID, rows=X, targets=y, **options):
    given = {"search": "sklearn/grid", "tracking": store, **options}
    return trialbook.tune(model, space, rows, targets, **given)


def test_the_result_has_what_a_notebook_wants_next(tuned):
    assert set(tuned.best_params) == {"kernel", "C"}
    assert len(tuned.leaderboard) == 4
    best = tuned.leaderboard.iloc[0]
    assert best["rank_test_score"] == 1
    assert best["mean_test_score"] == tuned.best_score
    assert best["param_C"] == tuned.best_params["C"]
    assert best[[f"split{fold}_test_score" for fold in range(3)]].mean() == pytest.approx(tuned.best_score)
    assert accuracy_score(y, tuned.best_estimator.predict(X)) > 0.95
    assert tuned.best_params["C"] == tuned.best_estimator[-1].C
    assert tuned.url.endswith(f"/runs/{tuned.run_id}?workflowType=machine_learning")
    assert f"best roc_auc {tuned.best_score:.4f} of 4 trials" in repr(tuned)
    assert "Registered tumours version 1 as champion" in repr(tuned)


def test_it_leaves_the_record_that_the_command_leaves(tuned, store):
    client = MlflowClient(store["uri"], store["uri"])
    run = client.get_run(tuned.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "sklearn/random SVC on data"
    below = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{tuned.run_id}'")
    kinds = [child.data.tags["trialbook.kind"] for child in below]
    assert sorted(kinds) == ["retrain", *["trial"] * 4]
    assert all("val_accuracy" in c.data.metrics for c in below if c.data.tags["trialbook.kind"] == "trial")
    assert {f.path for f in client.list_artifacts(tuned.run_id)} >= {"config.yaml", "leaderboard.csv", "report.html"}
    note = run.data.tags["mlflow.note.content"]
    assert "trialbook.tune(Pipeline(steps=[('standardscaler', StandardScaler()), ('svc', SVC())]), " in note
    assert f'resume="{tuned.run_id}")' in note
    version = client.get_model_version_by_alias("tumours", "champion")
    assert float(version.tags["trialbook.test_score"]) == tuned.test_score


@pytest.mark.parametrize("word", ["resume", "promote"])
def test_the_command_says_that_it_cannot_go_on_with_it(tuned, store, tmp_path, word):
    command = [sys.executable, "-m", "trialbook", f"{word}={tuned.run_id}", f"tracking.uri={store['uri']}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "was started from Python by trialbook.tune" in done.stderr


@pytest.mark.exhaustive
def test_what_the_note_says_loads_the_registered_model(tuned, store, tmp_path):
    note = MlflowClient(store["uri"]).get_run(tuned.run_id).data.tags["mlflow.note.content"]
    (loading,) = [block for block in re.findall(r"```python\n(.*?)```", note, re.DOTALL) if "load_model" in block]
    X.to_pickle(tmp_path / "rows.pkl")
    predicting = "import pandas; print(*model.predict(pandas.read_pickle('rows.pkl')), sep=',')"
    done = subprocess.run(
        [sys.executable, "-c", loading + predicting], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert [int(word) for word in done.stdout.split(",")] == list(tuned.best_estimator.predict(X))


def test_the_same_call_proposes_and_scores_the_same(tuned, store):
    search = {"sklearn/random": {"n_iter": 4}}
    again = trialbook.tune(SVM, SPACE, X, y, search=search, validation=3, objective="roc_auc", tracking=store, seed=5)
    same = ["trial", "param_kernel", "param_C", "mean_test_score", "std_test_score"]
    pd.testing.assert_frame_equal(again.leaderboard[same], tuned.leaderboard[same])
    assert again.test_score == tuned.test_score
    assert again.registered is None


def test_parts_may_be_objects(store):
    folds = ShuffleSplit(2, test_size=0.3, random_state=0)
    made = RandomSearch(Space.parse({"C": [1, 2, 3]}), n_iter=2, seed=0)
    for search in (made, partial(RandomSearch, n_iter=2)):
        done = grid(store, space={"C": [1, 2, 3]}, search=search, validation=folds, executor=SerialExecutor())
        assert len(done.leaderboard) == 2
        assert "split1_test_score" in done.leaderboard


def test_folds_by_number_are_scikit_learns(store):
    done = grid(store, space={"C": [1]}, validation=3, test=None, seed=7)
    folds = StratifiedKFold(3, shuffle=True, random_state=7)
    expected = [
        accuracy_score(y[test], SVM.fit(X.iloc[train], y[train]).predict(X.iloc[test]))
        for train, test in folds.split(X, y)
    ]
    assert done.leaderboard.filter(like="split").iloc[0].tolist() == pytest.approx(expected)
    assert done.test_score is None


def test_arrays_numbers_and_test_rows_of_ones_own(store):
    rows, targets = load_diabetes(return_X_y=True)
    done = grid(store, Ridge(), {"alpha": [0.1, 1.0]}, rows[:300], targets[:300], test=(rows[300:], targets[300:]))
    assert done.metric == "r2"
    assert done.test_score == pytest.approx(done.best_estimator.score(rows[300:], targets[300:]))
    expected = Ridge(alpha=done.best_params["alpha"]).fit(rows[:300], targets[:300])
    assert np.allclose(done.best_estimator.predict(rows), expected.predict(rows))


MIXED = pd.DataFrame(
    {
        "size": np.where(np.arange(200) % 9 == 0, np.nan, np.arange(200) % 17),
        "count": pd.array([None if i % 50 == 0 else i % 7 for i in range(200)], dtype="Int64"),
        "city": pd.Categorical([["Oslo", "Lima", None][i % 3] for i in range(200)]),
        "word": ["yes" if i % 4 else "no" for i in range(200)],
        "member": [None if i % 40 == 0 else i % 2 == 0 for i in range(200)],
        "day": pd.date_range("2024-01-01", periods=200, tz="Europe/Oslo"),
        "written": pd.date_range("2024-01-01", periods=200).strftime("%Y-%m-%d"),
    }
)
LABELS = np.where((MIXED["word"] == "yes") & (MIXED.index < 150), "a", "b")


def test_a_data_frame_of_anything(store):
    done = grid(store, rows=MIXED, targets=LABELS, tracking={**store, "models": "all"}, registered_model="mixed")
    assert (done.leaderboard["state"] == "complete").all()
    assert done.best_score > 0.9
    assert done.best_params["C"] == done.best_estimator[-1].C
    # What it predicts for the user's own frame, the registered model predicts for rows as they come in a request.
    predicted = done.best_estimator.predict(MIXED)
    mlflow.set_tracking_uri(store["uri"])
    model = mlflow.pyfunc.load_model("models:/mixed@champion")
    day = MIXED["day"].dt.tz_convert("UTC").dt.strftime("%Y-%m-%dT%H:%M:%S")
    request = json.loads(MIXED.assign(day=day).to_json(orient="split"))
    sent = {"columns": request["columns"], "data": request["data"]}
    parsed = dataframe_from_parsed_json(sent, "split", model.metadata.get_input_schema())
    assert list(model.predict(parsed)) == list(predicted)


def test_a_pipeline_that_prepares_its_columns_is_let_alone(store):
    columns = ColumnTransformer([("words", OneHotEncoder(), ["word"])])
    done = grid(store, make_pipeline(columns, SVC()), rows=MIXED, targets=LABELS)
    assert len(done.best_estimator) == 2
    done = grid(
        store, HistGradientBoostingClassifier(), {"max_iter": [5]}, rows=MIXED[["size", "city"]], targets=LABELS
    )
    assert isinstance(done.best_estimator, HistGradientBoostingClassifier)
    with pytest.raises(SearchError, match="could not convert string to float"):
        grid(store, rows=MIXED[["word"]], targets=LABELS, preprocessing="none")


def test_images(store):
    digits = load_digits()
    done = grid(store, tiny_net, {"units": [16]}, digits.images, digits.target, test=0.5)
    assert done.best_estimator.predict(digits.images).shape == (1797,)
    assert done.test_score > 0.3


def tiny_net(input_shape, n_classes, units):
    import keras

    layers = [keras.layers.Flatten(), keras.layers.Dense(units), keras.layers.Dense(n_classes, activation="softmax")]
    net = keras.Sequential([keras.Input(input_shape), *layers])
    net.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    return net


@pytest.mark.parametrize("executor", ["serial", {"processes": {"workers": 1}}], ids=["serial", "processes"])
def test_the_data_of_earlier_searches_are_given_back(store, executor):
    for _ in range(4):
        trialbook.tune(Ridge(), {"alpha": [1.0, 2.0]}, X, y.astype(float), executor=executor, tracking=store)
    # Of the last, and of the one before, whose garbage the last has found.
    assert sum(isinstance(thing, Evaluator) for thing in gc.get_objects()) <= 2


def test_an_interrupted_search_goes_on(store):
    with pytest.raises(KeyboardInterrupt):
        grid(store, space={"C": [1, 2, 3]}, executor=Interrupted())
    client = MlflowClient(store["uri"])
    (experiment,) = [e.experiment_id for e in client.search_experiments() if e.name == "trialbook"]
    (run,) = client.search_runs([experiment], "tags.`trialbook.kind` = 'search' and attributes.status = 'KILLED'")
    done = grid(store, space={"C": [1, 2, 3]}, resume=run.info.run_id)
    assert done.run_id == run.info.run_id
    assert done.leaderboard["state"].tolist() == ["complete"] * 3


class Interrupted(SerialExecutor):
    """Runs one trial; then its user has had enough."""

    trials = 0

    def submit(self, fn, /, *args, **kwargs):
        self.trials += 1
        if self.trials == 2:
            raise KeyboardInterrupt
        return super().submit(fn, *args, **kwargs)


REFUSED = {
    "an unknown search": (RequestError, {"search": "sklearn/grit"}, "allowed: keras_tuner/bayesian"),
    "an unknown argument": (RequestError, {"search": {"sklearn/random": {"n_itr": 3}}}, "'n_itr'"),
    "two searches": (RequestError, {"search": {"sklearn/random": {}, "sklearn/grid": {}}}, "from one name"),
    "no search at all": (RequestError, {"search": 3}, "ask and tell"),
    "an unknown splitter": (RequestError, {"validation": "tenfold"}, "stratified_kfold"),
    "one fold": (RequestError, {"validation": 1}, "n_splits=2 or more"),
    "no splitter": (RequestError, {"validation": [3]}, "a number of folds"),
    "an unknown limit": (RequestError, {"budget": {"max_trails": 3}}, "max_trials"),
    "an unknown metric": (RequestError, {"objective": "acuracy"}, "acuracy"),
    "an unknown executor": (RequestError, {"executor": "cloud"}, "serial"),
    "a model untested": (RequestError, {"test": None, "registered_model": "it"}, "needs test rows"),
    "all rows for the test": (DataError, {"test": 1}, "a share of the rows"),
    "other columns": (DataError, {"test": (X[["mean area"]], y)}, "the columns of X"),
    "a class": (ModelError, {"model": SVC}, "give an estimator, such as SVC()"),
    "no model": (ModelError, {"model": 3}, "cannot be tuned"),
    "an unknown hyperparameter": (ModelError, {"space": {"Q": [1]}}, "'Q'"),
    "an empty space": (SpaceError, {"space": {}}, "space is empty"),
    "fewer targets": (DataError, {"targets": y[:5]}, "one target for each of the 569 rows"),
    "images for a model of tables": (ModelError, {"rows": np.zeros((569, 8, 8))}, "has 8×8 values; make vectors"),
    "two columns of one name": (
        DataError,
        {"rows": X[["mean area", "mean area"]]},
        "more than one column 'mean area'",
    ),
    "a vector": (DataError, {"rows": np.zeros(569)}, "two or more dimensions"),
    "no such preprocessing": (DataError, {"preprocessing": "some"}, "must be auto or none"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_request_is_refused_in_a_sentence_and_nothing_is_recorded(case, tmp_path):
    error, options, said = REFUSED[case]
    with pytest.raises(error) as refused:
        grid({"uri": f"sqlite:///{tmp_path}/mlflow.db"}, **options)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert isinstance(refused.value, ValueError)
    assert not list(tmp_path.iterdir())


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, trialbook; assert not {'mlflow', 'pandas', 'sklearn', 'hydra'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.exhaustive
def test_epochs_are_handed_out_to_nets_only(store):
    with pytest.raises(RequestError, match="hands out training epochs"):
        grid(store, search="keras_tuner/hyperband")


@pytest.mark.exhaustive
def test_a_builder_of_nets(store):
    from trialbook.models import mlp

    space = {"units": [4, 8], "epochs": [2]}
    done = grid(store, mlp, space, objective={"metric": "accuracy", "epoch": "best"})
    assert done.best_params["epochs"] == 2
    assert list(done.best_estimator.predict(X.head())) == list(done.best_estimator.predict(X)[:5])


@pytest.mark.exhaustive
def test_a_builder_written_for_keras_tuner_under_hyperband(store):
    from trialbook.models import image_classifier

    net = make_pipeline(StandardScaler(), trialbook.estimator.KerasClassifier(image_classifier, seed=1))
    done = grid(store, net, search={"keras_tuner/hyperband": {"max_epochs": 3, "factor": 3}}, space=None)
    assert set(done.best_params) == {"units", "learning_rate"}
    assert done.leaderboard["epochs"].max() == 3
