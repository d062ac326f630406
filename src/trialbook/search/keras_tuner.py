"""Keras Tuner's oracles as ask and tell.

The oracle is a suggestion engine in a scratch folder, used by one thread. Its own persistence, retries and display
are not used: what is known about a trial is in MLflow, and a failure is told to the oracle once.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from trialbook.errors import RequestError, SearchError, SpaceError
from trialbook.noise import without_native_notes
from trialbook.space import Dimension, Space
from trialbook.trial import ParamValue, Result, Setting, State, Trial

with without_native_notes():
    import keras_tuner
    from keras_tuner.engine.base_tuner import BaseTuner

_PREFIX = "tuner/"
_COUNT_LIMIT = 1000


class OracleSearch:
    """Trials proposed by any Keras Tuner oracle over a declared space.

    Args:
        oracle: The oracle's class with its own arguments bound, for example
            `functools.partial(keras_tuner.oracles.HyperbandOracle, max_epochs=10)`.
        space: The declared space.
        seed: Seed of the oracle. Keras Tuner takes 0 for "no seed", so 0 is handed on as the largest 32-bit integer.
        metric: Name of the objective, for the oracle's own messages.
        maximize: Direction of the objective.
        setting: Not used; every search takes the same arguments.
    """

    def __init__(
        self,
        space: Space,
        *,
        oracle: Callable[..., keras_tuner.Oracle],
        seed: int | None = None,
        metric: str = "objective",
        maximize: bool = True,
        setting: Setting | None = None,
    ) -> None:
        del setting
        self._space = space
        self._metric = metric
        self._objective = keras_tuner.Objective(metric, "max" if maximize else "min")
        self._seed = (seed or 2**31 - 1) if seed is not None else None
        self._make = oracle
        self._numbers: dict[str, int] = {}
        self._trials: dict[int, Any] = {}
        self._scratch = tempfile.mkdtemp(prefix="trialbook-oracle-")
        weakref.finalize(self, shutil.rmtree, self._scratch, ignore_errors=True)
        self._oracle = self._new_oracle("search")
        self._total: int | None = None

    @property
    def trains_in_epochs(self) -> bool:
        """Whether the oracle hands out training time, so that only a model trained in epochs will do."""
        return isinstance(self._oracle, keras_tuner.oracles.HyperbandOracle)

    @property
    def total(self) -> int | None:
        """The oracle's `max_trials`; for Hyperband, the number of trials of all its brackets."""
        if self._total is None:
            self._total = self._count() if self.trains_in_epochs else self._oracle.max_trials
        return self._total

    def ask(self) -> Trial | None:
        """The oracle's next trial, None while it waits for results and when it has stopped."""
        number = len(self._trials)
        # One tuner id has one trial at a time, so each ask has its own.
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
                hyperparameters=declare(self._space),
                # How many failures end a search is the loop's to say, and the oracle would say it by never
                # releasing its lock again.
                max_consecutive_failed_trials=sys.maxsize,
            )
        except (TypeError, ValueError) as error:
            raise RequestError(f"search.oracle cannot be made: {error}") from error
        oracle.verbose = 0
        BaseTuner(oracle, directory=self._scratch, project_name=name, overwrite=True)
        return oracle

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


def declare(space: Space) -> keras_tuner.HyperParameters:
    """The space as Keras Tuner's `HyperParameters`, conditions as conditional scopes."""
    hp = keras_tuner.HyperParameters()
    dimensions = {d.name: d for d in space.dimensions}
    for d in space.dimensions:
        with contextlib.ExitStack() as scopes:
            for parent, allowed in d.when.items():
                codes = _codes(dimensions[parent])
                scopes.enter_context(hp.conditional_scope(parent, [codes[repr(value)] for value in allowed]))
            _register(hp, d)
    return hp


def decode(space: Space, values: Mapping[str, Any]) -> dict[str, ParamValue]:
    """The hyperparameters that exist among the values of a Keras Tuner trial, as the space writes them."""
    params: dict[str, ParamValue] = {}
    for d in space.dimensions:
        if d.name not in values or not d.active(params):
            continue
        value = values[d.name]
        if not d.is_range:
            value = next(v for v in d.values if _codes(d)[repr(v)] == value)
        elif d.step is not None:
            value = d.cast(value)
        params[d.name] = value
    return params


def _register(hp: keras_tuner.HyperParameters, d: Dimension) -> None:
    if d.distribution is not None:
        raise SpaceError(
            f"space.{d.name} is a distribution, which only search=sklearn/random and search=sklearn/halving_random "
            "can use; for Keras Tuner give values or a range (low, high)."
        )
    sampling = "log" if d.log else "linear"
    if not d.is_range:
        codes = list(_codes(d).values())
        if len(codes) == 1:
            hp.Fixed(d.name, codes[0])
        else:
            hp.Choice(d.name, codes)
    elif d.integer:
        step = None if d.step is None else int(d.step)
        hp.Int(d.name, int(d.low), int(d.high), step=step, sampling=sampling)
    else:
        hp.Float(d.name, float(d.low), float(d.high), step=d.step, sampling=sampling)


def _codes(d: Dimension) -> dict[str, ParamValue]:
    """What stands for each value, by its repr, in Keras Tuner: its choices share one type and hold no null."""
    types = {type(value) for value in d.values}
    plain = len(types) == 1 and types <= {int, float, str, bool}
    return {repr(value): value if plain else repr(value) for value in d.values}


def _guarded(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call the oracle; after an exception inside it, its lock is lost and so is the search."""
    try:
        return call(*args, **kwargs)
    except Exception as error:
        raise SearchError(f"Keras Tuner's oracle failed in {call.__name__}: {error}") from error
