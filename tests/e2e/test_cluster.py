"""Trials on a Dask cluster that shares nothing with the driver but the network, against a tracking server."""

import contextlib
import os
import signal
import subprocess
import sys

import invariants
import psutil
import pytest
import servers
from faulty import tuned
from processes_of import processes_of, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]


class Cluster:
    """A scheduler and two workers as processes of their own, each in a folder of its own."""

    def __init__(self, workplace, stack):
        self._workplace = workplace
        self._stack = stack
        port = servers.free_port()
        self.address = f"tcp://127.0.0.1:{port}"
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
        for name in "ab":
            self._start("worker", self.address, "--nthreads", "1", "--no-dashboard", "--name", name)

    def _start(self, what, *words):
        folder = self._workplace.folder / "cluster" / f"{what}-{words[-1]}"
        (folder / "tmp").mkdir(parents=True)
        environment = self._workplace.environment(TMPDIR=str(folder / "tmp"))
        # Trialbook is installed there; the folder of the search and its modules are not known.
        environment["PYTHONPATH"] = environment["PYTHONPATH"].partition(os.pathsep)[0]
        return started(self._stack, [sys.executable, "-m", "dask", what, *words], cwd=folder, env=environment)


def started(stack, command, **options):
    """A process that ends with the test, and all below it."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    stack.callback(end, process)
    return process


def end(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    process.kill()
    process.wait()


def serve(workplace, stack):
    """Start a tracking server that hands artifacts through; returns the overrides that make it the store."""
    folder = workplace.folder / "server"
    folder.mkdir()
    workplace.uri = stack.enter_context(servers.mlflow_server(folder)).uri
    return [f"tracking.uri={workplace.uri}"]


@pytest.fixture(name="stack")
def end_processes():
    with contextlib.ExitStack() as stack:
        yield stack


def joined(cluster):
    return ["executor=dask", f"executor.address={cluster.address}"]


def test_workers_that_share_no_files_work_against_a_server(workplace, stack):
    cluster, store = Cluster(workplace, stack), serve(workplace, stack)
    out, err = workplace.run(*tuned(workplace, "fine1", "disk_once", "wrong", "fine2"), *joined(cluster), *store)
    assert err == ""
    assert "2 workers were ready" in out
    assert [run.info.status for run in workplace.runs("trial")] == [
        "FINISHED",
        "FAILED",
        "FINISHED",
        "FAILED",
        "FINISHED",
    ]
    assert "Registered breast_cancer version 1" in out
    assert not (workplace.folder / "mlruns").exists()
    invariants.check(workplace)
    # The cluster is given back as it was.
    wait_until(lambda: not trial_processes(workplace))


def test_a_trial_whose_dask_worker_is_killed_is_tried_again(workplace, stack):
    cluster = Cluster(workplace, stack)
    with workplace.started(*tuned(workplace, "waits1", "waits2", "fine"), *joined(cluster)) as process:
        pid_of(workplace, "waits2")
        host = psutil.Process(pid_of(workplace, "waits1")).parent()
        assert "dask" in host.parent().cmdline()  # the nanny's, whose child is the Dask worker
        host.kill()
        pid_of(workplace, "waits1", attempt=2)
        (workplace.folder / "go").touch()
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, out + err
    assert "trial 000 is tried again: WorkerDied: the Dask worker that ran it is gone" in out
    statuses = [(run.data.params["case"], run.info.status) for run in workplace.runs("trial")]
    assert sorted(statuses) == [
        *(("fine", "FINISHED"), ("waits1", "FAILED"), ("waits1", "FINISHED"), ("waits2", "FINISHED")),
    ]
    invariants.check(workplace)


def test_when_the_scheduler_is_killed_the_search_says_so_and_can_be_resumed(workplace, stack):
    cluster = Cluster(workplace, stack)
    with workplace.started(*tuned(workplace, "fine", "waits1", "waits2"), *joined(cluster)) as process:
        for case in ("waits1", "waits2"):
            pid_of(workplace, case)
        end(cluster.scheduler)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 1, out + err
    assert err == f"trialbook: the connection to the Dask scheduler {cluster.address} is lost\n"
    assert workplace.search_run().info.status == "FAILED"
    invariants.check(workplace)
    wait_until(lambda: not trial_processes(workplace))
    command = out.splitlines()[-1].partition("Go on with: trialbook ")[2]
    (workplace.folder / "go").touch()
    workplace.run(*command.split(), "executor=processes", "executor.workers=2")
    assert workplace.search_run().data.metrics["trials_complete"] == 3
    invariants.check(workplace)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_trials_on_a_cluster_end_with_the_driver(workplace, stack, signum):
    cluster = Cluster(workplace, stack)
    with workplace.started(*tuned(workplace, "waits1", "waits2"), *joined(cluster)) as process:
        for case in ("waits1", "waits2"):
            pid_of(workplace, case)
        process.send_signal(signum)
        out, _ = process.communicate(timeout=300)
    wait_until(lambda: not running_trials(workplace), seconds=30)
    if signum is signal.SIGINT:
        assert process.returncode == 130
        assert "Go on with: trialbook resume=" in out
        assert {run.info.status for run in workplace.runs("trial")} == {"KILLED"}
        assert not trial_processes(workplace)
    (workplace.folder / "go").touch()
    workplace.run("resume=latest")
    assert workplace.search_run().data.metrics["trials_complete"] == 2
    invariants.check(workplace)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["executor.address=tcp://127.0.0.1:9"], "executor.address=tcp://127.0.0.1:9 cannot be reached"),
        (["executor.address=nonsense://x"], "executor.address=nonsense://x must start with one of: tcp"),
        (["executor.workers=0"], "executor.workers must be a whole number of at least 1"),
    ],
)
def test_a_cluster_that_cannot_be_joined_is_refused(workplace, settings, said):
    _, err = workplace.run(*tuned(workplace, "fine"), "executor=dask", *settings, code=2)
    assert err.startswith(f"trialbook: {said}")
    assert err.count("\n") == 1
    assert not (workplace.folder / "mlflow.db").exists()


def pid_of(workplace, case, attempt=1):
    file = workplace.folder / f"{case}.{attempt}"
    wait_until(file.exists)
    return int(file.read_text())


def trial_processes(workplace):
    """Worker processes for trials, whether they run one or wait."""
    return processes_of(workplace, running="trialbook.worker")


def running_trials(workplace):
    pids = {int(file.read_text()) for file in workplace.folder.glob("waits*.[0-9]")}
    return pids & {process.pid for process in trial_processes(workplace)}
