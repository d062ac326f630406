"""What workers bring: the same search with trials in one process and in two, against the clock.

Run it with `python benchmarks/parallel.py` on a machine with two idle cores; it takes about twelve minutes. The search
is a grid over a Keras net on scikit-learn's digits, without the final step. Its time is taken from the first trial's
start to the last one's end, as MLflow has them; what comes before is start-up, shown apart. The trials' scores must be
the same. The two take turns. Seconds of the processor are shown too: if a turn takes more of them for the same work, it
was the machine that was slower.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient

SOURCE = Path(__file__).parents[1] / "src"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--executor", default="processes", choices=["processes", "dask"])
    given = parser.parse_args()
    workers = [f"executor={given.executor}", f"executor.workers={given.workers}"]
    ratios = []
    for _ in range(given.rounds):
        serial, parallel = Timed.of(given.epochs, []), Timed.of(given.epochs, workers)
        ratios.append(serial.seconds / parallel.seconds)
        print(f"one process:  {serial.told()}")
        print(f"{given.workers} workers:    {parallel.told()}")
        print(
            f"speed:        {ratios[-1]:.2f} times that of one process; same scores: {serial.scores == parallel.scores}"
        )
    print(f"median:       {statistics.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}")


@dataclass
class Timed:
    """A search that has been run: its trials' scores, and its seconds of start-up, of trials, and of the processor."""

    scores: dict[str, float]
    startup: float
    seconds: float
    processor: float

    @classmethod
    def of(cls, epochs: int, overrides: list[str]) -> Timed:
        """Run the search in a new folder."""
        search = ["search=sklearn/grid", "model=mlp", "model.space.units.num=5", "data=digits", "promote.enabled=false"]
        search.append(f"model.estimator.steps.1.1.epochs={epochs}")
        environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
        with tempfile.TemporaryDirectory() as folder:
            uri = f"sqlite:///{folder}/mlflow.db"
            command = [sys.executable, "-m", "trialbook", *search, f"tracking.uri={uri}", *overrides]
            started, before = time.time(), processor_seconds()
            subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
            processor = processor_seconds() - before
            client = MlflowClient(uri)
            (experiment,) = (e.experiment_id for e in client.search_experiments() if e.name == "trialbook")
            trials = client.search_runs([experiment], "tags.`trialbook.kind` = 'trial'")
        first, last = min(t.info.start_time for t in trials) / 1000, max(t.info.end_time for t in trials) / 1000
        scores = {str(t.data.params): t.data.metrics["objective"] for t in trials}
        return cls(scores, first - started, last - first, processor)

    def told(self) -> str:
        """In words."""
        n = len(self.scores)
        spent = f"{self.processor:.0f} s of the processor, start-up included"
        return f"start-up {self.startup:5.1f} s, {n} trials in {self.seconds:6.1f} s, {spent}"


def processor_seconds() -> float:
    """What ended child processes have taken of the processor."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
