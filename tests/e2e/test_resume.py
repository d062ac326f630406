"""Going on with a search whose driver was killed or interrupted."""

import signal

import invariants
import pytest
from faulty import tuned

pytestmark = pytest.mark.slow

GRID = ("data=breast_cancer", "model=logistic_regression", "search=sklearn/grid", "validation=stratified_kfold")
HYPERBAND = ("search=keras_tuner/hyperband", "search.oracle.max_epochs=4", "search.oracle.factor=2")


def kill_after(workplace, trials, words, signum=signal.SIGKILL):
    """Start the command, and kill it once it has said that so many trials have ended; returns what it printed."""
    with workplace.started(*words) as process:
        printed = workplace.read_until(process, f"[{trials}/")
        process.send_signal(signum)
        out, _ = process.communicate(timeout=30)
        assert process.returncode != 0
    return printed + out


def check_complete(workplace, n_trials):
    """One completed run for each trial, and none left open."""
    trials = workplace.runs("trial")
    assert {t.info.status for t in trials} <= {"FINISHED", "KILLED"}
    complete = [int(t.data.tags["trialbook.trial"]) for t in trials if t.info.status == "FINISHED"]
    assert sorted(complete) == list(range(n_trials))
    search = workplace.search_run()
    assert search.info.status == "FINISHED"
    assert search.data.metrics["trials_complete"] == n_trials
    assert len(workplace.runs("retrain")) == 1
    version = workplace.client.get_model_version_by_alias(workplace_model(search), "champion").version
    assert str(version) == "1"
    return search


def workplace_model(search):
    return search.info.run_name.rpartition(" on ")[2]


def best_of(search):
    best = {name: value for name, value in search.data.tags.items() if name.startswith("best_")}
    return search.data.metrics["best_objective"], best


@pytest.mark.parametrize(("words", "n_trials"), [(GRID, 12), pytest.param(HYPERBAND, 15, marks=pytest.mark.exhaustive)])
def test_a_killed_search_goes_on_and_ends_as_if_undisturbed(workplace, words, n_trials):
    disturbed, calm = workplace.inside("disturbed"), workplace.inside("calm")
    kill_after(disturbed, 2, words)
    kill_after(disturbed, 5, ["resume=latest"])
    disturbed.run("resume=latest")
    search = check_complete(disturbed, n_trials)
    calm.run(*words)
    assert best_of(search) == best_of(calm.search_run())


def test_an_interrupted_search_says_how_to_go_on(workplace):
    out = kill_after(workplace, 2, GRID, signal.SIGINT)
    command = out.splitlines()[-1].partition("Go on with: trialbook ")[2]
    assert command.startswith("resume=")
    assert f"trialbook {command}" in workplace.search_run().data.tags["mlflow.note.content"]
    workplace.run(command)
    check_complete(workplace, 12)


def test_an_interrupt_that_a_library_swallows_ends_the_search(workplace):
    with workplace.started(*tuned(workplace, "fine", "swallows", "fine2")) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert err.startswith("Exception ignored in")  # by Python itself
    assert workplace.search_run().info.status == "KILLED"
    trials = [(run.data.params["case"], run.info.status) for run in workplace.runs("trial")]
    assert trials == [("fine", "FINISHED"), ("swallows", "KILLED")]
    assert "Go on with: trialbook resume=" in out
    invariants.check(workplace)


def test_a_model_whose_retraining_swallows_an_interrupt_is_not_registered(workplace):
    with workplace.started(*tuned(workplace, "late")) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert [run.info.status for run in (workplace.search_run(), *workplace.runs("retrain"))] == ["KILLED", "KILLED"]
    assert list(workplace.client.search_registered_models()) == []
    command = out.splitlines()[-1].partition("Go on with: trialbook ")[2]
    workplace.run(*command.split())
    assert {run.info.status for run in workplace.runs("retrain")} == {"KILLED", "FINISHED"}
    invariants.check(workplace)


def test_data_that_have_changed_are_refused_with_the_difference(workplace):
    kill_after(workplace, 2, GRID)
    search = workplace.search_run()
    workplace.client.set_tag(search.info.run_id, "trialbook.data_digest", "0123")
    _, err = workplace.run("resume=latest", code=2)
    assert f"data_digest was 0123 and is {search.data.tags['trialbook.data_digest']}" in err
