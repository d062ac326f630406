"""The final step: retrain the best hyperparameters, test that model once, register it, and move an alias.

The test rows are read here and nowhere else.
"""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.pyfunc import PyFuncModel
from mlflow.tracking import get_tracking_uri, set_tracking_uri
from sklearn.pipeline import Pipeline

from trialbook import claim, interrupts, model_files
from trialbook.data import CLASSIFICATION, Dataset
from trialbook.errors import PromotionError, StoreError
from trialbook.estimator import KeptNets
from trialbook.evaluate import Objective, configure, split, weighted
from trialbook.history import fail_models
from trialbook.journal import SearchRun
from trialbook.outage import STORE_ERRORS
from trialbook.tracking import RunLog, closing, metrics_of, params_line, set_tags, text
from trialbook.trial import ParamValue, Record, better

CHAMPION = "champion"
CHALLENGER = "challenger"
ALIAS = "trialbook.alias"
REASON = "trialbook.reason"


@dataclass(frozen=True)
class Promotion:
    """What the final step did.

    Attributes:
        name: The registered model.
        version: The new version of it.
        alias: The alias that now points to that version.
        reason: Why that alias, in a sentence.
        test_score: The objective on the test rows.
        run_id: The retrain run.
        estimator: The retrained estimator.
    """

    name: str
    version: str
    alias: str
    reason: str
    test_score: float
    run_id: str
    estimator: Any = field(repr=False, compare=False)


