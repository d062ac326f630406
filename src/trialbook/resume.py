"""Going on with a search that was interrupted, from nothing but its record in MLflow.

Searches are deterministic given their seed and the order of asks and tells, so resuming is replaying: the search is
composed again from the configuration on its run and asked again; trials on record are answered from the record, and
the others are run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from omegaconf import DictConfig, OmegaConf

from trialbook import contact, store, tracking
from trialbook.errors import RequestError

LATEST = "latest"
_CHANGEABLE = ("budget.", "promote.", "executor.", "hydra.")
_SAME_STORE = ("resume=", "tracking.uri=", "tracking.experiment=")


@dataclass(frozen=True)
class Interrupted:
    """A search to go on with: its run, and how it was composed."""

    run_id: str
    cfg: DictConfig
    overrides: Sequence[str]
    choices: Mapping[str, str]


def load(cfg: DictConfig, overrides: Sequence[str]) -> Interrupted:
    """Find the search that `resume` names, and compose it as it was.

    Args:
        cfg: The configuration of this call, of which `resume`, `tracking` and `executor` count.
        overrides: Its overrides; those of the budget, of the final step and of the executor are applied to the
            search.

    Raises:
        RequestError: If there is no such search, it has finished, or an override would make it another search.
    """
    uri = store.resolve_uri(cfg.tracking.uri)
    contact.reach(uri)
    client = store.client(uri)
    run = _find(client, str(cfg.resume), cfg.tracking.experiment)
    if run.info.status == "FINISHED":
        raise RequestError(f"resume={run.info.run_id} has finished; start a new search to try more.")
    stored: Any = OmegaConf.create(_text(client, run, "config.yaml"))
    stored.tracking.uri = cfg.tracking.uri
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if override.startswith(_SAME_STORE):
            continue
        if key == "executor":
            stored.executor = cfg.executor
            continue
        if not key.startswith(_CHANGEABLE):
            raise RequestError(
                f"{override} would make it another search; with resume only budget.…, promote.… and executor… may "
                "change."
            )
        stored = OmegaConf.merge(stored, OmegaConf.from_dotlist([f"{key}={value}"]))
    tags = run.data.tags
    choices = {"search": tags["trialbook.search"], "model": tags["trialbook.model"]}
    before: Any = OmegaConf.to_container(OmegaConf.create(_text(client, run, "overrides.yaml")))
    return Interrupted(run.info.run_id, stored, before, choices)


def check_unchanged(run: Run, tags: Mapping[str, str]) -> None:
    """What a search is about must be what it was.

    Raises:
        RequestError: Naming what differs.
    """
    for name, value in tags.items():
        before = run.data.tags.get(name)
        if before != value:
            raise RequestError(
                f"resume={run.info.run_id} cannot go on: {name.removeprefix('trialbook.')} was {before} and is {value}."
            )


def _find(client: MlflowClient, wanted: str, experiment: str) -> Run:
    if wanted != LATEST:
        try:
            run = client.get_run(wanted)
        except MlflowException as error:
            raise RequestError(
                f"resume={wanted} is no run of this store; give a search run's id, or latest."
            ) from error
        if run.data.tags.get(tracking.KIND) != "search":
            raise RequestError(f"resume={wanted} is not a search run; give the id of one, or latest.")
        return run
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs(
        [found.experiment_id] if found else [],
        f"tags.`{tracking.KIND}` = 'search' and attributes.status != 'FINISHED'",
        order_by=["attributes.start_time DESC"],
        max_results=1,
    )
    if not runs:
        raise RequestError(f"resume=latest finds no unfinished search in the experiment {experiment}.")
    latest: Run = runs[0]
    return latest


def _text(client: MlflowClient, run: Run, name: str) -> str:
    try:
        return Path(client.download_artifacts(run.info.run_id, name)).read_text()
    except (MlflowException, OSError) as error:
        raise RequestError(f"resume={run.info.run_id} was interrupted before its {name} was on record.") from error
