"""What is on record of a search that was interrupted: its trials, and the order in which they were asked for and told.

That order, and the results, are all that a replay needs.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import mlflow.entities as entities
from mlflow import MlflowClient

from trialbook.errors import RequestError
from trialbook.tracking import KIND, MAX_TAG, PARENT, STATUS, params_line, result_from, set_tags, text
from trialbook.trial import Record, State, Trial

TOLD = "trialbook.told"
ASKED_AFTER = "trialbook.asked_after"
SECONDS = "trialbook.seconds"
_ASKED = "trialbook.asked."


@dataclass
class History:
    """The runs below a search run.

    Attributes:
        trials: The runs of each trial, by the trial's number, the first attempt first.
        retrains: The runs of its final steps, the first first.
    """

    trials: dict[int, list[entities.Run]] = field(default_factory=dict)
    retrains: list[entities.Run] = field(default_factory=list)

    @classmethod
    def read(cls, client: MlflowClient, experiment_id: str, run_id: str) -> History:
        """Read what is below a search run."""
        history = cls()
        for run in below(client, experiment_id, run_id):
            if run.data.tags.get(KIND) == "trial":
                history.trials.setdefault(_number(run), []).append(run)
            else:
                history.retrains.append(run)
        for runs in history.trials.values():
            runs.sort(key=lambda run: int(run.data.tags["trialbook.attempt"]))
        return history

    @classmethod
    def take_up(cls, client: MlflowClient, experiment_id: str, run_id: str) -> History:
        """Read what is below a search run, and close what an interruption has left open."""
        history = cls.read(client, experiment_id, run_id)
        left = [run for runs in (*history.trials.values(), history.retrains) for run in runs if _is_open(run)]
        if not left:
            return history
        told = history.told
        for run in left:
            tags = {}
            if (result := result_from(run.data.tags)) is not None:
                # Only the last word was missing; and the search was told of it after all others, if at all.
                tags[TOLD] = run.data.tags.get(TOLD, str(told))
                told = max(told, 1 + int(tags[TOLD]))
            _close(client, run, State.KILLED if result is None else result.state, tags)
        return cls.read(client, experiment_id, run_id)

    @property
    def told(self) -> int:
        """How many results the search had been told."""
        return 1 + max((_told(run) for run in self._ended()), default=-1)

    @property
    def seconds(self) -> float:
        """For how long the search had run when the last trial ended, in seconds."""
        ends = [
            float(run.data.tags[SECONDS]) + (run.info.end_time - run.info.start_time) / 1000 for run in self._ended()
        ]
        return max(ends, default=0.0)

    def steps(self) -> Iterator[tuple[str, int]]:
        """What was done, in order: `("ask", number)` or `("tell", number)` of a trial."""
        told = sorted((_told(run), _number(run)) for run in self._ended())
        asked_after = 0
        for number in range(1 + max(self.trials, default=-1)):
            asked_after = self.asked_after(number, asked_after)
            while told and told[0][0] < asked_after:
                yield "tell", told.pop(0)[1]
            yield "ask", number
        yield from (("tell", number) for _, number in told)

    def asked_after(self, number: int, default: int) -> int:
        """How many results had been told when a trial was asked for; `default` for one that is not on record."""
        runs = self.trials.get(number)
        return int(runs[0].data.tags[ASKED_AFTER]) if runs else default

    def recall(self, trial: Trial) -> Record | None:
        """How a trial ended, if it has.

        Raises:
            RequestError: If the trial of this number had other hyperparameters.
        """
        params = {name: text(value) for name, value in trial.params.items()}
        for run in self.trials.get(trial.number, ()):
            # A run that was interrupted as it opened may have none yet.
            if run.data.params not in ({}, params):
                raise RequestError(
                    f"the search cannot go on: trial {trial.number} is {params_line(run.data.params)} on record, but "
                    f"{params_line(params)} now; the libraries' versions may have changed."
                )
            if _has_ended(run) and (result := result_from(run.data.tags)) is not None:
                return Record(trial, result, run.info.run_id)
        return None

    def _ended(self) -> Iterator[entities.Run]:
        """The run in which each trial that has a result ended."""
        return (run for runs in self.trials.values() for run in runs if _has_ended(run))


def record_of(run: entities.Run) -> Record | None:
    """A trial as its run tells it, to the last digit; None if the run has no result."""
    tags = run.data.tags
    if not _has_ended(run) or (result := result_from(tags)) is None:
        return None
    parts = sorted((name for name in tags if name.startswith(_ASKED)), key=lambda name: int(name[len(_ASKED) :]))
    return Record(Trial(**json.loads("".join(tags[name] for name in parts))), result, run.info.run_id)


def asked(trial: Trial) -> dict[str, str]:
    """A trial as JSON, its hyperparameters with their types, in as many tags as it takes."""
    line = json.dumps(dataclasses.asdict(trial), default=lambda value: value.item())
    return {f"{_ASKED}{i}": line[start : start + MAX_TAG] for i, start in enumerate(range(0, len(line), MAX_TAG))}


def _number(run: entities.Run) -> int:
    return int(run.data.tags["trialbook.trial"])


def _told(run: entities.Run) -> int:
    """A trial's place in the order of telling, which is on record where it is not the trial's number."""
    return int(run.data.tags.get(TOLD, _number(run)))


def _is_open(run: entities.Run) -> bool:
    return bool(run.info.status == "RUNNING")


def _has_ended(run: entities.Run) -> bool:
    """Whether a run holds its trial's result: an attempt that is followed by another has none, nor has a killed one."""
    return run.info.status in (STATUS[State.COMPLETE], STATUS[State.FAILED]) and "trialbook.result" in run.data.tags


def _close(client: MlflowClient, run: entities.Run, state: State, tags: dict[str, str]) -> None:
    """End a run whose driver is gone."""
    fail_models(client, run.info.experiment_id, run.info.run_id)
    if run.data.tags.get(KIND) == "trial":
        set_tags(client, run.info.run_id, {"trialbook.state": str(state), **tags})
    client.set_terminated(run.info.run_id, STATUS[state])


def fail_models(client: MlflowClient, experiment_id: str, run_id: str) -> None:
    """Mark the models that a run was saving when it was killed: nobody will complete them."""
    for model in client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'"):
        if model.status == entities.LoggedModelStatus.PENDING:
            client.finalize_logged_model(model.model_id, entities.LoggedModelStatus.FAILED)


def below(client: MlflowClient, experiment_id: str, run_id: str) -> Sequence[entities.Run]:
    """All runs below a run, the oldest first."""
    found: list[entities.Run] = []
    token = None
    while True:
        page = client.search_runs(
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
