"""What tracking costs: every trial of the main job, once with tracking off and once with tracking on.

Run it with `python benchmarks/tracking_cost.py`; `--rounds` repeats the whole search, and further words are overrides,
for instance `model.whole_epochs=false`. Each trial runs twice in a row, the tracked one first in every other trial, so
that a machine that changes its speed changes both sides. Both train the same net on the same rows with the same seed
and keep the training state that later trials continue; one of them writes to MLflow (a SQLite store in a scratch
folder, a model for each trial), the other to memory, without a model. The process that writes rests while the trials
without tracking run, so that what it takes from a trial beside it is counted where it belongs.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from trialbook import app, store, tracking
from trialbook.__main__ import conf_dir
from trialbook.envelope import envelope_of
from trialbook.estimator import KeptNets, preload_keras
from trialbook.evaluate import Evaluator
from trialbook.executors import SerialExecutor
from trialbook.garbage import libraries_set_aside
from trialbook.journal import Models, SearchRun
from trialbook.plan import Plan
from trialbook.scribe import Scribe
from trialbook.search import loop
from trialbook.testing import MemoryJournal
from trialbook.trial import Record, Result, Trial

CHOICES = {"search": "keras_tuner/hyperband", "model": "mlp"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    given, overrides = parser.parse_known_args()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("config", overrides)
    preload_keras()
    on, off = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(given.rounds):
            pair = Pair.of(app.compose(cfg, CHOICES), Path(folder))
            with libraries_set_aside():
                rest = pair.run()
            print(f"still to be written after the last trial:  {1000 * rest:.0f} ms")
            on += pair.on
            off += pair.off
    costs = [1000 * (a - b) for a, b in zip(on, off, strict=True)]
    low, middle, high = statistics.quantiles(costs, n=4)
    print(f"trials measured:                         {len(costs)}")
    print(f"a trial with tracking off, median:       {1000 * statistics.median(off):.0f} ms")
    print(f"cost of tracking a trial, model and all: {middle:.0f} ms (quartiles {low:.0f} and {high:.0f})")
    print(f"median cost of the median trial:         {100 * middle / (1000 * statistics.median(on)):.1f} %")
    print(f"of the whole search's time:              {100 * (sum(on) - sum(off)) / sum(on):.1f} %")


class PausedScribe(Scribe):
    """Begins to write something only while the tracked trials run."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        self.goes_on.set()
        super().__init__()

    def _pass_on(self, what: str, *args: Any) -> Any:
        self.goes_on.wait()
        return super()._pass_on(what, *args)


@dataclass
class Pair:
    """A search whose every trial runs twice; as the loop's journal it opens and closes both records."""

    plan: Plan
    run_of_search: SearchRun
    tracked: PausedScribe
    untracked: MemoryJournal
    evaluator: Evaluator
    plain: Evaluator
    on: list[float] = field(default_factory=list)
    off: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, plan: Plan, folder: Path) -> Pair:
        """A pair that tracks in a store in `folder`."""
        evaluator = plan.evaluator(keep_models=True)
        # A side that found the net which the other has just built would not build it.
        plain = replace(evaluator, keep_models=False, nets=KeptNets())
        return cls(plan, open_run(plan, folder), PausedScribe(), MemoryJournal(), evaluator, plain)

    def run(self) -> float:
        """Run the search to its end; returns how many seconds of writing that leaves."""
        with self.tracked.writing(self.run_of_search):
            self.tracked.say("give_back").result()  # it has started
            loop.run(self.plan.search, SerialExecutor(), self.work, self, maximize=self.plan.objective.maximize)
            ended = time.perf_counter()
            self.tracked.goes_on.set()
        return time.perf_counter() - ended

    def steps(self) -> tuple[()]:
        """There was no earlier run."""
        return ()

    def recall(self, trial: Trial) -> None:
        """Nor did any trial end in it."""

    def open(self, trial: Trial, attempt: int = 1) -> Any:
        """Nothing yet: opening is part of what is timed."""
        del attempt
        return trial

    def retry(self, trial: Trial, log: Any, result: Result) -> None:
        """No trial is tried again here."""

    def work(self, trial: Trial, _: Any) -> Result:
        """Run a trial on both sides; the result is the tracked one's."""
        sides = [(self.tracked, self.evaluator, self.on), (self.untracked, self.plain, self.off)]
        if trial.number % 2:
            sides.reverse()
        results = {}
        for journal, evaluator, times in sides:
            if journal is self.tracked:
                self.tracked.goes_on.set()
            started = time.perf_counter()
            log = journal.open(trial)
            result = evaluator(trial, log)
            journal.close(trial, log, result)
            times.append(time.perf_counter() - started)
            self.tracked.goes_on.clear()
            results[id(journal)] = result
        return results[id(self.tracked)]

    def close(self, trial: Trial, log: Any, result: Result) -> Record:
        """Both sides have closed theirs."""
        return Record(trial, result)


def open_run(plan: Plan, folder: Path) -> SearchRun:
    """A search run in a store in `folder`."""
    uri = f"sqlite:///{folder}/mlflow.db"
    client = store.Store(uri).client
    if client.get_experiment_by_name("cost") is None:
        client.create_experiment("cost", artifact_location=(folder / "artifacts").as_uri())
    run_id, experiment_id = tracking.adopt_or_open(client, plan.title, {}, adopt=None, experiment="cost")
    return SearchRun(
        store.Store(uri),
        run_id,
        experiment_id,
        tags={},
        envelope=envelope_of(plan.estimator, plan.data.X, plan.data.y),
        maximize=plan.objective.maximize,
        models=Models.parse("all"),
    )


if __name__ == "__main__":
    main()
