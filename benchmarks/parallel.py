"""What workers bring: the same search with trials in one process and in two, against the clock.

Run it with `python benchmarks/parallel.py` on a machine with two idle cores; it takes about five minutes. The search
is a grid over a Keras net on scikit-learn's digits, without the final step. Its time is taken from the first trial's
start to the last one's end, as MLflow has them; what comes before is start-up, shown apart. The trials' scores must be
the same.
"""

from __future__ import annotations

import argparse
import os
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
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--executor", default="processes", choices=["processes", "dask"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        serial = Timed.of(Path(folder, "serial"), given.epochs, [])
        print(f"one process:  {serial.told()}")
        workers = [f"executor={given.executor}", f"executor.workers={given.workers}"]
        parallel = Timed.of(Path(folder, "parallel"), given.epochs, workers)
        print(f"{given.workers} workers:    {parallel.told()}")
    print(f"speed:        {serial.seconds / parallel.seconds:.2f} times that of one process")
    print(f"same scores:  {serial.scores == parallel.scores}")


@dataclass
class Timed:
    """A search that has been run: its trials' scores, and its seconds of start-up and of trials."""

    scores: dict[str, float]
    startup: float
    seconds: float

    @classmethod
    def of(cls, folder: Path, epochs: int, overrides: list[str]) -> Timed:
        """Run the search in a new folder."""
        folder.mkdir()
        uri = f"sqlite:///{folder}/mlflow.db"
        search = ["search=sklearn/grid", "model=mlp", "data=digits", f"model.estimator.steps.1.1.epochs={epochs}"]
        command = [
            sys.executable,
            "-m",
            "trialbook",
            *search,
            "promote.enabled=false",
            f"tracking.uri={uri}",
            *overrides,
        ]
        environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
        started = time.time()
        subprocess.run([*command, *overrides], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
        client = MlflowClient(uri)
        (experiment,) = (e.experiment_id for e in client.search_experiments() if e.name == "trialbook")
        trials = client.search_runs([experiment], "tags.`trialbook.kind` = 'trial'")
        first, last = min(t.info.start_time for t in trials) / 1000, max(t.info.end_time for t in trials) / 1000
        scores = {str(t.data.params): t.data.metrics["objective"] for t in trials}
        return cls(scores, first - started, last - first)

    def told(self) -> str:
        """In words."""
        n = len(self.scores)
        rate = 60 * n / self.seconds
        return f"start-up {self.startup:5.1f} s, {n} trials in {self.seconds:6.1f} s, {rate:.1f} a minute"


if __name__ == "__main__":
    main()