@dataclass(frozen=True)
class FinalStep:
    """Promotes the winner of a search, or of a sweep of them.

    Attributes:
        client: The store.
        parent: Opens the retrain run: the search's run, or the sweep's.
        search_run: Id of the run of the search that the winner comes from.
        estimator: The unfitted estimator, hyperparameters at their defaults.
        data: The data set with its test rows.
        objective: What the search optimised.
        registered_model: The name to register under.
        allow_pickle: Whether a champion may be loaded that runs its own code then.
        nets: Nets that the search has built.
    """

    client: MlflowClient
    parent: SearchRun
    search_run: str
    estimator: Any
    data: Dataset
    objective: Objective
    registered_model: str
    allow_pickle: bool = False
    nets: KeptNets | None = None

    def __call__(self, winner: Record) -> Promotion:
        """Retrain, test, register.

        Raises:
            PromotionError: If any of it fails; the retrain run is then FAILED and nothing is aliased.
        """
        trial = winner.trial
        tags = {"trialbook.trial": str(trial.number), "trialbook.trial_run": winner.run_id or ""}
        run = self.parent.open_run("retrain", f"retrain {params_line(trial.params)}", tags)
        with closing(self.client, run.run_id):
            try:
                return self._promote(winner, self.parent.log(run, trial.params))
            except (PromotionError, StoreError):
                raise
            except KeyboardInterrupt:
                with contextlib.suppress(StoreError, *STORE_ERRORS):
                    fail_models(self.client, self.parent.experiment_id, run.run_id)
                raise
            except Exception as error:
                raise PromotionError(f"the final step failed: {type(error).__name__}: {error}") from error

    def recall(self, winner: Record) -> Promotion | None:
        """What an earlier final step of the search did with this winner, if it came as far as registering it.

        What an interruption has left unsaid, such as the alias, is said here.
        """
        for run in self.parent.history.retrains:
            if run.data.tags.get("trialbook.trial_run") != winner.run_id:
                continue
            versions = self.client.search_model_versions(
                f"name = '{self.registered_model}' and run_id = '{run.info.run_id}'"
            )
            if versions:
                return self._recalled(run, self.client.get_model_version(versions[0].name, versions[0].version))
            if ALIAS not in run.data.tags:
                # MLflow's own evaluation calls a run finished that has yet to be registered.
                self.client.set_terminated(run.info.run_id, "KILLED")
        return None

    def _recalled(self, run: Run, version: ModelVersion) -> Promotion:
        run_id, score, reason = run.info.run_id, float(version.tags["trialbook.test_score"]), version.tags[REASON]
        alias = run.data.tags.get(ALIAS) or next((a for a in (CHAMPION, CHALLENGER) if a in version.aliases), None)
        if alias is None:
            alias, reason = self._alias(score)
        if ALIAS not in run.data.tags:
            self._point(alias, version, run_id)
        if run.info.status != "FINISHED":
            self.client.set_terminated(run_id, "FINISHED")
        fitted = model_files.load(self._download(f"{version.name}/{version.version}"), allow_pickle=self.allow_pickle)
        return Promotion(version.name, str(version.version), alias, reason, score, run_id, fitted)

    def _promote(self, winner: Record, log: RunLog) -> Promotion:
        epochs = winner.result.best_epoch
        params: dict[str, ParamValue] = dict(winner.trial.params)
        self.client.log_batch(log.run_id, params=[mlflow.entities.Param(k, text(v)) for k, v in params.items()])
        if epochs is not None:
            set_tags(self.client, log.run_id, {"trialbook.epochs": str(epochs)})
        configured = configure(self.estimator, params)
        fitted = retrain(configured, self.data, epochs=epochs, on_epoch=log.epoch, nets=self.nets)
        interrupts.check()
        log.flush()
        score = self.objective.score(fitted, self.data.X_test, self.data.y_test)
        if not math.isfinite(score):
            raise PromotionError(f"the retrained model's {self.objective.name} on the test rows is {score}")
        model_id = log.save_model(fitted)
        test_metric = {f"test_{self.objective.name}": score}
        self.client.log_batch(log.run_id, metrics=metrics_of(test_metric, 0, model_id=model_id))
        with claim.at_rest():
            self.parent.store.insist(_evaluate, self.client, log, fitted, self.data, model_id)
        self.client.update_run(log.run_id, status="RUNNING")  # MLflow's evaluation has called it finished
        self._check_saved(fitted, model_id)
        interrupts.check()
        return self._register(winner, log.run_id, model_id, score, fitted)

    def _check_saved(self, fitted: Any, model_id: str) -> None:
        """What is registered must predict what was tested."""
        loaded = mlflow.pyfunc.load_model(str(self._download(model_id)))
        rows = self.data.X_test
        same = _agree(loaded.predict(rows), fitted.predict(rows), self.data.task)
        if not same:
            raise PromotionError(
                "the saved model does not predict what the retrained one does, so it was not registered"
            )

    def _register(self, winner: Record, run_id: str, model_id: str, score: float, fitted: Any) -> Promotion:
        name = self.registered_model
        with contextlib.suppress(MlflowException):  # it may exist already; creating the version tells if it does not
            self.client.create_registered_model(name)
        alias, reason = self._alias(score)
        version = self._create_version(
            name,
            run_id,
            model_id,
            tags={
                "trialbook.search_run": self.search_run,
                "trialbook.trial_run": winner.run_id or "",
                "trialbook.trial": str(winner.trial.number),
                "trialbook.metric": self.objective.metric,
                "trialbook.test_score": repr(score),
                "trialbook.data_digest": self.data.digest,
                "trialbook.test_digest": self.data.test_digest,
                REASON: reason,
            },
            description=(
                f"Trial {winner.trial.number} of search run {self.search_run} ({params_line(winner.trial.params)}), "
                f"retrained on the {len(self.data.X)} development rows of {self.data.name}; "
                f"{self.objective.name} {score:.4f} on {len(self.data.X_test)} test rows. {reason}"
            ),
        )
        self._point(alias, version, run_id)
        return Promotion(name, str(version.version), alias, reason, score, run_id, fitted)

    def _point(self, alias: str, version: ModelVersion, run_id: str) -> None:
        """Point an alias to a version, and say so on the run that made it."""
        self.client.set_registered_model_alias(version.name, alias, version.version)
        set_tags(self.client, run_id, {"trialbook.registered": f"{version.name} v{version.version}", ALIAS: alias})

    def _create_version(
        self, name: str, run_id: str, model_id: str, *, tags: Mapping[str, str], description: str
    ) -> ModelVersion:
        with _store(self.client):  # MLflow looks the model up in its current store, whatever the client's is
            return self.client.create_model_version(
                name,
                source=f"models:/{model_id}",
                run_id=run_id,
                model_id=model_id,
                tags=dict(tags),
                description=description,
            )

    def _alias(self, score: float) -> tuple[str, str]:
        """The alias the new version earns, and why."""
        try:
            present = self.client.get_model_version_by_alias(self.registered_model, CHAMPION)
        except MlflowException:
            return CHAMPION, "It is the first version."
        try:
            standing = self._standing(present)
        except StoreError:
            raise
        except Exception as error:
            return (
                CHALLENGER,
                f"The champion, version {present.version}, cannot be scored on these test rows ({error}).",
            )
        wins = better(score, standing, maximize=self.objective.maximize)
        verb = "beats" if wins else "does not beat"
        return (
            CHAMPION if wins else CHALLENGER,
            f"It {verb} the champion, version {present.version}, which has {self.objective.name} {standing:.4f} "
            "on the same test rows.",
        )

    def _standing(self, champion: ModelVersion) -> float:
        """The champion's score on these test rows: as recorded if it was tested on them, else taken now."""
        tags: Mapping[str, str] = champion.tags
        same = (self.data.test_digest, self.objective.metric)
        if (tags.get("trialbook.test_digest"), tags.get("trialbook.metric")) == same:
            return float(tags["trialbook.test_score"])
        folder = self._download(f"{champion.name}/{champion.version}")
        estimator = model_files.load(folder, allow_pickle=self.allow_pickle)
        return self.objective.score(estimator, self.data.X_test, self.data.y_test)

    def _download(self, model: str) -> Path:
        """A local copy of a model, given by its id or as name/version."""
        with _store(self.client):
            return Path(self.parent.store.insist(mlflow.artifacts.download_artifacts, f"models:/{model}"))


