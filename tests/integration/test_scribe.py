"""What another process writes of a search, beside what the driver itself would have written."""

import contextlib
import dataclasses
import json

import pytest
from mlflow import MlflowClient
from sklearn.datasets import load_breast_cancer

import trialbook
from trialbook import workflow
from trialbook.envelope import Envelope
from trialbook.estimator import KerasClassifier
from trialbook.journal import Models, SearchRun
from trialbook.scribe import Scribe, _Desk
from trialbook.store import Store
from trialbook.testing import completed
from trialbook.trial import Trial, best_record

# MLflow compares columns in a way that pandas will change.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")]

SEARCH = {"keras_tuner/hyperband": {"max_epochs": 4, "factor": 2}}
# What no two runs have in common.
OF_THE_MOMENT = ("seconds", "worker", "token", "run", "driver", "parentRunId")


def net(input_shape, n_classes, units=4):
    import keras

    if units == 6:
        raise ArithmeticError("six are too many")
    model = keras.Sequential(
        [keras.Input(input_shape), keras.layers.Dense(units), keras.layers.Dense(1, activation="sigmoid")]
    )
    model.compile("sgd", "binary_crossentropy", metrics=["accuracy"])
    return model


def searched(folder):
    """The runs of a small search in a store of its own, and what `tune` returned."""
    uri = f"sqlite:///{folder}/mlflow.db"
    X, y = load_breast_cancer(return_X_y=True)
    model = KerasClassifier(net, seed=1)
    found = trialbook.tune(
        model, {"units": [2, 4, 6, 8]}, X[:200], y[:200], search=SEARCH, objective="val_loss", tracking={"uri": uri}
    )
    client = MlflowClient(uri, uri)
    (experiment,) = [e.experiment_id for e in client.search_experiments() if e.name != "Default"]
    return found, [told(client, run) for run in client.search_runs([experiment], order_by=["attributes.start_time"])]


def told(client, run):
    """All that a run says, without what belongs to the moment."""
    tags = {k: v for k, v in run.data.tags.items() if not any(word in k for word in OF_THE_MOMENT)}
    result = json.loads(tags.pop("trialbook.result", "{}"))
    metrics = {k: [m.value for m in client.get_metric_history(run.info.run_id, k)] for k in run.data.metrics}
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    models = [client.get_logged_model(m.model_id) for m in run.outputs.model_outputs]
    tags.pop("mlflow.note.content", None)
    return {
        "name": run.info.run_name,
        "status": run.info.status,
        "params": run.data.params,
        "tags": tags,
        "result": {k: v for k, v in result.items() if "seconds" not in k and k != "model_id"},
        "metrics": {k: v for k, v in metrics.items() if "seconds" not in k},
        "files": files,
        "models": [(model.status, model.params, model.tags.get("trialbook.fold")) for model in models],
        "is its model": [result.get("model_id") == model.model_id for model in models],
    }


def test_a_trial_whose_model_is_refused_fails_and_is_not_chosen(tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri, uri)
    experiment = client.create_experiment("one", artifact_location=(tmp_path / "artifacts").as_uri())
    search = client.create_run(experiment).info.run_id
    envelope = Envelope(None, {}, {})
    store = Store(uri)
    desk = _Desk()
    monkeypatch.setattr("os.nice", lambda by: by)
    desk(
        "take", SearchRun(store, search, experiment, tags={}, envelope=envelope, maximize=True, models=Models()), "me:1"
    )
    monkeypatch.setattr("trialbook.saved_model.describe", refuse_the_first([]))
    for number, objective in enumerate((0.9, 0.5)):
        trial = Trial(number, {"units": 2})
        written = tmp_path / str(number) / "model"
        written.mkdir(parents=True)
        desk("open", trial, 1)
        desk("epoch", number, {"loss": 1.0}, 0)
        desk("save_model", number, written, {}, None)
        result = dataclasses.replace(completed(objective), model_id="unnamed")
        desk("finish", number, result)
        desk("close", trial, result)
    refused, kept = (client.get_run(desk.journal.records[number].run_id) for number in (0, 1))
    assert (refused.info.status, kept.info.status) == ("FAILED", "FINISHED")
    assert refused.data.tags["trialbook.reason"] == "PermissionError: no"
    assert refused.data.metrics == {"loss": 1.0}
    models = client.search_logged_models([experiment])
    assert {model.source_run_id: str(model.status) for model in models} == {
        refused.info.run_id: "FAILED",
        kept.info.run_id: "READY",
    }
    records = tuple(desk.journal.records.values())
    assert best_record(records, maximize=True).trial.number == 1


def refuse_the_first(calls):
    """What stands for the writing of a model's description."""

    def describe(*args):
        calls.append(args)
        if len(calls) == 1:
            raise PermissionError("no")

    return describe


def test_another_process_writes_what_the_driver_would_have_written(tmp_path, monkeypatch):
    apart, itself = tmp_path / "apart", tmp_path / "itself"
    apart.mkdir(), itself.mkdir()
    written = []
    monkeypatch.setattr(Scribe, "_pass_on", lambda *a, pass_on=Scribe._pass_on: written.append(a[1]) or pass_on(*a))
    found, by_another = searched(apart)
    assert {"open", "epoch", "save_state", "save_model", "finish", "close"} <= set(written)
    assert {r["status"] for r in by_another} == {"FINISHED", "FAILED"}
    written.clear()
    monkeypatch.setattr(workflow, "_written_by", lambda scribe, journal: contextlib.nullcontext(journal))
    same, by_itself = searched(itself)
    assert not written
    assert len(by_another) == len(by_itself)
    for one, other in zip(by_another, by_itself, strict=True):
        for key, said in one.items():
            assert said == other[key], (one["name"], key)
    columns = ["rank_test_score", "param_units", "mean_test_score"]
    assert found.leaderboard[columns].equals(same.leaderboard[columns])
    assert set(found.leaderboard["run_id"].dropna()).isdisjoint(same.leaderboard["run_id"])
