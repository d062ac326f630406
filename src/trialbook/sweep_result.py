"""What a sweep shows when it has ended: on its run, and at the terminal."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from mlflow.entities import Param
from omegaconf import OmegaConf
from rich import box
from rich.table import Table

from trialbook import report, tracking
from trialbook.progress import Terminal
from trialbook.space import Space
from trialbook.sweep_record import OVERRIDES, Searched, SweepRun
from trialbook.tracking import metrics_of, text
from trialbook.trial import State


@dataclass(frozen=True)
class Outcome:
    """A sweep that has ended.

    Attributes:
        sweep: Its run.
        searches: The searches of its jobs, in the order of the jobs; `records` of each are its trials.
        registered: What the final step registered.
        how_to: The ways back to it.
    """

    sweep: SweepRun
    searches: Sequence[Searched]
    registered: Sequence[report.Registered]
    how_to: report.HowTo

    @functools.cached_property
    def complete(self) -> list[Searched]:
        """The searches that completed, the best first where they can be compared."""
        complete = [searched for searched in self.searches if searched.state is State.COMPLETE]
        if _comparable(complete):
            complete.sort(key=lambda searched: searched.merit)
        return complete

    @property
    def failed(self) -> list[Searched]:
        """The searches that did not complete."""
        return [searched for searched in self.searches if searched.state is not State.COMPLETE]

    @property
    def best(self) -> Searched | None:
        """The search with the best trial; None if none completed, or they cannot be compared."""
        return self.complete[0] if _comparable(self.complete) else None

    def label(self, searched: Searched) -> str:
        """What sets a search apart from the others of the sweep: its overrides that not all of them have."""
        of_each = [shlex.split(other.tags.get(OVERRIDES, "")) for other in self.searches]
        own = shlex.split(searched.tags.get(OVERRIDES, ""))
        return " ".join(word for word in own if not all(word in words for words in of_each)) or searched.title

    @property
    def failures(self) -> list[str]:
        """A line for each search that did not complete: which, and why."""
        return [f"#{s.job} {self.label(s)} {s.state}: {s.reason}" for s in self.failed]


def _comparable(searches: Sequence[Searched]) -> bool:
    return len({searched.measure for searched in searches}) == 1


def publish(outcome: Outcome) -> None:
    """Write the outcome on the sweep's run: counts, the best, the table of searches, the report, the note."""
    client, run_id = outcome.sweep.client, outcome.sweep.run_id
    counts = {
        "searches_complete": len(outcome.complete),
        "searches_failed": sum(searched.state is State.FAILED for searched in outcome.searches),
        "searches_killed": sum(searched.state is State.KILLED for searched in outcome.searches),
        **{f"trials_{state}": sum(searched.count(state) for searched in outcome.searches) for state in State},
    }
    client.log_batch(run_id, metrics=metrics_of({name: float(count) for name, count in counts.items()}, 0))
    if (best := outcome.best) is not None:
        _publish_best(outcome.sweep, best)
    client.log_table(run_id, _table(outcome), "searches.json")
    title = str(outcome.sweep.run.info.run_name)
    summaries = [_summary(outcome, searched) for searched in outcome.complete]
    if summaries:
        client.log_text(run_id, report.sweep_report(title, summaries, registered=outcome.registered), "report.html")
    note = report.sweep_note(
        title, summaries, failed=outcome.failures, registered=outcome.registered, how_to=outcome.how_to
    )
    tracking.set_tags(client, run_id, {tracking.NOTE: note})


def _publish_best(sweep: SweepRun, best: Searched) -> None:
    """Name the best search and its best trial on the sweep's run."""
    record = best.best
    tags = {
        "trialbook.metric": best.metric,
        "trialbook.direction": best.tags["trialbook.direction"],
        "trialbook.best_search": best.run_id,
        "trialbook.best_run": record.run_id or "",
    }
    tracking.set_tags(sweep.client, sweep.run_id, tags)
    sweep.client.log_batch(sweep.run_id, metrics=metrics_of({"best_objective": best.objective}, best.job))
    if not any(name.startswith("best_") for name in sweep.run.data.params):
        # A parameter cannot change, but the best may, when a sweep that had failed has gone on.
        params = [Param(f"best_{name}", text(value)) for name, value in record.trial.params.items()]
        sweep.client.log_batch(sweep.run_id, params=params[:100])


def _summary(outcome: Outcome, searched: Searched) -> report.Summary:
    """A search as the report takes it, from its record."""
    declared: Any = OmegaConf.to_container(searched.config(), resolve=True)
    space = declared["model"]["space"]
    summary = report.Summary(
        title=outcome.label(searched),
        metric=searched.metric,
        maximize=searched.maximize,
        records=searched.records,
        stopped="it has ended",
        space=None if space is None else Space.parse(space),
    )
    return report.observed(outcome.sweep.client, searched.run_id, summary)


def _table(outcome: Outcome) -> pd.DataFrame:
    table = pd.DataFrame([_row(outcome, searched) for searched in [*outcome.complete, *outcome.failed]])
    return table.astype(object).where(table.notna(), None)


def _row(outcome: Outcome, searched: Searched) -> dict[str, Any]:
    return {
        "job": searched.job,
        "searched": outcome.label(searched),
        "state": str(searched.state),
        "metric": searched.metric,
        "best_objective": searched.objective,
        "best_trial": searched.tags.get("trialbook.best_trial"),
        **{f"trials_{state}": searched.count(state) for state in State},
        "seconds": searched.seconds,
        "reason": searched.reason,
        "overrides": searched.tags.get(OVERRIDES),
        "run_id": searched.run_id,
    }


def show(outcome: Outcome, terminal: Terminal) -> None:
    """The searches as a table at the terminal, and a line for each that did not complete."""
    if outcome.complete:
        total = len(outcome.searches)
        table = Table(title=f"{len(outcome.complete)} of {total} searches complete", box=box.SIMPLE_HEAD)
        for heading in ("job", "searched", "objective", "best", "trial", "trials", "failed", "seconds"):
            table.add_column(heading, justify="left" if heading == "searched" else "right", no_wrap=True)
        for searched in outcome.complete:
            table.add_row(
                f"#{searched.job}",
                outcome.label(searched),
                searched.metric,
                f"{searched.objective:.4f}",
                f"{int(searched.tags['trialbook.best_trial']):03d}",
                str(sum(searched.count(state) for state in State)),
                str(searched.count(State.FAILED)),
                f"{searched.seconds:.1f}",
            )
        terminal.console.print(table)
    for line in outcome.failures:
        terminal.say(line)
