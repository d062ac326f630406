"""What is recorded, said and returned when things go wrong."""

import http.server
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BUILDERS = Path(__file__).parents[1] / "builders.py"
NET = (
    "search=sklearn/grid",
    "data=digits",
    "model.estimator.steps.1.1.epochs=1",
    "~model.space.units",
    "~model.space.dropout",
    "~model.space.learning_rate",
)

# The first line that says that the store is open.
TITLE = "sklearn/grid mlp on digits"


def with_builder(workplace, name, units):
    """The overrides that tune a builder of tests/builders.py, copied beside the user's work."""
    shutil.copy(BUILDERS, workplace.folder / "builders.py")
    return (*NET, f"model.estimator.steps.1.1.builder=builders.{name}", f"+model.space.units={units}")


def test_a_builder_that_raises_gives_failed_runs_and_a_finished_search(workplace):
    out, _ = workplace.run(*with_builder(workplace, "fails_for_wide", "[16,64,128,32]"))
    trials = workplace.runs("trial")
    assert [t.info.status for t in trials] == ["FINISHED", "FAILED", "FAILED", "FINISHED"]
    assert trials[1].data.tags["trialbook.state"] == "failed"
    assert trials[1].data.tags["trialbook.reason"] == "ArithmeticError: 64 units are too many"
    assert 'raise ArithmeticError(f"{units} units are too many")' in workplace.text(trials[1], "traceback.txt")
    assert "a builder should not do this" in trials[2].data.tags["trialbook.reason"]
    search = workplace.search_run()
    assert search.info.status == "FINISHED"
    assert search.data.metrics["trials_failed"] == 2
    assert search.data.tags["best_units"] in ("16", "32")
    assert "1 failed: ArithmeticError: 64 units are too many" in out
    assert "ArithmeticError" in search.data.tags["mlflow.note.content"]


def test_a_nan_objective_is_a_failure_and_never_best(workplace):
    overrides = with_builder(workplace, "diverges_for_wide", "[64,16]")
    workplace.run(*overrides, "objective.metric=val_loss")
    diverged, fine = workplace.runs("trial")
    assert diverged.info.status == "FAILED"
    assert "val_loss is nan" in diverged.data.tags["trialbook.reason"]
    assert "objective" not in diverged.data.metrics
    assert "traceback.txt" in workplace.artifacts(diverged)
    assert not diverged.outputs.model_outputs
    assert fine.info.status == "FINISHED"
    search = workplace.search_run()
    assert search.data.tags["trialbook.best_run"] == fine.info.run_id
    assert search.data.metrics["best_objective"] == fine.data.metrics["objective"]


def test_when_every_trial_fails_so_does_the_search_and_nothing_is_registered(workplace):
    _, err = workplace.run(*with_builder(workplace, "always_fails", "[16,32]"), code=1)
    assert err == "trialbook: all 2 trials failed, the first because of ArithmeticError: never works\n"
    assert workplace.search_run().info.status == "FAILED"
    assert workplace.runs("retrain") == []
    assert list(workplace.client.search_registered_models()) == []


def test_a_run_that_is_still_training_shows_its_first_epochs(workplace):
    flag = workplace.folder / "go"
    overrides = with_builder(workplace, "waits_after_first_epochs", "[16]")
    overrides = [o.replace("epochs=1", "epochs=4") for o in overrides]
    with workplace.started(*overrides, f"+model.space.flag={flag}", "promote.enabled=false") as process:
        workplace.read_until(process, TITLE)
        curve = wait_for(lambda: first_curve(workplace))
        assert process.poll() is None
        (trial,) = workplace.runs("trial")
        assert trial.info.status == "RUNNING"
        assert trial.data.params["units"] == "16"
        assert curve[0] == 0
        flag.touch()
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    assert first_curve(workplace) == [0, 1, 2, 3]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_runs_as_killed(workplace, signum):
    overrides = with_builder(workplace, "waits_after_first_epochs", "[16]")
    overrides = [o.replace("epochs=1", "epochs=4") for o in overrides]
    with workplace.started(*overrides, f"+model.space.flag={workplace.folder / 'never'}") as process:
        workplace.read_until(process, TITLE)
        wait_for(lambda: first_curve(workplace))
        started = time.monotonic()
        process.send_signal(signum)
        out, err = process.communicate(timeout=60)
        assert time.monotonic() - started < 10
        assert process.returncode == 130, out + err
        assert "Traceback" not in err
    assert [t.info.status for t in workplace.runs("trial")] == ["KILLED"]
    assert workplace.search_run().info.status == "KILLED"


