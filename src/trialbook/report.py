"""What a finished search shows: the leaderboard, the note on its run, and the report."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from trialbook.space import Space
from trialbook.tracking import text
from trialbook.trial import Record, State, best_first, merit, standings

if TYPE_CHECKING:
    import optuna

_NOTE_ROWS = 5


@dataclass(frozen=True)
class Summary:
    """What is told about a search once it has ended.

    Attributes:
        title: What was searched.
        metric: The objective's name.
        maximize: Its direction.
        records: Every trial.
        space: What was searched over.
        command: The command that runs the same search again.
        stopped: Why no more trials were started.
        registered: What was registered, in a sentence; None if nothing was.
        model_uri: Address of the registered version; None if nothing was.
    """

    title: str
    metric: str
    maximize: bool
    records: Sequence[Record]
    space: Space
    command: str
    stopped: str
    registered: str | None = None
    model_uri: str | None = None


def ranks(records: Sequence[Record], *, maximize: bool) -> list[int]:
    """The rank of each record as scikit-learn gives it: 1 is best, ties share the better rank, failures come last.

    Unlike scikit-learn's, no trial of a halving search ranks above one that was judged on more.
    """
    values = [merit(r, maximize=maximize) for r in records]
    return [1 + sum(other < value for other in values) for value in values]


def leaderboard(records: Sequence[Record], *, maximize: bool) -> pd.DataFrame:
    """Every trial, best first, in the columns of scikit-learn's `cv_results_` and a few of ours before them."""
    rows = []
    standing = standings(records)
    for record, rank in zip(records, ranks(records, maximize=maximize), strict=True):
        trial, result = record.trial, record.result
        row: dict[str, Any] = {
            "rank_test_score": rank,
            "trial": trial.number,
            "state": str(result.state),
            "standing": standing.get(trial.number),
            "iter": trial.details["iteration"] if standing else None,
            "n_resources": trial.details["resources"] if standing else None,
            "mean_test_score": result.objective,
            "std_test_score": result.objective_std,
            **{f"split{fold}_test_score": score for fold, score in enumerate(result.fold_scores)},
            **{f"param_{name}": value for name, value in trial.params.items()},
            "params": str(dict(trial.params)),
            "mean_fit_time": result.fit_seconds,
            "mean_score_time": result.score_seconds,
            "epochs": trial.epochs,
            "best_epoch": result.best_epoch,
            "reason": result.reason,
            "run_id": record.run_id,
        }
        rows.append(row)
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    table = table.dropna(axis="columns", how="all")
    return table.sort_values(["rank_test_score", "trial"], ignore_index=True)


def note(summary: Summary) -> str:
    """The Markdown note MLflow shows on the search run."""
    complete = best_first(summary.records, maximize=summary.maximize)
    failed = [r for r in summary.records if not _complete(r)]
    lines = [f"**{summary.title}**: {len(complete)} trials complete, {len(failed)} not; {summary.stopped}.", ""]
    if complete:
        names = list(dict.fromkeys(name for r in complete[:_NOTE_ROWS] for name in r.trial.params))
        lines += [f"| trial | {summary.metric} | {' | '.join(names)} |", "|" + "---|" * (len(names) + 2)]
        for r in complete[:_NOTE_ROWS]:
            cells = [text(r.trial.params[n]) if n in r.trial.params else "" for n in names]
            score = f"{r.objective:.4f} ± {r.result.objective_std:.4f}"
            lines.append(f"| {r.trial.number:03d} | {score} | {' | '.join(cells)} |")
        lines.append("")
    if failed:
        lines += [f"- trial {r.trial.number:03d} {r.result.state}: {r.result.reason}" for r in failed[:_NOTE_ROWS]] + [
            ""
        ]
    if summary.registered:
        lines += [summary.registered, ""]
    lines += ["Run it again:", "", f"    {summary.command}", ""]
    if summary.model_uri:
        lines += ["Load the registered model:", "", f'    mlflow.pyfunc.load_model("{summary.model_uri}")', ""]
    return "\n".join(lines)


def html_report(summary: Summary) -> str:
    """One self-contained page: the leaderboard, and Optuna's plots of the search."""
    import optuna
    from optuna import visualization as draw

    # Its notes on experimental features are for those who call it, which the reader of this page does not.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = _study(summary)
    plots = []
    if study.get_trials(states=[optuna.trial.TrialState.COMPLETE]):
        plots = [
            draw.plot_optimization_history(study, target_name=summary.metric),
            draw.plot_parallel_coordinate(study, target_name=summary.metric),
            draw.plot_slice(study, target_name=summary.metric),
        ]
    figures = [
        figure.to_html(
            full_html=False,
            include_plotlyjs=i == 0,
            config={"responsive": True, "displayModeBar": False},
            default_height="420px",
        )
        for i, figure in enumerate(plots)
    ]
    table = leaderboard(summary.records, maximize=summary.maximize).drop(columns=["params", "run_id"], errors="ignore")
    rows = table.to_html(index=False, border=0, na_rep="", float_format="{:.4g}".format)
    title = html.escape(summary.title)
    sections = "".join(f"<section>{figure}</section>" for figure in figures)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>"
        f"<p>{html.escape(_counts(summary))}</p>{sections}"
        f"<section>{rows}</section></body></html>"
    )


_STYLE = """
:root { color-scheme: light; font: 15px/1.5 system-ui, sans-serif }
body { margin: 0 auto; max-width: 72rem; padding: 1rem; color: #222; background: #fff }
section { margin: 1.5rem 0; overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }
"""


def _counts(summary: Summary) -> str:
    states = [str(r.result.state) for r in summary.records]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return f"{len(states)} trials: {counts}. The search ended because {summary.stopped}."


def _study(summary: Summary) -> optuna.Study:
    """The search as an Optuna study, which is what Optuna draws."""
    import optuna

    study = optuna.create_study(direction="maximize" if summary.maximize else "minimize")
    log = {d.name: d.log for d in summary.space.dimensions}
    # From the trials: a search may hand out a hyperparameter that is not in the space.
    names = dict.fromkeys(name for r in summary.records for name in r.trial.params)
    distributions = {name: _distribution(summary.records, name, log=log.get(name, False)) for name in names}
    for record in sorted(summary.records, key=lambda r: r.trial.number):
        params = dict(record.trial.params)
        state = optuna.trial.TrialState.COMPLETE if _complete(record) else optuna.trial.TrialState.FAIL
        study.add_trial(
            optuna.create_trial(
                state=state,
                params=params,
                distributions={name: distributions[name] for name in params},
                value=record.result.objective if _complete(record) else None,
            )
        )
    return study


def _distribution(records: Sequence[Record], name: str, *, log: bool) -> optuna.distributions.BaseDistribution:
    """The axis of a hyperparameter, from the values tried."""
    import optuna

    values = [r.trial.params[name] for r in records if name in r.trial.params]
    if values and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        log = log or (min(values) > 0 and max(values) >= 100 * min(values))
        if all(isinstance(v, int) for v in values):
            return optuna.distributions.IntDistribution(min(values), max(values), log=log)
        return optuna.distributions.FloatDistribution(float(min(values)), float(max(values)), log=log)
    return optuna.distributions.CategoricalDistribution(list(dict.fromkeys(values)) or [None])


def _complete(record: Record) -> bool:
    return record.result.state is State.COMPLETE
