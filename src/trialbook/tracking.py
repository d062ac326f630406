"""What is written into the runs of a search, and under which names.

Every call names its run: there is no active run, and nothing depends on one. The driver opens and closes runs; the
process that runs a trial writes into that trial's run through a `RunLog`, which is small and picklable.
"""

from __future__ import annotations

import dataclasses
import functools
import getpass
import json
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow.entities as entities
from mlflow import MlflowClient
from mlflow.models import Model

from trialbook import distant, saved_model
from trialbook.distant import DistantLog
from trialbook.envelope import Envelope
from trialbook.errors import ClaimLost, NotRecorded, StoreError, disk_is_full
from trialbook.model_files import NO_ROOM, Flavors
from trialbook.outage import STORE_ERRORS
from trialbook.store import Store, find_experiment
from trialbook.trial import ParamValue, Result, State
from trialbook.worker import Resident

KIND = "trialbook.kind"
PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"
TABLES = "mlflow.loggedArtifacts"
STATUS = {State.COMPLETE: "FINISHED", State.FAILED: "FAILED", State.KILLED: "KILLED"}
MODEL_NAME = "model"

# Epochs are sent no more often than this many seconds, for a write takes as long as a short epoch, and no later.
_FLUSH_SECONDS = 2.0
_STATE_FOLDER = "state"
_MAX_METRICS = 1000
MAX_NAME = 250
MAX_TAG = 8000


