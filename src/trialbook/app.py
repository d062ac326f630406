"""From a composed configuration to a search that runs."""

from __future__ import annotations

import functools
import inspect
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import hydra.utils
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from trialbook import allowed, garbage, resume, settings, store, workflow
from trialbook.credentials import without_credentials
from trialbook.data import REGRESSION, Dataset
from trialbook.errors import RequestError
from trialbook.evaluate import Objective, behind, name_columns
from trialbook.journal import Models
from trialbook.noise import without_native_notes
from trialbook.plan import Plan, setting_of, space_of
from trialbook.progress import Terminal
from trialbook.search.loop import Budget
from trialbook.space import Space
from trialbook.sweep_record import Job
from trialbook.trial import Search


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
    settings.check(cfg)
    record = _tracking(cfg, interrupted)
    # A builder or a callback that the configuration names may bring TensorFlow with it.
    with terminal.step("Preparing the search"), without_native_notes(), garbage.uncollected():
        plan = compose(cfg, choices)
    for line in plan.data.described:
        terminal.say(line)
    if cfg.dry_run:
        workflow.preview(plan, terminal)
        return None
    provenance = workflow.Provenance(
        config=without_credentials(OmegaConf.to_yaml(cfg, resolve=True)),
        overrides=without_credentials(OmegaConf.to_yaml(OmegaConf.create(list(overrides)))),
        command=without_credentials(shlex.join(["trialbook", *flags, *overrides])),
        again=without_credentials(shlex.join([*flags, *(o for o in overrides if o.startswith("tracking.uri="))])),
        sweep=cfg.sweep.run_id,
    )
    if cfg.promote.enabled and record.registered_model is None:
        settings.check_registered_name(plan.data.name)
        record = replace(record, registered_model=plan.data.name)
    executor = make("executor", cfg.executor)
    _must_have("executor", executor, "submit", "workers")
    with executor, terminal.relaying("trialbook"):
        finished = workflow.run(plan, executor, record, provenance, terminal)
    if record.job is None:
        terminal.say(f"Compare its trials: {workflow.ui_hint(record.store, finished.experiment_id)}")
    return finished


def compose(cfg: DictConfig, choices: Mapping[str, str]) -> Plan:
    """Make the parts of a search that a configuration names.

    Raises:
        RequestError: Naming the part that cannot be made, and why.
    """
    # The cheap checks first: nobody should wait for an import to be told of a misspelt key.
    aims = aims_of(cfg)
    declared = None if cfg.model.space is None else Space.parse(_plain(cfg.model.space))
    for dimension in [] if declared is None else [d for d in declared.dimensions if d.name.endswith("memory")]:
        for value in dimension.values or ():
            allowed.check_cache(f"model.space.{dimension.name}", value)
    data, splitter = make("data", cfg.data), make("validation", cfg.validation)
    _must_have("data", data, "X_test", "y_test")
    _must_have("validation", splitter, "split")
    numeric = data.task == REGRESSION
    if numeric:
        aims = aims_of(cfg, usual_metric="r2")
    # Where the target is a number, the regressor that the model declares beside its classifier.
    key = "regressor" if numeric and "regressor" in cfg.model else "estimator"
    estimator = make(f"model.{key}", cfg.model[key])
    _must_have(f"model.{key}", estimator, "fit", "predict", "get_params")

    def make_search(**offered: Any) -> Search:
        search: Search = make("search", cfg.search, **offered)
        _must_have("search", search, "ask", "tell")
        return search

    return assemble(
        aims,
        names=choices,
        estimator=behind(data.preprocessing, estimator),
        data=data,
        splitter=splitter,
        declared=declared,
        make_search=make_search,
    )


@dataclass(frozen=True)
class Aims:
    """What a search is after, and within what limits: the plain values of a configuration."""

    objective: Objective
    budget: Budget
    scoring: Sequence[str]
    seed: int | None


def aims_of(cfg: DictConfig, usual_metric: str = "accuracy") -> Aims:
    """Read what a configuration says of the objective, the budget, the scores and the seed.

    Args:
        cfg: The configuration.
        usual_metric: What to optimise where it names no metric.

    Raises:
        RequestError: For what could never be meant.
    """
    objective = _call("objective", functools.partial(_objective, usual_metric), cfg.objective)
    return Aims(objective, _call("budget", Budget, cfg.budget), _plain(cfg.scoring), cfg.seed)


