"""Sweeps of searches: one run, one final step, and jobs that fail, exit, are killed or are interrupted."""

import json
import math
import signal
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ON = ("data=breast_cancer", "search=sklearn/random", "search.n_iter=2")
QUICK = ("data=breast_cancer", "model=logistic_regression", "search.n_iter=2")
MODELS = """
import os, signal, threading
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression

class Exits(LogisticRegression):
    def fit(self, X, y):
        os._exit(0)

class Killed(LogisticRegression):
    def fit(self, X, y):
        os.kill(os.getpid(), signal.SIGKILL)

class Waits(DummyClassifier):
    # Never the best. The first fit of a process is quick, the second never ends.
    fits = 0
    def fit(self, X, y):
        Waits.fits += 1
        if Waits.fits > 1 and not os.path.exists("go"):
            threading.Event().wait()
        return super().fit(X, y)
"""

pytestmark = pytest.mark.slow


def with_models(workplace):
    """The estimators above as models `exits`, `killed` and `waits`; returns the words that make them known."""
    (workplace.folder / "my_models.py").write_text(MODELS)
    folder = workplace.folder / "my_conf" / "model"
    folder.mkdir(parents=True)
    for name, dimension in (("Exits", "C"), ("Killed", "C"), ("Waits", "random_state")):
        (folder / f"{name.lower()}.yaml").write_text(
            f"estimator: {{_target_: my_models.{name}}}\nspace:\n  {dimension}: {{values: [1, 2]}}\n"
        )
    return ("--config-dir=my_conf", "-m", *ON, "tracking.allow_pickle=true")


def below(workplace, parent, kind):
    return [r for r in workplace.runs(kind) if r.data.tags["mlflow.parentRunId"] == parent.info.run_id]


def jobs_of(workplace):
    """The sweep run, and the search runs of its jobs in order."""
    (sweep,) = workplace.runs("sweep")
    searches = below(workplace, sweep, "search")
    return sweep, sorted(searches, key=lambda run: int(run.data.tags["trialbook.job"]))


def statuses(runs):
    return [run.info.status for run in runs]


def check_nothing_is_open(workplace):
    for kind in ("sweep", "search", "trial", "retrain"):
        assert "RUNNING" not in statuses(workplace.runs(kind))


@pytest.fixture(scope="class", name="printed")
def run_a_sweep_in_which_jobs_die(shared_workplace):
    words = with_models(shared_workplace)
    return shared_workplace.run(*words, "model=exits,killed,logistic_regression", code=1)


class TestASweepInWhichJobsDie:
    @pytest.mark.usefixtures("printed")
    def test_the_others_finish_and_all_stand_below_one_run(self, shared_workplace):
        sweep, searches = jobs_of(shared_workplace)
        assert sweep.info.status == "FAILED"
        assert statuses(searches) == ["FAILED", "FAILED", "FINISHED"]
        assert [len(below(shared_workplace, s, "trial")) for s in searches] == [1, 1, 2]
        assert statuses(shared_workplace.runs("trial")).count("KILLED") == 2
        assert {t.data.tags["trialbook.sweep"] for t in shared_workplace.runs("trial")} == {sweep.info.run_id}
        check_nothing_is_open(shared_workplace)

    def test_each_failure_is_listed_with_its_reason(self, shared_workplace, printed):
        out, err = printed
        sweep, searches = jobs_of(shared_workplace)
        said = ("its process ended with exit code 0 before the search had", "its process was killed by SIGKILL")
        for job, (name, reason) in enumerate(zip(("exits", "killed"), said, strict=True)):
            line = f"#{job} model={name} failed: {reason}"
            assert line in out
            assert line in sweep.data.tags["mlflow.note.content"]
            assert f"#{job} trialbook: {reason}" in err
            assert searches[job].data.tags["trialbook.reason"] == reason
        assert "#2 [2/2] trial 001 complete" in out

    @pytest.mark.usefixtures("printed")
    def test_the_final_step_is_taken_once_below_the_sweep(self, shared_workplace):
        sweep, searches = jobs_of(shared_workplace)
        (retrain,) = shared_workplace.runs("retrain")
        assert retrain.data.tags["mlflow.parentRunId"] == sweep.info.run_id
        version = shared_workplace.client.get_model_version_by_alias("breast_cancer", "champion")
        assert version.run_id == retrain.info.run_id
        assert version.tags["trialbook.search_run"] == searches[2].info.run_id
        assert version.tags["trialbook.trial_run"] == searches[2].data.tags["trialbook.best_run"]
        assert len(shared_workplace.client.search_model_versions("name='breast_cancer'")) == 1

    @pytest.mark.usefixtures("printed")
    def test_the_sweep_run_tells_what_became_of_it(self, shared_workplace):
        sweep, searches = jobs_of(shared_workplace)
        assert sweep.data.metrics["best_objective"] == searches[2].data.metrics["best_objective"]
        assert sweep.data.tags["trialbook.best_run"] == searches[2].data.tags["trialbook.best_run"]
        counts = {name: n for name, n in sweep.data.metrics.items() if name.startswith(("searches_", "trials_"))}
        assert counts["searches_complete"] == 1
        assert counts["searches_failed"] == 2
        assert counts["trials_complete"] == 2
        table = json.loads(shared_workplace.text(sweep, "searches.json"))
        assert table["columns"][:3] == ["job", "searched", "state"]
        assert [row[:3] for row in table["data"]] == [
            [2, "model=logistic_regression", "complete"],
            [0, "model=exits", "failed"],
            [1, "model=killed", "failed"],
        ]
        assert "search.n_iter=2" in shared_workplace.text(sweep, "overrides.yaml")
        assert "n_iter: 2" in shared_workplace.text(sweep, "config.yaml")


