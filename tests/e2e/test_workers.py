"""Trials in worker processes: the same record as of trials in the driver's, whatever happens to the workers."""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import sys
from pathlib import Path

import invariants
import psutil
import pytest
from faulty import tuned
from processes_of import processes_of, wait_until

pytestmark = pytest.mark.slow

PROCESSES = ("executor=processes", "executor.workers=2")
GRID = ("data=breast_cancer", "model=logistic_regression", "search=sklearn/grid", "validation=stratified_kfold")
RANDOM = ("data=breast_cancer", "model=svm", "search=sklearn/random", "search.n_iter=8", "validation=stratified_kfold")
NET = (
    *("data=digits", "model=mlp", "search=sklearn/grid", "validation=stratified_kfold", "validation.n_splits=2"),
    *("model.estimator.steps.1.1.epochs=3", "model.space.learning_rate.values=[0.01,0.001]"),
    *("~model.space.dropout", "~model.space.units", "+model.space.units=[32,64]"),
)


def scores(workplace):
    """What each complete trial was, and what came of it."""
    found = {}
    for run in workplace.runs("trial"):
        if run.info.status == "FINISHED":
            folds = [m.value for m in workplace.client.get_metric_history(run.info.run_id, "objective_fold")]
            found[int(run.data.tags["trialbook.trial"])] = run.data.params, run.data.metrics["objective"], folds
    return found


def attempts(workplace, case):
    """The runs of the trial with this case, by attempt."""
    runs = [run for run in workplace.runs("trial") if run.data.params["case"] == case]
    return sorted(runs, key=lambda run: int(run.data.tags["trialbook.attempt"]))


def pid_of(workplace, case, attempt=1):
    """The process that runs an attempt, once it does."""
    file = workplace.folder / f"{case}.{attempt}"
    wait_until(file.exists)
    return int(file.read_text())


TROUBLES = ("waits1", "waits2", "dies", "memory_once", "disk_once", "disk", "wrong", "fine")


@pytest.fixture(scope="class", name="done")
def search_in_trouble(shared_workplace):
    """The store after a search with all of these, and what the command printed."""
    with shared_workplace.started(*tuned(shared_workplace, *TROUBLES), *PROCESSES) as process:
        os.kill(pid_of(shared_workplace, "waits1"), signal.SIGKILL)
        pid_of(shared_workplace, "waits1", attempt=2)
        (shared_workplace.folder / "go").touch()
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, out + err
    invariants.check(shared_workplace)
    return shared_workplace, out, err


class TestTroubles:
    """One search in which trials fail in every way that does not take long."""

    def outcome(self, done, case):
        """Status and reason of each attempt."""
        return [(run.info.status, run.data.tags.get("trialbook.reason")) for run in attempts(done[0], case)]

    def test_a_trial_whose_worker_is_killed_is_tried_again(self, done):
        first, second = self.outcome(done, "waits1")
        assert first[0] == "FAILED"
        assert first[1].startswith("WorkerDied: its worker ")
        assert "was killed by SIGKILL" in first[1]
        assert second == ("FINISHED", None)
        assert "trial 000 is tried again: WorkerDied" in done[1]

    def test_its_neighbour_is_unharmed(self, done):
        assert self.outcome(done, "waits2") == [("FINISHED", None)]

    def test_a_trial_that_kills_its_worker_every_time_fails_and_the_search_completes(self, done):
        outcome = self.outcome(done, "dies")
        assert [status for status, _ in outcome] == ["FAILED", "FAILED"]
        assert all("ended with exit code 9" in reason for _, reason in outcome)
        assert self.outcome(done, "fine") == [("FINISHED", None)]

    @pytest.mark.parametrize(("case", "reason"), [("memory_once", "MemoryError"), ("disk_once", "OSError")])
    def test_one_failure_that_passes_leaves_one_finished_run(self, done, case, reason):
        first, second = self.outcome(done, case)
        assert first[0] == "FAILED"
        assert first[1].startswith(reason)
        assert second == ("FINISHED", None)
        assert attempts(done[0], case)[1].data.tags["trialbook.attempt"] == "2"

    def test_one_that_does_not_pass_fails(self, done):
        assert [status for status, _ in self.outcome(done, "disk")] == ["FAILED", "FAILED"]

    def test_an_error_of_the_model_is_not_tried_again(self, done):
        assert self.outcome(done, "wrong") == [("FAILED", "ArithmeticError: it never works")]

    def test_trials_that_are_tried_again_count_once(self, done):
        search = done[0].search_run()
        assert search.data.metrics["trials_complete"] == 5
        assert search.data.metrics["trials_failed"] == 3

    def test_each_run_tells_its_worker(self, done):
        (fine,) = attempts(done[0], "fine")
        host, _, pid = fine.data.tags["trialbook.worker"].rpartition(":")
        assert host
        assert int(pid) == pid_of(done[0], "fine")
        # Also if that ended before it had said anything.
        for case in ("waits1", "dies"):
            killed = attempts(done[0], case)[0]
            assert int(killed.data.tags["trialbook.worker"].rpartition(":")[2]) == pid_of(done[0], case)

    def test_no_process_is_left(self, done):
        assert processes_of(done[0]) == []


