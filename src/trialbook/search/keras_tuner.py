"""Keras Tuner's oracles as ask and tell.

The oracle is a suggestion engine in a scratch folder, used by one thread. Its own persistence, retries and display
are not used: what is known about a trial is in MLflow, and a failure is told to the oracle once.
"""

from __future__ import annotations

import math
import random
import shutil
import sys
import tempfile
import warnings
import weakref
from collections.abc import Callable
from typing import Any

from sklearn.exceptions import ConvergenceWarning

from trialbook.errors import RequestError, SearchError, SpaceError
from trialbook.noise import without_native_notes
from trialbook.search.hyperparameters import BuilderSpace, declare, declare_grid, decode
from trialbook.space import Dimension, Space
from trialbook.trial import Result, State, Trial

with without_native_notes():
    import keras_tuner
    from keras_tuner.engine.base_tuner import BaseTuner

_PREFIX = "tuner/"
_COUNT_LIMIT = 1000

# An oracle that draws at random gives up after 20 repetitions in a row: with this many points for each trial, never.
_ROOMY = 10


class OracleSearch:
    """Trials proposed by any Keras Tuner oracle over a declared space.

    Args:
        oracle: The oracle's class with its own arguments bound, for example
            `functools.partial(keras_tuner.oracles.HyperbandOracle, max_epochs=10)`.
        space: The declared space.
        seed: Seed of the oracle, None for another one every time. Keras Tuner takes 0 for "no seed", so 0 is handed
            on as the largest 32-bit integer.
        metric: Name of the objective, for the oracle's own messages.
        maximize: Direction of the objective.

    Raises:
        RequestError: If the oracle does not take its arguments.
        SpaceError: If it cannot search the space.
    """

    def __init__(
        self,
        space: Space,
        *,
        oracle: Callable[..., keras_tuner.Oracle],
        seed: int | None = None,
        metric: str = "objective",
        maximize: bool = True,
    ) -> None:
        self._space = space
        self._metric = metric
        self._objective = keras_tuner.Objective(metric, "max" if maximize else "min")
        # Without one it is drawn here: the oracle and its twin, by which trials are counted, must have the same.
        self._seed = (seed or 2**31 - 1) if seed is not None else random.SystemRandom().randrange(1, 2**31)
        self._make = oracle
        self._numbers: dict[str, int] = {}
        self._trials: dict[int, Any] = {}
        grid = issubclass(_class_of(oracle), keras_tuner.oracles.GridSearchOracle)
        self._hyperparameters = declare_grid(space) if grid else declare(space)
        self._scratch = tempfile.mkdtemp(prefix="trialbook-oracle-")
        weakref.finalize(self, shutil.rmtree, self._scratch, ignore_errors=True)
        self._oracle = self._new_oracle("search")
        self._total: int | None = None
        if self.trains_in_epochs and "epochs" in space.names:
            raise SpaceError("space.epochs cannot be searched by Hyperband, which hands out the epochs; remove it.")

    @property
    def trains_in_epochs(self) -> bool:
        """Whether the oracle hands out training time, so that only a model trained in epochs will do."""
        return isinstance(self._oracle, keras_tuner.oracles.HyperbandOracle)

    @property
    def total(self) -> int | None:
        """How many trials the oracle proposes if none fails; None where that cannot be known."""
        if self._total is None:
            self._total = self._find_total()
        return self._total

    def ask(self) -> Trial | None:
        """The oracle's next trial, None while it waits for results and when it has stopped."""
        number = len(self._trials)
        # One tuner id has one trial at a time, so each ask has its own.
        with warnings.catch_warnings():
            # The Gaussian process guesses on however few trials there are, which is not the user's to mend.
            warnings.simplefilter("ignore", ConvergenceWarning)
            asked = _guarded(self._oracle.create_trial, f"ask{number}")
        if asked.status != "RUNNING":
            return None
        self._numbers[asked.trial_id] = number
        self._trials[number] = asked
        values = asked.hyperparameters.values
        tuner = {name.removeprefix(_PREFIX): value for name, value in values.items() if name.startswith(_PREFIX)}
        continues = tuner.pop("trial_id", None)
        return Trial(
            number,
            decode(self._space, values),
            epochs=tuner.pop("epochs", None),
            initial_epoch=tuner.pop("initial_epoch", 0),
            continues=None if continues is None else self._numbers[continues],
            # A trial of a bracket's last round is continued by none.
            keep_state=tuner.get("round", 0) < tuner.get("bracket", 0),
            details=tuner,
        )

    def tell(self, trial: Trial, result: Result) -> None:
        """Tell the oracle a score, or that the trial failed."""
        asked = self._trials[trial.number]
        if result.state is State.COMPLETE:
            metrics = {self._metric: result.objective}
            _guarded(self._oracle.update_trial, asked.trial_id, metrics, step=result.best_epoch or 0)
            asked.status = "COMPLETED"
        else:
            asked.status = "FAILED"
            asked.message = result.reason
        _guarded(self._oracle.end_trial, asked)

    def _new_oracle(self, name: str) -> keras_tuner.Oracle:
        try:
            oracle = self._make(
                objective=self._objective,
                seed=self._seed,
                hyperparameters=self._hyperparameters.copy(),
                # How many failures end a search is the loop's to say, and the oracle would say it by never
                # releasing its lock again.
                max_consecutive_failed_trials=sys.maxsize,
            )
        except (TypeError, ValueError) as error:
            raise RequestError(f"search.oracle cannot be made: {error}") from error
        oracle.verbose = 0
        BaseTuner(oracle, directory=self._scratch, project_name=name, overwrite=True)
        return oracle

    def _find_total(self) -> int | None:
        if isinstance(self._oracle, keras_tuner.oracles.HyperbandOracle):
            return self._count()
        limit: int | None = self._oracle.max_trials
        if isinstance(self._oracle, keras_tuner.oracles.GridSearchOracle):
            points = self._grid_points()
            return points if points is None or limit is None else min(points, limit)
        if limit is None or _size(self._space) >= _ROOMY * limit:
            return limit
        # A small space may be exhausted first. Then a random search can be counted; but when a Bayesian one stops
        # drawing at random, which is when it stops caring, depends on how many trials fail.
        return self._count() if isinstance(self._oracle, keras_tuner.oracles.RandomSearchOracle) else None

    def _grid_points(self) -> int | None:
        hp = self._hyperparameters.space
        if not any(h.conditions for h in hp):
            # Keras Tuner starts from the default even where it is not one of the values.
            return math.prod(len({h.default, *h.values}) for h in hp)
        if isinstance(self._space, BuilderSpace):
            return self._count()
        return sum(math.prod(len(values) for values in grid.values()) for grid in self._space.grid())

    def _count(self) -> int | None:
        """How many trials a twin of the oracle proposes before it stops, if that is soon."""
        oracle = self._new_oracle("count")
        for number in range(_COUNT_LIMIT):
            asked = oracle.create_trial("count")
            if asked.status != "RUNNING":
                return number
            # Distinct scores, so that halving has something to choose by.
            oracle.update_trial(asked.trial_id, {self._metric: number / _COUNT_LIMIT})
            asked.status = "COMPLETED"
            oracle.end_trial(asked)
        return None


def _class_of(oracle: Callable[..., keras_tuner.Oracle]) -> type:
    found = getattr(oracle, "func", oracle)  # inside a partial
    return found if isinstance(found, type) else object


def _size(space: Space) -> float:
    """How many points there are to draw from; 0 if some of them are drawn more often than others."""
    if any(d.when for d in space.dimensions):
        return 0
    return math.prod(_choices(d) for d in space.dimensions)


def _choices(d: Dimension) -> float:
    if d.values:
        return len(d.values)
    if d.log:
        return 1 if d.integer else math.inf  # few of the larger integers are as likely as the smaller ones
    if d.step is not None:
        return (d.high - d.low) // d.step + 1
    return d.high - d.low + 1 if d.integer else math.inf


def _guarded(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call the oracle; after an exception inside it, its lock is lost and so is the search."""
    try:
        return call(*args, **kwargs)
    except Exception as error:
        raise SearchError(f"Keras Tuner's oracle failed in {call.__name__}: {error}") from error
