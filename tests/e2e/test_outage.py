"""A store that is away for a while, that loses its replies, refuses to take files, or is full."""

import contextlib
import re
import signal
import subprocess
import threading
import time
from collections import Counter

import invariants
import pytest
import servers
from faulty import tuned
from processes_of import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

LINEAR = ("data=breast_cancer", "model=logistic_regression")
TWELVE = (*LINEAR, "search=sklearn/grid", "validation=stratified_kfold")
# Written down by another process.
EPOCHS = ("model.estimator.steps.1.1.epochs=2",)
TWELVE_NETS = ("data=breast_cancer", "model=mlp", "search=sklearn/random", "search.n_iter=12", *EPOCHS)
DOWNTIME = 60


def check_complete(workplace, n_trials):
    """Every trial once, each at its first attempt, and a final step."""
    trials = workplace.runs("trial")
    assert [t.info.status for t in trials] == ["FINISHED"] * n_trials
    assert [t.data.tags["trialbook.trial"] for t in trials] == [str(number) for number in range(n_trials)]
    assert {t.data.tags["trialbook.attempt"] for t in trials} == {"1"}
    assert workplace.search_run().info.status == "FINISHED"
    assert len(workplace.runs("retrain")) == 1
    invariants.check(workplace)


def test_a_server_that_is_away_for_a_minute_costs_that_minute_and_nothing_else(workplace):
    with servers.mlflow_server(workplace.folder) as server:
        workplace.uri = server.uri
        started = time.monotonic()
        workplace.inside("calm").run(*TWELVE, f"tracking.uri={server.uri}", "tracking.experiment=calm")
        undisturbed = time.monotonic() - started
        disturbed = workplace.inside("disturbed")
        with disturbed.started(*TWELVE, f"tracking.uri={server.uri}", "promote.registered_model=other") as process:
            started = time.monotonic()
            disturbed.read_until(process, "[3/")
            server.stop()
            said = disturbed.read_until(process, f"{server.uri} does not answer; waiting up to 600 s for it.")
            time.sleep(DOWNTIME)
            away = time.monotonic()
            server.start()
            back = time.monotonic()
            out, err = process.communicate(timeout=300)
            seconds = time.monotonic() - started
        assert process.returncode == 0, said + out + err
        assert re.search(rf"{server.uri} answers again after \d+ s\.", out)
        assert seconds < undisturbed + DOWNTIME + (back - away) + 30
        runs = Counter(run.data.tags["mlflow.parentRunId"] for run in workplace.runs("trial"))
        assert sorted(runs.values()) == [12, 12]
        invariants.check(workplace)


def test_a_store_that_stays_away_ends_the_search_with_a_sentence(workplace):
    with servers.mlflow_server(workplace.folder) as server:
        workplace.uri = server.uri
        words = (*TWELVE, f"tracking.uri={server.uri}", "tracking.outage_timeout=3")
        with workplace.started(*words) as process:
            workplace.read_until(process, "[3/")
            server.stop()
            out, err = process.communicate(timeout=120)
        assert process.returncode == 1, out + err
        last = err.splitlines()[-1]
        assert re.match(rf"trialbook: {server.uri} has not answered for \d+ s; go on with: trialbook resume=", last)
        assert "Traceback" not in err
        server.start()
        workplace.run(*last.partition("go on with: trialbook ")[2].split())
        assert {t.info.status for t in workplace.runs("trial")} <= {"FINISHED", "KILLED"}
        assert workplace.search_run().data.metrics["trials_complete"] == 12
        invariants.check(workplace)


def test_the_first_reply_of_every_kind_is_lost_and_nothing_is_doubled(workplace):
    lost = Counter()

    def loses(method, path):
        # What a path ends on may be an id or a file.
        kind = (method, re.sub(r"/(m-|[0-9a-f]{32}).*", "", path))
        lost[kind] += 1
        # A store that does not answer at the start is not waited for.
        return method != "GET" and not path.endswith("experiments/search") and lost[kind] == 1

    with servers.mlflow_server(workplace.folder) as server, servers.proxy(server, loses=loses) as uri:
        workplace.uri = server.uri
        workplace.run(*LINEAR, "search=sklearn/random", "search.n_iter=3", f"tracking.uri={uri}")
        assert any("runs/create" in path for _, path in lost)
        assert any("logged-models" in path for _, path in lost)
        assert any("model-versions/create" in path for _, path in lost)
        check_complete(workplace, 3)
        assert len(workplace.client.search_model_versions("name = 'breast_cancer'")) == 1


