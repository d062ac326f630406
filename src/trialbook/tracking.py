"""The record in MLflow: the only module that writes searches and trials.

Every call names its run: there is no active run, and nothing depends on one. The driver opens and closes runs; the
process that runs a trial writes into that trial's run through a `RunLog`, which is small and picklable.
"""

from __future__ import annotations

import dataclasses
import functools
import getpass
import json
import math
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow.entities as entities
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import get_tracking_uri
from sqlalchemy.exc import SQLAlchemyError

from trialbook import saved_model
from trialbook.errors import RequestError
from trialbook.trial import ParamValue, Record, Result, State, Trial, beats, best_first

KIND = "trialbook.kind"
PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"
MODEL_NAME = "model"

# The first epoch is sent at once, later ones no more often than this many seconds: a write takes as long as a short
# epoch.
_FLUSH_SECONDS = 1.0
_STATE_FOLDER = "state"
_MAX_NAME = 250
# What MLflow lets through when a store cannot be reached, opened or written to.
STORE_ERRORS = (MlflowException, SQLAlchemyError, OSError)
_STATUS = {State.COMPLETE: "FINISHED", State.FAILED: "FAILED", State.KILLED: "KILLED"}


@functools.cache
def client(tracking_uri: str, registry_uri: str | None = None) -> MlflowClient:
    """This process's client of a store: making one opens a connection, so there is one for each address."""
    return MlflowClient(tracking_uri, registry_uri or tracking_uri)


@dataclass(frozen=True)
class Models:
    """Which trials' models to keep: all of them, the best few, or none.

    Attributes:
        best: How many; None for all, 0 for none.
    """

    best: int | None = None

    @classmethod
    def parse(cls, given: str) -> Models:
        """Read `all`, `none` or `best:<k>`.

        Raises:
            RequestError: For anything else.
        """
        if given == "all":
            return cls(None)
        if given == "none":
            return cls(0)
        word, _, count = str(given).partition(":")
        if word != "best" or not count.isdecimal() or int(count) < 1:
            raise RequestError(f"tracking.models must be all, none, or best:<k> such as best:3, got {given!r}.")
        return cls(int(count))

    @property
    def any(self) -> bool:
        """Whether models are saved at all."""
        return self.best != 0


@dataclass
class RunLog:
    """Writes into one run; what a running trial holds.

    Attributes:
        tracking_uri: Address of the store.
        experiment_id: The run's experiment.
        run_id: The run.
        envelope: How to save its model.
        params: The trial's hyperparameters, repeated on its model.
        continues: Id of the run whose training state is taken up.
    """

    tracking_uri: str
    experiment_id: str
    run_id: str
    envelope: saved_model.Envelope | None = None
    params: Mapping[str, ParamValue] = field(default_factory=dict)
    continues: str | None = None
    _waiting: list[entities.Metric] = field(default_factory=list)
    _flushed: float = -math.inf

    @property
    def _client(self) -> MlflowClient:
        return client(self.tracking_uri)

    def epoch(self, metrics: Mapping[str, float], step: int) -> None:
        """Send the metrics of an epoch, together with any that came within the last second."""
        self._waiting.extend(metrics_of(metrics, step))
        if time.monotonic() - self._flushed >= _FLUSH_SECONDS:
            self.flush()

    def save_model(self, estimator: Any, fold: int | None = None) -> str:
        """Save a fitted estimator as the run's model. It is READY only once all of it has arrived."""
        assert self.envelope is not None
        logged = self._client.create_logged_model(
            self.experiment_id,
            name=MODEL_NAME,
            source_run_id=self.run_id,
            params={name: text(value) for name, value in self.params.items()},
            tags={} if fold is None else {"trialbook.fold": str(fold)},
        )
        self._client.log_outputs(self.run_id, [entities.LoggedModelOutput(logged.model_id, step=0)])
        model = Model(
            artifact_path=logged.artifact_location,
            model_uuid=logged.model_id,
            model_id=logged.model_id,
            run_id=self.run_id,
        )
        try:
            with tempfile.TemporaryDirectory(prefix="trialbook-model-") as scratch:
                folder = Path(scratch, MODEL_NAME)
                saved_model.save(estimator, folder, model, self.envelope)
                self._client.log_model_artifacts(logged.model_id, str(folder))
        except BaseException:
            self._client.finalize_logged_model(logged.model_id, entities.LoggedModelStatus.FAILED)
            raise
        self._client.finalize_logged_model(logged.model_id, entities.LoggedModelStatus.READY)
        return str(logged.model_id)

    def save_state(self, path: Path) -> None:
        """Keep a file of training state among the run's artifacts."""
        self._client.log_artifact(self.run_id, str(path), _STATE_FOLDER)

    def load_state(self, name: str) -> Path:
        """The file of training state that the continued trial kept."""
        assert self.continues is not None
        return Path(self._client.download_artifacts(self.continues, f"{_STATE_FOLDER}/{name}"))

    def finish(self, result: Result) -> None:
        """Send the scores, and whatever epochs are still waiting, in one batch."""
        scores: dict[str, float | None] = {
            "objective": result.objective,
            "objective_std": result.objective_std,
            "fit_seconds": result.fit_seconds,
            "score_seconds": result.score_seconds,
            **result.metrics,
        }
        for name, value in scores.items():
            if value is not None:
                self._waiting.extend(metrics_of({name: value}, 0, model_id=result.model_id))
        for fold, score in enumerate(result.fold_scores):
            self._waiting.extend(metrics_of({"objective_fold": score}, fold))
        self.flush()

    def flush(self) -> None:
        """Send the metrics that wait."""
        # MLflow takes 1,000 metrics a batch.
        while self._waiting:
            batch, self._waiting = self._waiting[:1000], self._waiting[1000:]
            self._client.log_batch(self.run_id, metrics=batch)
        self._flushed = time.monotonic()


