"""Values that would be commands to a shell, and passwords in addresses: neither may get through."""

import re
import subprocess
import sys

import pytest
import servers

pytestmark = pytest.mark.exhaustive

QUICK = ("data=breast_cancer", "model=logistic_regression", "search=sklearn/grid", "budget.max_trials=1")
SECRET = "s3cr3t-of-mine"


@pytest.mark.parametrize("quoted", [True, False], ids=["a value", "what Hydra cannot read"])
def test_a_parameter_of_mlflow_run_reaches_no_shell(workplace, quoted):
    mark = workplace.folder / "mark"
    value = f"$(touch {mark}) `touch {mark}` ; touch {mark} ; ' && touch {mark} ' \" && touch {mark} \" | touch {mark}"
    given = "'" + value.replace("'", "\\'") + "'" if quoted else value
    code, output = workplace.mlflow_run(*QUICK, f"data.name={given}", "dry_run=true", "promote.enabled=false")
    if quoted:
        assert code == 0, output
        assert f"on {value}" in output
    assert not mark.exists()


@pytest.fixture(name="server")
def serve_a_store(workplace):
    """A tracking server; gives its address with a password in it, which it does not ask for."""
    with servers.mlflow_server(workplace.folder, workplace.uri) as server:
        yield server.uri.replace("://", f"://user:{SECRET}@")


@pytest.mark.parametrize("words", [(), ("-m",)], ids=["one search", "a sweep"])
def test_a_password_in_the_stores_address_is_written_nowhere(workplace, server, words):
    out, err = workplace.run(*words, *QUICK, f"tracking.uri={server}")
    assert SECRET not in out + err
    written = [path for path in workplace.folder.rglob("*") if path.is_file()]
    assert any(path.name == "overrides.yaml" for path in written)
    assert [path for path in written if re.search(SECRET.encode(), path.read_bytes())] == []


def test_a_password_in_the_environment_is_written_nowhere(workplace, server):
    environment = workplace.environment(MLFLOW_TRACKING_URI=server)
    command = [sys.executable, "-m", "trialbook", *QUICK]
    done = subprocess.run(command, cwd=workplace.folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout + done.stderr
    written = [path for path in workplace.folder.rglob("*") if path.is_file()]
    assert [path for path in written if re.search(SECRET.encode(), path.read_bytes())] == []


def test_a_password_that_mlflow_run_has_recorded_is_refused(workplace):
    code, output = workplace.mlflow_run(*QUICK, f"tracking.uri=http://user:{SECRET}@127.0.0.1:9")
    assert code != 0
    (line,) = [line for line in output.splitlines() if line.startswith("trialbook: ")]
    assert "tracking.uri=http://***@127.0.0.1:9 holds a password" in line
    assert "set MLFLOW_TRACKING_URI, MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in line
    (run,) = workplace.client.search_runs(["0"])
    assert f"mlflow runs delete --run-id {run.info.run_id}" in line
    assert run.info.status == "FAILED"
    assert "trialbook.kind" not in run.data.tags