@pytest.mark.exhaustive
def test_a_trial_that_hangs_is_killed_and_its_search_completes(workplace):
    overrides = tuned(workplace, "hangs", "fine")
    out, _ = workplace.run(*overrides, *PROCESSES, "executor.trial_timeout=15")
    (hung,) = attempts(workplace, "hangs")
    assert hung.info.status == "FAILED"
    assert hung.data.tags["trialbook.reason"] == "TrialTimeout: it was killed after executor.trial_timeout=15 s"
    assert "1 failed: TrialTimeout: it was killed after executor.trial_timeout=15 s" in out
    invariants.check(workplace)
    assert processes_of(workplace) == []


@pytest.mark.exhaustive
def test_when_every_trial_kills_its_worker_the_search_fails_and_nothing_is_registered(workplace):
    _, err = workplace.run(*tuned(workplace, "dies1", "dies2", "dies3"), *PROCESSES, code=1)
    assert err.startswith("trialbook: all 3 trials failed, the first because of WorkerDied: its worker ")
    assert err.count("\n") == 1
    assert workplace.search_run().info.status == "FAILED"
    assert len(workplace.runs("trial")) == 6
    assert list(workplace.client.search_registered_models()) == []
    invariants.check(workplace)
    assert processes_of(workplace) == []


@pytest.mark.exhaustive
def test_too_many_failures_end_the_search(workplace):
    overrides = tuned(workplace, "fine1", "wrong1", "fine2", "wrong2", "fine3", "fine4")
    _, err = workplace.run(*overrides, "budget.max_failures=2", code=1)
    assert err == (
        "trialbook: max_failures=2 reached: 2 of 4 trials failed, "
        "the first because of ArithmeticError: it never works\n"
    )
    search = workplace.search_run()
    assert search.info.status == "FAILED"
    assert search.data.metrics["trials_complete"] == 2
    assert list(workplace.client.search_registered_models()) == []
    invariants.check(workplace)
    workplace.run(f"resume={search.info.run_id}", "budget.max_failures=3", f"--config-dir={workplace.folder / 'conf'}")
    assert workplace.search_run().data.metrics["trials_complete"] == 4
    invariants.check(workplace)


@pytest.mark.exhaustive
def test_a_module_that_workers_cannot_load_ends_the_search_with_a_sentence(workplace):
    overrides = tuned(workplace, "fine1", "fine2")
    module = workplace.folder / "faulty.py"
    # The driver is started as a module, its workers are not.
    module.write_text(f"{module.read_text()}\nif __import__('sys').argv[0] == '-c': raise ImportError('no')")
    out, err = workplace.run(*overrides, *PROCESSES, code=1)
    assert "failed: ImportError: no" in err
    assert err.count("\n") == 1
    assert "Go on with: trialbook resume=" in out
    assert workplace.search_run().info.status == "FAILED"
    assert processes_of(workplace) == []


def interrupt(process):
    process.send_signal(signal.SIGINT)


def terminate(process):
    process.send_signal(signal.SIGTERM)


def interrupt_another_thread(process):
    """As some systems do it, and as it is in effect if the signal comes a moment before the main thread waits."""
    others = [thread.id for thread in psutil.Process(process.pid).threads() if thread.id != process.pid]
    assert ctypes.CDLL(None, use_errno=True).tgkill(process.pid, others[0], signal.SIGINT) == 0


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "stop",
    [
        interrupt,
        terminate,
        pytest.param(
            interrupt_another_thread, marks=pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's tgkill")
        ),
    ],
)
def test_an_interrupt_ends_runs_and_workers_within_ten_seconds(workplace, stop):
    overrides = tuned(workplace, "fine", "waits1", "waits2", "fine2")
    with workplace.started(*overrides, *PROCESSES) as process:
        for case in ("waits1", "waits2"):
            pid_of(workplace, case)
        stop(process)
        # The driver itself may take longer on a busy machine: Python takes its time to unload what was loaded.
        wait_until(lambda: workplace.search_run().info.status == "KILLED", seconds=10)
        assert [run.info.status for run in workplace.runs("trial")] == ["FINISHED", "KILLED", "KILLED"]
        assert [p.pid for p in processes_of(workplace)] in ([], [process.pid])
        out, err = process.communicate(timeout=300)
        assert process.returncode == 130, out + err
    assert "Traceback" not in err
    invariants.check(workplace)
    command = out.splitlines()[-1].partition("Go on with: trialbook ")[2]
    (workplace.folder / "go").touch()
    workplace.run(*command.split())
    assert workplace.search_run().data.metrics["trials_complete"] == 4
    invariants.check(workplace)


