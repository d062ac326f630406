"""Several drivers on one store: a server, a database, or an SQLite file, empty when they all start."""

import contextlib
import subprocess
import sys

import invariants
import pytest
import servers

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

DRIVERS, TRIALS = 8, 20
WORDS = ("data=breast_cancer", "model=logistic_regression", "search=sklearn/random", f"search.n_iter={TRIALS}")


@contextlib.contextmanager
def http(folder):
    with servers.mlflow_server(folder) as server:
        yield server.uri


@contextlib.contextmanager
def sqlite(folder):
    yield f"sqlite:///{folder}/mlflow.db"


@pytest.mark.parametrize("store", [http, servers.postgresql, sqlite])
def test_eight_drivers_start_at_once_on_an_empty_store(workplace, store):
    with store(workplace.folder) as workplace.uri, contextlib.ExitStack() as stack:
        started = []
        for i in range(DRIVERS):
            words = (*WORDS, f"tracking.uri={workplace.uri}", f"seed={i}")
            started.append(stack.enter_context(workplace.inside(f"driver-{i}").started(*words)))
        for process in started:
            out, err = process.communicate(timeout=600)
            assert process.returncode == 0, out + err
            assert err == ""
        client = workplace.client
        assert [e.name for e in client.search_experiments()].count("trialbook") == 1
        assert len(workplace.runs("search")) == DRIVERS
        trials = workplace.runs("trial")
        assert [t.info.status for t in trials] == ["FINISHED"] * (DRIVERS * TRIALS)
        assert len(client.search_model_versions("name = 'breast_cancer'")) == DRIVERS
        invariants.check(workplace)


# A driver that renews its claim at every moment, as it does by chance at the wrong one.
RESTLESS = """
import sys
from trialbook import claim
from trialbook.__main__ import main
claim._RENEWED_EVERY = 0.0005
sys.exit(main(sys.argv[1:]))
"""


def test_a_claim_that_is_renewed_over_http_meanwhile_does_not_stop_the_final_step(workplace):
    with http(workplace.folder) as workplace.uri:
        words = [*WORDS[:3], "search.n_iter=1", f"tracking.uri={workplace.uri}"]
        command = [sys.executable, "-c", RESTLESS, *words]
        done = subprocess.run(
            command, cwd=workplace.folder, env=workplace.environment(), capture_output=True, text=True, timeout=180
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "as champion" in done.stdout
        invariants.check(workplace)
