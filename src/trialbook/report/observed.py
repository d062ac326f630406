"""What only the store knows of a search that has ended: when its trials ran, and how the best of them learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from mlflow import MlflowClient
from mlflow.entities import Run

from trialbook import tracking
from trialbook.report.climbs import superseded
from trialbook.report.summary import Curve, Span, Summary
from trialbook.trial import Record

WORKER = "trialbook.worker"

# Each curve costs a call, so their number does not grow with the search.
_TRIALS = 5
_FOLDS = 3


def observed(client: MlflowClient, search_run: str, summary: Summary) -> Summary:
    """The summary of a search with its trials' spans and its best trials' learning curves, read from the store.

    A constant number of calls, but for one for every 1,000 trials.
    """
    experiment = str(client.get_run(search_run).info.experiment_id)
    runs = {run.info.run_id: run for run in _trials(client, experiment, search_run)}
    spans = {r.trial.number: _span(run) for r in summary.records if (run := runs.get(r.run_id or "")) is not None}
    trials = {r.trial.number: r for r in summary.records}
    # The curves of a net that went on are part of what it became.
    replaced = superseded(summary.records)
    best = [record for record in summary.complete if record.trial.number not in replaced]
    curves = {
        record.trial.number: found
        for record in best[:_TRIALS]
        if (found := _curves(client, record, trials, runs, summary.metric))
    }
    return replace(summary, spans=spans, curves=curves)


def _trials(client: MlflowClient, experiment: str, search_run: str) -> Iterator[Run]:
    below = f"tags.`{tracking.PARENT}` = '{search_run}' and tags.`{tracking.KIND}` = 'trial'"
    token = None
    while True:
        page = client.search_runs([experiment], below, page_token=token, max_results=1000)
        yield from page
        token = page.token
        if not token:
            return


def _span(run: Run) -> Span:
    end = run.info.end_time or run.info.start_time
    return Span(run.info.start_time / 1000, end / 1000, run.data.tags.get(WORKER))


def _curves(
    client: MlflowClient,
    record: Record,
    trials: Mapping[int, Record],
    runs: Mapping[str, Run],
    objective: str,
) -> dict[str, Curve]:
    """A trial's curves on training and on validation data, from the first epoch of those it continues."""
    run = runs.get(record.run_id or "")
    measured = {} if run is None else run.data.metrics
    found: dict[str, Curve] = {}
    for name in _metrics(measured, objective):
        points: dict[int, list[float]] = {}
        for run_id in _lineage(record, trials):
            for prefix in _prefixes(measured):
                for metric in client.get_metric_history(run_id, prefix + name):
                    points.setdefault(metric.step + 1, []).append(metric.value)
        if len(points) > 1:
            found[name] = [(epoch, sum(values) / len(values)) for epoch, values in sorted(points.items())]
    return found


def _metrics(measured: Mapping[str, float], objective: str) -> list[str]:
    """The pair of training and validation metric to draw: the objective's, if the net reports it, else the loss."""
    names = {name.rpartition("/")[2] for name in measured}
    wanted = objective.removeprefix("val_")
    chosen = wanted if f"val_{wanted}" in names and wanted in names else "loss"
    return [name for name in (chosen, f"val_{chosen}") if name in names]


def _prefixes(measured: Mapping[str, float]) -> list[str]:
    """Under which names the folds' metrics stand, of the first few folds."""
    folds = sorted({name.partition("/")[0] for name in measured if name.startswith("fold_") and "/" in name})
    return [f"{fold}/" for fold in folds[:_FOLDS]] or [""]


def _lineage(record: Record, trials: Mapping[int, Record]) -> Iterator[str]:
    """The runs of a trial and of those it continues."""
    here: Record | None = record
    while here is not None:
        if here.run_id is not None:
            yield here.run_id
        continues = here.trial.continues
        here = None if continues is None else trials.get(continues)
