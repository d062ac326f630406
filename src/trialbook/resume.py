"""Going on with a search, from nothing but its record in MLflow.

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

from trialbook import contact, settings, tracking
from trialbook.claim import refuse_if_claimed
from trialbook.errors import RequestError
from trialbook.store import Store, resolve_uri

LATEST = "latest"
CONFIG = "config.yaml"
OVERRIDES = "overrides.yaml"

# Where and for how long a search runs, and what becomes of its winner, is not what it is about.
_CHANGEABLE = ("budget", "promote", "executor", "hydra")
# These say which search, and where its record is.
_OF_THIS_CALL = ("resume", "tracking.uri", "tracking.experiment", "tracking.outage_timeout")
_ABSENT = object()
_LOOKED_AT = 20


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
        cfg: The configuration of this call, of which `resume` and `tracking` count.
        overrides: Its overrides; those of the budget, the executor and the final step are applied to the search.

    Raises:
        RequestError: If there is no such search, if it is being run, if it was interrupted before anything was on
            record, or if an override would make it another search.
    """
    where = Store(resolve_uri(cfg.tracking.uri), cfg.tracking.outage_timeout)
    contact.reach(where.uri)
    client = where.open()
    run = _find(client, str(cfg.resume), cfg.tracking.experiment)
    stored: Any = OmegaConf.create(_text(client, run, CONFIG))
    settings.refuse_from_python(stored, f"resume={cfg.resume}")
    before: Any = OmegaConf.to_container(OmegaConf.create(_text(client, run, OVERRIDES)))
    for key in _OF_THIS_CALL[1:]:
        OmegaConf.update(stored, key, OmegaConf.select(cfg, key), force_add=True)
    changes = []
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if key in _OF_THIS_CALL or override in before:
            continue
        if key.partition(".")[0] not in _CHANGEABLE:
            _check_same(run, stored, cfg, override, key)
            continue
        changes.append(override)
        if key.partition(".")[0] == "executor":
            stored.executor = cfg.executor
        else:
            stored = OmegaConf.merge(stored, OmegaConf.from_dotlist([f"{key}={value}"]))
    tags = run.data.tags
    choices = {"search": tags["trialbook.search"], "model": tags["trialbook.model"]}
    return Interrupted(run.info.run_id, stored, _replaced(before, changes), choices)


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


def _check_same(run: Run, stored: DictConfig, cfg: DictConfig, override: str, key: str) -> None:
    """An override of what the search is about must say what is on record."""
    was, now = (OmegaConf.select(config, key, default=_ABSENT) for config in (stored, cfg))
    if was != now or was is _ABSENT:
        named = run.data.tags.get(f"trialbook.{key}") or _shown(was)
        raise RequestError(
            f"{override} would make it another search: {key} is {named} on record; with resume only budget.…, "
            "promote.… and executor.… may change."
        )


def _shown(value: Any) -> str:
    """A value of a configuration as one writes it in an override."""
    if OmegaConf.is_config(value):
        value = value.get("name") or OmegaConf.to_container(value, resolve=True)
    if value is _ABSENT:
        return "not there"
    return "null" if value is None else str(value)


def _replaced(before: Sequence[str], changes: Sequence[str]) -> list[str]:
    """The overrides on record, with those that have changed in the place of the earlier ones."""
    changed = {change.partition("=")[0] for change in changes}
    return [*(override for override in before if override.partition("=")[0] not in changed), *changes]


def _find(client: MlflowClient, wanted: str, experiment: str) -> Run:
    """The search run to go on with."""
    if wanted == LATEST:
        return _latest(client, experiment)
    try:
        run = client.get_run(wanted)
    except MlflowException as error:
        raise RequestError(f"resume={wanted} is no run of this store; give a search run's id, or latest.") from error
    if run.data.tags.get(tracking.KIND) != "search":
        raise RequestError(f"resume={wanted} is not a search run; give the id of one, or latest.")
    if not _has_begun(client, run):
        raise RequestError(
            f"resume={wanted} has nothing to go on with: the search was interrupted before its configuration was on "
            "record; start it anew."
        )
    return run


def _latest(client: MlflowClient, experiment: str) -> Run:
    """The last search of an experiment that has begun but not finished."""
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs(
        [found.experiment_id] if found else [],
        f"tags.`{tracking.KIND}` = 'search' and attributes.status != 'FINISHED'",
        order_by=["attributes.start_time DESC"],
        max_results=_LOOKED_AT,
    )
    for run in runs:
        if _has_begun(client, run):
            latest: Run = run
            return latest
    raise RequestError(
        f"resume=latest finds no unfinished search in the experiment {experiment} that has anything on record to go on "
        "with."
    )


def _has_begun(client: MlflowClient, run: Run) -> bool:
    """Whether a search was not killed before it had said what it is about; if it was, its run is closed here.

    Raises:
        RequestError: If a living process drives it.
    """
    refuse_if_claimed(run)
    begun = {CONFIG, OVERRIDES} <= {file.path for file in client.list_artifacts(run.info.run_id)}
    if not begun and run.info.status == "RUNNING":
        client.set_terminated(run.info.run_id, "KILLED")
    return begun


def _text(client: MlflowClient, run: Run, name: str) -> str:
    return Path(client.download_artifacts(run.info.run_id, name)).read_text()
