"""Worker processes: what becomes of calls and processes when either misbehaves."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import wait
from pathlib import Path

import joblib
import pytest
from worker_calls import Counted, Echo, Unpackable, work

from trialbook import processes
from trialbook.errors import ExecutorError, ModelError, RequestError, TrialError, TrialTimeout, WorkerDied
from trialbook.executors import SerialExecutor
from trialbook.processes import TRIALS_PER_WORKER, ProcessExecutor
from trialbook.worker import Resident, Worker, pack

ROOT = Path(__file__).parents[2]


@pytest.fixture(name="start")
def offer_started():
    """Executors that have been started, and end with the test."""
    executors = []

    def start(*args, of=work, **kwargs):
        executor = ProcessExecutor(*args, **kwargs)
        executors.append(executor)
        executor.start(of)
        return executor

    yield start
    for executor in executors:
        executor.shutdown()


def running(pid):
    """Whether a process is there; one that has ended and only waits to be asked how is not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    proc = Path(f"/proc/{pid}")
    try:
        ended = proc.exists() and "Z" in (proc / "stat").read_text().split()[2] and len(list((proc / "task").iterdir()))
    except FileNotFoundError:
        return False
    return ended != 1


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it has not come true"
        time.sleep(0.01)


def read_pid(file):
    wait_until(Path(file).exists)
    return int(Path(file).read_text())


def test_every_worker_gets_the_function_once_and_answers_many_calls(start, tmp_path):
    counted = Counted(str(tmp_path / "count"))
    executor = start(2, of=counted)
    executor.wait_until_ready()
    pids = {executor.submit(counted).result() for _ in range(20)}
    assert len(pids) <= 2
    assert os.getpid() not in pids
    assert (tmp_path / "count").read_text() == "xx"


def test_a_dead_worker_fails_its_own_call_alone_and_is_replaced(start, tmp_path):
    executor = start(2)
    go = tmp_path / "go"
    other = executor.submit(work, "note_and_wait", tmp_path / "other", go)
    victim = executor.submit(work, "note_and_wait", tmp_path / "victim", go)
    pid = read_pid(tmp_path / "victim")
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(WorkerDied, match=f":{pid} was killed by SIGKILL"):
        victim.result(timeout=30)
    assert not other.done()
    assert executor.submit(work, "pid").result(timeout=30) not in (pid, read_pid(tmp_path / "other"))
    go.touch()
    assert other.result(timeout=30) == read_pid(tmp_path / "other")


def test_an_idle_worker_that_dies_costs_nothing(start):
    executor = start(1)
    pid = executor.submit(work, "pid").result(timeout=30)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not running(pid))
    assert executor.submit(work, "pid").result(timeout=30) != pid


def test_a_workers_exit_is_told_with_its_code(start):
    with pytest.raises(WorkerDied, match="ended with exit code 7"):
        start(1).submit(work, "exit", 7).result(timeout=30)


def test_a_worker_that_leaves_a_process_behind_is_still_seen_to_die(start, tmp_path):
    with pytest.raises(WorkerDied, match="ended with exit code 3"):
        start(1).submit(work, "fork_then_die", tmp_path / "left").result(timeout=30)
    wait_until(lambda: not running(read_pid(tmp_path / "left")))


def test_a_call_that_takes_too_long_is_killed_with_all_it_started(start, tmp_path):
    executor = start(1, trial_timeout=1)
    executor.wait_until_ready()
    with pytest.raises(TrialTimeout, match=r"executor.trial_timeout=1 s"):
        executor.submit(work, "spawn_then_wait", tmp_path / "child").result(timeout=30)
    wait_until(lambda: not running(read_pid(tmp_path / "child")))
    assert executor.submit(work, "pid").result(timeout=30)


def test_a_worker_is_replaced_after_its_share_of_trials(start):
    executor = start(1, trials_per_worker=2)
    pids = [executor.submit(work, "pid").result(timeout=30) for _ in range(6)]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4] == pids[5]
    wait_until(lambda: not running(pids[0]))