@pytest.mark.parametrize(
    ("away", "executor"),
    [("/artifacts/", "serial"), ("/runs/create", "serial"), ("/logged-models", "serial"), ("/artifacts/", "processes")],
)
def test_who_leaves_does_not_wait_for_a_store_that_is_away(workplace, away, executor):
    passed = Counter()

    def loses(method, path):
        passed["create"] += path.endswith("/runs/create")
        # The search, and three trials.
        passed["gone"] += method != "GET" and away in path and passed["create"] >= 4
        return passed["gone"] > 0

    with servers.mlflow_server(workplace.folder) as server, servers.proxy(server, loses=loses) as uri:
        workplace.uri = server.uri
        with workplace.started(*TWELVE, f"executor={executor}", f"tracking.uri={uri}") as process:
            workplace.read_until(process, f"{uri} does not answer; waiting up to 600 s for it")
            process.send_signal(signal.SIGINT)
            started = time.monotonic()
            out, err = process.communicate(timeout=60)
            assert time.monotonic() - started < 10
        assert process.returncode == 130, out + err
        assert "Traceback" not in err
        workplace.run("resume=latest", f"tracking.uri={server.uri}")
        assert workplace.search_run().data.metrics["trials_complete"] == 12
        invariants.check(workplace)


def test_who_leaves_does_not_wait_for_long_for_a_store_that_nobody_knows_to_be_away(workplace):
    gone = threading.Event()
    with (
        servers.mlflow_server(workplace.folder) as server,
        servers.proxy(server, loses=lambda method, path: gone.is_set()) as uri,
    ):
        workplace.uri = server.uri
        words = (*tuned(workplace, "fine", "waits1", "waits2"), f"tracking.uri={uri}")
        with workplace.started(*words, "executor=processes", "executor.workers=2") as process:
            for case in ("waits1", "waits2"):
                wait_until((workplace.folder / f"{case}.1").exists)
            gone.set()
            process.send_signal(signal.SIGINT)
            started = time.monotonic()
            out, err = process.communicate(timeout=60)
            assert time.monotonic() - started < 20
        assert process.returncode == 130, out + err
        assert re.search(rf"{uri} does not answer; waiting up to \d+(\.\d)? s for it\.", out)
        assert err == ""
        (workplace.folder / "go").touch()
        folder = f"--config-dir={workplace.folder / 'conf'}"
        workplace.run(folder, "resume=latest", f"tracking.uri={server.uri}")
        assert workplace.search_run().data.metrics["trials_complete"] == 3
        invariants.check(workplace)


def test_a_trial_whose_model_is_refused_half_way_fails_and_the_search_goes_on(workplace):
    uploads = Counter()

    def refuses(method, path):
        if method != "PUT" or "/models/" not in path:
            return False
        model = path.partition("/models/")[2].partition("/")[0]
        uploads[model] += 1
        return list(uploads).index(model) == 1 and uploads[model] > 2

    with servers.mlflow_server(workplace.folder) as server, servers.proxy(server, refuses=refuses) as uri:
        workplace.uri = server.uri
        words = (*LINEAR, "search=sklearn/random", "search.n_iter=3", f"tracking.uri={uri}", "executor.retries=0")
        workplace.run(*words)
        first, refused, last = workplace.runs("trial")
        assert [t.info.status for t in (first, refused, last)] == ["FINISHED", "FAILED", "FINISHED"]
        assert "403" in refused.data.tags["trialbook.reason"]
        models = workplace.client.search_logged_models(
            [refused.info.experiment_id], f"source_run_id = '{refused.info.run_id}'"
        )
        assert [str(model.status) for model in models] == ["FAILED"]
        assert workplace.search_run().data.tags["trialbook.best_run"] != refused.info.run_id
        invariants.check(workplace)


@pytest.fixture(name="small")
def mount_small_disk(workplace):
    """A workplace on a disk of its own, of a few megabytes."""
    small = workplace.inside("small")
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", small.folder]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    yield small
    subprocess.run(["umount", "--lazy", small.folder], check=True)


def fill(file):
    """Make a file as large as the disk allows."""
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as out:
        while True:
            out.write(bytes(1 << 12))


@pytest.mark.parametrize("words", [TWELVE, TWELVE_NETS], ids=["linear", "nets"])
def test_a_full_disk_ends_the_search_with_a_sentence_and_it_can_be_resumed(small, words):
    ballast = small.folder / "ballast"
    with small.started(*words) as process:
        small.read_until(process, "[3/")
        fill(ballast)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 1, out + err
    assert re.match(r"trialbook: there is no space left .*; go on with: trialbook resume=", err.splitlines()[-1])
    assert "Traceback" not in err
    ballast.unlink()
    small.run("resume=latest")
    assert small.search_run().data.metrics["trials_complete"] == 12
    invariants.check(small)
