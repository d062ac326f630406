"""The report's figures of how a search went. Plotly draws; here it is fed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from itertools import groupby
from typing import TYPE_CHECKING, Any

from trialbook import garbage
from trialbook.report.climbs import paths
from trialbook.report.summary import Span, Summary, completed, name_of
from trialbook.tracking import params_line
from trialbook.trial import Record, beats

if TYPE_CHECKING:
    import plotly.graph_objects as go

_FAILED = "#d62728"


@dataclass(frozen=True)
class Drawing:
    """A figure with its heading, and what to know when reading it.

    Attributes:
        title: Its heading.
        figure: The figure; None if there is nothing to draw, which `said` then explains.
        said: A sentence or two, in plain text.
        width: The least width in pixels at which it can be read.
    """

    title: str
    figure: go.Figure | None
    said: str = ""
    width: int = 0


def load_libraries() -> None:
    """Import what draws, which takes a while, for those who wait for something else anyway."""
    # In a thread, because Optuna keeps the error of an import that it can do without, and with it all callers' frames.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(_load).result()


@functools.cache
def _load() -> None:
    with garbage.uncollected():
        for name in ("plotly.graph_objects", "plotly.subplots", "optuna.importance"):
            import_module(name)
        import_module("plotly.graph_objects").Figure()  # the first one loads the look of all, which is then replaced
        look()


@functools.cache
def look() -> dict[str, Any]:
    """How every figure looks: Plotly's white template."""
    import plotly.io

    template: dict[str, Any] = plotly.io.templates["plotly_white"].to_plotly_json()
    return template


