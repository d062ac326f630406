"""The journal of a search: its run in MLflow and, below it, a run for every trial."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass

import mlflow.entities as entities
from mlflow import MlflowClient

from trialbook import saved_model
from trialbook.errors import RequestError
from trialbook.store import artifacts, client
from trialbook.tracking import (
    KIND,
    MAX_NAME,
    MAX_TAG,
    PARENT,
    RunLog,
    context_tags,
    metrics_of,
    params_line,
    result_from,
    result_tags,
    set_tags,
    text,
)
from trialbook.trial import ParamValue, Record, Result, State, Trial, beats, best_first

_ASKED = "trialbook.asked."
_STATUS = {State.COMPLETE: "FINISHED", State.FAILED: "FAILED", State.KILLED: "KILLED"}


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
        self._runs: dict[int, entities.RunInfo] = {}
        self._told = 0
        self._counts = dict.fromkeys(State, 0)
        self._best: Record | None = None
        self._models = models
        self._kept: list[Record] = []
        self._past: dict[int, list[entities.Run]] = {}

    def take_up(self) -> None:
        """Take the trials already below this run into account, and close those that an interruption left open."""
        self._client.update_run(self.run_id, status="RUNNING")
        for run in close_left_open(self._client, self.experiment_id, self.run_id):
            if run.data.tags.get(KIND) == "trial":
                self._past.setdefault(int(run.data.tags["trialbook.trial"]), []).append(run)

    def recall(self, trial: Trial) -> Record | None:
        """The recorded end of a trial, if it has one.

        Raises:
            RequestError: If the trial of this number had other hyperparameters.
        """
        for run in self._past.get(trial.number, []):
            if (result := result_from(run.data.tags)) is None:
                continue
            params = {name: text(value) for name, value in trial.params.items()}
            if run.data.params != params:
                raise RequestError(
                    f"the search cannot go on: trial {trial.number} is {params_line(run.data.params)} on record, but "
                    f"{params_line(params)} now; the libraries' versions may have changed."
                )
            record = Record(trial, result, run.info.run_id)
            self._runs[trial.number] = run.info
            self._told += 1
            self._summarize(record)
            return record
        return None

    def open(self, trial: Trial, attempt: int = 1) -> RunLog:
        """Open the trial's run, with its parameters and all that a replay needs to know."""
        tags = {
            "trialbook.trial": str(trial.number),
            "trialbook.attempt": str(attempt + len(self._past.get(trial.number, []))),
            "trialbook.state": "running",
            **_asked(trial),
            **{f"trialbook.{name}": text(value) for name, value in trial.details.items()},
        }
        if trial.epochs is not None:
            tags |= {"trialbook.epochs": str(trial.epochs), "trialbook.initial_epoch": str(trial.initial_epoch)}
        continues = None
        if trial.continues is not None:
            continues = self._runs[trial.continues]
            tags |= {"trialbook.continues": str(trial.continues), "trialbook.continues_run": continues.run_id}
        name = f"{trial.number:03d} {params_line(trial.params)}"
        run = self._runs[trial.number] = self.open_run("trial", name, tags)
        params = [entities.Param(key, text(value)) for key, value in trial.params.items()]
        for start in range(0, len(params), 100):
            self._client.log_batch(run.run_id, params=params[start : start + 100])
        return self.log(run, trial.params, continues)

    def retry(self, trial: Trial, log: RunLog, result: Result) -> None:
        """Close the run of an attempt after which the trial gets another: a failure, but not the trial's result."""
        del trial
        for name in self._client.get_run(log.run_id).data.tags:
            # The worker died between its last word and the driver's ear.
            if name.startswith("trialbook.result"):
                self._client.delete_tag(log.run_id, name)
        self._end(log.run_id, result, {"trialbook.state": str(result.state), "trialbook.reason": result.reason or ""})

    def close(self, trial: Trial, log: RunLog, result: Result) -> Record:
        """Close the trial's run, and keep the search run's best values and counts up to date."""
        record = Record(trial, result, log.run_id)
        # Of a trial that completed, its own log has told all but its place among the others.
        tags = {} if result.state is State.COMPLETE else result_tags(result)
        if self._told != trial.number:
            tags["trialbook.told"] = str(self._told)
        self._told += 1
        self._end(log.run_id, result, tags)
        self._summarize(record)
        return record

    def _end(self, run_id: str, result: Result, tags: Mapping[str, str]) -> None:
        """Close a trial's run, with what there is to say of how it ended."""
        if result.traceback is not None:
            self._client.log_text(run_id, result.traceback, "traceback.txt")
        if result.state is not State.COMPLETE:
            self._fail_models(run_id)
        if tags:
            set_tags(self._client, run_id, tags)
        self._client.set_terminated(run_id, _STATUS[result.state])

    def _fail_models(self, run_id: str) -> None:
        """Mark the models that a run was saving when it was killed: nobody will complete them."""
        found = self._client.search_logged_models([self.experiment_id], filter_string=f"source_run_id = '{run_id}'")
        for model in found:
            if model.status == entities.LoggedModelStatus.PENDING:
                self._client.finalize_logged_model(model.model_id, entities.LoggedModelStatus.FAILED)

    def open_run(self, kind: str, name: str, tags: Mapping[str, str]) -> entities.RunInfo:
        """Open a run below the search run."""
        run = self._client.create_run(
            self.experiment_id,
            run_name=name[:MAX_NAME],
            tags={**self._tags, **tags, KIND: kind, PARENT: self.run_id, **context_tags()},
        )
        return run.info

    def log(
        self, run: entities.RunInfo, params: Mapping[str, ParamValue], continues: entities.RunInfo | None = None
    ) -> RunLog:
        """What writes into a run below this search, which may continue another's training."""
        return RunLog(
            self._uri,
            self.experiment_id,
            run.run_id,
            run.artifact_uri,
            self._envelope,
            dict(params),
            None if continues is None else continues.artifact_uri,
        )

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
            artifacts(location, self._uri).delete_artifacts()

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


def close_left_open(mlflow_client: MlflowClient, experiment_id: str, run_id: str) -> list[entities.Run]:
    """All runs below a run, after closing those that a driver has left open when it died."""
    runs = children(mlflow_client, experiment_id, run_id)
    for run in runs:
        if run.info.status == "RUNNING":
            # With a result on record, only the last word was missing.
            ended = result_from(run.data.tags)
            state = State.KILLED if ended is None else ended.state
            set_tags(mlflow_client, run.info.run_id, {"trialbook.state": str(state)})
            mlflow_client.set_terminated(run.info.run_id, _STATUS[state])
    return runs


def record_of(run: entities.Run) -> Record | None:
    """A trial as its run tells it, to the last digit; None if the run has no result."""
    tags = run.data.tags
    if (result := result_from(tags)) is None:
        return None
    parts = sorted((name for name in tags if name.startswith(_ASKED)), key=lambda name: int(name[len(_ASKED) :]))
    return Record(Trial(**json.loads("".join(tags[name] for name in parts))), result, run.info.run_id)


def _asked(trial: Trial) -> dict[str, str]:
    """A trial as JSON, its hyperparameters with their types, in as many tags as it takes."""
    line = json.dumps(dataclasses.asdict(trial), default=lambda value: value.item())
    return {f"{_ASKED}{i}": line[start : start + MAX_TAG] for i, start in enumerate(range(0, len(line), MAX_TAG))}


def children(mlflow_client: MlflowClient, experiment_id: str, run_id: str) -> list[entities.Run]:
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
