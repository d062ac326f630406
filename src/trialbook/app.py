"""From a composed configuration to a search that runs."""

from __future__ import annotations

import inspect
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import hydra.utils
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from trialbook import allowed, resume, tracking, workflow
from trialbook.errors import RequestError
from trialbook.evaluate import Objective
from trialbook.noise import without_native_notes
from trialbook.plan import Plan, setting_of, space_of
from trialbook.progress import Terminal
from trialbook.search.loop import Budget
from trialbook.space import Space


def run(
    cfg: DictConfig,
    overrides: Sequence[str],
    choices: Mapping[str, str],
    terminal: Terminal,
    flags: Sequence[str] = (),
) -> workflow.Finished | None:
    """Run one search as configured; with `dry_run`, only show what it would run, and return None.

    Args:
        cfg: The composed configuration, see `conf/config.yaml`.
        overrides: The overrides it was composed with.
        choices: For each configuration group, the chosen option.
        terminal: Where to show progress.
        flags: The flags that the same command needs again.

    Raises:
        RequestError: If the request is wrong; then nothing has been run.
        SearchError: If no trial completed, or the final step failed.
    """
    interrupted = resume.load(cfg, overrides) if cfg.resume is not None else None
    if interrupted is not None:
        cfg, overrides, choices = interrupted.cfg, interrupted.overrides, interrupted.choices
    record = _tracking(cfg, interrupted)
    # A builder or a callback that the configuration names may bring TensorFlow with it.
    with terminal.step("Preparing the search"), without_native_notes():
        plan = compose(cfg, choices)
    if cfg.dry_run:
        workflow.preview(plan, terminal)
        return None
    provenance = workflow.Provenance(
        config=tracking.without_credentials(OmegaConf.to_yaml(cfg, resolve=True)),
        overrides=tracking.without_credentials(OmegaConf.to_yaml(OmegaConf.create(list(overrides)))),
        command=tracking.without_credentials(shlex.join(["trialbook", *flags, *overrides])),
        again=tracking.without_credentials(
            shlex.join([*flags, *(o for o in overrides if o.startswith("tracking.uri="))])
        ),
    )
    finished = workflow.run(plan, _make("executor", cfg.executor), record, provenance, terminal)
    terminal.say(f"Compare its trials: {_ui_hint(record.uri)}")
    return finished


def compose(cfg: DictConfig, choices: Mapping[str, str]) -> Plan:
    """Make the parts of a search that a configuration names.

    Raises:
        RequestError: Naming the part that cannot be made, and why.
    """
    # The cheap checks first: nobody should wait for an import to be told of a misspelt key.
    objective = _call("objective", Objective.parse, cfg.objective)
    budget = _call("budget", Budget, cfg.budget)
    declared = None if cfg.model.space is None else Space.parse(_plain(cfg.model.space))
    for dimension in [] if declared is None else [d for d in declared.dimensions if d.name.endswith("memory")]:
        for value in dimension.values or ():
            allowed.check_cache(f"model.space.{dimension.name}", value)
    estimator = _make("model.estimator", cfg.model.estimator)
    _must_have("model.estimator", estimator, "fit", "predict", "get_params")
    data, splitter = _make("data", cfg.data), _make("validation", cfg.validation)
    _must_have("data", data, "X_test", "y_test")
    _must_have("validation", splitter, "split")
    space = space_of(declared, estimator, data)
    search = _make(
        "search",
        cfg.search,
        space=space,
        seed=cfg.seed,
        metric=objective.metric,
        maximize=objective.maximize,
        setting=setting_of(data, splitter),
    )
    _must_have("search", search, "ask", "tell")
    return Plan(
        search_name=choices["search"],
        model_name=choices["model"],
        space=space,
        search=search,
        estimator=estimator,
        data=data,
        splitter=splitter,
        objective=objective,
        scoring=_plain(cfg.scoring),
        budget=budget,
        seed=cfg.seed,
    )


def _ui_hint(uri: str) -> str:
    """How to look at a finished search: the server's own address, or the command that starts the UI."""
    shown = tracking.without_credentials(uri)
    if shown.startswith("http"):
        return shown
    return f"mlflow ui --backend-store-uri {shlex.quote(shown)}, then open http://127.0.0.1:5000"


def _tracking(cfg: DictConfig, interrupted: resume.Interrupted | None) -> workflow.Tracking:
    name = cfg.promote.registered_model if cfg.promote.enabled else None
    if name is not None and (not name.strip() or any(c in name for c in "/:")):
        raise RequestError(f"promote.registered_model={name!r} must not be empty or hold a slash or a colon.")
    return workflow.Tracking(
        uri=tracking.resolve_uri(cfg.tracking.uri),
        experiment=cfg.tracking.experiment,
        adopt=interrupted.run_id if interrupted else os.environ.get("MLFLOW_RUN_ID"),
        resume=interrupted is not None,
        models=tracking.Models.parse(cfg.tracking.models),
        registered_model=name,
    )


def _call(key: str, make: Any, cfg: DictConfig) -> Any:
    try:
        return make(**_plain(cfg))
    except TypeError as error:
        raise RequestError(f"{key}: {_one_line(error)}") from error


def _make(key: str, cfg: DictConfig, **offered: Any) -> Any:
    """Instantiate the part that stands under `key`, giving it those of the offered arguments that it names."""
    try:
        # Hydra would turn arguments that are dataclasses into configurations, so they are given past it.
        make = hydra.utils.instantiate(allowed.resolve(key, _plain(cfg)), _partial_=True, _convert_="all")
        named = inspect.signature(make).parameters if offered else {}
        return make(**{name: value for name, value in offered.items() if name in named})
    except RequestError:
        raise
    except (InstantiationException, TypeError, ValueError) as error:
        cause = error.__cause__ or error
        if isinstance(cause, RequestError):
            raise cause from error
        raise RequestError(f"{key} cannot be made: {_one_line(cause)}") from error


def _must_have(key: str, part: Any, *names: str) -> None:
    """What a configuration names under `key` must be something that can take that part."""
    if isinstance(part, type) or not all(hasattr(part, name) for name in names):
        raise RequestError(f"{key} must have {' and '.join(names)}, got {type(part).__name__}.")


def _plain(cfg: Any) -> Any:
    return OmegaConf.to_container(cfg, resolve=True)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