def history(summary: Summary) -> Drawing:
    """Every trial's objective in the order of asking, rungs and brackets told apart, and the best so far."""
    import plotly.graph_objects as go

    figure = go.Figure()
    ordered = sorted(summary.records, key=lambda r: r.trial.number)
    done = [r for r in ordered if completed(r)]
    for label, group in _by_level(done):
        figure.add_scatter(
            x=[r.trial.number for r in group],
            y=[r.objective for r in group],
            mode="markers",
            marker={"size": 7},
            name=label or "trial",
            text=[about(r) for r in group],
            hovertemplate="%{text}<br>%{y:.4g}",
        )
    best = _improvements(ordered, maximize=summary.maximize)
    figure.add_scatter(
        x=[r.trial.number for r in ordered[: len(best)]],
        y=[None if b is None else b.objective for b in best],
        mode="lines",
        line={"shape": "hv", "width": 1.5, "color": "#888"},
        name="best so far",
        hoverinfo="skip",
    )
    lost = [r for r in ordered if not completed(r)]
    if lost:
        # They have no objective, so they stand at the bottom of the figure, on an axis of their own.
        figure.add_scatter(
            x=[r.trial.number for r in lost],
            y=[0.03] * len(lost),
            yaxis="y2",
            mode="markers",
            marker={"symbol": "x", "color": _FAILED, "size": 9},
            name="failed",
            text=[f"{about(r)}<br>{r.result.state}: {r.result.reason or ''}" for r in lost],
            hovertemplate="%{text}",
        )
        figure.update_layout(yaxis2={"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True})
    figure.update_layout(xaxis_title="trial", yaxis_title=summary.metric)
    said = f"{_BY_CHANCE}: compare trials of one colour."
    return Drawing("History", figure, said if len(_by_level(done)) > 1 else "")


def rungs(summary: Summary) -> Drawing | None:
    """How the candidates of a halving search or of Hyperband climb; None for any other search."""
    import plotly.graph_objects as go

    levels = _by_level([r for r in summary.records if completed(r)])
    if len(levels) < 2:
        return None
    figure = go.Figure()
    for name, ways in _climbs(summary).items():
        # One trace, with a gap between one candidate's line and the next.
        steps: list[Record | None] = [step for way in ways for step in (*way, None)]
        figure.add_scatter(
            x=[None if r is None else _effort(r) for r in steps],
            y=[None if r is None else r.objective for r in steps],
            text=["" if r is None else about(r) for r in steps],
            hovertemplate="%{text}<br>%{y:.4g}",
            mode="lines+markers",
            opacity=0.75,
            name=name,
        )
    unit = "epochs" if any(r.trial.epochs is not None for r in summary.records) else "resources"
    efforts = sorted({_effort(r) or 0 for _, group in levels for r in group})
    figure.update_layout(
        xaxis={"title": unit, "type": "category", "categoryorder": "array", "categoryarray": efforts},
        yaxis_title=summary.metric,
        showlegend=True,
    )
    return Drawing("Rungs", figure, "A line goes on where a candidate went on with more.")


def timeline(summary: Summary) -> Drawing:
    """When each trial ran, a row for each worker."""
    import plotly.graph_objects as go

    spans = summary.spans
    known = [r for r in summary.records if r.trial.number in spans]
    if not known:
        return Drawing("Timeline", None, "When the trials ran is not on record.")
    start = min(spans[r.trial.number].start for r in known)
    rows = _rows({r.trial.number: spans[r.trial.number] for r in known})
    figure = go.Figure()
    for state, group in groupby(sorted(known, key=lambda r: str(r.result.state)), key=lambda r: str(r.result.state)):
        shown = list(group)
        figure.add_bar(
            base=[spans[r.trial.number].start - start for r in shown],
            x=[spans[r.trial.number].end - spans[r.trial.number].start for r in shown],
            y=[rows[r.trial.number] for r in shown],
            orientation="h",
            name=state,
            text=[about(r) for r in shown],
            textposition="none",
            hovertemplate="%{text}<br>%{x:.1f} s",
            marker={"line": {"width": 0.5, "color": "#fff"}}
            | ({} if state == "complete" else {"color": _FAILED if state == "failed" else "#7f7f7f"}),
        )
    n_rows = len(set(rows.values()))
    figure.update_layout(
        barmode="overlay",
        xaxis_title="seconds since the first trial",
        yaxis={"title": "worker", "type": "category", "categoryorder": "category descending", "automargin": True},
        height=170 + 30 * n_rows,
        showlegend=True,
    )
    return Drawing("Timeline", figure)


def learning_curves(summary: Summary) -> Drawing | None:
    """How the best nets learned, epoch by epoch; None if no curves are known."""
    import plotly.colors
    import plotly.graph_objects as go

    if not summary.curves:
        return None
    figure = go.Figure()
    colors = plotly.colors.qualitative.Plotly
    records = {r.trial.number: r for r in summary.records}
    for i, (number, metrics) in enumerate(summary.curves.items()):
        for name, curve in metrics.items():
            figure.add_scatter(
                x=[epoch for epoch, _ in curve],
                y=[value for _, value in curve],
                mode="lines",
                line={"color": colors[i % len(colors)], "dash": None if name.startswith("val_") else "dot"},
                name=_title(records[number]),
                legendgroup=number,
                showlegend=name == list(metrics)[-1],
                text=[about(records[number])] * len(curve),
                hovertemplate=f"%{{text}}<br>{name} %{{y:.4g}} after %{{x}} epochs",
            )
    figure.update_layout(xaxis_title="epoch", yaxis_title=", ".join(_all_names(summary.curves.values())))
    return Drawing(
        "Learning curves of the best trials", figure, "Dotted: on training data. With several folds, their mean."
    )


def race(searches: Sequence[Summary], *, against: str) -> Drawing:
    """The best so far of each search, against `trials` or against `seconds` since its first trial."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for search in searches:
        ordered = _as_they_ended(search)
        best = _improvements(ordered, maximize=search.maximize)
        if against == "trials":
            x: list[float] = [float(n) for n in range(1, len(ordered) + 1)]
        else:
            ordered_spans = [search.spans[r.trial.number] for r in ordered if r.trial.number in search.spans]
            if len(ordered_spans) < len(ordered) or not ordered:
                continue
            x = [span.end - min(s.start for s in ordered_spans) for span in ordered_spans]
        figure.add_scatter(
            x=x,
            y=[None if b is None else b.objective for b in best],
            mode="lines+markers",
            marker={"size": 4},
            line={"shape": "hv"},
            name=search.title,
            text=["" if b is None else f"{search.title}<br>{about(b)}" for b in best],
            hovertemplate="%{text}<br>%{y:.4g}",
        )
    unit = "trials ended" if against == "trials" else "seconds since the search's first trial"
    metrics = dict.fromkeys(search.metric for search in searches)
    figure.update_layout(xaxis_title=unit, yaxis_title=", ".join(metrics), showlegend=True)
    heading = "Best so far against trials" if against == "trials" else "Best so far against wall time"
    if not figure.data:
        return Drawing(heading, None, "When the trials ran is not on record.")
    few = any(record.trial.rungs_above for search in searches for record in search.records)
    return Drawing(heading, figure, f"{_BY_CHANCE}." if few else "")


_BY_CHANCE = "On part of the rows or epochs a score is easily good by chance"


def _climbs(summary: Summary) -> dict[str, list[list[Record]]]:
    """The paths of all candidates, under the name of their bracket, if there are brackets."""
    climbs: dict[str, list[list[Record]]] = {}
    for path in paths(summary.records):
        bracket = path[0].trial.details.get("bracket")
        climbs.setdefault("candidates" if bracket is None else f"bracket {bracket}", []).append(path)
    return climbs


def _by_level(records: Sequence[Record]) -> list[tuple[str, list[Record]]]:
    """Trials grouped by what they were judged on, under a name for it; one nameless group where all are alike."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(_level(record), []).append(record)
    return list(groups.items())


def _level(record: Record) -> str:
    trial = record.trial
    if "iteration" in trial.details:
        return f"rung {trial.details['iteration']}: {trial.details['resources']}"
    if "bracket" in trial.details:
        return f"bracket {trial.details['bracket']}, {trial.epochs} epochs"
    return ""


def _effort(record: Record) -> float | None:
    effort: float | None = record.trial.details.get("resources", record.trial.epochs)
    return effort


def _improvements(records: Sequence[Record], *, maximize: bool) -> list[Record | None]:
    """After each trial, the best so far."""
    best: Record | None = None
    found: list[Record | None] = []
    for record in records:
        if completed(record) and beats(record, best, maximize=maximize):
            best = record
        found.append(best)
    return found


def _as_they_ended(search: Summary) -> list[Record]:
    def end(record: Record) -> float:
        span = search.spans.get(record.trial.number)
        return record.trial.number if span is None else span.end

    # Without all spans, the order of asking.
    complete = all(r.trial.number in search.spans for r in search.records)
    return sorted(search.records, key=end if complete else lambda r: r.trial.number)


def _rows(spans: Mapping[int, Span]) -> dict[int, str]:
    """The row of each trial: its worker's, or, where that is unknown, the first that is free when it starts."""
    rows: dict[int, str] = {}
    busy: list[float] = []
    for number, span in sorted(spans.items(), key=lambda item: item[1].start):
        if span.worker is not None:
            rows[number] = span.worker
            continue
        free: Callable[[float], bool] = span.start.__ge__
        lane = next((i for i, until in enumerate(busy) if free(until)), len(busy))
        busy[lane : lane + 1] = [span.end]
        rows[number] = str(lane + 1)
    return rows


def _title(record: Record) -> str:
    """A trial by its name, and among those of several searches by that of its search."""
    search = record.trial.params.get("search")
    return f"trial {name_of(record)}" + ("" if search is None else f" of {search}")


def about(record: Record) -> str:
    """What is said of a trial where it is pointed at."""
    return f"trial {name_of(record)}<br>{params_line(record.trial.params).replace(' ', '<br>')}"


def _all_names(curves: Iterable[Mapping[str, object]]) -> list[str]:
    return list(dict.fromkeys(name for metrics in curves for name in metrics))
