"""What is written while something else is being written."""

import re
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import requests
import sqlalchemy
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos import databricks_pb2

from trialbook import claim, interrupts, outage, tracking
from trialbook.errors import StoreError
from trialbook.outage import PatientClient
from trialbook.store import Store
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


@pytest.mark.parametrize(
    "word", ["sqlite3.IntegrityError", "psycopg2.errors.UniqueViolation", "pymysql.err.IntegrityError"]
)
def test_two_who_make_the_same_thing_at_once_both_have_it(word):
    pointed = []

    def point(name, alias, version):
        pointed.append((name, alias, version))
        if len(pointed) == 1:
            raise MlflowException(f"BAD_REQUEST: ({word}) registered_model_aliases.name")
        if version == "3":
            raise MlflowException("no such version")

    client = PatientClient(SimpleNamespace(set_registered_model_alias=point), "the store", 1.0)
    client.set_registered_model_alias("m", "champion", "2")
    assert pointed == [("m", "champion", "2")] * 2
    with pytest.raises(MlflowException, match="no such version"):
        client.set_registered_model_alias("m", "champion", "3")


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (MlflowException("(sqlite3.IntegrityError) FOREIGN KEY constraint failed"), 6),
        (MlflowException("exists. (sqlite3.IntegrityError)", error_code=databricks_pb2.RESOURCE_ALREADY_EXISTS), 1),
    ],
    ids=["refused each time", "the name is taken"],
)
def test_what_is_refused_for_good_is_not_asked_for_ever(error, calls):
    asked = []

    def create(name):
        asked.append(name)
        raise error

    client = PatientClient(SimpleNamespace(create_registered_model=create), "the store", 1.0)
    with pytest.raises(MlflowException) as caught:
        client.create_registered_model("m")
    assert caught.value is error
    assert len(asked) == calls


class Answers:
    """Stands for a client whose calls end as foretold."""

    def __init__(self, *answers):
        self._answers = iter(answers)

    def get_run(self):
        if (answer := next(self._answers)) is not None:
            raise answer

    @property
    def all_given(self):
        return next(self._answers, "all") == "all"


def test_after_an_interrupt_a_store_that_is_away_must_answer_at_once():
    away = requests.ConnectionError
    answers = Answers(away(), KeyboardInterrupt(), away(), None, away(), away(), None)
    client = PatientClient(answers, "the store", 600.0)
    with pytest.raises(KeyboardInterrupt):
        client.get_run()  # the second attempt is interrupted
    with pytest.raises(StoreError, match=r"^the store has not answered for 0 s"):
        client.get_run()
    client.get_run()
    assert not client.is_away
    with pytest.raises(StoreError):
        client.get_run()
    client.take_time()
    client.get_run()  # waits again
    assert answers.all_given


def test_after_an_interrupt_a_store_that_turns_out_to_be_away_is_not_waited_for_for_long(monkeypatch, caplog):
    monkeypatch.setattr(outage, "_LEAVING_SECONDS", 0.3)
    away = requests.ConnectionError
    answers = Answers(KeyboardInterrupt(), away(), None, *[away() for _ in range(9)])
    client = PatientClient(answers, "the store", 600.0)
    with pytest.raises(KeyboardInterrupt):
        client.get_run()
    client.get_run()
    assert re.search(r"the store does not answer; waiting up to 0\.[123] s for it", caplog.text)
    with pytest.raises(StoreError):
        client.get_run()
    assert not answers.all_given


def test_an_interrupt_in_a_transaction_waits_for_its_end(tmp_path, ctrl_c):
    client = Store(f"sqlite:///{tmp_path}/mlflow.db").open()
    run_id = client.create_run("0", tags={}).info.run_id
    engine = client._target._target._tracking_client.store.engine
    disturbed = []

    @sqlalchemy.event.listens_for(engine, "after_cursor_execute")
    def disturb(connection, cursor, statement, *_):
        if not disturbed and "INSERT INTO tags" in statement:
            disturbed.append(statement)
            signal.raise_signal(signal.SIGINT)

    with interrupts.heeded(), pytest.raises(KeyboardInterrupt):
        client.set_tag(run_id, "one", "written")
    assert disturbed
    # By another connection: nothing is locked.
    elsewhere = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    elsewhere.set_tag(run_id, "two", "written")
    tags = elsewhere.get_run(run_id).data.tags
    assert (tags["one"], tags["two"]) == ("written", "written")


def test_many_who_name_the_same_data_at_once_all_do(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    first = MlflowClient(uri, uri)
    experiment = first.create_experiment("one")
    runs = [first.create_run(experiment).info.run_id for _ in range(8)]
    clients = [PatientClient(MlflowClient(uri, uri), "the store", 30.0) for _ in runs]
    together = threading.Barrier(len(runs))

    def name(client, run_id, digest):
        together.wait(30)
        tracking.log_datasets(client, run_id, [tracking.DatasetInput("d", digest, "s", "{}", 1, 1, "", "training")])

    with ThreadPoolExecutor(len(runs)) as pool:
        for i in range(5):
            list(pool.map(name, clients, runs, [str(i)] * len(runs)))
    assert [len(first.get_run(run_id).inputs.dataset_inputs) for run_id in runs] == [5] * len(runs)


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