QUICK = ["data=breast_cancer", "model=logistic_regression", "search=sklearn/grid"]
OWN = ["--config-dir=conf", "data=people", "search=sklearn/grid"]
BUILDER = "model.estimator.steps.1.1.builder"
WRONG = [
    (["serch=sklearn/grid"], "serch is not a key of the configuration; it has: budget, data,"),
    (["serch=sklearn/grid"], "Did you mean search?"),
    (["search=sklearn/grit"], "search=sklearn/grit is not available; allowed:"),
    (["search=sklearn/grit"], "Did you mean search=sklearn/grid?"),
    (["search=sklearn/grid", "+search.depth=3"], "depth"),
    (["objective.metric=acuracy"], "objective.metric='acuracy' is unknown"),
    (["objective.direction=up"], "objective.direction must be maximize or minimize, got 'up'"),
    (
        ["model.space={}", "search=sklearn/grid", "~model.space.units.num", "budget.maxtrials=1"],
        "Did you mean budget.max_trials?",
    ),
    (["+model.space.depth=[1,2]"], "takes no hyperparameter 'depth'; allowed: units, hidden_layers"),
    (["model.space.units.low=1000"], "space.units has low=1000 above high=512"),
    (["model=logistic_regression"], "search=keras_tuner/hyperband hands out training epochs"),
    (["model=logistic_regression", "search=sklearn/grid", "objective.metric=val_loss"], "is a Keras metric"),
    (["validation=stratified_kfold", "validation.n_splits=1"], "validation"),
    (["validation=stratified_kfold", "validation.n_splits=1000"], "cannot split the 1437 rows of digits"),
    (["data.test_size=2"], "data.test_size=2"),
    (["tracking.models=some"], "tracking.models must be all, none, or best:<k>"),
    (["promote.registered_model=a/b"], "must be text that is not empty and holds no slash or colon"),
    (["search.oracle.factor=1"], "search.oracle"),
    (["seed=[1"], "seed=[1 cannot be read"),
    ([*QUICK, "tracking.uri=sqlite:////proc/no/mlflow.db"], "tracking.uri=sqlite:////proc/no/mlflow.db cannot be used"),
    ([*QUICK, "tracking.uri=nonsense://x"], "tracking.uri=nonsense://x cannot be used"),
    (["--data"], "--data needs a value"),
    (["modle=svm"], "modle is not a key of the configuration"),
    (
        ["search=sklearn/random", "search.n_itr=3"],
        "search.n_itr is not a key of the configuration; search has: n_iter.",
    ),
    (["data=csv", "data.targt=label"], "Did you mean data.target?"),
    ([*QUICK, "model=lgistic"], "Did you mean model=logistic_regression?"),
    ([*QUICK, "experiment=nope"], "experiment=nope is not available; allowed: batch_size_grid"),
    ([*QUICK, "budget.max_trials=many"], "budget.max_trials must be a whole number of at least 1, or null; got 'many'"),
    ([*QUICK, "budget.max_trials=-1"], "budget.max_trials must be a whole number of at least 1, or null; got -1"),
    ([*QUICK, "budget.max_trials=1.5"], "budget.max_trials must be a whole number of at least 1, or null; got 1.5"),
    ([*QUICK, "budget.max_time=-5"], "budget.max_time must be a number of at least 0, or null; got -5"),
    ([*QUICK, "budget.patience=0"], "budget.patience must be a whole number of at least 1"),
    ([*QUICK, "budget.reserve=much"], "budget.reserve must be a share from 0 to below 1, got 'much'"),
    ([*QUICK, "budget.target=high"], "budget.target must be a number, or null; got 'high'"),
    ([*QUICK, "budget=3"], "budget must be a group of keys, such as {key: value}, got 3"),
    ([*QUICK, "seed=abc"], "seed must be a whole number, or null, got 'abc'"),
    ([*QUICK, "dry_run=2"], "dry_run must be true or false, got 2"),
    ([*QUICK, "scoring=accuracy"], "scoring must be a list of names, such as [accuracy, f1_macro], got 'accuracy'"),
    ([*QUICK, "tracking.allow_pickle=maybe"], "tracking.allow_pickle must be true or false, got 'maybe'"),
    ([*QUICK, "tracking.experiment="], "tracking.experiment must be a name, got ''"),
    ([*QUICK, "promote.registered_model='a:b'"], "promote.registered_model='a:b' must be text"),
    ([*QUICK, "promote.registered_model=3"], "promote.registered_model=3 must be text"),
    ([*QUICK, "model.space=3"], "model.space must be a space such as"),
    ([*QUICK, "model.estimator=null"], "model.estimator must be a group of keys"),
    ([*QUICK, "~model.estimator._target_"], "model.estimator must name what to make by _target_"),
    ([*QUICK, "validation={_target_: os._exit}"], "validation._target_=os._exit is not allowed to run"),
    ([*QUICK, "executor={_target_: os._exit, status: 3}"], "executor is a group with options: give executor=OPTION"),
    ([*QUICK, "validation=kfold", "validation.n_splits=three"], "validation cannot be made: The number of folds"),
    ([*QUICK, "+model.estimator.penality=l2"], "unexpected keyword argument 'penality'"),
    ([*QUICK, "model.estimator._target_=sklearn.pipeline.Pipelin"], "Did you mean sklearn.pipeline.Pipeline?"),
    ([*QUICK, "model.estimator={_target_: sklearn.datasets.load_iris}", "~model.estimator.steps"], "got Bunch"),
    ([*QUICK, "validation._target_=sklearn.svm.SVC", "~validation.test_size"], "validation must have split, got SVC"),
    (
        [*QUICK, "tracking.uri=http://u:secret@127.0.0.1:9"],
        "//***@127.0.0.1:9 does not answer: Connection refused",
    ),
    (["--config-dir=nowhere"], "--config-dir=nowhere is not a folder"),
    # Only what is asked for is run.
    ([*QUICK, "model.estimator._target_=joblib.load"], "joblib.load is not allowed to run"),
    ([*QUICK, "data.loader._target_=pandas.read_pickle"], "pandas.read_pickle is not allowed to run"),
    ([*QUICK, "data.loader._target_=os._exit"], "data.loader._target_=os._exit is not allowed to run"),
    ([*QUICK, "data.loader._target_=builtins.open"], "builtins.open is not allowed to run"),
    ([*QUICK, "executor._target_=subprocess.run"], "subprocess.run is not allowed to run"),
    ([*QUICK, "+model.estimator.memory={_target_: os.system, command: touch pwned}"], "memory._target_=os.system"),
    ([*QUICK, "+model.estimator.memory=cache"], "is a folder of pickles"),
    ([*QUICK, "+model.space.memory={values: [cache]}"], "is a folder of pickles"),
    (
        [*QUICK, "+hydra.callbacks.x={_target_: os.system, command: touch pwned}"],
        "x._target_=os.system is not allowed",
    ),
    ([*QUICK, "hydra.launcher={_target_: os.system}"], "hydra.launcher._target_=os.system"),
    ([*QUICK, "+hydra.job.env_set.TRIALBOOK_ALLOW=os"], "hydra.job.env_set.TRIALBOOK_ALLOW is not allowed"),
    (["--experimental-rerun", "config.pickle"], "--experimental-rerun is not allowed: it reads a pickle"),
    ([*QUICK, "allow=*"], "--allow=* must name packages or modules"),
    # Of the user's own, see tests/own.
    (
        [*OWN, "model=net", f"{BUILDER}=mine.nothing"],
        "mine.nothing must return a keras.Model, got NoneType",
    ),
    ([*OWN, "model=net", f"{BUILDER}=mine.uncompiled"], "mine.uncompiled returned a model that is not compiled"),
    ([*OWN, "model=net", f"{BUILDER}=mine.absent"], "builder=mine.absent cannot be found: mine has no absent"),
    ([*OWN, "model=net", f"{BUILDER}=absent.net"], "no module absent is installed"),
    ([*OWN, "model=net", f"{BUILDER}=mine.np.load"], "(which is numpy.load) is not allowed to run"),
    ([*OWN, "model=net", "+model.space.builder={values: [os.system]}"], "builder=os.system is not allowed to run"),
    ([*OWN, "model=net", "+model.space.depth={values: [1]}"], "the builder mine.net takes no hyperparameter 'depth'"),
    ([*OWN, "model=net", "model.estimator.steps.1.1.epochs=many"], "must be a whole number of at least 1, got 'many'"),
    ([*OWN, "model=layered"], "the model holds mine_layers.Doubled, which needs pickle"),
    ([*OWN, "model=clipped", "data=breast_cancer"], "the model holds mine.Clip, which needs pickle"),
    (
        [*OWN, "model=wide_and_deep", "model.estimator.steps.1.1.inputs.deep=[nope]"],
        "inputs.deep names the column",
    ),
    ([*OWN, "model=mine"], "allowed: binary_net, clipped, cnn,"),
]

