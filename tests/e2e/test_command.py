"""The ways to call the command."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUICK = ("data=breast_cancer", "model=logistic_regression", "search=sklearn/grid")

pytestmark = pytest.mark.slow


def test_help_answers_in_under_two_seconds_and_imports_nothing_heavy(workplace):
    code = (
        "import sys; from trialbook.__main__ import main\n"
        "assert main(['--help', '--config-dir=mine']) == 0\n"
        "print(sorted({'tensorflow', 'keras', 'mlflow', 'sklearn', 'pandas', 'hydra'} & set(sys.modules)))"
    )
    (workplace.folder / "mine" / "data").mkdir(parents=True)
    (workplace.folder / "mine" / "data" / "people.yaml").touch()
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=workplace.folder,
        env=workplace.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert time.monotonic() - started < 2
    assert done.stdout.splitlines()[-1] == "[]"
    assert "search/keras_tuner: bayesian, grid, hyperband, random" in done.stdout
    assert "openml, people, pima" in done.stdout


def test_the_configuration_can_be_shown_without_loading_anything_heavy(workplace):
    out, _ = workplace.run("--cfg", "job", "data=breast_cancer")
    assert "name: breast_cancer" in out


def test_a_search_on_a_scikit_learn_model_does_not_load_tensorflow(workplace):
    code = (
        "import sys; from trialbook.__main__ import main\n"
        f"assert main({[*QUICK, 'budget.max_trials=1']!r}) == 0\n"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=workplace.folder, env=workplace.environment(), check=True)


def test_a_second_search_meets_the_champion(workplace):
    workplace.run(*QUICK, "budget.max_trials=2")
    out, _ = workplace.run(*QUICK)
    first = workplace.client.get_model_version("breast_cancer", "1")
    second = workplace.client.get_model_version("breast_cancer", "2")
    scores = [float(v.tags["trialbook.test_score"]) for v in (first, second)]
    assert scores[1] > scores[0]
    assert second.aliases == ["champion"]
    assert "It beats the champion, version 1" in out
    out, _ = workplace.run(*QUICK)
    third = workplace.client.get_model_version("breast_cancer", "3")
    assert third.aliases == ["challenger"]
    assert "does not beat the champion, version 2" in out
    assert workplace.client.get_model_version_by_alias("breast_cancer", "champion").version == second.version


def test_a_champion_tested_on_other_rows_is_scored_on_these(workplace):
    workplace.run(*QUICK, "budget.max_trials=1")
    out, _ = workplace.run(*QUICK, "data.test_seed=5", "budget.max_trials=1", "objective.metric=roc_auc")
    assert "which has roc_auc 0.9" in out


def test_only_the_best_models_are_kept(workplace):
    workplace.run(*QUICK, "tracking.models=best:2")
    kept = [t for t in workplace.runs("trial") if live_models(workplace, t)]
    ranked = sorted(workplace.runs("trial"), key=lambda t: -t.data.metrics["objective"])
    assert len(kept) == 2
    assert min(t.data.metrics["objective"] for t in kept) == ranked[1].data.metrics["objective"]
    folders = [p for p in (workplace.folder / "mlruns").glob("*/models/*/artifacts") if any(p.iterdir())]
    assert len(folders) == 3  # two trials' and the retrained one


def test_no_models_are_kept_and_nothing_is_registered_when_so_asked(workplace):
    workplace.run(*QUICK, "tracking.models=none", "promote.enabled=false", "budget.max_trials=2")
    assert not any(live_models(workplace, t) for t in workplace.runs("trial"))
    assert workplace.runs("retrain") == []
    assert list(workplace.client.search_registered_models()) == []


def test_a_dry_run_lists_the_first_trials_and_runs_nothing(workplace):
    out, _ = workplace.run(*QUICK, "dry_run=true")
    assert "12 trials" in out
    assert "000 C=0.001 class_weight=None" in out
    assert "009 " in out
    assert "010 " not in out
    assert not (workplace.folder / "mlflow.db").exists()


def test_a_time_budget_ends_the_search_cleanly_with_its_final_step(workplace):
    words = ("data=breast_cancer", "model=logistic_regression", "search=sklearn/random", "search.n_iter=100000")
    out, _ = workplace.run(*words, "budget.max_time=6", "budget.reserve=0.5")
    search = workplace.search_run()
    assert search.info.status == "FINISHED"
    assert 1 <= search.data.metrics["trials_complete"] < 1000
    assert "max_time=6 s reached" in search.data.tags["mlflow.note.content"]
    assert "Registered breast_cancer version 1 as champion" in out


def test_a_model_of_ones_own_needs_no_packaging(workplace):
    (workplace.folder / "my_models.py").write_text(
        "from sklearn.tree import DecisionTreeClassifier\n"
        "def build(max_depth=3):\n"
        "    return DecisionTreeClassifier(max_depth=max_depth, random_state=0)\n"
    )
    folder = workplace.folder / "my_conf" / "model"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(
        "estimator:\n  _target_: my_models.build\nspace:\n  max_depth: {values: [1, 2, 3]}\n"
    )
    words = ["--config-dir=my_conf", "model=mine", "search=sklearn/grid", "data=breast_cancer"]
    code = "import sys; sys.path.remove(''); from trialbook.__main__ import main; sys.exit(main(sys.argv[1:]))"
    environment = workplace.environment()
    environment["PYTHONPATH"] = environment["PYTHONPATH"].split(os.pathsep)[0]  # as for an installed console script
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=workplace.folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert [t.data.params["max_depth"] for t in workplace.runs("trial")] == ["1", "2", "3"]


def live_models(workplace, trial):
    from mlflow.exceptions import MlflowException

    found = []
    for output in trial.outputs.model_outputs:
        try:
            found.append(workplace.client.get_logged_model(output.model_id))
        except MlflowException:
            continue
    return found


def test_under_mlflow_run_the_run_it_made_is_the_search_run(workplace):
    words = ("data=breast_cancer", "search=sklearn/grid", "model=logistic_regression", "model.space.C.num=2")
    options = ("--experiment-name", "theirs")
    code, output = workplace.mlflow_run(*words, "overrides=seed=3 budget.max_trials=3", options=options)
    assert code == 0, output
    search = workplace.search_run()
    assert search.info.status == "FINISHED"
    assert workplace.client.get_experiment(search.info.experiment_id).name == "theirs"
    assert search.data.tags["mlflow.project.entryPoint"] == "main"
    assert search.data.params["search"] == "sklearn/grid"
    assert search.data.tags["best_C"] == "0.001"
    assert len(workplace.runs("trial")) == 3
    assert {t.info.experiment_id for t in workplace.runs("trial")} == {search.info.experiment_id}
    everything = workplace.client.search_runs([search.info.experiment_id])
    assert len(everything) == 1 + 3 + 1
    assert "random_state: 3" in workplace.text(search, "config.yaml")


def test_under_mlflow_run_a_wrong_request_fails_the_run(workplace):
    code, output = workplace.mlflow_run("search=sklearn/grit")
    assert code != 0
    assert "search=sklearn/grit is not available" in output


def test_a_folder_of_ones_own_is_laid_over_the_configurations(workplace):
    folder = workplace.folder / "conf" / "model"
    folder.mkdir(parents=True)
    (folder / "mlp.yaml").write_text(
        "estimator: {_target_: sklearn.tree.DecisionTreeClassifier}\nspace: {max_depth: {values: [1, 2]}}\n"
    )
    out, _ = workplace.run("--config-dir", str(folder.parent), "--cfg", "job", "model=mlp")
    assert "DecisionTreeClassifier" in out
    assert "KerasClassifier" not in out
    out, _ = workplace.run("--config-dir", str(folder.parent), "--cfg", "job", "model=svm")
    assert "sklearn.svm.SVC" in out
