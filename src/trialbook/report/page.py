"""The report: one self-contained page of HTML."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from importlib.resources import files

from trialbook.report import figures
from trialbook.report.figures import Drawing
from trialbook.report.notes import counts, score_of
from trialbook.report.summary import Registered, Summary, completed, merged
from trialbook.report.tables import ranks
from trialbook.tracking import params_line, text
from trialbook.trial import standings

_ROWS = 100
_HEIGHT = 420


def html_report(summary: Summary) -> str:
    """The page about one search: its leaderboard, and its figures."""
    drawings: list[Drawing | None] = [
        figures.history(summary),
        figures.rungs(summary),
        figures.learning_curves(summary),
        figures.parallel_coordinates(summary),
        figures.slices(summary),
        figures.importances(summary),
        figures.timeline(summary),
    ]
    lines = [f"{counts(summary)}. The search ended because {summary.stopped}."]
    lines += [summary.registered.said] if summary.registered else []
    return _page(summary.title, lines, [_board(summary), *_drawn(drawings)])


def sweep_report(title: str, searches: Sequence[Summary], *, registered: Sequence[Registered] = ()) -> str:
    """The page about several searches: how they raced, and what their trials tell together.

    Args:
        title: What was swept over.
        searches: The searches that have ended.
        registered: What the final step registered.
    """
    drawings = [figures.race(searches, against="trials"), figures.race(searches, against="seconds")]
    sections = [_searches(searches), *_drawn(drawings)]
    # Objectives of different names cannot be told in one figure.
    for metric in dict.fromkeys(search.metric for search in searches):
        whole = merged(title, [search for search in searches if search.metric == metric])
        sections += [
            _board(whole),
            *_drawn([figures.parallel_coordinates(whole), figures.slices(whole), figures.timeline(whole)]),
        ]
    return _page(title, [f"{len(searches)} searches.", *(each.said for each in registered)], sections)


def _page(title: str, lines: Iterable[str], sections: Iterable[str]) -> str:
    from plotly.offline import get_plotlyjs

    here = files("trialbook.report")
    shown = html.escape(title)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{shown}</title><style>{here.joinpath('page.css').read_text('utf-8')}</style>"
        f"<script>{get_plotlyjs()}</script></head><body><h1>{shown}</h1>"
        + "".join(f"<p>{html.escape(line)}</p>" for line in lines)
        + "".join(sections)
        + f"<script>{here.joinpath('page.js').read_text('utf-8')}</script></body></html>"
    )


def _section(title: str, body: str, said: str = "") -> str:
    caption = f'<p class="said">{html.escape(said)}</p>' if said else ""
    return f"<section><h2>{html.escape(title)}</h2>{caption}{body}</section>"


def _drawn(drawings: Iterable[Drawing | None]) -> list[str]:
    return [_section(d.title, _plot(d), d.said) for d in drawings if d is not None]


def _plot(drawing: Drawing) -> str:
    if drawing.figure is None:
        return ""
    height = drawing.figure.layout.height or _HEIGHT
    drawing.figure.update_layout(
        title=None,
        height=None,
        width=None,
        template="plotly_white",
        autosize=True,
        margin={"l": 10, "r": 10, "t": 30, "b": 10},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0},
    )
    figure = drawing.figure.to_html(
        full_html=False, include_plotlyjs=False, config={"responsive": True, "displayModeBar": False}
    )
    return (
        f'<div class="scroll"><div class="plot" style="min-width:{drawing.width}px;height:{height}px">{figure}</div>'
        "</div>"
    )


def _board(summary: Summary) -> str:
    """The best trials as a table, then those that failed."""
    standing = standings(summary.records)
    names = summary.names
    headings = ["rank", "trial", summary.metric, *names, "epochs", "seconds"]
    headings += ["resources", "standing"] if standing else []
    ranked = sorted(
        zip(ranks(summary.records, maximize=summary.maximize), summary.records, strict=True),
        key=lambda pair: (pair[0], pair[1].trial.number),
    )
    rows: list[tuple[list[str], str]] = []
    for rank, record in ranked[:_ROWS]:
        trial, result = record.trial, record.result
        cells = [str(rank), f"{trial.number:03d}", score_of(record)]
        if not completed(record):
            cells = ["", f"{trial.number:03d}", str(result.state)]
        cells += [text(trial.params[name]) if name in trial.params else "" for name in names]
        cells += ["" if result.best_epoch is None else str(result.best_epoch)]
        cells += ["" if result.fit_seconds is None else f"{result.fit_seconds:.2f}"]
        cells += [str(trial.details["resources"]), standing[trial.number]] if standing else []
        rows.append((cells, "" if completed(record) else result.reason or str(result.state)))
    said = f"The first {_ROWS} of {len(ranked)}; all are in leaderboard.csv." if len(ranked) > _ROWS else ""
    return _section("Leaderboard", _table(headings, rows), said)


def _searches(searches: Sequence[Summary]) -> str:
    headings = ["search", "objective", "best", "trial", "hyperparameters", "trials"]
    rows: list[tuple[list[str], str]] = []
    for search in searches:
        best = next(iter(search.complete), None)
        told = ["", "", ""]
        if best is not None:
            told = [score_of(best), f"{best.trial.number:03d}", params_line(best.trial.params)]
        rows.append(([search.title, search.metric, *told, counts(search)], ""))
    return _section("Searches", _table(headings, rows))


def _table(headings: Sequence[str], rows: Iterable[tuple[Sequence[str], str]]) -> str:
    """A table; a row may have a remark, such as why a trial failed, below it."""
    head = "".join(f"<th>{html.escape(heading)}</th>" for heading in headings)
    body = ""
    for cells, remark in rows:
        body += f"<tr{' class=failed' if remark else ''}>{''.join(f'<td>{html.escape(c)}</td>' for c in cells)}</tr>"
        if remark:
            body += f'<tr class="remark"><td colspan="{len(headings)}">{html.escape(remark)}</td></tr>'
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
