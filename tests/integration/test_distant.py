"""What the driver writes for a worker, beside what the worker itself would have written."""

import subprocess
import sys

import pytest
from recorded import NEIGHBORS, NETS, check_alike, searched

from trialbook import distant, processes, tracking
from trialbook.errors import NotRecorded

# MLflow compares columns in a way that pandas will change.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")]


@pytest.mark.parametrize(
    ("search", "asked"),
    [
        (NETS, {"epoch", "save_state", "load_state", "form", "take_model", "finish", "flush"}),
        (NEIGHBORS, {"save_packed", "form", "take_model", "finish", "flush"}),
    ],
    ids=["nets", "neighbors"],
)
def test_the_driver_writes_what_the_worker_would_have_written(tmp_path, monkeypatch, search, asked):
    served, alone = tmp_path / "served", tmp_path / "alone"
    served.mkdir(), alone.mkdir()
    heard = []
    monkeypatch.setattr(distant, "answer", lambda *a, answer=distant.answer: heard.append(a[1]) or answer(*a))
    executor = {"processes": {"workers": 1}}
    found, by_driver = searched(served, **search, executor=executor)
    assert set(heard) == asked
    assert {r["status"] for r in by_driver} == {"FINISHED", "FAILED"}
    heard.clear()
    monkeypatch.setattr(processes, "_SERVED", 0)
    same, by_worker = searched(alone, **search, executor=executor)
    assert not heard
    check_alike(by_driver, by_worker)
    columns = [name for name in found.leaderboard if name.startswith(("rank", "param")) or name == "mean_test_score"]
    assert found.leaderboard[columns].equals(same.leaderboard[columns])


def test_what_a_served_worker_loads_has_no_mlflow_and_no_skops():
    loaded = "import sys; import trialbook.evaluate, trialbook.distant, trialbook.worker; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout.split()
    assert "sklearn" in modules
    assert not {"mlflow", "skops", "sqlalchemy", "keras", "tensorflow"} & set(modules)


class Full:
    """A store that refuses everything."""

    def __init__(self, error):
        self.error = error

    def log_batch(self, *args, **kwargs):
        raise self.error


@pytest.mark.parametrize("error", [PermissionError("no"), MemoryError("no")], ids=["store", "memory"])
def test_what_the_store_refuses_is_told_as_that_and_tried_again(monkeypatch, error):
    log = tracking.RunLog(None, "0", "run", "nowhere")
    monkeypatch.setattr(tracking.RunLog, "_client", Full(error))
    with pytest.raises(NotRecorded, match=rf"^{type(error).__name__}: no$"):
        log.answer("here:1", "flush")
    assert log.worker == "here:1"
    assert NotRecorded in distant.DistantLog.store_errors


def test_nothing_is_written_for_a_worker_once_the_run_has_been_closed(monkeypatch):
    log = tracking.RunLog(None, "0", "run", "nowhere", ended=True)
    monkeypatch.setattr(tracking.RunLog, "_client", Full(AssertionError("it was written")))
    with pytest.raises(NotRecorded, match="closed"):
        log.answer("here:1", "flush")
    log.abandoned("here:1")