@pytest.mark.parametrize(
    ("given", "leaves_memory", "limit"), [(None, True, TRIALS_PER_WORKER), (None, False, None), (7, True, 7)]
)
def test_workers_are_replaced_where_trials_leave_memory_behind(given, leaves_memory, limit):
    executor = ProcessExecutor(1, trials_per_worker=given)
    executor.start(work, leaves_memory=leaves_memory)
    executor.shutdown()
    assert executor.trials_per_worker == limit


def test_an_idle_worker_is_stopped_and_started_again(start):
    executor = start(1, idle_seconds=0.1)
    pid = executor.submit(work, "pid").result(timeout=30)
    wait_until(lambda: not running(pid))
    assert executor.submit(work, "pid").result(timeout=30) != pid


@pytest.mark.parametrize(("threads", "expected"), [(None, ["share", "share", "3"]), (5, ["5", "5", "5"])])
def test_threads_are_as_wished_else_as_the_environment_says_else_shared_out(start, monkeypatch, threads, expected):
    names = ("TF_NUM_INTRAOP_THREADS", "LOKY_MAX_CPU_COUNT", "OMP_NUM_THREADS")
    for name in names[:2]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    share = str(joblib.cpu_count())
    executor = start(1, threads=threads)
    found = [executor.submit(work, "environment", name).result(timeout=30) for name in names]
    assert found == [share if value == "share" else value for value in expected]


def test_what_a_worker_leaves_in_its_temporary_folder_goes_with_it(start):
    executor = start(1)
    folder = Path(executor.submit(work, "folder").result(timeout=30))
    (folder / "left").touch()
    executor.shutdown()
    assert not folder.exists()


def test_shutting_down_kills_what_runs(start, tmp_path):
    executor = start(2)
    future = executor.submit(work, "spawn_then_wait", tmp_path / "child")
    child = read_pid(tmp_path / "child")
    executor.shutdown(cancel_futures=True)
    wait([future], timeout=30)
    wait_until(lambda: not running(child))
    with pytest.raises(RuntimeError, match="shut down"):
        executor.submit(work, "pid")


def test_one_call_can_be_killed(start, tmp_path):
    executor = start(2)
    futures = [executor.submit(work, "note_and_wait", tmp_path / name, tmp_path / "go") for name in "ab"]
    pids = [read_pid(tmp_path / name) for name in "ab"]
    executor.kill(futures[0])
    with pytest.raises(WorkerDied):
        futures[0].result(timeout=30)
    (tmp_path / "go").touch()
    assert futures[1].result(timeout=30) == pids[1]


def test_what_workers_cannot_take_ends_the_executor(start):
    function = Unpackable()
    executor = start(2, of=function)
    with pytest.raises(ExecutorError, match="ModuleNotFoundError: No module named 'no_such_module'"):
        executor.wait_until_ready()
    with pytest.raises(ExecutorError, match="no_such_module"):
        executor.submit(function)


def test_a_function_that_raises_ends_the_executor(start):
    executor = start(1)
    with pytest.raises(ExecutorError, match="IndexError: list index out of range"):
        executor.submit(work, "raise").result(timeout=30)
    with pytest.raises(ExecutorError):
        executor.submit(work, "pid").result(timeout=30)


class Kept(Resident):
    """What stays in the driver."""

    def __init__(self):
        self.said = []
        self.workers = set()
        self.left = None
        self.stuck = False
        self.entered, self.go = threading.Event(), threading.Event()

    def stand_in(self):
        return Echo()

    def answer(self, worker, what, *args):
        self.workers.add(worker.rpartition(":")[2])
        return getattr(self, what)(*args)

    def abandoned(self, worker):
        self.left = worker

    @property
    def waits(self):
        return self.stuck

    def double(self, value):
        return 2 * value

    def note(self, word):
        self.said.append(word)

    def notes(self):
        return self.said

    def stay(self):
        self.entered.set()
        self.go.wait(30)

    def take_long(self):
        time.sleep(0.4)

    def refuse(self):
        raise ModelError("not this one")

    def __getattr__(self, name):
        if name != "break":
            raise AttributeError(name)
        return lambda: [][0]