class SearchRun:
    """One search's run and, as the loop's journal, the runs of its trials below it.

    Args:
        tracking_uri: Address of the store, which workers are given too.
        run_id: The search run, already open.
        experiment_id: Its experiment.
        tags: Tags that every trial carries.
        envelope: How models are saved.
        maximize: Direction of the objective.
        models: Which trials' models to keep.
    """

    def __init__(
        self,
        tracking_uri: str,
        run_id: str,
        experiment_id: str,
        *,
        tags: Mapping[str, str],
        envelope: saved_model.Envelope,
        maximize: bool,
        models: Models,
    ) -> None:
        self.run_id = run_id
        self.experiment_id = experiment_id
        self._uri = tracking_uri
        self._client = client(tracking_uri)
        self._tags = dict(tags)
        self._envelope = envelope
        self._maximize = maximize
        self._run_ids: dict[int, str] = {}
        self._told = 0
        self._counts = dict.fromkeys(State, 0)
        self._best: Record | None = None
        self._models = models
        self._kept: list[Record] = []
        self._past: dict[int, list[entities.Run]] = {}

    def take_up(self) -> None:
        """Take the trials already below this run into account, and close those that an interruption left open."""
        self._client.update_run(self.run_id, status="RUNNING")
        for run in _children(self._client, self.experiment_id, self.run_id):
            if run.info.status == "RUNNING":
                # With a result on record, only the last word was missing when the driver died.
                ended = run.data.tags.get("trialbook.result")
                state = State.KILLED if ended is None else _result_from(ended).state
                set_tags(self._client, run.info.run_id, {"trialbook.state": str(state)})
                self._client.set_terminated(run.info.run_id, _STATUS[state])
            if run.data.tags.get(KIND) == "trial":
                self._past.setdefault(int(run.data.tags["trialbook.trial"]), []).append(run)

    def recall(self, trial: Trial) -> Record | None:
        """The recorded end of a trial, if it has one.

        Raises:
            RequestError: If the trial of this number had other hyperparameters.
        """
        for run in self._past.get(trial.number, []):
            if "trialbook.result" not in run.data.tags:
                continue
            params = {name: text(value) for name, value in trial.params.items()}
            if run.data.params != params:
                raise RequestError(
                    f"the search cannot go on: trial {trial.number} is {params_line(run.data.params)} on record, but "
                    f"{params_line(params)} now; the libraries' versions may have changed."
                )
            record = Record(trial, _result_from(run.data.tags["trialbook.result"]), run.info.run_id)
            self._run_ids[trial.number] = run.info.run_id
            self._told += 1
            self._summarize(record)
            return record
        return None

    def open(self, trial: Trial) -> RunLog:
        """Open the trial's run, with its parameters and all that a replay needs to know."""
        tags = {
            "trialbook.trial": str(trial.number),
            "trialbook.attempt": str(1 + len(self._past.get(trial.number, []))),
            "trialbook.state": "running",
            **{f"trialbook.{name}": text(value) for name, value in trial.details.items()},
        }
        if trial.epochs is not None:
            tags |= {"trialbook.epochs": str(trial.epochs), "trialbook.initial_epoch": str(trial.initial_epoch)}
        continues = None
        if trial.continues is not None:
            continues = self._run_ids[trial.continues]
            tags |= {"trialbook.continues": str(trial.continues), "trialbook.continues_run": continues}
        name = f"{trial.number:03d} {params_line(trial.params)}"
        run_id = self.open_run("trial", name, tags)
        self._run_ids[trial.number] = run_id
        params = [entities.Param(key, text(value)) for key, value in trial.params.items()]
        for start in range(0, len(params), 100):
            self._client.log_batch(run_id, params=params[start : start + 100])
        return RunLog(self._uri, self.experiment_id, run_id, self._envelope, dict(trial.params), continues)

    def close(self, trial: Trial, log: RunLog, result: Result) -> Record:
        """Close the trial's run, and keep the search run's best values and counts up to date."""
        record = Record(trial, result, log.run_id)
        tags = {"trialbook.state": str(result.state), "trialbook.told": str(self._told)}
        self._told += 1
        if result.state is not State.KILLED:
            tags["trialbook.result"] = _result_text(result)
        if result.reason is not None:
            tags["trialbook.reason"] = result.reason
        if result.best_epoch is not None:
            tags["trialbook.best_epoch"] = str(result.best_epoch)
        if result.traceback is not None:
            self._client.log_text(log.run_id, result.traceback, "traceback.txt")
        set_tags(self._client, log.run_id, tags)
        self._client.set_terminated(log.run_id, _STATUS[result.state])
        self._summarize(record)
        return record

    def open_run(self, kind: str, name: str, tags: Mapping[str, str]) -> str:
        """Open a run below the search run."""
        run = self._client.create_run(
            self.experiment_id,
            run_name=name[:_MAX_NAME],
            tags={**self._tags, **tags, KIND: kind, PARENT: self.run_id, **context_tags()},
        )
        return str(run.info.run_id)

    def log(self, run_id: str, params: Mapping[str, ParamValue]) -> RunLog:
        """What writes into a run below this search."""
        return RunLog(self._uri, self.experiment_id, run_id, self._envelope, dict(params))

    def _summarize(self, record: Record) -> None:
        self._counts[record.result.state] += 1
        if record.result.state is not State.COMPLETE:
            return
        if beats(record, self._best, maximize=self._maximize):
            self._best = record
            # One point for each improvement: the search's own learning curve, live.
            point = metrics_of({"best_objective": record.objective}, record.trial.number)
            self._client.log_batch(self.run_id, metrics=point)
        self._prune(record)

    def _prune(self, record: Record) -> None:
        """Of the models seen so far, delete those that are no longer among the best."""
        if self._models.best is None or record.result.model_id is None:
            return
        self._kept.append(record)
        while len(self._kept) > self._models.best:
            worst = best_first(self._kept, maximize=self._maximize)[-1]
            assert worst.result.model_id is not None
            self._kept.remove(worst)
            location = self._client.get_logged_model(worst.result.model_id).artifact_location
            self._client.delete_logged_model(worst.result.model_id)
            get_artifact_repository(location, tracking_uri=self._uri).delete_artifacts()

    def finish(self, best: Record | None) -> None:
        """Write the counts and the best values on the search run."""
        counts = {f"trials_{state}": float(count) for state, count in self._counts.items()}
        self._client.log_batch(self.run_id, metrics=metrics_of(counts, 0))
        if best is None:
            return
        tags = {"trialbook.best_trial": str(best.trial.number), "trialbook.best_run": best.run_id or ""}
        params = [entities.Param(f"best_{name}", text(value)) for name, value in best.trial.params.items()]
        self._client.log_batch(
            self.run_id,
            params=params[:100],
            metrics=metrics_of({"best_objective": best.objective}, best.trial.number),
            tags=[entities.RunTag(key, value) for key, value in tags.items()],
        )


