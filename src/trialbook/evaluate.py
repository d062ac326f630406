"""One trial: fit each fold, score it, and leave a model behind.

This is the only place that knows how a trial is trained.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import TransformerMixin, clone
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.metrics import get_scorer, get_scorer_names
from sklearn.pipeline import Pipeline
from sklearn.utils import resample
from sklearn.utils.validation import has_fit_parameter

from trialbook import interrupts
from trialbook.errors import ModelError, NonFiniteObjective, RequestError, StoreError, TrialError
from trialbook.estimator import KeptNets
from trialbook.trial import ParamValue, Result, State, Trial, TrialLog, better

# The step of a pipeline that makes numbers of a table's columns.
COLUMNS = "columns_to_numbers"

_KERAS_PREFIX = "val_"
_MINIMIZED = ("loss", "error", "crossentropy", "divergence", "deviance")


@dataclass(frozen=True)
class Objective:
    """What the search optimises.

    Attributes:
        metric: A scikit-learn scorer's name, or a Keras metric of the validation data such as `val_loss`.
        maximize: Whether more is better.
        epoch: For a model trained in epochs, whether it is judged after its `last` epoch, as scikit-learn does, or
            at its `best`, as Keras Tuner does; it is then also left as it was at that epoch.
    """

    metric: str
    maximize: bool
    epoch: str = "last"

    @classmethod
    def parse(cls, metric: str, direction: str | None = None, epoch: str = "last") -> Objective:
        """Read the `objective` of a configuration; the direction is inferred where the name tells it.

        Raises:
            RequestError: For an unknown metric, direction or epoch.
        """
        if epoch not in ("last", "best"):
            raise RequestError(f"objective.epoch must be last or best, got {epoch!r}.")
        if direction not in (None, "maximize", "minimize"):
            raise RequestError(f"objective.direction must be maximize or minimize, got {direction!r}.")
        if metric.startswith(_KERAS_PREFIX):
            maximize = not any(word in metric for word in _MINIMIZED)
        elif metric in get_scorer_names():
            maximize = True
            if direction == "minimize":
                raise RequestError(f"objective.metric={metric} is a scikit-learn scorer, and these are maximized.")
        else:
            raise RequestError(
                f"objective.metric={metric!r} is unknown; allowed: a scikit-learn scorer such as accuracy, roc_auc or "
                "neg_root_mean_squared_error, or a Keras metric of the validation data such as val_loss."
            )
        return cls(metric, maximize if direction is None else direction == "maximize", epoch)

    @property
    def keras_metric(self) -> str | None:
        """The name Keras reports the metric under, None for a scikit-learn scorer."""
        return self.metric if self.metric.startswith(_KERAS_PREFIX) else None

    @property
    def name(self) -> str:
        """The metric without the word for the data it is taken on: `accuracy` for `val_accuracy`."""
        return self.metric.removeprefix(_KERAS_PREFIX)

    def score(self, estimator: Any, X: Any, y: Any) -> float:
        """The objective of a fitted estimator on any rows."""
        if self.keras_metric is None:
            return float(get_scorer(self.metric)(estimator, X, y))
        preprocessing, net = split(estimator)
        assert net is not None
        return float(net.evaluate(X if preprocessing is None else preprocessing.transform(X), y)[self.name])


@dataclass(frozen=True)
class Evaluator:
    """Evaluates trials of one search; picklable, so that a worker gets it once.

    Attributes:
        estimator: The unfitted estimator, hyperparameters at their defaults.
        X: Development rows, shape (n_rows, …).
        y: Their targets, shape (n_rows,).
        folds: For each fold, the positions of its training and of its validation rows.
        objective: What is optimised.
        scoring: Names of further scikit-learn scorers to record.
        keep_models: Whether trials leave a model behind.
        seed: Seed of the draw of rows for trials that may use only some of them.
        sample_weight: What each row counts for in training, shape (n_rows,); scores weigh all rows the same.
        nets: Nets that have been built, for trials that build the same: to go on with an earlier one, for instance.
    """

    estimator: Any
    X: Any
    y: np.ndarray
    folds: Sequence[tuple[np.ndarray, np.ndarray]]
    objective: Objective
    scoring: Sequence[str] = field(default=())
    keep_models: bool = True
    seed: int | None = None
    sample_weight: np.ndarray | None = None
    nets: KeptNets = field(default_factory=KeptNets, compare=False, repr=False)

    def __call__(self, trial: Trial, log: TrialLog) -> Result:
        """Run one trial. Whatever fails in it is its result, short of an interrupt or the end of the store."""
        try:
            result = self._evaluate(trial, log)
            log.finish(result)
            return result
        except (KeyboardInterrupt, StoreError):
            raise
        except BaseException as error:
            # A builder may well call sys.exit: that ends the trial, not the search.
            with contextlib.suppress(Exception):  # the first failure is the one to report
                log.flush()
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            may_pass = isinstance(error, (MemoryError, OSError, *log.store_errors))
            return Result(State.FAILED, reason=reason, traceback=traceback.format_exc(), may_pass=may_pass)

    def _evaluate(self, trial: Trial, log: TrialLog) -> Result:
        estimator = configure(self.estimator, trial.params)
        if (net := split(estimator)[1]) is not None:
            net.share(self.nets)
        fits = [self._fold(estimator, trial, log, fold) for fold in range(len(self.folds))]
        scores = [math.nan if fit.score is None else fit.score for fit in fits]
        mean = float(np.mean(scores))
        if not math.isfinite(mean):
            raise NonFiniteObjective(f"the objective {self.objective.metric} is {mean}; its folds: {scores}")
        result = Result(
            State.COMPLETE,
            objective=mean,
            objective_std=float(np.std(scores)),
            fold_scores=tuple(scores),
            metrics={f"val_{name}": float(np.mean([fit.metrics[name] for fit in fits])) for name in self.scoring},
            best_epoch=_mean_epoch([fit.best_epoch for fit in fits]),
            fit_seconds=float(np.mean([fit.fit_seconds for fit in fits])),
            fit_seconds_std=float(np.std([fit.fit_seconds for fit in fits])),
            score_seconds=float(np.mean([fit.score_seconds for fit in fits])),
            score_seconds_std=float(np.std([fit.score_seconds for fit in fits])),
        )
        if not self.keep_models:
            return result
        typical = min(range(len(fits)), key=lambda fold: abs(scores[fold] - mean))
        return replace(result, model_id=log.save_model(fits[typical].fitted(), typical))

    def _fold(self, estimator: Any, trial: Trial, log: TrialLog, fold: int) -> _Fit:
        train, validation = self._rows(fold, trial.resources)
        fit_data = take(self.X, train), self.y[train]
        judge_data = take(self.X, validation), self.y[validation]
        weights = None if self.sample_weight is None else self.sample_weight[train]
        if split(estimator)[1] is None:
            fit = self._fit(estimator, fit_data, weights)
        else:
            fit = self._fit_in_epochs(estimator, fit_data, weights, judge_data, trial, log, fold)
        interrupts.check()
        started = time.perf_counter()
        fitted = fit.fitted()
        if fit.score is None:
            fit.score = self.objective.score(fitted, *judge_data)
        fit.metrics = {name: float(get_scorer(name)(fitted, *judge_data)) for name in self.scoring}
        fit.score_seconds += time.perf_counter() - started
        return fit

    def _rows(self, fold: int, resources: int | None) -> list[np.ndarray]:
        """Positions of a fold's training and validation rows, both cut down alike to a share of all rows."""
        rows = list(self.folds[fold])
        if resources is None:
            return rows
        counts = [int(resources / len(self.y) * len(part)) for part in rows]
        if not all(counts):
            raise TrialError(
                f"{resources} of {len(self.y)} rows leave fold {fold} with {counts[0]} to train and {counts[1]} to "
                "validate on"
            )
        return [
            resample(part, replace=False, n_samples=count, random_state=self.seed)
            for part, count in zip(rows, counts, strict=True)
        ]

    def _fit(self, estimator: Any, data: tuple[Any, np.ndarray], weights: np.ndarray | None) -> _Fit:
        started = time.perf_counter()
        fitted = clone(estimator).fit(*data, **weighted(estimator, weights))
        return _Fit(lambda: fitted, fit_seconds=time.perf_counter() - started)

    def _fit_in_epochs(
        self,
        estimator: Any,
        data: tuple[Any, np.ndarray],
        weights: np.ndarray | None,
        judge_data: tuple[Any, np.ndarray],
        trial: Trial,
        log: TrialLog,
        fold: int,
    ) -> _Fit:
        started = time.perf_counter()
        preprocessing, net = split(estimator)
        (X, y), (X_val, y_val) = data, judge_data
        if preprocessing is not None:
            preprocessing = clone(preprocessing)
            X, X_val = preprocessing.fit_transform(X, y), preprocessing.transform(X_val)
        watch = _Watch(self.objective, net, (X_val, y_val), log, f"fold_{fold}/" if len(self.folds) > 1 else "")
        net.fit(
            X,
            y,
            sample_weight=weights,
            validation_data=(X_val, y_val),
            epochs=trial.epochs,
            initial_epoch=trial.initial_epoch,
            initial_state=None if trial.continues is None else log.load_state(_state_name(fold)),
            on_epoch_end=watch,
        )
        watch.ended(net.epoch_)
        if trial.keep_state:
            # Before the best epoch's weights are put back: a continued training goes on where this one ended.
            with tempfile.TemporaryDirectory(prefix="trialbook-state-") as folder:
                path = Path(folder, _state_name(fold))
                net.save_state(path)
                log.save_state(path)
        # The net is one object for all folds (its compiled function is reused); a snapshot is one fold's fit of it.
        snapshot = watch.snapshot or net.snapshot()

        def fitted() -> Any:
            net.restore(snapshot)
            return net if preprocessing is None else Pipeline([*preprocessing.steps, (estimator.steps[-1][0], net)])

        seconds = time.perf_counter() - started - watch.seconds
        return _Fit(fitted, watch.score, watch.best_epoch, fit_seconds=seconds, score_seconds=watch.seconds)