def retrain(
    estimator: Any,
    data: Dataset,
    *,
    epochs: int | None,
    on_epoch: Callable[[Mapping[str, float], int], None] | None = None,
    nets: KeptNets | None = None,
) -> Any:
    """Fit a configured estimator on all development rows, a net for the given number of epochs.

    Args:
        estimator: The estimator with its hyperparameters set.
        data: The data set.
        epochs: How long to train a net; None for as long as it says itself.
        on_epoch: Told the metrics of each epoch of a net, and its number from 0.
        nets: Nets that the search has built, and needs no more: one of them may be the one to train.
    """
    X, y, weights = data.X, data.y, data.sample_weight
    preprocessing, net = split(estimator)
    if net is None:
        return estimator.fit(X, y, **weighted(estimator, weights))

    def on_epoch_end(epoch: int, metrics: Mapping[str, float]) -> None:
        if on_epoch is not None:
            on_epoch(metrics, epoch)

    rows = X if preprocessing is None else preprocessing.fit_transform(X, y)
    if nets is not None:
        net.share(nets)
    net.fit(rows, y, sample_weight=weights, epochs=epochs, on_epoch_end=on_epoch_end)
    # Whoever is handed the result should not hold all the others with it.
    net.share(KeptNets(1))
    if preprocessing is None:
        return net
    return Pipeline([*preprocessing.steps, (estimator.steps[-1][0], net)])


def _agree(a: Any, b: Any, task: str) -> bool:
    left, right = np.asarray(a).ravel(), np.asarray(b).ravel()
    if task == CLASSIFICATION:
        return bool(np.array_equal(left, right))
    return bool(np.allclose(left, right, rtol=1e-4, atol=1e-6))


@contextlib.contextmanager
def _store(client: MlflowClient) -> Iterator[None]:
    """Make a store MLflow's current one, for the calls that know no other way to be told."""
    before = get_tracking_uri()
    set_tracking_uri(client.tracking_uri)
    try:
        yield
    finally:
        set_tracking_uri(before)


def _evaluate(client: MlflowClient, log: RunLog, fitted: Any, data: Dataset, model_id: str) -> None:
    """MLflow's own metrics and plots of the fitted estimator on the test rows, into the retrain run."""
    rows, judged = data.X_test, fitted
    if not isinstance(rows, pd.DataFrame):
        rows, judged = pd.DataFrame({"row": np.arange(len(rows))}), _ByPosition(fitted, rows)
    target = _unused_name("target", rows)
    # MLflow finds class probabilities only behind its own scikit-learn loader, so that is what the fitted
    # estimator is presented as; a Keras net here is a scikit-learn estimator too.
    description = Model(model_id=model_id)
    description.add_flavor("python_function", loader_module="mlflow.sklearn")
    model = PyFuncModel(model_meta=description, model_impl=judged)
    with _store(client), _quiet(), mlflow.start_run(run_id=log.run_id):
        mlflow.models.evaluate(
            model,
            rows.assign(**{target: data.y_test}),
            targets=target,
            model_type="classifier" if data.task == CLASSIFICATION else "regressor",
            evaluator_config={"log_model_explainability": False, "metric_prefix": "test_"},
            model_id=model_id,
        )


class _ByPosition:
    """A fitted estimator that is asked for rows of an array by their positions: MLflow evaluates on tables only."""

    def __init__(self, fitted: Any, rows: np.ndarray) -> None:
        self._rows = rows
        self.predict = self._asked(fitted.predict)
        if hasattr(fitted, "predict_proba"):
            self.predict_proba = self._asked(fitted.predict_proba)
            self.classes_ = fitted.classes_

    def _asked(self, method: Callable[[np.ndarray], np.ndarray]) -> Callable[[pd.DataFrame], np.ndarray]:
        return lambda positions: method(self._rows[positions["row"].to_numpy()])


def _unused_name(name: str, X: Any) -> str:
    while name in X.columns:
        name = f"_{name}"
    return name


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without MLflow's progress notes, and its hint that integer columns cannot lack values."""
    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="(?s).*integer column", category=UserWarning)
            yield
    finally:
        logger.setLevel(level)