# One process for all of them: to start Python for each would take longer than all the other tests.
REFUSALS = """
import contextlib, io, json, pathlib, sys
from trialbook.__main__ import main
found = []
for overrides in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = main(overrides)
    found.append([code, said.getvalue(), any(pathlib.Path(name).exists() for name in ("mlflow.db", "mlruns", "pwned"))])
pathlib.Path("found.json").write_text(json.dumps(found))
"""


@pytest.fixture(scope="module", name="refusals")
def refuse_all(make_workplace_in):
    """For each wrong request: the exit code, what was said, and whether a store was made."""
    workplace = make_workplace_in("refusals")
    shutil.copytree(BUILDERS.parent / "own", workplace.folder, dirs_exist_ok=True)
    command = [sys.executable, "-c", REFUSALS, json.dumps([overrides for overrides, _ in WRONG])]
    subprocess.run(command, cwd=workplace.folder, env=workplace.environment(), check=True, timeout=300)
    return json.loads((workplace.folder / "found.json").read_text())


@pytest.mark.parametrize("i", range(len(WRONG)), ids=[said for _, said in WRONG])
def test_a_wrong_request_gets_one_sentence_exit_code_2_and_leaves_nothing(refusals, i):
    code, said, stored = refusals[i]
    assert code == 2
    assert WRONG[i][1] in said
    assert said.startswith("trialbook: ")
    assert said.count("\n") == 1
    assert not stored