class TestAWrongRequest:
    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["search=sklearn/random,sklearn/grit"], "search=sklearn/grit is not available"),
            (["search=sklearn/random,sklearn/grid", "sede=1,2"], "Did you mean seed?"),
            (["tracking.experiment=a,b"], "a sweep is in one place"),
            (["seed=1,2", "resume=latest"], "give them without -m"),
            pytest.param(
                ["data=digits,diabetes", "promote.registered_model=a/b"],
                "must be text that is not empty and holds no slash",
                marks=pytest.mark.exhaustive,
            ),
            pytest.param(
                ["seed=1,2", "tracking.uri=sqlite:////dev/null/a.db"], "cannot be used", marks=pytest.mark.exhaustive
            ),
        ],
    )
    def test_is_refused_before_anything_is_recorded(self, workplace, words, said):
        _, err = workplace.run("-m", *words, code=2)
        assert said in err
        assert not (workplace.folder / "mlflow.db").exists()

    @pytest.mark.exhaustive
    def test_of_every_job_leaves_no_run(self, workplace):
        _, err = workplace.run("-m", *QUICK, "search=sklearn/random", "objective.metric=r2,neg_max_error", code=2)
        assert "#0 trialbook: objective.metric=r2 scores numbers" in err
        assert "#1 trialbook: objective.metric=neg_max_error scores numbers" in err
        assert workplace.runs("sweep") == workplace.runs("search") == []

    @pytest.mark.exhaustive
    def test_of_one_job_is_listed_and_the_others_finish(self, workplace):
        out, _ = workplace.run("-m", *QUICK, "search=sklearn/random", "objective.metric=roc_auc,r2", code=1)
        assert "#1 objective.metric=r2 failed: objective.metric=r2 scores numbers" in out
        assert "Registered breast_cancer version 1 as champion: roc_auc" in out
        assert statuses(jobs_of(workplace)[1]) == ["FINISHED", "FAILED"]


@pytest.mark.exhaustive
class TestAnInterruptedSweep:
    def interrupted(self, workplace, signum, job, *words, refused=False):
        """A sweep stopped after the first trial of a job; returns what it printed and its exit code."""
        known = with_models(workplace)
        with workplace.started(*known, *words, "hydra.sweep.dir=sweeps") as process:
            printed = workplace.read_until(process, f"#{job} [1/2]")
            if refused:
                _, err = workplace.run("resume=latest", code=2)
                assert f"is being run by process {process.pid}" in err
            process.send_signal(signum)
            code = process.wait(timeout=60)
            # A worker of joblib that has lost its driver keeps the pipe open until it has been idle for minutes.
            rest = "" if signum == signal.SIGKILL else process.stdout.read()
        return printed + rest, code

    def test_goes_on_where_it_stopped(self, workplace):
        words = ("model=logistic_regression,waits,svm",)
        out, code = self.interrupted(workplace, signal.SIGINT, 1, *words, refused=True)
        assert code == 130
        sweep, searches = jobs_of(workplace)
        command = f"resume={sweep.info.run_id}"
        assert out.splitlines()[-1] == f"Interrupted. Go on with: trialbook {command}"
        assert f"trialbook {command}" in sweep.data.tags["mlflow.note.content"]
        assert sweep.info.status == "KILLED"
        assert statuses(searches) == ["FINISHED", "KILLED"]
        assert workplace.runs("retrain") == []
        check_nothing_is_open(workplace)
        _, err = workplace.run(command, "seed=5", code=2)
        assert "seed=5 would make it another sweep" in err

        (workplace.folder / "go").touch()
        before = {t.info.run_id for t in workplace.runs("trial") if t.info.status == "FINISHED"}
        out, _ = workplace.run(command)
        assert "#0 sklearn/random logistic_regression on breast_cancer is complete" in out
        sweep, searches = jobs_of(workplace)
        assert sweep.info.status == "FINISHED"
        assert statuses(searches) == ["FINISHED"] * 3
        finished = [t for t in workplace.runs("trial") if t.info.status == "FINISHED"]
        assert len(finished) == 6
        assert before < {t.info.run_id for t in finished}
        assert len(workplace.runs("retrain")) == 1
        check_nothing_is_open(workplace)
        _, err = workplace.run(command, code=2)
        assert "has finished; start a new sweep" in err

    def test_is_left_at_once_when_interrupted_again(self, workplace):
        words = with_models(workplace)
        with workplace.started(*words, "model=waits,svm") as process:
            workplace.read_until(process, "#0 [1/2]")
            process.send_signal(signal.SIGTERM)
            while "once more to leave at once" not in process.stderr.readline():
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=10)
            assert process.returncode == 130
        assert "Go on with: trialbook resume=" in out

    @pytest.mark.parametrize("launcher", ["basic", "joblib"])
    def test_a_killed_driver_leaves_no_search_running(self, workplace, launcher):
        words = ("model=waits", "promote.enabled=false", f"hydra/launcher={launcher}")
        _, code = self.interrupted(workplace, signal.SIGKILL, 0, *words)
        assert code == -signal.SIGKILL
        (search,) = wait_for_the_end(workplace)
        assert search.info.status == "KILLED"
        (workplace.folder / "go").touch()
        workplace.run("resume=latest")
        sweep, searches = jobs_of(workplace)
        assert sweep.info.status == "FINISHED"
        assert statuses(searches) == ["FINISHED"]
        check_nothing_is_open(workplace)


