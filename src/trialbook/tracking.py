"""What is written into the runs of a search, and under which names.

Every call names its run: there is no active run, and nothing depends on one. The driver opens and closes runs; the
process that runs a trial writes into that trial's run through a `RunLog`, which is small and picklable.
"""

from __future__ import annotations

import getpass
import json
import math
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow.entities as entities
from mlflow import MlflowClient
from mlflow.models import Model

from trialbook import saved_model
from trialbook.store import client, find_experiment
from trialbook.trial import ParamValue, Result

KIND = "trialbook.kind"
PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"
MODEL_NAME = "model"

# The first epoch is sent at once, later ones no more often than this many seconds: a write takes as long as a short
# epoch.
_FLUSH_SECONDS = 1.0
_STATE_FOLDER = "state"
MAX_NAME = 250


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


def adopt_or_open(
    mlflow_client: MlflowClient, name: str, tags: Mapping[str, str], *, adopt: str | None, experiment: str
) -> tuple[str, str]:
    """The search run and its experiment: the run that `mlflow run` has made for this process, or a new one."""
    if adopt is not None:
        run = mlflow_client.get_run(adopt)
        mlflow_client.update_run(adopt, name=name[:MAX_NAME])
        set_tags(mlflow_client, adopt, tags)
        return adopt, str(run.info.experiment_id)
    experiment_id = find_experiment(mlflow_client, experiment)
    run = mlflow_client.create_run(experiment_id, run_name=name[:MAX_NAME], tags={**tags, **context_tags()})
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


def text(value: ParamValue) -> str:
    """The one text form of a hyperparameter's value, whoever proposed it: `64`, `0.001`, `True`, `None`, `relu`."""
    if hasattr(value, "item"):
        value = value.item()
    return str(value)


def params_line(params: Mapping[str, ParamValue]) -> str:
    """Hyperparameters on one line, for people: `units=64 learning_rate=0.001`."""
    return " ".join(f"{name}={f'{v:.4g}' if isinstance(v, float) else text(v)}" for name, v in params.items())