@pytest.mark.exhaustive
def test_a_second_interrupt_leaves_at_once(workplace):
    """The store is held by another process, so that the first cannot end in good order."""
    import sqlite3

    with workplace.started(*tuned(workplace, "waits1", "waits2"), *PROCESSES) as process:
        for case in ("waits1", "waits2"):
            pid_of(workplace, case)
        store = sqlite3.connect(workplace.folder / "mlflow.db")
        store.execute("BEGIN EXCLUSIVE")
        process.send_signal(signal.SIGINT)
        # The workers are ended first: when they are gone, the driver is at the store.
        wait_until(lambda: len(processes_of(workplace)) == 1)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=5)
        assert process.returncode == 130
        store.rollback()
        store.close()
    assert err == ""
    assert processes_of(workplace) == []
    (workplace.folder / "go").touch()
    workplace.run("resume=latest")
    invariants.check(workplace)


@pytest.mark.exhaustive
def test_workers_end_when_the_driver_is_killed_and_the_search_can_be_resumed(workplace):
    with workplace.started(*tuned(workplace, "waits1", "waits2"), *PROCESSES) as process:
        for case in ("waits1", "waits2"):
            pid_of(workplace, case)
        process.kill()
        process.wait()
        wait_until(lambda: not processes_of(workplace), seconds=10)
    (workplace.folder / "go").touch()
    workplace.run("resume=latest")
    assert workplace.search_run().data.metrics["trials_complete"] == 2
    invariants.check(workplace)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("job", "executor"),
    [(GRID, "processes"), (RANDOM, "processes"), (NET, "processes"), (GRID, "dask"), (NET, "dask")],
    ids=["grid", "random", "net", "grid on dask", "net on dask"],
)
def test_trials_are_those_of_the_serial_run(make_workplace_in, serial_runs, job, executor):
    serial = serial_runs(job)
    parallel = make_workplace_in("parallel")
    _, err = parallel.run(*job, f"executor={executor}", "executor.workers=2", "promote.enabled=false")
    assert err == ""
    assert scores(parallel) == scores(serial)
    invariants.check(parallel)
    workers = {run.data.tags["trialbook.worker"] for run in parallel.runs("trial")}
    assert len(workers) == 2
    assert {run.data.tags["trialbook.worker"] for run in serial.runs("trial")}.isdisjoint(workers)


@pytest.mark.exhaustive
def test_a_dask_cluster_of_the_searchs_own_needs_no_certain_port_and_is_for_this_machine_only(workplace):
    with socket.socket() as other:
        # The port of Dask's pages, as a second search would find it; taken already, it is as good.
        with contextlib.suppress(OSError):
            other.bind(("", 8787))
            other.listen()
        with workplace.started(*tuned(workplace, "waits1"), "executor=dask", "executor.workers=2") as process:
            pid_of(workplace, "waits1")
            sockets = [c for p in processes_of(workplace) for c in p.net_connections()]
            listening = {c.laddr.ip for c in sockets if c.status == psutil.CONN_LISTEN}
            (workplace.folder / "go").touch()
            out, err = process.communicate(timeout=300)
        assert (process.returncode, err) == (0, ""), out + err
    assert listening == {"127.0.0.1"}
    invariants.check(workplace)


@pytest.fixture(scope="module", name="serial_runs")
def offer_serial_runs(make_workplace_in):
    """A store for each job, after it has run in one process."""
    stores = {}

    def run(job):
        if job not in stores:
            stores[job] = make_workplace_in("serial")
            stores[job].run(*job, "promote.enabled=false")
        return stores[job]

    return run


@pytest.mark.exhaustive
def test_curves_are_live_from_workers(workplace):
    shutil.copy(Path(__file__).parents[1] / "builders.py", workplace.folder)
    flag = workplace.folder / "go"
    overrides = [
        *("data=digits", "model=mlp", "search=sklearn/grid", "promote.enabled=false", *PROCESSES),
        *("model.estimator.steps.1.1.builder=builders.waits_after_first_epochs", "model.estimator.steps.1.1.epochs=4"),
        *("~model.space.dropout", "~model.space.learning_rate", "~model.space.units", "+model.space.units=[16,32]"),
        f"+model.space.flag={flag}",
    ]
    with workplace.started(*overrides) as process:
        workplace.read_until(process, "sklearn/grid mlp on digits")
        wait_until(lambda: len(curves(workplace)) == 2 and all(curve[0] == 0 for curve in curves(workplace)))
        assert {run.info.status for run in workplace.runs("trial")} == {"RUNNING"}
        flag.touch()
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    assert curves(workplace) == [[0, 1, 2, 3], [0, 1, 2, 3]]
    invariants.check(workplace)


def curves(workplace):
    """The epochs on record of each trial that has any."""
    found = [workplace.client.get_metric_history(run.info.run_id, "loss") for run in workplace.runs("trial")]
    return [[metric.step for metric in history] for history in found if history]
