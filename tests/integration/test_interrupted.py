"""A search that is interrupted in the middle of whatever it writes into a database leaves nothing open."""

import itertools
import signal

import numpy as np
import pytest
import sqlalchemy
from sklearn.linear_model import LogisticRegression

import trialbook
from trialbook.store import Store

WRITES = ("INSERT", "UPDATE", "DELETE")


class Disturbance:
    """Interrupts at a certain write into a database.

    Attributes:
        left: How many writes are left until it does.
    """

    def __init__(self, engine):
        self.left = None
        sqlalchemy.event.listen(engine, "after_cursor_execute", self._count)

    def _count(self, connection, cursor, statement, *_):
        if self.left is None or not statement.startswith(WRITES):
            return
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture(scope="module", name="place")
def database_with_a_disturbance(tmp_path_factory):
    uri = f"sqlite:///{tmp_path_factory.mktemp('interrupted')}/mlflow.db"
    client = Store(uri, 600.0).open()
    return uri, client, Disturbance(client._target._target._tracking_client.store.engine)


def search(uri):
    random = np.random.default_rng(0)
    X = random.normal(size=(60, 3))
    space = {"C": [0.1, 1.0]}
    tracking = {"uri": uri, "outage_timeout": 600.0}
    return trialbook.tune(
        LogisticRegression(), space, X, (X[:, 0] > 0).astype(int), search="sklearn/grid", tracking=tracking
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")
def test_nothing_is_left_open_whichever_write_is_interrupted(place, ctrl_c, capsys, monkeypatch, tmp_path):
    uri, client, disturbance = place
    monkeypatch.chdir(tmp_path)
    for write in itertools.count(1):
        disturbance.left = write
        try:
            search(uri)
        except KeyboardInterrupt:
            pass
        else:
            break
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        runs = client.search_runs(experiments)
        assert {run.info.status for run in runs} <= {"FINISHED", "KILLED"}, write
        models = client.search_logged_models(experiments)
        assert "PENDING" not in {str(model.status) for model in models}, write
    # There were no more writes; and until then each interrupt was heard.
    assert disturbance.left > 0
    assert write > 30
    assert "does not answer" not in capsys.readouterr().out