def _children(mlflow_client: MlflowClient, experiment_id: str, run_id: str) -> list[entities.Run]:
    """All runs below a run, the oldest first."""
    found: list[entities.Run] = []
    token = None
    while True:
        page = mlflow_client.search_runs(
            [experiment_id],
            f"tags.`{PARENT}` = '{run_id}'",
            order_by=["attributes.start_time ASC"],
            page_token=token,
            max_results=1000,
        )
        found.extend(page)
        token = page.token
        if not token:
            return found


def _result_text(result: Result) -> str:
    """A result as one line of JSON: what a replay answers with, to the last digit."""
    fields = dataclasses.asdict(dataclasses.replace(result, traceback=None))
    return json.dumps({name: value for name, value in fields.items() if value not in (None, (), {})})


def _result_from(line: str) -> Result:
    fields = json.loads(line)
    fold_scores = tuple(fields.pop("fold_scores", ()))
    return Result(State(fields.pop("state")), fold_scores=fold_scores, **fields)


@contextmanager
def closing(mlflow_client: MlflowClient, run_id: str) -> Iterator[None]:
    """End a run on every way out: FINISHED, FAILED after an error, KILLED after an interrupt."""
    try:
        yield
    except Exception:
        mlflow_client.set_terminated(run_id, "FAILED")
        raise
    except BaseException:
        mlflow_client.set_terminated(run_id, "KILLED")
        raise
    mlflow_client.set_terminated(run_id, "FINISHED")