def wait_for_the_end(workplace):
    """The search runs, once none of them is open."""
    deadline = time.monotonic() + 60
    while "RUNNING" in statuses(searches := workplace.runs("search")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return searches


@pytest.mark.exhaustive
class TestAnyLauncherAndSweeper:
    def test_jobs_run_side_by_side(self, workplace):
        words = with_models(workplace)
        launcher = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
        out, _ = workplace.run(*words, "model=svm,exits,logistic_regression", *launcher, code=1)
        _, searches = jobs_of(workplace)
        assert statuses(searches) == ["FINISHED", "FAILED", "FINISHED"]
        assert "#1 model=exits failed: its process ended" in out
        assert len(workplace.runs("retrain")) == 1
        assert all(line.startswith("#") for line in out.splitlines() if "] trial 0" in line)

    def test_a_sweeper_is_given_the_objective(self, workplace):
        # Two rounds: the second tries a neighbour of the better of the first, and NaN is worse than anything.
        (workplace.folder / "climb.py").write_text(
            "import json, math\n"
            "from hydra._internal.core_plugins.basic_sweeper import BasicSweeper\n"
            "class Climb(BasicSweeper):\n"
            "    def __init__(self): super().__init__(None)\n"
            "    def sweep(self, arguments):\n"
            "        first = [[*arguments, f'search.n_iter={n}'] for n in (1, 0)]\n"
            "        told = [r.return_value for r in self.launcher.launch(first, 0)]\n"
            "        best = 0 if math.isnan(told[1]) else 1\n"
            "        told += [r.return_value for r in self.launcher.launch([[*first[best], 'seed=7']], 2)]\n"
            "        open('told.json', 'w').write(json.dumps(told))\n"
        )
        folder = workplace.folder / "my_conf" / "hydra" / "sweeper"
        folder.mkdir(parents=True)
        (folder / "climb.yaml").write_text("_target_: hydra_plugins.climb.Climb\n")
        plugins = workplace.folder / "hydra_plugins"
        plugins.mkdir()
        (workplace.folder / "climb.py").rename(plugins / "climb.py")
        words = ("data=breast_cancer", "model=logistic_regression", "search=sklearn/random")
        workplace.run("--config-dir=my_conf", "hydra/sweeper=climb", "hydra.mode=MULTIRUN", *words, code=1)
        _, searches = jobs_of(workplace)
        told = json.loads((workplace.folder / "told.json").read_text())
        assert math.isnan(told[1])
        assert [told[0], told[2]] == [searches[i].data.metrics["best_objective"] for i in (0, 2)]

    def test_under_mlflow_run_the_run_it_made_is_the_sweep_run(self, workplace):
        words = ("data=breast_cancer", "model=logistic_regression", "search=sklearn/random,sklearn/grid")
        options = ("-e", "sweep", "--experiment-name", "theirs")
        code, output = workplace.mlflow_run(*words, "budget.max_trials=2", options=options)
        assert code == 0, output
        sweep, searches = jobs_of(workplace)
        assert sweep.info.status == "FINISHED"
        assert sweep.data.tags["mlflow.project.entryPoint"] == "sweep"
        assert statuses(searches) == ["FINISHED"] * 2
        everything = workplace.client.search_runs([sweep.info.experiment_id])
        assert len(everything) == 1 + 2 + 4 + 1
        assert workplace.client.get_experiment(sweep.info.experiment_id).name == "theirs"


@pytest.mark.exhaustive
class TestTheFinalStep:
    def test_is_repeated_by_itself_and_with_other_settings(self, workplace):
        # In another store than MLflow would take by itself.
        workplace.uri = f"sqlite:///{workplace.folder}/other.db"
        words = (*QUICK, "search=sklearn/random", "seed=1,2", "promote.enabled=false")
        workplace.run("-m", *words, f"tracking.uri={workplace.uri}")
        assert workplace.runs("retrain") == []
        sweep, searches = jobs_of(workplace)
        out, _ = workplace.run(f"promote={sweep.info.run_id}", f"tracking.uri={workplace.uri}")
        assert "Registered breast_cancer version 1 as champion" in out
        out, _ = workplace.run(
            f"promote={sweep.info.run_id}", "promote.registered_model=other", f"tracking.uri={workplace.uri}"
        )
        assert "Registered other version 1 as champion" in out
        worse = min(searches, key=lambda s: s.data.metrics["best_objective"])
        out, _ = workplace.run(f"promote={worse.info.run_id}", f"tracking.uri={workplace.uri}")
        assert "Registered breast_cancer version 2 as " in out
        parents = [r.data.tags["mlflow.parentRunId"] for r in workplace.runs("retrain")]
        assert sorted(parents) == sorted([sweep.info.run_id, sweep.info.run_id, worse.info.run_id])
        _, err = workplace.run(f"promote={sweep.info.run_id}", "seed=3", code=2)
        assert "seed=3 has no meaning for promote=" in err

    def test_repeats_that_of_a_search_by_itself(self, workplace):
        workplace.run(*QUICK, "search=sklearn/random")
        search = workplace.search_run()
        out, _ = workplace.run(f"promote={search.info.run_id}", "promote.registered_model=again")
        version = workplace.client.get_model_version_by_alias("again", "champion")
        first = workplace.client.get_model_version_by_alias("breast_cancer", "champion")
        assert version.tags == first.tags
        assert "Registered again version 1 as champion" in out

    def test_prefers_a_trial_on_all_rows_to_one_on_few(self, workplace):
        words = ("data=breast_cancer", "model=logistic_regression", "budget.max_trials=4")
        out, _ = workplace.run("-m", "search=sklearn/halving_grid,sklearn/random", *words)
        sweep, (halving, random) = jobs_of(workplace)
        # The halving search was cut short on so few rows that it seems the better one.
        assert halving.data.metrics["best_objective"] > random.data.metrics["best_objective"]
        assert sweep.data.tags["trialbook.best_search"] == random.info.run_id
        assert "Registered breast_cancer version 1" in out
        assert "undecided" in workplace.text(sweep, "report.html")

    def test_is_taken_for_each_name_and_refuses_what_cannot_be_compared(self, workplace):
        words = ("-m", "model=logistic_regression", "search=sklearn/random", "search.n_iter=1")
        out, _ = workplace.run(*words, "data=breast_cancer,digits")
        assert "Registered breast_cancer version 1 as champion" in out
        assert "Registered digits version 1 as champion" in out
        out, _ = workplace.run(*words, "data=breast_cancer", "objective.metric=accuracy,roc_auc", code=1)
        assert (
            "Nothing was registered as breast_cancer: the searches for breast_cancer cannot be compared: they have "
            "different objectives, such as accuracy and roc_auc"
        ) in out
        assert len(workplace.client.search_model_versions("name='breast_cancer'")) == 1


@pytest.mark.exhaustive
def test_searches_of_both_libraries_on_a_net_stand_in_one_table(workplace):
    searches = "search=sklearn/random,keras_tuner/bayesian,keras_tuner/hyperband"
    words = ("-m", searches, "model=mlp", "data=breast_cancer", "budget.max_trials=2")
    out, _ = workplace.run(*words)
    _, jobs = jobs_of(workplace)
    assert statuses(jobs) == ["FINISHED"] * 3
    assert all("epoch: best" in workplace.text(job, "config.yaml").partition("objective:")[2] for job in jobs)
    trials = workplace.runs("trial")
    assert len(trials) == 6
    assert len({frozenset(t.data.params) for t in trials}) == 1
    assert all("objective" in t.data.metrics for t in trials)
    assert "Every search of this sweep judges nets at their best epoch" in out
    assert len(workplace.runs("retrain")) == 1
