"""Tuning from Python: the parts of the command without its command line.

What the command chooses by name is chosen by name here too, from the same `conf/`; or it is given as an object.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf

from trialbook import app, arguments, garbage, interrupts, promote, report, store, workflow
from trialbook.arguments import Option
from trialbook.credentials import without_credentials
from trialbook.data import CLASSIFICATION
from trialbook.data.tables import wants_preprocessing
from trialbook.errors import RequestError
from trialbook.evaluate import behind, configure
from trialbook.journal import Models
from trialbook.plan import Plan
from trialbook.progress import Terminal
from trialbook.trial import ParamValue


@dataclass(frozen=True, repr=False, eq=False)
class Tuned:
    """What a search has found.

    Attributes:
        metric: What was optimised.
        best_params: The hyperparameters of the best trial.
        best_score: Its objective, in the original sign.
        best_estimator: An estimator with these hyperparameters, fitted on all development rows.
        leaderboard: Every trial, best first, in the columns of scikit-learn's `cv_results_`.
        test_score: The objective of `best_estimator` on the test rows; None if there are none.
        registered: What was registered, in a sentence or two; None if nothing was.
        run_id: The search's run in MLflow.
        url: Its page in MLflow's UI; without a server, in the one that `mlflow ui` starts for the store.
    """

    metric: str
    best_params: Mapping[str, ParamValue]
    best_score: float
    best_estimator: Any
    leaderboard: pd.DataFrame
    test_score: float | None
    registered: str | None
    run_id: str
    url: str

    def __repr__(self) -> str:
        """The result in a few lines."""
        lines = [
            f"Tuned: best {self.metric} {self.best_score:.4f} of {len(self.leaderboard)} trials",
            f"  best_params     {dict(self.best_params)}",
            f"  best_estimator  {type(self.best_estimator).__name__}, fitted on all development rows",
        ]
        if self.test_score is not None:
            lines.append(f"  test_score      {self.test_score:.4f}")
        if self.registered is not None:
            lines.append(f"  registered      {self.registered}")
        return "\n".join([*lines, f"  url             {self.url}"])


@dataclass(frozen=True)
class _Call(workflow.Provenance):
    """A search that was started from Python: `command` is the call without its closing bracket."""

    language: str = "python"

    def resume_command(self, run_id: str) -> str:
        return self.command.removesuffix(")") + f', resume="{run_id}")'


@garbage.libraries_set_aside()
@interrupts.heeded()
def tune(
    model: Any,
    space: Any,
    X: Any,
    y: Any,
    *,
    search: Any = "sklearn/random",
    validation: Any = "holdout",
    objective: str | Mapping[str, Any] | None = None,
    scoring: Sequence[str] = (),
    budget: Mapping[str, Any] | None = None,
    test: Any = 0.2,
    name: str = "data",
    registered_model: str | None = None,
    tracking: Mapping[str, Any] | None = None,
    executor: Any = "serial",
    seed: int | None = 1,
    preprocessing: str = "auto",
    resume: str | None = None,
) -> Tuned:
    """Search the hyperparameters of a model, with every trial in MLflow, and retrain the best.

    `search`, `validation` and `executor` are each an option of the configuration by name (`"sklearn/grid"`), a name
    with arguments (`{"sklearn/random": {"n_iter": 20}}`), or an object; `objective`, `budget` and `tracking` are
    sections of the configuration, see `conf/config.yaml`.

    Args:
        model: An unfitted scikit-learn estimator or pipeline, or a builder of Keras nets (see `trialbook.builders`).
        space: For each hyperparameter a list of values, a range such as `{"low": 1, "high": 9}`, or a scipy
            distribution (see `trialbook.space`); None for a builder that declares its space.
        X: Rows, a data frame or an array of shape (n_rows, n_columns); for a net also images, shape (n_rows, …).
        y: Targets, shape (n_rows,).
        search: What proposes the trials.
        validation: How each trial is validated; also a number of folds, or a splitter of scikit-learn.
        objective: What to optimise, a scikit-learn scorer or a Keras metric such as `val_loss`; by default `accuracy`
            for classes and `r2` for numbers.
        scoring: Further scikit-learn scorers to record for every trial.
        budget: When to stop, such as `{"max_trials": 20, "max_time": 600}`; times in seconds.
        test: Share of the rows kept from the search to test the retrained model on, or a pair `(X_test, y_test)`, or
            None for no test.
        name: What to call the data.
        registered_model: Name to register the retrained model under; None to hand it back only.
        tracking: Where trials are recorded, such as `{"uri": "http://…", "experiment": "mine"}`.
        executor: Where trials run.
        seed: Seed of the search, of the folds and of a builder's nets; None for another search every time.
        preprocessing: `auto` to put a transformer in front of the model that makes numbers of text, dates and missing
            values of a data frame, where the model does not take them; `none` to leave them as they are.
        resume: Run id of a search that was interrupted, to go on with it; all else must be as it was.

    Raises:
        RequestError: A `ValueError`, if the request is wrong; then nothing has been run.
        SearchError: If no trial completed, or the final step failed.
    """
    given = dict(locals())
    options = [Option.read(group, given[group]) for group in ("search", "executor")]
    validation_option = Option.read("validation", "holdout" if isinstance(validation, int) else validation)
    targets = arguments.targets_of(y, "y", X)
    task = arguments.task_of(model, targets)
    cfg = arguments.composed([*options, validation_option], _sections(given, task))
    model_name, estimator = arguments.estimator_of(model, task, seed)
    preprocessed = wants_preprocessing(preprocessing)
    data = arguments.data_of(X, targets, name, task, test, 0, estimator, preprocessed)
    terminal = Terminal()
    with terminal.step("Preparing the search"), garbage.uncollected(aside=False):
        plan = app.assemble(
            app.aims_of(cfg),
            names={"search": options[0].name, "model": model_name},
            estimator=behind(data.preprocessing, estimator),
            data=data,
            splitter=arguments.splitter_of(validation, task, seed, cfg),
            declared=arguments.space_given(space),
            make_search=arguments.search_maker(options[0], cfg),
        )
    for line in data.described if data.preprocessing is not None else ():
        terminal.say(line)
    if registered_model is not None and not len(data.y_test):
        raise RequestError("registered_model needs test rows: give test=0.2 or a pair (X_test, y_test).")
    record = workflow.Tracking(
        store=store.Store(store.resolve_uri(cfg.tracking.uri), cfg.tracking.outage_timeout),
        experiment=cfg.tracking.experiment,
        adopt=resume,
        resume=resume is not None,
        models=Models.parse(cfg.tracking.models),
        registered_model=registered_model,
    )
    with options[1].given or app.make("executor", cfg.executor) as where, terminal.relaying("trialbook"):
        finished = workflow.run(plan, where, record, _provenance(cfg, given, plan), terminal)
    return _tuned(finished, plan, arrays=not isinstance(X, pd.DataFrame))


def _sections(given: Mapping[str, Any], task: str) -> dict[str, Any]:
    """The values to set in the configuration."""
    objective = given["objective"] or ("accuracy" if task == CLASSIFICATION else "r2")
    return {
        "seed": given["seed"],
        "objective": {"metric": objective} if isinstance(objective, str) else dict(objective),
        "scoring": list(given["scoring"]),
        "budget": dict(given["budget"] or {}),
        "tracking": dict(given["tracking"] or {}),
    }


def _provenance(cfg: DictConfig, given: Mapping[str, Any], plan: Plan) -> _Call:
    """What is put on record of the call: the configuration it amounts to, and the call itself."""
    described = {"model": {"estimator": repr(given["model"])}, "data": {"name": plan.data.name}}
    kept = {key: value for key, value in cfg.items() if key not in ("data", "model", "promote", "resume", "dry_run")}
    defaults = inspect.signature(tune).parameters
    said = [
        f"{key}={value!r}"
        for key, value in given.items()
        if defaults[key].kind is inspect.Parameter.KEYWORD_ONLY
        and key != "resume"
        and (not isinstance(value, tuple) and value != defaults[key].default)
    ]
    model = " ".join(repr(given["model"]).split())
    # Functions and objects without a representation that could be typed in go by their name.
    call = ", ".join([plan.model_name if "<" in model else model, repr(given["space"]), "X", "y", *said])
    return _Call(
        config=without_credentials(OmegaConf.to_yaml(OmegaConf.create(kept | described), resolve=True)),
        overrides=without_credentials(OmegaConf.to_yaml(OmegaConf.create(said))),
        command=without_credentials(f"trialbook.tune({call})"),
    )


def _tuned(finished: workflow.Finished, plan: Plan, *, arrays: bool) -> Tuned:
    best, promotion = finished.best, finished.promotion
    test_score: float | None = None
    if promotion is not None:
        fitted, test_score = promotion.estimator, promotion.test_score
    else:
        # An estimator fitted on a data frame warns about an array.
        data = plan.data
        if arrays:
            data = replace(data, X=np.asarray(data.X), X_test=np.asarray(data.X_test))
        configured = configure(plan.estimator, best.trial.params)
        fitted = promote.retrain(configured, data, epochs=best.result.best_epoch, nets=plan.nets)
        if len(data.y_test):
            test_score = plan.objective.score(fitted, data.X_test, data.y_test)
    if plan.data.preprocessing is not None:
        fitted = arguments.taking_raw_rows(fitted)
    return Tuned(
        metric=plan.objective.metric,
        best_params=dict(best.trial.params),
        best_score=best.objective,
        best_estimator=fitted,
        leaderboard=report.leaderboard(finished.records, maximize=plan.objective.maximize),
        test_score=test_score,
        registered=None if promotion is None else workflow.registered(promotion, plan),
        run_id=finished.run_id,
        url=finished.url,
    )
