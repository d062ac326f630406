"""The process that writes a search down while the driver trains: killed, or with its driver gone."""

import re

import invariants
import pytest
from processes_of import processes_of, wait_until

pytestmark = pytest.mark.slow

NETS = (
    *("data=breast_cancer", "model=mlp", "search=sklearn/random", "search.n_iter=6"),
    *("model.estimator.steps.1.1.epochs=20", "promote.enabled=false"),
)


def scribe_of(workplace):
    (process,) = wait_until(lambda: processes_of(workplace, running="trialbook.worker"))
    return process


def test_killed_it_ends_the_search_with_a_sentence_and_the_search_goes_on_when_resumed(workplace):
    with workplace.started(*NETS) as process:
        workplace.read_until(process, "[2/")
        scribe_of(workplace).kill()
        out, err = process.communicate(timeout=120)
    assert process.returncode == 1, out + err
    last = err.splitlines()[-1]
    assert "the record cannot be written" in last
    assert "was killed by SIGKILL" in last
    assert "Traceback" not in err
    found = re.search("go on with: trialbook (resume=[0-9a-f]+)$", last)
    workplace.run(found[1])
    assert workplace.search_run().data.metrics["trials_complete"] == 6
    invariants.check(workplace)


def test_it_goes_when_its_driver_is_killed_and_nothing_that_was_told_before_the_last_trial_is_lost(workplace):
    with workplace.started(*NETS) as process:
        workplace.read_until(process, "[4/")
        process.kill()
        process.wait()
    wait_until(lambda: not processes_of(workplace), seconds=30)
    finished = [run for run in workplace.runs("trial") if run.info.status == "FINISHED"]
    assert len(finished) >= 3
    assert {run.data.tags["trialbook.worker"].rpartition(":")[2] for run in finished} == {str(process.pid)}
    workplace.run("resume=latest")
    assert workplace.search_run().data.metrics["trials_complete"] == 6
    invariants.check(workplace)