def _objective(usual_metric: str, metric: str | None, **given: Any) -> Objective:
    return Objective.parse(metric or usual_metric, **given)


def assemble(
    aims: Aims,
    *,
    names: Mapping[str, str],
    estimator: Any,
    data: Dataset,
    splitter: Any,
    declared: Space | None,
    make_search: Callable[..., Search],
) -> Plan:
    """Put the parts of a search together, whoever made them.

    Args:
        aims: Objective, budget, scores and seed.
        names: What the `search` and the `model` are called.
        estimator: The unfitted estimator.
        data: The data set.
        splitter: Splits its development rows into folds.
        declared: The declared search space; None if the builder declares it.
        make_search: Makes the search, given what `trialbook.trial.Search` says it may name.

    Raises:
        RequestError: If they do not fit together.
    """
    name_columns(estimator)
    space = space_of(declared, estimator, data)
    search = make_search(
        space=space,
        seed=aims.seed,
        metric=aims.objective.metric,
        maximize=aims.objective.maximize,
        setting=setting_of(data, splitter),
    )
    return Plan(
        search_name=names["search"],
        model_name=names["model"],
        space=space,
        search=search,
        estimator=estimator,
        data=data,
        splitter=splitter,
        objective=aims.objective,
        scoring=aims.scoring,
        budget=aims.budget,
        seed=aims.seed,
    )


def _tracking(cfg: DictConfig, interrupted: resume.Interrupted | None) -> workflow.Tracking:
    sweep = cfg.sweep
    return workflow.Tracking(
        store=store.Store(store.resolve_uri(cfg.tracking.uri), cfg.tracking.outage_timeout),
        experiment=cfg.tracking.experiment,
        adopt=interrupted.run_id if interrupted else os.environ.get("MLFLOW_RUN_ID"),
        resume=interrupted is not None,
        models=Models.parse(cfg.tracking.models),
        registered_model=registered_model(cfg),
        allow_pickle=cfg.tracking.allow_pickle,
        job=None if sweep.run_id is None else Job(sweep.run_id, sweep.job, sweep.overrides),
    )


def registered_model(cfg: DictConfig) -> str | None:
    """The name that a search registers its winner under, None if it names none.

    Raises:
        RequestError: If a model cannot be called so.
    """
    name: str | None = cfg.promote.registered_model if cfg.promote.enabled else None
    if name is not None:
        settings.check_registered_name(name)
    return name


def _call(key: str, make: Any, cfg: DictConfig) -> Any:
    try:
        return make(**_plain(cfg))
    except TypeError as error:
        raise RequestError(f"{key}: {_one_line(error)}") from error


def make(key: str, cfg: DictConfig, **offered: Any) -> Any:
    """Instantiate the part that stands under `key`, giving it those of the offered arguments that it names.

    Raises:
        RequestError: If it cannot be made.
    """
    given = _plain(cfg)
    if not isinstance(given, dict) or allowed.TARGET not in given:
        raise RequestError(f"{key} must name what to make by {allowed.TARGET}, got {_one_line(given)}.")
    try:
        # Hydra would turn arguments that are dataclasses into configurations, so they are given past it.
        factory = hydra.utils.instantiate(allowed.resolve(key, given), _partial_=True, _convert_="all")
        return call_with(key, factory, **offered)
    except InstantiationException as error:
        raise _cannot_be_made(key, error) from error


def call_with(key: str, factory: Callable[..., Any], **offered: Any) -> Any:
    """Call a factory of the part `key` with those of the offered arguments that it names.

    Raises:
        RequestError: If it refuses.
    """
    try:
        named = inspect.signature(factory).parameters if offered else {}
        return factory(**{name: value for name, value in offered.items() if name in named})
    except RequestError:
        raise
    except (TypeError, ValueError) as error:
        raise _cannot_be_made(key, error) from error


def _cannot_be_made(key: str, error: Exception) -> RequestError:
    cause = error.__cause__ or error
    return cause if isinstance(cause, RequestError) else RequestError(f"{key} cannot be made: {_one_line(cause)}")


def _must_have(key: str, part: Any, *names: str) -> None:
    """What a configuration names under `key` must be something that can take that part."""
    if isinstance(part, type) or not all(hasattr(part, name) for name in names):
        raise RequestError(f"{key} must have {' and '.join(names)}, got {type(part).__name__}.")


def _plain(cfg: Any) -> Any:
    return OmegaConf.to_container(cfg, resolve=True)


def _one_line(error: Any) -> str:
    return " ".join(str(error).split())
