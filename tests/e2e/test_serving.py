"""What is registered answers requests, in a fresh process that has no Trialbook, as the retrained estimator would."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytestmark = pytest.mark.exhaustive

ROOT = Path(__file__).parents[2]
OWN = ROOT / "tests" / "own"

PEOPLE = pd.DataFrame(
    {
        "age": [20, 44, None, 70],
        "income": [30_000, None, 52_000.5, 40_000],
        "city": ["Bern", "Rome", "Atlantis", None],
        "member": [True, None, False, True],
    }
)
ALLOWED = ("tracking.allow_pickle=true",)

# For each family: the model, its data, and what else the command needs.
FAMILIES = {
    "a scikit-learn pipeline": ("logistic", "people", ()),
    "a random forest": ("random_forest", "breast_cancer", ("model.estimator.n_estimators=10",)),
    "gradient boosting": ("gradient_boosting", "breast_cancer", ("model.estimator.max_iter=10",)),
    "a support vector machine, without probabilities": ("svm", "breast_cancer", ()),
    "a net with preprocessing": ("net", "people", ()),
    "a builder that takes hp": ("tuned", "people", ()),
    "a net without preprocessing": ("cnn", "digits", ("model.estimator.epochs=1",)),
    "a regression net": ("regressor", "spenders", ("objective.metric=r2",)),
    "a net with two inputs": ("wide_and_deep", "people", ()),
    "a net with a layer of one's own": ("layered", "people", ALLOWED),
    "a transformer of one's own": ("clipped", "breast_cancer", ALLOWED),
}


@pytest.fixture(scope="module", params=FAMILIES.values(), ids=FAMILIES, name="registered")
def search_and_register(request, make_workplace_in):
    """A workplace with a champion, and how it came about."""
    model, data, extra = request.param
    workplace = make_workplace_in(model)
    shutil.copytree(OWN, workplace.folder, dirs_exist_ok=True)
    words = (f"data={data}", f"model={model}", "search=sklearn/random", "search.n_iter=1", *extra)
    workplace.run("--config-dir=conf", *words)
    return workplace, data, words


def without_trialbook(workplace):
    environment = workplace.environment(MLFLOW_TRACKING_URI=workplace.uri)
    del environment["PYTHONPATH"]
    # MLflow's server is a command of this environment.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('trialbook') is not None)"
    installed = subprocess.run([sys.executable, "-c", code], cwd=workplace.folder, env=environment).returncode
    # Where Trialbook is installed, a folder of that name hides it, which fails if anybody wants it.
    if installed:
        (workplace.folder / "hide").mkdir(exist_ok=True)
        (workplace.folder / "hide" / "trialbook.py").write_text("raise ImportError('there is no Trialbook here')")
        environment["PYTHONPATH"] = str(workplace.folder / "hide")
    # No network either, but for the server itself.
    return {
        **environment,
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "127.0.0.1",
    }


@contextlib.contextmanager
def served(workplace, uri):
    """A server of a model: gives a function that posts a request and returns the answer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", uri, "--env-manager", "local", "-p", str(port)]
    elsewhere = workplace.folder / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    process = subprocess.Popen(
        command,
        cwd=elsewhere,
        env=without_trialbook(workplace),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said = ""
        for line in process.stdout:
            said += line
            if "Uvicorn running on" in line:
                break
        else:
            raise AssertionError(said)
        yield lambda request: post(port, request)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.communicate()


def post(port, request):
    call = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", json.dumps(request).encode(), {"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(call, timeout=120) as answer:
        return json.load(answer)["predictions"]


def retrained(workplace, words, monkeypatch):
    """The same estimator fitted once more, here, from the record of the search."""
    from hydra import compose, initialize_config_dir

    from trialbook import app
    from trialbook.evaluate import configure
    from trialbook.promote import retrain

    monkeypatch.syspath_prepend(workplace.folder)
    for name in ("mine", "mine_layers"):
        sys.modules.pop(name, None)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("config", overrides=[f"hydra.searchpath=[file://{workplace.folder}/conf]", *words])
    plan = app.compose(cfg, {"search": "sklearn/random", "model": "any"})
    (trial,) = workplace.runs("trial")
    params = {d.name: cast(d, trial.data.params[d.name]) for d in plan.space.dimensions if d.name in trial.data.params}
    epochs = trial.data.tags.get("trialbook.best_epoch")
    return plan, retrain(configure(plan.estimator, params), plan.data, epochs=epochs and int(epochs))


def champion_of(workplace, name):
    """The folder of a registered model."""
    version = workplace.client.get_model_version_by_alias(name, "champion")
    return Path(workplace.client.get_logged_model(version.source.rpartition("/")[2]).artifact_location)


def cast(dimension, text):
    values = dimension.values or ((int if dimension.integer else float)(text),)
    return next(value for value in values if str(value) == text)


def rows_of(plan, data):
    """Raw rows as a stranger sends them: values missing and unknown where the model takes that."""
    if data in ("people", "spenders"):
        return PEOPLE
    rows = plan.data.X_test.head(6).copy()
    if data == "breast_cancer" and plan.estimator.__sklearn_tags__().input_tags.allow_nan:
        rows.iloc[0, :3] = np.nan
    return rows


def as_request(rows):
    values = rows.astype(object).where(rows.notna(), None).to_numpy().tolist()
    return {"dataframe_split": {"columns": list(rows.columns), "data": values}}


def test_the_champion_answers_raw_rows_as_the_retrained_estimator_would(registered, monkeypatch):
    workplace, data, words = registered
    plan, fitted = retrained(workplace, words, monkeypatch)
    rows = rows_of(plan, data)
    with served(workplace, f"models:/{data}@champion") as ask:
        answer = ask(as_request(rows))
        if data == "spenders":
            assert answer == pytest.approx(list(fitted.predict(rows)), rel=1e-4)
            return
        assert answer == fitted.predict(rows).tolist()
        proba = {"params": {"predict_method": "predict_proba"}}
        if not hasattr(fitted, "predict_proba"):
            with pytest.raises(urllib.error.HTTPError, match=r"HTTP Error [45]00"):
                ask(as_request(rows) | proba)
            return
        answer = ask(as_request(rows) | proba)
        assert [list(row) for row in answer] == [[str(label) for label in fitted.classes_]] * len(rows)
        found = np.array([list(row.values()) for row in answer])
        assert found == pytest.approx(fitted.predict_proba(rows), rel=1e-4, abs=1e-6)
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(as_request(rows.iloc[:, 1:]))
        assert rows.columns[0] in refused.value.read().decode()


def test_a_file_is_scored_in_a_batch(registered, monkeypatch):
    workplace, data, words = registered
    plan, fitted = retrained(workplace, words, monkeypatch)
    rows = rows_of(plan, data)
    rows.to_csv(workplace.folder / "rows.csv", index=False)
    command = [sys.executable, "-m", "mlflow", "models", "predict", "-m", f"models:/{data}@champion"]
    command += ["--env-manager", "local", "-i", "rows.csv", "-t", "csv", "-o", "scored.json"]
    subprocess.run(command, cwd=workplace.folder, env=without_trialbook(workplace), check=True, timeout=300)
    found = json.loads((workplace.folder / "scored.json").read_text())["predictions"]
    if data == "spenders":
        assert found == pytest.approx(list(fitted.predict(rows)), rel=1e-4)
    else:
        assert found == fitted.predict(rows).tolist()


def test_the_requirements_are_the_versions_that_were_there(registered):
    from importlib.metadata import version

    import mlflow

    workplace, data, _ = registered
    folder = champion_of(workplace, data)
    for line in (folder / "requirements.txt").read_text().splitlines():
        name, _, wanted = line.partition("==")
        assert version(name) == wanted
    assert mlflow.models.Model.load(folder).signature is not None


def test_a_model_loads_in_an_environment_of_its_own_requirements(make_workplace_in):
    workplace = make_workplace_in("environment")
    workplace.run("data=breast_cancer", "model=random_forest", "search=sklearn/grid", "budget.max_trials=1")
    folder = champion_of(workplace, "breast_cancer")
    venv = workplace.folder / "venv"
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "-q", "--python", sys.executable, str(venv)], check=True)
    python = venv / "bin" / "python"
    install = [*uv, "pip", "install", "-q", "--python", str(python), "-r", str(folder / "requirements.txt")]
    subprocess.run(install, check=True, timeout=900)
    code = (
        "import mlflow, pandas\n"
        "model = mlflow.pyfunc.load_model('models:/breast_cancer@champion')\n"
        "rows = model.input_example\n"
        "print(list(model.predict(rows)), len(model.predict(rows, params={'predict_method': 'predict_proba'})))"
    )
    environment = {**workplace.environment(MLFLOW_TRACKING_URI=workplace.uri), "PYTHONPATH": ""}
    done = subprocess.run([python, "-c", code], env=environment, capture_output=True, text=True, cwd=workplace.folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "5"
