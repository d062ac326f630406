"""The journal of a search: its run in MLflow and, below it, a run for every trial."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import mlflow.entities as entities
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from trialbook.envelope import Envelope
from trialbook.errors import RequestError, StoreError
from trialbook.history import ASKED_AFTER, SECONDS, TOLD, History, asked, fail_models
from trialbook.store import Store
from trialbook.tracking import (
    KIND,
    MAX_NAME,
    PARENT,
    STATUS,
    RunLog,
    context_tags,
    metrics_of,
    params_line,
    result_tags,
    set_tags,
    text,
)
from trialbook.trial import INTERRUPTED, ParamValue, Record, Result, State, Trial, beats, best_first

BEST = "best_"


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
        store: Where it is, which workers are told too.
        run_id: The search run, already open.
        experiment_id: Its experiment.
        tags: Tags that every trial carries.
        envelope: How models are saved.
        maximize: Direction of the objective.
        models: Which trials' models to keep.

    Attributes:
        records: How trials have ended, by number.
    """

    def __init__(
        self,
        store: Store,
        run_id: str,
        experiment_id: str,
        *,
        tags: Mapping[str, str],
        envelope: Envelope,
        maximize: bool,
        models: Models,
    ) -> None:
        self.run_id = run_id
        self.experiment_id = experiment_id
        self.store = store
        self._tags = dict(tags)
        self.envelope = envelope
        self._maximize = maximize
        self._runs: dict[int, entities.RunInfo] = {}
        self._told = 0
        self._asked_after: dict[int, int] = {}
        self._counts = dict.fromkeys(State, 0)
        self._best: Record | None = None
        self.records: dict[int, Record] = {}
        self._models = models
        self._kept: list[Record] = []
        self._unwanted: list[Record] = []
        self.history = History()
        self._earlier = 0.0
        self._clock = time.monotonic()

    @property
    def _client(self) -> MlflowClient:
        return self.store.client

    @property
    def seconds(self) -> float:
        """For how long the search has run, interruptions left out, in seconds."""
        return self._earlier + time.monotonic() - self._clock

    @property
    def keeps_files(self) -> bool:
        """Whether the artifacts of its runs are files of this machine."""
        location = self._client.get_experiment(self.experiment_id).artifact_location
        return self.store.folder(location) is not None

    def take_up(self) -> None:
        """Take what is already below this run into account, and close what an interruption has left open."""
        self.history = History.take_up(self._client, self.experiment_id, self.run_id)
        said = self._client.get_run(self.run_id).data.tags.get(SECONDS, 0.0)
        self._earlier = max(float(said), self.history.seconds)
        self._told = self.history.told

    def steps(self) -> Iterator[tuple[str, int]]:
        """What the search was asked and told before it was taken up."""
        return self.history.steps()

    def recall(self, trial: Trial) -> Record | None:
        """The recorded end of a trial, if it has one.

        Raises:
            RequestError: If the trial of this number had other hyperparameters.
        """
        record = self.history.recall(trial)
        for run in self.history.trials.get(trial.number, ()):
            if not run.data.params:
                self._log_params(run.info.run_id, trial)
            if record is not None and run.info.run_id == record.run_id:
                self._runs[trial.number] = run.info
        if record is not None:
            self._count(record)
            # Models were deleted as trials ended, but for the last ones perhaps.
            self._unwanted = self._trim()
        return record

    def open(self, trial: Trial, attempt: int = 1) -> RunLog:
        """Open the trial's run, with its parameters and all that a replay needs to know."""
        return self.store.whole(self._open, trial, attempt)

    def _open(self, trial: Trial, attempt: int) -> RunLog:
        asked_after = self._asked_after.setdefault(trial.number, self.history.asked_after(trial.number, self._told))
        tags = {
            "trialbook.trial": str(trial.number),
            "trialbook.attempt": str(attempt + len(self.history.trials.get(trial.number, []))),
            ASKED_AFTER: str(asked_after),
            SECONDS: f"{self.seconds:.3f}",
            "trialbook.state": "running",
            **asked(trial),
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
        log = self.log(run, trial.params, continues)
        try:
            self._log_params(run.run_id, trial)
        except KeyboardInterrupt:
            # On a server: the loop does not know the run yet.
            self.close(trial, log, INTERRUPTED)
            raise
        return log

    def retry(self, trial: Trial, log: RunLog, result: Result) -> None:
        """Close the run of an attempt after which the trial gets another: a failure, but not the trial's result."""
        del trial
        log.ended = True
        for name in self._client.get_run(log.run_id).data.tags:
            # The worker died between its last word and the driver's ear.
            if name.startswith("trialbook.result"):
                self._client.delete_tag(log.run_id, name)
        self._end(log.run_id, result, {"trialbook.state": str(result.state), "trialbook.reason": result.reason or ""})

    def close(self, trial: Trial, log: RunLog, result: Result) -> Record:
        """Close the trial's run, and keep the search run's best values and counts up to date."""
        log.ended = True
        record = Record(trial, result, log.run_id)
        if result.state is State.KILLED:
            # What cannot be written now is closed by whoever resumes the search.
            with contextlib.suppress(StoreError):
                self._end(log.run_id, result, result_tags(result))
        else:
            # Of a trial that completed, its own log has told all but its place among the others.
            tags = {} if result.state is State.COMPLETE else result_tags(result)
            if self._told != trial.number:
                tags[TOLD] = str(self._told)
            self._end(log.run_id, result, tags)
            self._told += 1
        if self._count(record):
            # One point for each improvement: the search's own learning curve, live.
            self._client.log_batch(self.run_id, metrics=metrics_of({"best_objective": record.objective}, self._told))
        self._unwanted += self._trim()
        while self._unwanted:
            self._delete_model(self._unwanted.pop())
        return record

    def hurry(self) -> None:
        """Wait no longer for a store that is away, and not for long for one that turns out to be."""
        self.store.hurry()

    def _end(self, run_id: str, result: Result, tags: Mapping[str, str]) -> None:
        """Close a trial's run, with what there is to say of how it ended."""
        if result.traceback is not None:
            self._client.log_text(run_id, result.traceback, "traceback.txt")
        if result.state is not State.COMPLETE:
            fail_models(self._client, self.experiment_id, run_id)
        if tags:
            set_tags(self._client, run_id, tags)
        self._client.set_terminated(run_id, STATUS[result.state])

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
            self.store,
            self.experiment_id,
            run.run_id,
            run.artifact_uri,
            self.envelope,
            dict(params),
            None if continues is None else continues.artifact_uri,
        )

    def _log_params(self, run_id: str, trial: Trial) -> None:
        params = [entities.Param(key, text(value)) for key, value in trial.params.items()]
        for start in range(0, len(params), 100):
            self._client.log_batch(run_id, params=params[start : start + 100])

    def _count(self, record: Record) -> bool:
        """Take a trial's end into account; returns whether it is the best so far."""
        self.records[record.trial.number] = record
        self._counts[record.result.state] += 1
        if self._models.best is not None and record.result.model_id is not None:
            self._kept.append(record)
        best = beats(record, self._best, maximize=self._maximize)
        if best:
            self._best = record
        return best

    def _trim(self) -> list[Record]:
        """Of the trials with models, take those off the list that are no longer among the best."""
        if self._models.best is None:
            return []
        ranked = best_first(self._kept, maximize=self._maximize)
        self._kept = ranked[: self._models.best]
        return ranked[self._models.best :]

    def _delete_model(self, record: Record) -> None:
        assert record.result.model_id is not None
        try:
            location = self._client.get_logged_model(record.result.model_id).artifact_location
        except MlflowException:
            return  # deleted just before an interruption
        self._client.delete_logged_model(record.result.model_id)
        self.store.artifacts(location).delete_artifacts()

    def reopen(self) -> bool:
        """Let the search run be under way again; returns whether it had finished."""
        finished = bool(self._client.get_run(self.run_id).info.status == "FINISHED")
        self._client.update_run(self.run_id, status="RUNNING")
        return finished

    def finish(self, best: Record | None) -> None:
        """Write the counts and the best values on the search run.

        The best hyperparameters are tags: a search that goes on may find better ones, and MLflow's parameters cannot
        change.
        """
        counts = {f"trials_{state}": float(count) for state, count in self._counts.items()}
        self._client.log_batch(self.run_id, metrics=metrics_of(counts, 0))
        tags = {SECONDS: f"{self.seconds:.3f}"}
        if best is not None:
            tags |= {"trialbook.best_trial": str(best.trial.number), "trialbook.best_run": best.run_id or ""}
            tags |= {f"{BEST}{name}": text(value) for name, value in best.trial.params.items()}
            self._client.log_batch(self.run_id, metrics=metrics_of({"best_objective": best.objective}, self._told))
        for name in self._client.get_run(self.run_id).data.tags:
            if name.startswith(BEST) and name not in tags:
                self._client.delete_tag(self.run_id, name)
        set_tags(self._client, self.run_id, tags)
