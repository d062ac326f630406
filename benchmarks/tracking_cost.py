"""What tracking costs: the main job's search with tracking on and with tracking off, interleaved in one process.

Run it with `python benchmarks/tracking_cost.py`; `--rounds` says how many times each side runs. Both sides train the
same nets on the same rows with the same seed, and both keep the training state that later trials continue; only one
of them writes to MLflow (a SQLite store in a scratch folder, one model for each trial).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from hydra import compose, initialize_config_dir

from trialbook import app, saved_model, tracking
from trialbook.__main__ import conf_dir
from trialbook.estimator import preload_keras
from trialbook.executors import SerialExecutor
from trialbook.search import loop
from trialbook.testing import MemoryJournal

CHOICES = {"search": "keras_tuner/hyperband", "model": "mlp"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("config")
    preload_keras()
    off, on, trials = [], [], 0
    with tempfile.TemporaryDirectory() as folder:
        search(cfg, None)  # not counted: the first fit of a process pays for what the others find ready
        for _ in range(rounds):
            off.append(search(cfg, None)[0])
            seconds, trials = search(cfg, Path(folder))
            on.append(seconds)
    shares = [(a - b) / a for a, b in zip(on, off, strict=True)]
    costs = [1000 * (a - b) / trials for a, b in zip(on, off, strict=True)]
    print(f"trials a search:              {trials}")
    print(f"tracking off, seconds:        {spread(off)}")
    print(f"tracking on, seconds:         {spread(on)}")
    print(f"cost a trial, milliseconds:   {spread(costs)}")
    print(f"share of the search's time:   {spread([100 * s for s in shares])} %")


def search(cfg, folder: Path | None) -> tuple[float, int]:
    """Seconds and number of trials of one search; tracked in `folder`, or in memory without models."""
    plan = app.compose(cfg, CHOICES)
    evaluator = plan.evaluator(keep_models=folder is not None)
    journal = MemoryJournal() if folder is None else open_run(plan, folder)
    started = time.perf_counter()
    outcome = loop.run(plan.search, SerialExecutor(), evaluator, journal, maximize=plan.objective.maximize)
    return time.perf_counter() - started, len(outcome.records)


def open_run(plan, folder: Path) -> tracking.SearchRun:
    uri = f"sqlite:///{folder}/mlflow.db"
    client = tracking.client(uri)
    experiment = client.get_experiment_by_name("cost")
    if experiment is None:
        client.create_experiment("cost", artifact_location=(folder / "artifacts").as_uri())
    run_id, experiment_id = tracking.adopt_or_open(client, plan.title, {}, adopt=None, experiment="cost")
    return tracking.SearchRun(
        uri,
        run_id,
        experiment_id,
        tags={},
        envelope=saved_model.envelope_of(plan.estimator, plan.data.X, plan.data.y),
        maximize=plan.objective.maximize,
        models=tracking.Models.parse("all"),
    )


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} (from {min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
