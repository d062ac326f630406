"""What is written while something else is being written."""

import threading
from types import SimpleNamespace

import pytest
from mlflow.exceptions import MlflowException

from trialbook import claim, tracking
from trialbook.outage import PatientClient
from trialbook.trial import Result, State


class SlowClient:
    """Takes batches, the first of them only when it is let."""

    def __init__(self):
        self.metrics = []
        self.tags = {}
        self.begun, self.let = threading.Event(), threading.Event()

    def log_batch(self, run_id, metrics=(), tags=()):
        metrics = list(metrics)
        self.begun.set()
        assert self.let.wait(30)
        self.metrics += [(metric.key, metric.step) for metric in metrics]
        self.tags |= {tag.key: tag.value for tag in tags}


@pytest.fixture(name="client")
def make_client(monkeypatch):
    monkeypatch.setattr(tracking, "_FLUSH_SECONDS", 0.0)
    return SlowClient()


def log_of(client):
    return tracking.RunLog(SimpleNamespace(client=client), "0", "run", "nowhere")


@pytest.mark.parametrize("ends", [True, False], ids=["the trial ends", "another epoch ends"])
def test_nothing_is_lost_that_comes_while_an_epoch_is_being_sent(client, ends):
    log = log_of(client)
    log.epoch({"loss": 1.0}, 0)
    assert client.begun.wait(30)
    threading.Timer(0.05, client.let.set).start()
    if ends:
        log.finish(Result(State.COMPLETE, objective=0.5, fold_scores=(0.4, 0.6)))
    else:
        log.epoch({"loss": 0.5}, 1)
        log.flush()
    later = [("objective", 0), ("objective_fold", 0), ("objective_fold", 1)] if ends else [("loss", 1)]
    assert client.metrics == [("loss", 0), *later]
    assert ("trialbook.result" in client.tags) is ends


def test_an_epoch_that_cannot_be_sent_is_sent_with_the_next(client, monkeypatch):
    log, failed = log_of(client), threading.Event()

    def refuse(*args, **kwargs):
        failed.set()
        raise OSError("away")

    with monkeypatch.context() as away:
        away.setattr(client, "log_batch", refuse, raising=False)
        log.epoch({"loss": 1.0}, 0)
        assert failed.wait(30)
    client.let.set()
    log.epoch({"loss": 0.5}, 1)
    log.flush()
    assert client.metrics == [("loss", 0), ("loss", 1)]


def test_two_who_point_an_alias_for_the_first_time_at_once_both_do():
    pointed = []

    def point(name, alias, version):
        pointed.append((name, alias, version))
        if len(pointed) == 1:
            raise MlflowException("(sqlite3.IntegrityError) UNIQUE constraint failed: registered_model_aliases.name")
        if version == "3":
            raise MlflowException("no such version")

    client = PatientClient(SimpleNamespace(set_registered_model_alias=point), "the store", 1.0)
    client.set_registered_model_alias("m", "champion", "2")
    assert pointed == [("m", "champion", "2")] * 2
    with pytest.raises(MlflowException, match="no such version"):
        client.set_registered_model_alias("m", "champion", "3")


def test_no_claim_is_renewed_while_it_must_rest(monkeypatch):
    monkeypatch.setattr(claim, "_RENEWED_EVERY", 0.01)
    renewed = threading.Event()
    run = SimpleNamespace(data=SimpleNamespace(tags={}))
    client = SimpleNamespace(
        get_run=lambda run_id: run, set_tag=lambda *_: renewed.set(), delete_tag=lambda run_id, key: None
    )
    with claim.at_rest():
        held = claim.Claim(client, "run")
        held.__enter__()
        assert not renewed.wait(0.3)
    assert renewed.wait(30)
    held.__exit__(None, None, None)
