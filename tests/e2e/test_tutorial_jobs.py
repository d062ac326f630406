"""The four tutorial jobs, each as its command in a subprocess; then the runs it left are read.

Where docs/tutorials.md has the job in Python, that is run too, and must come to the same.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

pytestmark = pytest.mark.exhaustive

ROOT = Path(__file__).resolve().parents[2]
PIMA = ROOT.parent / "shared" / "data" / "pima-indians-diabetes.csv"

needs_pima = pytest.mark.skipif(not PIMA.exists(), reason=f"{PIMA} is not there")
on_pima = ["data=pima", f"data.path={PIMA}"]


class Job:
    """A finished job: what it printed, and its runs."""

    def __init__(self, folder, *overrides):
        store = f"sqlite:///{folder / 'mlflow.db'}"
        command = [sys.executable, "-m", "trialbook", *overrides]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "MLFLOW_TRACKING_URI": store}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1200)
        assert done.returncode == 0, done.stdout + done.stderr
        self.printed = done.stdout
        client = MlflowClient(store)
        experiment = client.get_experiment_by_name("trialbook")
        runs = client.search_runs([experiment.experiment_id], max_results=1000)
        self.runs = {run.info.run_id: run for run in runs}
        self.search = self.of_kind("search")[0]
        self.retrain = self.of_kind("retrain")[0]
        self.trials = sorted(self.of_kind("trial"), key=lambda run: int(run.data.tags["trialbook.trial"]))
        self.versions = client.search_model_versions()

    def of_kind(self, kind):
        return [run for run in self.runs.values() if run.data.tags["trialbook.kind"] == kind]

    def table(self):
        """The rows of the printed table, by its headings."""
        lines = self.printed.splitlines()
        start = next(i for i, line in enumerate(lines) if line.split()[:2] == ["rank", "trial"])
        headings = lines[start].split()
        rows = []
        for line in lines[start + 2 :]:
            if not line.strip():
                return rows
            rows.append(dict(zip(headings, line.split(), strict=True)))
        raise AssertionError("the table has no end")


def check_table(job, metric, folds):
    """Mean, standard deviation and rank of every candidate, best first."""
    table = job.table()
    assert len(table) == len(job.trials)
    assert [int(row["rank"]) for row in table] == sorted(int(row["rank"]) for row in table)
    means = [float(row[metric]) for row in table]
    assert means == sorted(means, reverse=True)
    for row in table:
        run = job.trials[int(row["trial"])]
        assert float(row[metric]) == pytest.approx(run.data.metrics["objective"], abs=1e-4)
        assert float(row["±"]) == pytest.approx(run.data.metrics["objective_std"], abs=1e-4)
        assert int(row["rank"]) == 1 + sum(
            other.data.metrics["objective"] > run.data.metrics["objective"] for other in job.trials
        )
        assert folds == 1 or run.data.metrics["objective_std"] > 0


def check_finished(job):
    assert all(run.info.status == "FINISHED" for run in job.runs.values())
    assert all(trial.data.tags["mlflow.parentRunId"] == job.search.info.run_id for trial in job.trials)
    best = job.runs[job.search.data.tags["trialbook.best_run"]]
    assert best.data.metrics["objective"] == max(trial.data.metrics["objective"] for trial in job.trials)
    assert {name: value for name, value in job.retrain.data.params.items() if name in best.data.params} == (
        best.data.params
    )
    assert [version.run_id for version in job.versions] == [job.retrain.info.run_id]


def check_documented(job, folder, name):
    """What docs/tutorials.md shows for a job: its command, and Python that tries and scores the same."""
    shared, *sections = re.split(r"^## ", (ROOT / "docs" / "tutorials.md").read_text(), flags=re.MULTILINE)
    (section,) = [section for section in sections if section.startswith(f"{name}\n")]
    assert blocks(section, "bash") == [f"trialbook experiment={name}\n"]
    (folder / "python").mkdir()
    code = [*blocks(shared, "python"), *blocks(section, "python"), "result.leaderboard.to_csv('leaderboard.csv')\n"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    done = subprocess.run(
        [sys.executable, "-c", "".join(code)],
        cwd=folder / "python",
        env=environment | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    board = pd.read_csv(folder / "python" / "leaderboard.csv").set_index("trial")
    assert len(board) == len(job.trials)
    for number, trial in enumerate(job.trials):
        row = board.loc[number]
        tried = {key.removeprefix("param_"): str(row[key]) for key in board if key.startswith("param_")}
        assert tried.items() <= trial.data.params.items()
        assert row["mean_test_score"] == pytest.approx(trial.data.metrics["objective"])


def blocks(section, language):
    """The code blocks of a language in a part of a Markdown page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)


