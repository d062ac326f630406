"""What is asked of a sweep: whether its jobs can be composed, and how to ask for the same again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from omegaconf import DictConfig, OmegaConf

from trialbook.errors import RequestError
from trialbook.launching import flags_again
from trialbook.sweep_job import CHANGEABLE, PARENT_KEY

_EPOCH_KEY = "objective.epoch"


def compositions(config: DictConfig, config_name: str | None) -> list[DictConfig]:
    """The configurations of some jobs of a sweep, in which every choice occurs once.

    Args:
        config: Hydra's configuration of the multirun.
        config_name: The primary configuration.

    Raises:
        HydraException: If a job cannot be composed.
    """
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    words = [*(f"{key}={value}" for key, value in params.items()), *config.hydra.overrides.task]
    hydra_words = [word for word in config.hydra.overrides.hydra if not word.startswith("hydra.mode=")]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    choices = [_choices(override) for override in parser.parse_overrides(words)]
    first = [values[:1] for values in choices]
    composed = []
    for i in range(max((len(values) for values in choices), default=1)):
        chosen = [word for values, default in zip(choices, first, strict=True) for word in values[i : i + 1] or default]
        composed.append(compose(config_name, [*hydra_words, *chosen]))
    return composed


def _choices(override: Override) -> list[str]:
    """The overrides of single jobs that an override of a sweep stands for: of a range only the first."""
    if not override.is_sweep_override():
        return [override.input_line or ""]
    value = override.value()
    if isinstance(value, IntervalSweep):
        return [f"{override.get_key_element()}={value.start}"]
    words = [f"{override.get_key_element()}={word}" for word in override.sweep_string_iterator()]
    return words[:1] if isinstance(value, RangeSweep) else words


def check(jobs: Sequence[DictConfig]) -> None:
    """A sweep is recorded in one place, and its final step is taken under names that models can have.

    Raises:
        RequestError: For anything else.
    """
    for cfg in jobs:
        if cfg.resume is not None or cfg.promote.run is not None:
            raise RequestError("resume=… and promote=… name a run that is already there; give them without -m.")
        if cfg.tracking.uri != jobs[0].tracking.uri or cfg.tracking.experiment != jobs[0].tracking.experiment:
            raise RequestError("tracking.uri and tracking.experiment cannot be swept over: a sweep is in one place.")
    from trialbook import app

    for cfg in jobs:
        app.registered_model(cfg)


def same_epoch(jobs: Sequence[DictConfig], words: Sequence[str]) -> list[str]:
    """What makes the objectives of nets mean the same in every search of a sweep.

    scikit-learn's searches judge a net after its last epoch, Keras Tuner's at its best. Where a sweep has both, and
    nothing was said about it, all are judged at their best.
    """
    if any(word.lstrip("+").startswith(f"{_EPOCH_KEY}=") for word in words):
        return []
    return [f"{_EPOCH_KEY}=best"] if len({cfg.objective.epoch for cfg in jobs}) > 1 else []


def words_of(config: DictConfig) -> list[str]:
    """The words of the command that asked for a sweep, wherever it is given again."""
    flags = flags_again(config.hydra.runtime.config_sources)
    hydra_words = [word for word in config.hydra.overrides.hydra if not word.startswith("hydra.mode=")]
    task = without_parent(config.hydra.overrides.task)
    return [*flags, *hydra_words, *task]


def without_parent(words: Sequence[str]) -> list[str]:
    """The overrides without the one that names the sweep's run."""
    return [word for word in words if not word.startswith(f"{PARENT_KEY}=")]


def words_to_resume(cfg: DictConfig, overrides: Sequence[str], hydra_config: Any) -> list[str] | None:
    """The words of the command that goes on with the sweep that `resume` names; None if it names a search.

    Args:
        cfg: The configuration of this call, of which `resume` and `tracking` count.
        overrides: Its overrides.
        hydra_config: Hydra's own configuration, of which a launcher may be another than it was.

    Raises:
        RequestError: If the sweep has finished, or an override would make it another one.
    """
    from trialbook import claim, contact, store
    from trialbook.sweep_record import OVERRIDES_FILE, text_of

    uri = store.resolve_uri(cfg.tracking.uri)
    contact.reach(uri)
    run = _sweep(uri, str(cfg.resume), cfg.tracking.experiment)
    if run is None:
        return None
    run_id = run.info.run_id
    claim.refuse_if_claimed(run)
    if run.info.status == "FINISHED":
        raise RequestError(f"resume={run_id} has finished; start a new sweep to try more.")
    changes = [word for word in overrides if not word.startswith(("resume=", "tracking.experiment="))]
    for word in changes:
        if not word.startswith(CHANGEABLE):
            raise RequestError(
                f"{word} would make it another sweep; with resume only budget.…, promote.…, executor… and hydra.… may "
                "change."
            )
    changes += [word for word in hydra_config.overrides.hydra if not word.startswith("hydra.mode=")]
    changed = {word.partition("=")[0] for word in changes}
    before: Any = OmegaConf.to_container(OmegaConf.create(text_of(uri, run_id, OVERRIDES_FILE)))
    kept = [w for w in before if w.partition("=")[0] not in changed | {"tracking.uri"}]
    return ["--multirun", *kept, *changes, f"{PARENT_KEY}='{run_id}'"]


def _sweep(uri: str, wanted: str, experiment: str) -> Any:
    """The run of the sweep that is meant, None if a search is."""
    from trialbook import store, tracking
    from trialbook.resume import LATEST
    from trialbook.sweep_record import SWEEP, find

    if wanted != LATEST:
        run = find(uri, wanted)
        return run if run is not None and run.data.tags.get(tracking.KIND) == "sweep" else None
    client = store.client(uri)
    if (found := client.get_experiment_by_name(experiment)) is None:
        return None
    unfinished = [
        run
        for kind in ("sweep", "search")
        for run in client.search_runs(
            [found.experiment_id],
            f"tags.`{tracking.KIND}` = '{kind}' and attributes.status != 'FINISHED'",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
    ]
    if not unfinished:
        return None
    latest = max(unfinished, key=lambda run: run.info.start_time)
    if (parent := latest.data.tags.get(SWEEP)) is not None:
        return find(uri, parent)
    return latest if latest.data.tags.get(tracking.KIND) == "sweep" else None