def test_a_wrong_request_ends_the_process_with_exit_code_2(workplace):
    out, err = workplace.run("search=sklearn/grit", code=2)
    assert out == ""
    assert err.startswith("trialbook: search=sklearn/grit is not available")
    assert err.count("\n") == 1


class Closed(http.server.BaseHTTPRequestHandler):
    """A tracking server that lets nobody in."""

    def do_GET(self):
        self.send_error(401)

    def log_message(self, *args):
        pass


def test_a_server_that_refuses_the_credentials_is_told_of_at_once(workplace):
    with http.server.HTTPServer(("127.0.0.1", 0), Closed) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            _, err = workplace.run(*QUICK, f"tracking.uri=http://u:secret@127.0.0.1:{server.server_port}", code=2)
        finally:
            server.shutdown()
            thread.join()
    (line,) = [line for line in err.splitlines() if line.startswith("trialbook: ")]
    assert f"http://***@127.0.0.1:{server.server_port} refuses the credentials (HTTP 401); set MLFLOW_TRACKING" in line
    assert "secret" not in err


def first_curve(workplace):
    """The epochs of the first trial that are on record."""
    trials = workplace.runs("trial")
    return [m.step for m in workplace.client.get_metric_history(trials[0].info.run_id, "loss")] if trials else []


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s")