@dataclass
class RunLog(Resident):
    """Writes into one run; what a running trial holds, or the driver for it.

    Attributes:
        store: Where the run is.
        experiment_id: The run's experiment.
        run_id: The run.
        artifacts: Address of the run's artifacts.
        envelope: How to save its model.
        params: The trial's hyperparameters, repeated on its model.
        continues: Address of the artifacts of the run whose training state is taken up.
        worker: Who runs the trial, as `host:pid`; None for the process that writes.
        ended: Whether the run has been closed, and nobody else writes into it any more.
    """

    store: Store
    experiment_id: str
    run_id: str
    artifacts: str
    envelope: Envelope | None = None
    params: Mapping[str, ParamValue] = field(default_factory=dict)
    continues: str | None = None
    worker: str | None = None
    ended: bool = False
    _waiting: list[entities.Metric] = field(default_factory=list)
    _signed: bool = False
    _lock: Any = field(default_factory=threading.RLock, repr=False, compare=False)
    _timer: threading.Timer | None = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs to write into the run."""
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_timer")}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Arrive in another process."""
        vars(self).update(state, _lock=threading.RLock(), _timer=None)

    def stand_in(self) -> DistantLog:
        """What a worker holds whose driver writes for it."""
        return DistantLog()

    def answer(self, worker: str, what: str, *args: Any) -> Any:
        """Write what a worker says.

        Raises:
            NotRecorded: If the store refuses it, or the run has been closed meanwhile.
        """
        self.worker = worker
        if self.ended:
            raise NotRecorded("the run of the trial has been closed")
        return distant.answer(self, what, *args)

    def abandoned(self, worker: str) -> None:
        """Send what a worker has said before it ended."""
        self.worker = worker
        if not self.ended:
            with suppress(Exception):  # its end is what is told
                self.flush()

    @property
    def waits(self) -> bool:
        """Whether the store is away."""
        return self.store.is_away

    @property
    def store_errors(self) -> tuple[type[Exception], ...]:
        """What is raised when the store cannot be reached or written to."""
        return STORE_ERRORS

    @property
    def _client(self) -> MlflowClient:
        return self.store.client

    def epoch(self, metrics: Mapping[str, float], step: int) -> None:
        """Send the metrics of an epoch within seconds, together with those of any that end meanwhile.

        That takes a thread: the next epoch may last for hours, and this one should be seen all the same.
        """
        with self._lock:
            self._waiting.extend(metrics_of(metrics, step))
            if self._timer is None:
                self._timer = threading.Timer(_FLUSH_SECONDS, self._flush_late)
                self._timer.daemon = True
                self._timer.start()

    def _flush_late(self) -> None:
        # What cannot be sent still waits, and the trial's own next call tells why.
        with suppress(Exception):
            self.flush()

    def save_model(self, estimator: Any, fold: int | None = None) -> str:
        """Save a fitted estimator as the run's model. It is READY only once all of it has arrived."""
        return self._log_model(functools.partial(saved_model.save, estimator), fold)

    def take_model(self, written: Path, flavors: Flavors, fold: int | None = None) -> str:
        """Take as the run's model what `model_files.write` has put into a folder, which is moved, and its flavors."""

        def complete(folder: Path, model: Model, envelope: Envelope) -> None:
            folder.parent.mkdir(parents=True, exist_ok=True)  # else a copy is moved
            shutil.move(written, folder)
            saved_model.describe(folder, model, envelope, flavors)

        return self._log_model(complete, fold)

    def _log_model(self, save: Callable[[Path, Model, Envelope], None], fold: int | None) -> str:
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
            if (folder := self.store.folder(logged.artifact_location)) is not None:
                save(folder, model, self.envelope)
            else:
                with tempfile.TemporaryDirectory(prefix="trialbook-model-") as scratch:
                    folder = Path(scratch, MODEL_NAME)
                    save(folder, model, self.envelope)
                    self.store.upload(folder, logged.artifact_location)
        except BaseException as error:
            with suppress(StoreError):
                self._client.finalize_logged_model(logged.model_id, entities.LoggedModelStatus.FAILED)
            if disk_is_full(error):
                raise StoreError(NO_ROOM) from error
            raise
        self._client.finalize_logged_model(logged.model_id, entities.LoggedModelStatus.READY)
        return str(logged.model_id)

    def save_state(self, path: Path) -> None:
        """Keep a file of training state among the run's artifacts."""
        self.store.artifacts(self.artifacts).log_artifact(str(path), _STATE_FOLDER)

    def saved_state(self, name: str) -> Path:
        """A local copy of a file of training state that this run keeps."""
        return self._state_of(self.artifacts, name)

    def load_state(self, name: str, into: Path | None = None) -> Path:
        """A local copy of the file of training state that the continued trial kept.

        Args:
            name: The file.
            into: Folder for it, if it has to be copied; None for a new one.
        """
        assert self.continues is not None
        return self._state_of(self.continues, name, into)

    def _state_of(self, artifacts: str, name: str, into: Path | None = None) -> Path:
        if into is not None and self.store.folder(artifacts) is not None:
            into = None  # it is here
        return Path(self.store.artifacts(artifacts).download_artifacts(f"{_STATE_FOLDER}/{name}", into))

    def finish(self, result: Result) -> None:
        """Send the result with its scores, and whatever epochs are still waiting, in one batch."""
        scores: dict[str, float | None] = {
            "objective": result.objective,
            "objective_std": result.objective_std,
            "fit_seconds": result.fit_seconds,
            "score_seconds": result.score_seconds,
            **result.metrics,
        }
        sent = [
            metric
            for name, value in scores.items()
            if value is not None
            for metric in metrics_of({name: value}, 0, model_id=result.model_id)
        ]
        for fold, score in enumerate(result.fold_scores):
            sent += metrics_of({"objective_fold": score}, fold)
        with self._lock:
            self._waiting += sent
            self.flush(result_tags(result))

    def flush(self, tags: Mapping[str, str] | None = None) -> None:
        """Send the metrics that wait, and with the last of them any tags; the first time also who it is that sends."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            tags = {
                **(tags or {}),
                **({} if self._signed else {"trialbook.worker": self.worker or this_process()}),
            }
            # MLflow takes 1,000 metrics a batch.
            while len(self._waiting) > _MAX_METRICS:
                self._client.log_batch(self.run_id, metrics=self._waiting[:_MAX_METRICS])
                del self._waiting[:_MAX_METRICS]
            if self._waiting or tags:
                self._client.log_batch(self.run_id, metrics=self._waiting, tags=run_tags(tags))
                self._waiting, self._signed = [], True


def this_process() -> str:
    """The present process, as the run of a trial names the one that ran it: `host:pid`."""
    return f"{socket.gethostname()}:{os.getpid()}"


@contextmanager
def closing(mlflow_client: MlflowClient, run_id: str) -> Iterator[None]:
    """End a run on every way out: FINISHED, FAILED after an error, KILLED after an interrupt.

    Where the store is gone, or the run has been taken over by another process, it is left as it is.
    """
    with closing_on_error(mlflow_client, run_id):
        yield
    mlflow_client.set_terminated(run_id, "FINISHED")


@contextmanager
def closing_on_error(mlflow_client: MlflowClient, run_id: str) -> Iterator[None]:
    """As `closing`, but after no error the run stays open."""
    try:
        yield
    except ClaimLost:
        raise
    except BaseException as error:
        with suppress(StoreError):
            mlflow_client.set_terminated(run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise


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
                    profile=json.dumps({"num_rows": i.rows, "num_elements": i.elements, "test_rows": i.split}),
                ),
                [entities.InputTag("mlflow.data.context", i.context)],
            )
            for i in inputs
        ],
    )


@dataclass(frozen=True)
class DatasetInput:
    """A data set as MLflow names it.

    `context` says what it was read for (`training`, `testing`), `split` how the test rows were chosen.
    """

    name: str
    digest: str
    source: str
    schema: str
    rows: int
    elements: int
    split: str
    context: str


def metrics_of(values: Mapping[str, float], step: int, model_id: str | None = None) -> list[entities.Metric]:
    """Metrics of one step, stamped with the present time."""
    now = int(time.time() * 1000)
    return [entities.Metric(name, value, now, step, model_id=model_id) for name, value in values.items()]


def set_tags(mlflow_client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags in one call."""
    mlflow_client.log_batch(run_id, tags=run_tags(tags))


