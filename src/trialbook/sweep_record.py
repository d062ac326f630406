"""What MLflow holds of a sweep: its run, and below it a search run for every job.

Nothing else remembers a sweep: what its jobs came to, what is left to do and what can be promoted is read from here.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from omegaconf import DictConfig, OmegaConf

from trialbook import claim, settings, store, tracking
from trialbook.errors import RequestError
from trialbook.exits import REFUSED
from trialbook.history import History, below, record_of
from trialbook.trial import Record, State, merit

SWEEP = "trialbook.sweep"
JOB = "trialbook.job"
OVERRIDES = "trialbook.overrides"
REASON = "trialbook.reason"
_EXIT_CODE = "trialbook.exit_code"
CONFIG_FILE, OVERRIDES_FILE = "config.yaml", "overrides.yaml"
_STATES = {"FINISHED": State.COMPLETE, "FAILED": State.FAILED}


@dataclass(frozen=True)
class Job:
    """One job of a sweep.

    Attributes:
        sweep: The sweep's run.
        number: Hydra's number of it, from 0.
        overrides: Those that say what it searches, as one line; the same when the sweep is resumed.
    """

    sweep: str
    number: int
    overrides: str

    @property
    def tags(self) -> dict[str, str]:
        """What stands on its search run."""
        return {tracking.PARENT: self.sweep, SWEEP: self.sweep, JOB: str(self.number), OVERRIDES: self.overrides}


@dataclass(frozen=True)
class Searched:
    """A search as it is on record.

    Attributes:
        run: Its run.
        uri: Address of the store.
    """

    run: Run
    uri: str

    @property
    def run_id(self) -> str:
        """The search run."""
        return str(self.run.info.run_id)

    @property
    def tags(self) -> Mapping[str, str]:
        """The tags of its run."""
        tags: Mapping[str, str] = self.run.data.tags
        return tags

    @property
    def title(self) -> str:
        """What was searched, in a few words."""
        return str(self.run.info.run_name)

    @property
    def job(self) -> int:
        """The number of the job in its sweep, 0 for a search by itself."""
        return int(self.tags.get(JOB, 0))

    @property
    def state(self) -> State:
        """How it ended; a search that is still open counts as killed."""
        return _STATES.get(self.run.info.status, State.KILLED)

    @property
    def refused(self) -> bool:
        """Whether it was refused before it began."""
        return self.state is State.FAILED and self.tags.get(_EXIT_CODE) == str(REFUSED)

    @property
    def reason(self) -> str:
        """Why it is not complete."""
        return "" if self.state is State.COMPLETE else self.tags.get(REASON, "it was interrupted")

    @property
    def metric(self) -> str:
        """What it optimised; empty if it never began."""
        return self.tags.get("trialbook.metric", "")

    @property
    def maximize(self) -> bool:
        """In which direction."""
        return self.tags.get("trialbook.direction") != "minimize"

    @property
    def measure(self) -> tuple[str, ...]:
        """What its objective was measured by; only searches of one measure can be compared."""
        names = ("trialbook.metric", "trialbook.direction", "trialbook.test_digest")
        return tuple(self.tags.get(name, "") for name in names)

    @property
    def objective(self) -> float:
        """The objective of its best trial; NaN if it is not complete."""
        return float(self.run.data.metrics["best_objective"]) if self.state is State.COMPLETE else math.nan

    @property
    def seconds(self) -> float:
        """How long it took."""
        ended = self.run.info.end_time or self.run.info.start_time
        return float(ended - self.run.info.start_time) / 1000

    def count(self, state: State) -> int:
        """How many of its trials ended so."""
        return int(self.run.data.metrics.get(f"trials_{state}", 0))

    @property
    def records(self) -> list[Record]:
        """Its trials that have ended, with what became of them."""
        runs = below(store.client(self.uri), self.run.info.experiment_id, self.run_id)
        found = [record_of(run) for run in runs if run.data.tags.get(tracking.KIND) == "trial"]
        return [record for record in found if record is not None]

    @property
    def best(self) -> Record:
        """Its best trial.

        Raises:
            RequestError: If it has none.
        """
        run_id = self.tags.get("trialbook.best_run")
        record = None if run_id is None else record_of(store.client(self.uri).get_run(run_id))
        if record is None:
            raise RequestError(f"search run {self.run_id} has no best trial: it has not ended, or no trial completed.")
        return record

    @functools.cached_property
    def merit(self) -> tuple[float, float]:
        """What searches are ranked by, least first, if they are complete: the merit of their best trials."""
        return merit(self.best, maximize=self.maximize)

    @property
    def data_name(self) -> str:
        """What its data are called."""
        assert self.run.inputs is not None
        return str(self.run.inputs.dataset_inputs[0].dataset.name)

    @property
    def choices(self) -> dict[str, str]:
        """What it chose for the groups of the configuration that name it."""
        return {"search": self.tags["trialbook.search"], "model": self.tags["trialbook.model"]}

    def config(self) -> DictConfig:
        """Its composed configuration.

        Raises:
            RequestError: If it ended before that was on record, or was started from Python.
        """
        cfg = DictConfig(OmegaConf.create(text_of(self.uri, self.run_id, CONFIG_FILE)))
        settings.refuse_from_python(cfg, self.run_id)
        return cfg

    @property
    def can_go_on(self) -> bool:
        """Whether enough of it is on record to go on with it."""
        files = {file.path for file in store.client(self.uri).list_artifacts(self.run_id)}
        return {CONFIG_FILE, OVERRIDES_FILE} <= files


class SweepRun:
    """The run of a sweep, and the runs of its searches below it.

    Args:
        uri: Address of the store.
        run_id: The sweep run.
        is_ours: Whether this process has made it, and may take it back.
    """

    def __init__(self, uri: str, run_id: str, *, is_ours: bool = False) -> None:
        self.uri = uri
        self.run_id = run_id
        self.is_ours = is_ours
        self.client = store.client(uri)
        self.run = self.client.get_run(run_id)
        self.experiment_id = str(self.run.info.experiment_id)

    @classmethod
    def take_up(cls, uri: str, run_id: str) -> SweepRun:
        """The run of a sweep that was interrupted, to go on with.

        Raises:
            RequestError: If another process drives it.
        """
        claim.take_over(store.client(uri), run_id)
        store.client(uri).update_run(run_id, status="RUNNING")
        return cls(uri, run_id)

    @classmethod
    def open(cls, uri: str, title: str, *, adopt: str | None, experiment: str, files: Mapping[str, str]) -> SweepRun:
        """Open the run of a new sweep, or make one of the run that `mlflow run` has made for this process."""
        client = store.client(uri)
        tags = {tracking.KIND: "sweep", **claim.claim_tags()}
        run_id, _ = tracking.adopt_or_open(client, title, tags, adopt=adopt, experiment=experiment)
        for name, content in files.items():
            client.log_text(run_id, content, name)
        return cls(uri, run_id, is_ours=adopt is None)

    def searches(self) -> list[Searched]:
        """The searches of its jobs, in the order of the jobs."""
        runs = below(self.client, self.experiment_id, self.run_id)
        found = [Searched(run, self.uri) for run in runs if run.data.tags.get(tracking.KIND) == "search"]
        return sorted(found, key=lambda searched: searched.job)

    def search_of(self, job: Job) -> Searched | None:
        """The search of a job, if it has begun; another job of the same number does not count."""
        for searched in self.searches():
            if searched.job == job.number and searched.tags.get(OVERRIDES) == job.overrides:
                return searched
        return None

    def list_ended(self, job: Job, title: str, state: State, code: int, reason: str) -> None:
        """Put a job on record that did not end well, and close what it left open."""
        if (searched := self.search_of(job)) is None:
            # It did not get as far as to open its run; with one, it is seen.
            tags = {tracking.KIND: "search", **job.tags}
            run_id, _ = tracking.adopt_or_open(self.client, title, tags, adopt=None, experiment=self.experiment_name)
        elif claim.claimed(searched.run) is not None:
            return  # somebody goes on with it by itself
        else:
            run_id = searched.run_id
            History.take_up(self.client, self.experiment_id, run_id)
        tracking.set_tags(self.client, run_id, {REASON: reason, _EXIT_CODE: str(code)})
        self.client.set_terminated(run_id, "KILLED" if state is State.KILLED else "FAILED")

    @property
    def experiment_name(self) -> str:
        """The experiment that all of it stands in."""
        return str(self.client.get_experiment(self.experiment_id).name)

    def close_left_open(self) -> None:
        """Close the searches that nobody else has closed, and their trials."""
        for searched in self.searches():
            if searched.run.info.status == "RUNNING" and claim.claimed(searched.run) is None:
                History.take_up(self.client, self.experiment_id, searched.run_id)
                self.client.set_terminated(searched.run_id, "KILLED")

    def take_back(self, searches: Sequence[Searched]) -> None:
        """Delete a sweep of which nothing has run, unless it stands in a run that others have made."""
        if not self.is_ours:
            return
        for run_id in [*(searched.run_id for searched in searches), self.run_id]:
            self.client.delete_run(run_id)


def text_of(uri: str, run_id: str, name: str) -> str:
    """A text among the artifacts of a run.

    Raises:
        RequestError: If it is not there.
    """
    try:
        return Path(store.client(uri).download_artifacts(run_id, name)).read_text()
    except (MlflowException, OSError) as error:
        raise RequestError(f"run {run_id} ended before its {name} was on record.") from error


def find(uri: str, run_id: str) -> Any:
    """A run by its id; None if the store has no such run."""
    try:
        return store.client(uri).get_run(run_id)
    except MlflowException:
        return None