def test_what_stays_in_the_driver_answers_there(start):
    executor = start(1)
    kept = Kept()
    doubled, refused, broken, notes = executor.submit(work, "talk", kept).result(timeout=30)
    assert (doubled, notes) == (4, ["told"])
    assert isinstance(refused, ModelError)
    assert isinstance(broken, TrialError)
    assert str(broken) == "IndexError: list index out of range"
    assert kept.workers == {str(executor.submit(work, "pid").result(timeout=30))}
    assert not kept.left


def test_it_hears_when_a_worker_has_left(start):
    kept = Kept()
    with pytest.raises(WorkerDied, match="exit code 4"):
        start(1).submit(work, "tell_then_exit", kept).result(timeout=30)
    assert kept.said == ["last words"]
    assert kept.left is not None
    other = Kept()
    with pytest.raises(WorkerDied, match="exit code 4") as died:
        start(1).submit(work, "exit_with", 4, other).result(timeout=30)
    assert f"its worker {other.left} " in str(died.value)


@pytest.mark.parametrize("stuck", [True, False])
def test_who_waits_for_a_store_that_is_away_is_not_waited_for(start, monkeypatch, stuck):
    monkeypatch.setattr(processes, "_LAST_WORDS_SECONDS", 30 if stuck else 0.3)
    executor = start(1)
    kept = Kept()
    kept.stuck = stuck
    future = executor.submit(work, "ask", "stay", kept)
    assert kept.entered.wait(30)
    started = time.monotonic()
    executor.shutdown()
    assert time.monotonic() - started < 10
    assert not future.done()
    kept.go.set()
    with pytest.raises(WorkerDied):
        future.result(timeout=30)


def test_what_the_driver_takes_is_not_the_calls_time():
    worker = Worker(pack(work))
    kept = Kept()
    with contextlib.closing(worker):
        worker.ready()
        assert worker.call("ask", "take_long", kept, timeout=0.3, resident=kept) is None
        with pytest.raises(TrialTimeout):
            worker.call("wait", timeout=0.3)


def test_of_many_workers_each_writes_itself():
    assert ProcessExecutor(5).workers_write
    assert not ProcessExecutor(4).workers_write


def test_workers_end_with_the_driver_however_that_ends(tmp_path):
    driver = (
        "import sys, time\n"
        "from trialbook.processes import ProcessExecutor\n"
        "from worker_calls import work\n"
        "executor = ProcessExecutor(2)\n"
        "executor.start(work)\n"
        "futures = [executor.submit(work, 'spawn_then_wait', f'{sys.argv[1]}/{i}') for i in range(2)]\n"
        "time.sleep(600)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])}
    process = subprocess.Popen([sys.executable, "-c", driver, tmp_path], env=environment)
    children = [read_pid(tmp_path / str(i)) for i in range(2)]
    groups = [os.getpgid(child) for child in children]
    process.kill()
    process.wait()
    for pid in (*children, *groups):
        wait_until(lambda pid=pid: not running(pid))


def test_threads_of_the_driver_end_too(start):
    executor = start(2)
    executor.wait_until_ready()
    executor.shutdown()
    assert not [t for t in threading.enumerate() if t.name == "trialbook-worker"]


@pytest.mark.parametrize(
    ("make", "settings", "said"),
    [
        (ProcessExecutor, {"workers": 0}, "executor.workers must be a whole number of at least 1, or null; got 0"),
        (ProcessExecutor, {"workers": 1.5}, "executor.workers must be"),
        (ProcessExecutor, {"retries": -1}, "executor.retries must be a whole number of at least 0; got -1"),
        (ProcessExecutor, {"trial_timeout": 0}, "executor.trial_timeout must be a number of seconds of at least 1"),
        (ProcessExecutor, {"trials_per_worker": True}, "executor.trials_per_worker must be"),
        (SerialExecutor, {"trial_timeout": 5}, "executor.trial_timeout=5 needs trials in processes of their own"),
        (SerialExecutor, {"retries": None}, "executor.retries must be a whole number of at least 0; got None"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(make, settings, said):
    with pytest.raises(RequestError, match=said):
        make(**settings)