def params(job, *names):
    return [tuple(trial.data.params[name] for name in names) for trial in job.trials]


HIDDEN = [(activation, units) for activation in ("relu", "sigmoid") for units in ("50", "100", "200")]


@pytest.mark.parametrize("data", [[], pytest.param(on_pima, marks=needs_pima)], ids=["embedded", "pima"])
def test_batch_size_grid(tmp_path, data):
    job = Job(tmp_path, "experiment=batch_size_grid", *data)
    assert params(job, "batch_size") == [("8",), ("16",), ("32",), ("64",), ("128",)]
    assert set(params(job, "hidden_units", "activation")) == {("100", "relu")}
    check_table(job, "accuracy", folds=3)
    check_finished(job)
    assert min(trial.data.metrics["objective"] for trial in job.trials) > (0.6 if data else 0.9)
    if not data:
        check_documented(job, tmp_path, "batch_size_grid")


@pytest.mark.parametrize("data", [[], pytest.param(on_pima, marks=needs_pima)], ids=["embedded", "pima"])
def test_hidden_units_grid(tmp_path, data):
    job = Job(tmp_path, "experiment=hidden_units_grid", *data)
    assert params(job, "activation", "hidden_units") == HIDDEN
    assert all(trial.data.tags["trialbook.best_epoch"] == "10" for trial in job.trials)
    check_table(job, "accuracy", folds=3)
    check_finished(job)
    if not data:
        check_documented(job, tmp_path, "hidden_units_grid")


@pytest.mark.parametrize("data", [[], pytest.param(on_pima, marks=needs_pima)], ids=["embedded", "pima"])
def test_hidden_units_random(tmp_path, data):
    job = Job(tmp_path, "experiment=hidden_units_random", *data)
    assert sorted(params(job, "activation", "hidden_units")) == sorted(HIDDEN)
    # Ten draws were asked for, and there are six points.
    assert "only 6 points" in job.printed
    check_table(job, "accuracy", folds=3)
    check_finished(job)
    if not data:
        check_documented(job, tmp_path, "hidden_units_random")


def test_image_hyperband(tmp_path):
    job = Job(tmp_path, "experiment=image_hyperband")
    # Brackets of Hyperband for 10 epochs and a factor of 3, as Keras Tuner counts them.
    rungs = [(trial.data.tags["trialbook.bracket"], trial.data.tags["trialbook.epochs"]) for trial in job.trials]
    assert {rung: rungs.count(rung) for rung in rungs} == {
        ("2", "2"): 12,
        ("2", "4"): 4,
        ("2", "10"): 2,
        ("1", "4"): 6,
        ("1", "10"): 2,
        ("0", "10"): 4,
    }
    assert {units for (units,) in params(job, "units")} <= {str(units) for units in range(32, 513, 32)}
    assert {rate for (rate,) in params(job, "learning_rate")} <= {"0.01", "0.001", "0.0001"}
    check_table(job, "val_accuracy", folds=1)
    check_finished(job)
    continued = [trial for trial in job.trials if "trialbook.continues" in trial.data.tags]
    assert len(continued) == 8
    for trial in continued:
        earlier = job.trials[int(trial.data.tags["trialbook.continues"])]
        assert trial.data.params == earlier.data.params
        assert trial.data.tags["trialbook.initial_epoch"] == earlier.data.tags["trialbook.epochs"]
    assert job.retrain.data.metrics["test_accuracy"] > 0.9
    check_documented(job, tmp_path, "image_hyperband")