def find_experiment(mlflow_client: MlflowClient, name: str) -> str:
    """The id of an experiment, created on first use."""
    if (found := mlflow_client.get_experiment_by_name(name)) is not None:
        return str(found.experiment_id)
    try:
        return str(mlflow_client.create_experiment(name))
    except MlflowException:
        # Another driver was a moment faster.
        if (found := mlflow_client.get_experiment_by_name(name)) is None:
            raise
        return str(found.experiment_id)


def adopt_or_open(
    mlflow_client: MlflowClient, name: str, tags: Mapping[str, str], *, adopt: str | None, experiment: str
) -> tuple[str, str]:
    """The search run and its experiment: the run that `mlflow run` has made for this process, or a new one."""
    if adopt is not None:
        run = mlflow_client.get_run(adopt)
        mlflow_client.update_run(adopt, name=name[:_MAX_NAME])
        set_tags(mlflow_client, adopt, tags)
        return adopt, str(run.info.experiment_id)
    experiment_id = find_experiment(mlflow_client, experiment)
    run = mlflow_client.create_run(experiment_id, run_name=name[:_MAX_NAME], tags={**tags, **context_tags()})
    return str(run.info.run_id), experiment_id


def log_datasets(mlflow_client: MlflowClient, run_id: str, inputs: Iterable[DatasetInput]) -> None:
    """Name the data a run has read."""
    mlflow_client.log_inputs(
        run_id,
        [
            entities.DatasetInput(
                entities.Dataset(
                    name=i.name,
                    digest=i.digest,
                    source_type="code",
                    source=json.dumps({"tags": {"mlflow.source.name": i.source}}),
                    schema=i.schema,
                    profile=json.dumps({"num_rows": i.rows, "num_elements": i.rows * i.columns}),
                ),
                [entities.InputTag("mlflow.data.context", i.context)],
            )
            for i in inputs
        ],
    )


@dataclass(frozen=True)
class DatasetInput:
    """A data set as MLflow names it: `context` says what it was read for (`training`, `testing`)."""

    name: str
    digest: str
    source: str
    schema: str
    rows: int
    columns: int
    context: str


def metrics_of(values: Mapping[str, float], step: int, model_id: str | None = None) -> list[entities.Metric]:
    """Metrics of one step, stamped with the present time."""
    now = int(time.time() * 1000)
    return [entities.Metric(name, value, now, step, model_id=model_id) for name, value in values.items()]


def set_tags(mlflow_client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags in one call, each cut to the length MLflow takes."""
    mlflow_client.log_batch(run_id, tags=[entities.RunTag(key, value[:8000]) for key, value in tags.items()])


def context_tags() -> dict[str, str]:
    """Who runs this, in MLflow's own words."""
    return {"mlflow.user": getpass.getuser(), "mlflow.source.name": "trialbook", "mlflow.source.type": "LOCAL"}


def resolve_uri(given: str | None) -> str:
    """The store's address: as given, else MLflow's own default, which `MLFLOW_TRACKING_URI` sets."""
    return given or str(get_tracking_uri())


def without_credentials(words: str) -> str:
    """A text with the user and password of every address in it hidden."""
    return re.sub(r"://[^/@\s]+@", "://***@", words)


def text(value: ParamValue) -> str:
    """The one text form of a hyperparameter's value, whoever proposed it: `64`, `0.001`, `True`, `None`, `relu`."""
    if hasattr(value, "item"):
        value = value.item()
    return str(value)


def params_line(params: Mapping[str, ParamValue]) -> str:
    """Hyperparameters on one line, for people: `units=64 learning_rate=0.001`."""
    return " ".join(f"{name}={f'{v:.4g}' if isinstance(v, float) else text(v)}" for name, v in params.items())
