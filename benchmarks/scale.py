"""What a trial costs beside its training, from ten trials to ten thousand: search, tracking and loop apart.

Run it with `python benchmarks/scale.py`; it takes about ten minutes. The objective is instant and no model is saved, so
that what remains is Trialbook's own: the search's `ask` and `tell`, the records of runs in a SQLite store, and the loop
between them. `store` is the part of tracking that MLflow's own calls take; `over` is all that comes on top of these.
What a store does at its first trials only (its database's statements are compiled) is done before the clock starts.
Keras Tuner's searches are shown as far as they go in reasonable time: their oracles look at every earlier trial.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras_tuner

from trialbook import store
from trialbook.envelope import Envelope
from trialbook.executors import SerialExecutor
from trialbook.journal import Models, SearchRun
from trialbook.search import loop
from trialbook.search.keras_tuner import OracleSearch
from trialbook.search.sklearn import GridSearch, RandomSearch
from trialbook.space import Space
from trialbook.trial import Record, Result, Search, State, Trial

SPACE = Space.parse({name: {"low": 1, "high": 22} for name in ("a", "b", "c")})


def oracle(kind: Callable[..., Any]) -> Callable[[int], Search]:
    """What makes a search of Keras Tuner's for a number of trials."""
    return lambda n: OracleSearch(SPACE, oracle=functools.partial(kind, max_trials=n), seed=1)


SEARCHES: dict[str, tuple[Callable[[int], Search], tuple[int, ...]]] = {
    "sklearn/grid": (lambda n: GridSearch(SPACE), (10, 1000, 10000)),
    "sklearn/random": (lambda n: RandomSearch(SPACE, n_iter=n, seed=1), (10, 1000, 10000)),
    "keras_tuner/random": (oracle(keras_tuner.oracles.RandomSearchOracle), (10, 100, 1000)),
    "keras_tuner/bayesian": (oracle(keras_tuner.oracles.BayesianOptimizationOracle), (10, 30, 60)),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=10000, help="the most trials of a search")
    most = parser.parse_args().most
    print(f"{'milliseconds a trial':24}{'trials':>8}{'search':>9}{'tracking':>10}{'store':>8}{'loop':>8}{'over':>8}")
    for name, (make, sizes) in SEARCHES.items():
        costs = []
        measured(make, 3)  # whatever is loaded or compiled once
        for n in (n for n in sizes if n <= most):
            # Ten trials are over in a moment, so they are run several times.
            costs.append(mean([measured(make, n) for _ in range(5 if n == 10 else 1)]))
            print(f"{name:24}{n:8d}{costs[-1].told()}")
        totals = [cost.total for cost in costs]
        print(f"{name:24}largest over smallest: {max(totals) / min(totals):.2f}")


@dataclass(frozen=True)
class Cost:
    """Milliseconds a trial."""

    search: float
    tracking: float
    store: float
    loop: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.search + self.tracking + self.loop

    def told(self) -> str:
        """As the rest of a line."""
        over = self.total - self.store
        return f"{self.search:9.2f}{self.tracking:10.2f}{self.store:8.2f}{self.loop:8.2f}{over:8.2f}"


def mean(costs: Sequence[Cost]) -> Cost:
    """The mean of several searches of one size."""
    n = len(costs)
    return Cost(*(sum(getattr(cost, name) for cost in costs) / n for name in ("search", "tracking", "store", "loop")))


def measured(make: Callable[[int], Search], n: int) -> Cost:
    """Run a search of `n` trials in a new store."""
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        journal = TimedJournal(tracked(f"sqlite:///{folder}/mlflow.db", watch), watch)
        started = time.perf_counter()
        search = TimedSearch(make(n), watch)
        watch.search += time.perf_counter() - started  # scikit-learn draws all points at once
        outcome = loop.run(
            search,
            SerialExecutor(),
            lambda trial, log: journal.time(lambda: scored(trial, log)),
            journal,
            budget=loop.Budget(max_trials=n),
        )
        total = time.perf_counter() - started
    assert len(outcome.records) == n
    seconds = {"search": watch.search, "tracking": watch.tracking, "store": watch.store}
    return Cost(
        **{name: 1000 * s / n for name, s in seconds.items()}, loop=1000 * (total - watch.search - watch.tracking) / n
    )


def scored(trial: Trial, log: Any) -> Result:
    """An instant objective."""
    value = sum(trial.params.values()) / 66
    result = Result(State.COMPLETE, objective=value, objective_std=0.0, fold_scores=(value,))
    log.finish(result)
    return result


@dataclass
class Watch:
    """Seconds so far."""

    search: float = 0.0
    tracking: float = 0.0
    store: float = 0.0


def tracked(uri: str, watch: Watch) -> SearchRun:
    """A search run whose store's calls are timed."""
    where = store.Store(uri)
    client = where.open()
    client.__dict__["_client"] = client.__dict__["_target"] = TimedCalls(client.__dict__["_client"], watch)
    experiment_id = client.create_experiment("scale")

    def search_run() -> SearchRun:
        run = client.create_run(experiment_id, tags={})
        return SearchRun(
            where,
            run.info.run_id,
            experiment_id,
            tags={},
            envelope=Envelope(None, {}, {}),
            maximize=True,
            models=Models(0),
        )

    loop.run(GridSearch(SPACE), SerialExecutor(), scored, search_run(), budget=loop.Budget(max_trials=5))
    counted = search_run()
    watch.store = 0.0  # from here on
    return counted


class TimedCalls:
    """An MLflow client whose calls are timed."""

    def __init__(self, client: Any, watch: Watch) -> None:
        self._client = client
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        """A timed method."""
        method = getattr(self._client, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                self._watch.store += time.perf_counter() - started

        return timed


@dataclass
class TimedSearch:
    """A search whose answers are timed."""

    search: Search
    watch: Watch

    @property
    def total(self) -> int | None:
        """As the search says."""
        return self.search.total

    def ask(self) -> Trial | None:
        """As the search says."""
        return self._time(self.search.ask)

    def tell(self, trial: Trial, result: Result) -> None:
        """Pass it on."""
        self._time(lambda: self.search.tell(trial, result))

    def _time(self, call: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        try:
            return call()
        finally:
            self.watch.search += time.perf_counter() - started


@dataclass
class TimedJournal:
    """A journal whose entries are timed."""

    journal: SearchRun
    watch: Watch

    def steps(self) -> Any:
        """There was no earlier run."""
        return ()

    def recall(self, trial: Trial) -> None:
        """Nor did any trial end in it."""

    def open(self, trial: Trial, attempt: int) -> Any:
        """Open the trial's run."""
        return self.time(lambda: self.journal.open(trial, attempt))

    def retry(self, trial: Trial, log: Any, result: Result) -> None:
        """No trial is tried again here."""

    def close(self, trial: Trial, log: Any, result: Result) -> Record:
        """Close the trial's run."""
        return self.time(lambda: self.journal.close(trial, log, result))

    def time(self, call: Callable[[], Any]) -> Any:
        """Make a call, and add its time to that of tracking."""
        started = time.perf_counter()
        try:
            return call()
        finally:
            self.watch.tracking += time.perf_counter() - started


if __name__ == "__main__":
    main()