@dataclass
class _Fit:
    """One fold's fit: `fitted` gives the estimator as it was trained on that fold."""

    fitted: Callable[[], Any]
    score: float | None = None
    best_epoch: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    fit_seconds: float = 0.0
    score_seconds: float = 0.0


@dataclass
class _Watch:
    """Follows a training epoch by epoch: logs each epoch live, and judges it where the objective asks for that."""

    objective: Objective
    net: Any
    judge_data: tuple[Any, np.ndarray]
    log: TrialLog
    prefix: str
    score: float | None = None
    best_epoch: int | None = None
    snapshot: Any = None
    seconds: float = 0.0
    _scores: dict[int, float] = field(default_factory=dict)

    def __call__(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self.log.epoch({self.prefix + name: float(value) for name, value in metrics.items()}, epoch)
        started = time.perf_counter()
        if self.objective.epoch == "best":
            score = self._score(metrics)
            if self.score is None or better(score, self.score, maximize=self.objective.maximize):
                self.score, self.best_epoch, self.snapshot = score, epoch + 1, self.net.snapshot()
        elif self.objective.keras_metric is not None:
            self._scores[epoch + 1] = self._score(metrics)
        self.seconds += time.perf_counter() - started

    def ended(self, epoch: int | None) -> None:
        """The training has ended with the weights of this epoch, counted from 1: the last, or one put back."""
        if self.objective.epoch == "last":
            self.best_epoch = epoch
            self.score = None if epoch is None else self._scores.get(epoch)

    def _score(self, metrics: Mapping[str, float]) -> float:
        name = self.objective.keras_metric
        if name is None:
            return self.objective.score(self.net, *self.judge_data)
        if name not in metrics:
            raise ModelError(f"the model does not report {name}; it reports: {', '.join(sorted(metrics))}.")
        return float(metrics[name])


def load_libraries(*, nets: bool, store: bool) -> None:
    """Import what a trial needs, which takes seconds: in a worker, before its first trial.

    Args:
        nets: Whether it trains nets.
        store: Whether it writes into the store.
    """
    if store:
        import_module("trialbook.tracking")
    if nets:
        from trialbook.estimator import preload_keras

        preload_keras()


def configure(estimator: Any, params: Mapping[str, ParamValue]) -> Any:
    """A clone of the estimator with its hyperparameters set, each under the plain name the space gives it.

    Raises:
        ModelError: For a hyperparameter that the estimator does not take.
    """
    configured = clone(estimator)
    routes = {_route(configured, name): value for name, value in params.items()}
    configured.set_params(**routes)
    return configured


def _route(estimator: Any, name: str) -> str:
    """scikit-learn's name for a hyperparameter: of a pipeline's steps, the one that takes it is found.

    If none does, it may be one of what stands inside a step, such as the regressor of a `TransformedTargetRegressor`.
    """
    params = estimator.get_params()
    if name in params:
        return name
    known = [key for key in params if not key.startswith(f"{COLUMNS}__")]
    steps = [step for step, _ in estimator.steps if step != COLUMNS] if isinstance(estimator, Pipeline) else []
    last = estimator[-1] if steps else estimator
    matches = [f"{step}__{name}" for step in steps if f"{step}__{name}" in known]
    if not matches and getattr(last, "trains_in_epochs", False):
        return f"{steps[-1]}__{name}" if steps else name  # the builder may take names it does not list
    matches = matches or [key for key in known if key.endswith(f"__{name}")]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ModelError(f"several steps of the model take {name!r}; name one of them: {', '.join(matches)}.")
    within = [key.partition("__")[2] for key in known if key.startswith(tuple(f"{step}__" for step in steps))]
    allowed = sorted(set(within if steps else known))
    raise ModelError(f"the model takes no hyperparameter {name!r}; allowed: {', '.join(allowed)}.")


def weighted(estimator: Any, weights: np.ndarray | None) -> dict[str, np.ndarray]:
    """The keyword with which the estimator, or the last step of a pipeline, is given the weights of rows.

    Raises:
        ModelError: If it does not take weights.
    """
    if weights is None:
        return {}
    last = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    fitted = last.regressor if isinstance(last, TransformedTargetRegressor) else last
    if not has_fit_parameter(fitted, "sample_weight"):
        raise ModelError(f"{type(fitted).__name__} takes no sample_weight; leave data.sample_weight out.")
    prefix = f"{estimator.steps[-1][0]}__" if isinstance(estimator, Pipeline) else ""
    return {f"{prefix}sample_weight": weights}


def behind(preprocessing: Any, estimator: Any) -> Any:
    """The estimator with a transformer in front of it, unless it begins with a `ColumnTransformer` of its own.

    Args:
        preprocessing: The unfitted transformer; None for none.
        estimator: The unfitted estimator or pipeline, whose steps become those of the result.
    """
    steps = estimator.steps if isinstance(estimator, Pipeline) else [("model", estimator)]
    if preprocessing is None or isinstance(steps[0][1], ColumnTransformer):
        return estimator
    return Pipeline([(COLUMNS, preprocessing), *steps])


def split(estimator: Any) -> tuple[Any, Any]:
    """The part of an estimator that is trained in epochs, and before it the preprocessing; each None if absent."""
    if isinstance(estimator, Pipeline) and getattr(estimator[-1], "trains_in_epochs", False):
        return (estimator[:-1] if len(estimator) > 1 else None), estimator[-1]
    if getattr(estimator, "trains_in_epochs", False):
        return None, estimator
    return None, None


def name_columns(estimator: Any) -> None:
    """Let preprocessing name its columns, where a net that follows picks them by name for its inputs."""
    preprocessing, net = split(estimator)
    if preprocessing is not None and net.inputs:
        for _, step in preprocessing.steps:
            # The step's own method would have all that is in it name its columns too, at each turn.
            TransformerMixin.set_output(step, transform="pandas")


def take(rows: Any, positions: np.ndarray) -> Any:
    """Rows at the given positions, of a data frame or an array."""
    return rows.iloc[positions] if hasattr(rows, "iloc") else rows[positions]


def _mean_epoch(epochs: Sequence[int | None]) -> int | None:
    known = [epoch for epoch in epochs if epoch is not None]
    return max(1, round(float(np.mean(known)))) if known else None


def _state_name(fold: int) -> str:
    return f"fold_{fold}.weights.h5"