def run_tags(tags: Mapping[str, str]) -> list[entities.RunTag]:
    """Tags as MLflow takes them, each cut to the length it allows."""
    return [entities.RunTag(key, value[:MAX_TAG]) for key, value in tags.items()]


def result_tags(result: Result) -> dict[str, str]:
    """What a run says of its result beside the scores; a replay answers from it, to the last digit."""
    tags = {"trialbook.state": str(result.state)}
    if result.state is not State.KILLED:
        fields = dataclasses.asdict(dataclasses.replace(result, traceback=None))
        del fields["may_pass"]  # it has not, or this would not be the result
        known = {name: value for name, value in fields.items() if value not in (None, (), {})}
        # Many folds make a long line, which then goes on in further tags.
        line = json.dumps(known)
        tags |= {_piece(start): line[start : start + MAX_TAG] for start in range(0, len(line), MAX_TAG)}
    if result.reason is not None:
        tags["trialbook.reason"] = result.reason
    if result.best_epoch is not None:
        tags["trialbook.best_epoch"] = str(result.best_epoch)
    return tags


def result_from(tags: Mapping[str, str]) -> Result | None:
    """The result that `result_tags` wrote, None where there is none."""
    pieces: list[str] = []
    while (piece := tags.get(_piece(MAX_TAG * len(pieces)))) is not None:
        pieces.append(piece)
    if not pieces:
        return None
    fields = json.loads("".join(pieces))
    fold_scores = tuple(fields.pop("fold_scores", ()))
    return Result(State(fields.pop("state")), fold_scores=fold_scores, **fields)


def _piece(start: int) -> str:
    """The tag that holds a result from a position on."""
    return f"trialbook.result.{start}" if start else "trialbook.result"


def context_tags() -> dict[str, str]:
    """Who runs this, in MLflow's own words."""
    return {"mlflow.user": getpass.getuser(), "mlflow.source.name": "trialbook", "mlflow.source.type": "LOCAL"}


def text(value: ParamValue) -> str:
    """The one text form of a hyperparameter's value, whoever proposed it: `64`, `0.001`, `True`, `None`, `relu`."""
    if hasattr(value, "item"):
        value = value.item()
    return str(value)


def short(value: ParamValue) -> str:
    """A hyperparameter's value for people, of a number no more than four digits."""
    return f"{value:.4g}" if isinstance(value, float) else text(value)


def params_line(params: Mapping[str, ParamValue]) -> str:
    """Hyperparameters on one line, for people: `units=64 learning_rate=0.001`."""
    return " ".join(f"{name}={short(value)}" for name, value in params.items())
