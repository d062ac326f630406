"""What training by whole epochs brings: the default `mlp` on scikit-learn's digits, by Keras's `fit` and by ours.

Run it with `python benchmarks/epochs.py`; it takes about a minute. The two take turns in one process, each time with a
new net from the same seed, and then with one net that is kept, as the folds of a trial keep it. Histories and weights
must be equal.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from sklearn.datasets import load_digits

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from trialbook.epochs import Epochs
from trialbook.models import mlp

ROWS = 1437


class Nets:
    """Nets trained by Keras, or by whole epochs, on the same rows."""

    def __init__(self, options: dict[str, Any], *, by_epochs: bool) -> None:
        self.options = options
        self.by_epochs = by_epochs
        self.new()

    def new(self) -> None:
        """Build another net from the same seed."""
        keras.utils.set_random_seed(1)
        self.model = mlp((64,), 10)
        self.model.optimizer.build(self.model.trainable_variables)
        self.epochs = Epochs(self.model)

    def fit(self, epochs: int) -> dict[str, list[float]]:
        """Train, and return the history."""
        keras.utils.set_random_seed(1)
        options = self.options | {"epochs": epochs}
        history = self.epochs.fit(self.model.fit, options) if self.by_epochs else self.model.fit(**options)
        return dict(history.history)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--epochs", type=int, default=10)
    given = parser.parse_args()
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype("float32")
    options = {"x": X[:ROWS], "y": y[:ROWS], "validation_data": (X[ROWS:], y[ROWS:]), "batch_size": 32, "verbose": 0}
    pair = [Nets(options, by_epochs=False), Nets(options, by_epochs=True)]
    histories = [nets.fit(given.epochs) for nets in pair]
    weights = [nets.model.get_weights() for nets in pair]
    equal = all(np.array_equal(a, b) for a, b in zip(*weights, strict=True))
    print(f"equal histories: {histories[0] == histories[1]}, equal weights: {equal}")
    told("a new net", pair, given.repeats, lambda nets: nets.new(), given.epochs)
    told("a new net, its first epoch", pair, given.repeats, lambda nets: nets.new(), 1)
    told("a net that is kept", pair, given.repeats, lambda nets: None, given.epochs)


def told(what: str, pair: list[Nets], repeats: int, prepare: Callable[[Nets], None], epochs: int) -> None:
    """Time the fits of both in turns, and print their medians."""
    seconds: list[list[float]] = [[], []]
    for _ in range(repeats):
        for nets, times in zip(pair, seconds, strict=True):
            prepare(nets)
            started = time.perf_counter()
            nets.fit(epochs)
            times.append(time.perf_counter() - started)
    keras_fit, ours = (statistics.median(times) for times in seconds)
    ratio = f"{keras_fit / ours:.1f} times as fast"
    print(f"{what}, {epochs} epochs: {keras_fit:.3f} s by Keras, {ours:.3f} s by whole epochs: {ratio}")


if __name__ == "__main__":
    main()
