"""What memory many small trials take: the driver and its workers together, trial by trial.

Run it with `python benchmarks/memory.py`; further words are overrides, for instance `executor=serial`, or
`executor=processes executor.trials_per_worker=null`. It runs a random search of Keras nets of one epoch on
scikit-learn's breast cancer data.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import psutil

SOURCE = Path(__file__).parents[1] / "src"
WARM_UP = 20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    given, overrides = parser.parse_known_args()
    peaks = peaks_of(given.trials, overrides or ["executor=processes", "executor.workers=2"])
    for start in range(0, len(peaks), WARM_UP):
        part = peaks[start : start + WARM_UP]
        print(f"trials {start + 1:4d} to {start + len(part):4d}: at most {max(part):6.0f} MB")
    print(f"growth after the first {WARM_UP}: {growth(peaks):+.1%}")


def growth(peaks: list[float]) -> float:
    """By how much the most memory taken after the warm-up exceeds the most taken in it, as a share."""
    return max(peaks[WARM_UP:]) / max(peaks[:WARM_UP]) - 1


def peaks_of(n_trials: int, overrides: list[str]) -> list[float]:
    """The most memory that the command and all below it took before each trial's end, in MB."""
    search = ["search=sklearn/random", f"search.n_iter={n_trials}", "model=mlp", "data=breast_cancer"]
    net = [
        "model.estimator.steps.1.1.epochs=1",
        "model.space.units={low: 8, high: 128, step: 1}",
        "promote.enabled=false",
    ]
    command = [sys.executable, "-m", "trialbook", *search, *net, "tracking.models=none", *overrides]
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
        with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
            watch = Watch(process.pid)
            watch.start()
            assert process.stdout is not None
            peaks = [watch.take() for line in process.stdout if line.startswith("[")]
    if process.returncode != 0:
        raise SystemExit("the search failed")
    return peaks


class Watch(threading.Thread):
    """Looks again and again at how much memory a process and all below it take."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process(pid)
        self._peak = 0.0
        self._enough = threading.Event()

    def run(self) -> None:
        """Look until the process has ended."""
        while not self._enough.wait(0.1):
            try:
                self._peak = max(self._peak, self._now())
            except psutil.NoSuchProcess:
                return

    def take(self) -> float:
        """The most memory seen since this was last asked, in MB."""
        peak, self._peak = max(self._peak, self._now()), 0.0
        return peak

    def _now(self) -> float:
        total = 0
        for process in [self._process, *self._process.children(recursive=True)]:
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return total / 2**20


if __name__ == "__main__":
    main()
