"""What another process writes of a search, beside what the driver itself would have written."""

import contextlib
import dataclasses

import pytest
from mlflow import MlflowClient
from recorded import NETS, check_alike, searched

from trialbook import workflow
from trialbook.envelope import Envelope
from trialbook.journal import Models, SearchRun
from trialbook.scribe import Scribe, _Desk
from trialbook.store import Store
from trialbook.testing import completed
from trialbook.trial import Trial, best_record

# MLflow compares columns in a way that pandas will change.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")]


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
    found, by_another = searched(apart, **NETS)
    assert {"open", "epoch", "save_state", "save_model", "finish", "close"} <= set(written)
    assert {r["status"] for r in by_another} == {"FINISHED", "FAILED"}
    written.clear()
    monkeypatch.setattr(workflow, "_written_by", lambda scribe, journal: contextlib.nullcontext(journal))
    same, by_itself = searched(itself, **NETS)
    assert not written
    check_alike(by_another, by_itself)
    columns = ["rank_test_score", "param_units", "mean_test_score"]
    assert found.leaderboard[columns].equals(same.leaderboard[columns])
    assert set(found.leaderboard["run_id"].dropna()).isdisjoint(same.leaderboard["run_id"])
