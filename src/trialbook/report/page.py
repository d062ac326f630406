"""The report: one self-contained page of HTML."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from importlib.resources import files

from trialbook.report import against, figures
from trialbook.report.figures import Drawing
from trialbook.report.notes import counts, score_of
from trialbook.report.summary import Registered, Summary, completed, merged, name_of
from trialbook.report.tables import ranks
from trialbook.tracking import params_line, short

_ROWS = 100
_HEIGHT = 420


def html_report(summary: Summary) -> str:
    """The page about one search: its leaderboard, and its figures."""
    figures.load_libraries()
    drawings: list[Drawing | None] = [
        figures.history(summary),
        figures.rungs(summary),
        figures.learning_curves(summary),
        against.parallel_coordinates(summary),
        against.slices(summary),
        against.importances(summary),
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
    figures.load_libraries()
    drawings = [figures.race(searches, against="trials"), figures.race(searches, against="seconds")]
    sections = [_searches(searches), *_drawn(drawings)]
    # Objectives of different names cannot be told in one figure.
    for metric in dict.fromkeys(search.metric for search in searches):
        whole = merged(title, [search for search in searches if search.metric == metric])
        sections += [
            _board(whole),
            *_drawn(
                [
                    figures.learning_curves(whole),
                    against.parallel_coordinates(whole),
                    against.slices(whole),
                    against.importances(whole),
                    figures.timeline(whole),
                ]
            ),
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
        + "</body></html>"
    )


def _section(title: str, body: str, said: str = "") -> str:
    caption = f'<p class="said">{html.escape(said)}</p>' if said else ""
    return f"<section><h2>{html.escape(title)}</h2>{caption}{body}</section>"


def _drawn(drawings: Iterable[Drawing | None]) -> list[str]:
    return [_section(d.title, _plot(d), d.said) for d in drawings if d is not None]


def _plot(drawing: Drawing) -> str:
    from plotly.io import to_html

    if drawing.figure is None:
        return ""
    height = drawing.figure.layout.height or _HEIGHT
    # What Plotly has checked as it was drawn is not checked again: with its look that would take longer than all else.
    figure = drawing.figure.to_dict()
    for name in ("title", "height", "width"):
        figure["layout"].pop(name, None)
    figure["layout"] |= {
        "autosize": True,
        "template": figures.look(),
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 10, "r": 30, "t": 30, "b": 10},
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0},
    }
    drawn = to_html(
        figure,
        full_html=False,
        include_plotlyjs=False,
        config={"responsive": True, "displayModeBar": False},
        validate=False,
    )
    return (
        f'<div class="scroll"><div class="plot" style="min-width:{drawing.width}px;height:{height}px">{drawn}</div>'
        "</div>"
    )


def _board(summary: Summary) -> str:
    """The best trials as a table, and those that failed below them."""
    ranked = sorted(
        zip(ranks(summary.records, maximize=summary.maximize), summary.records, strict=True),
        key=lambda pair: (pair[0], pair[1].trial.number),
    )
    shown = ranked[:_ROWS]
    rows: list[tuple[dict[str, str], str]] = []
    for rank, record in shown:
        trial, result = record.trial, record.result
        done = completed(record)
        cells = {
            "rank": str(rank) if done else "",
            "trial": name_of(record),
            summary.metric: score_of(record) if done else str(result.state),
            **{name: short(trial.params[name]) if name in trial.params else "" for name in summary.names},
            "epochs": "" if result.best_epoch is None else str(result.best_epoch),
            "seconds": "" if result.fit_seconds is None else f"{result.fit_seconds:.2f}",
        }
        if trial.number in summary.standing:
            cells |= {"resources": str(trial.details["resources"]), "standing": summary.standing[trial.number]}
        rows.append((cells, "" if done else result.reason or "no reason is on record"))
    said = f"The first {_ROWS} of {len(ranked)}; all are in leaderboard.csv." if len(ranked) > _ROWS else ""
    return _section("Leaderboard", _table(rows), said)


def _searches(searches: Sequence[Summary]) -> str:
    rows: list[tuple[dict[str, str], str]] = []
    for search in searches:
        best = next(iter(search.complete), None)
        told = {} if best is None else {"best": score_of(best), "trial": name_of(best)}
        params = "" if best is None else params_line(best.trial.params)
        cells = {"search": search.title, "objective": search.metric, "best": "", "trial": "", **told}
        rows.append((cells | {"hyperparameters": params, "trials": counts(search)}, ""))
    return _section("Searches", _table(rows))


def _table(rows: Sequence[tuple[dict[str, str], str]]) -> str:
    """A table of those columns that are not empty; a row may have a remark below it, such as why a trial failed."""
    names = dict.fromkeys(name for cells, _ in rows for name, cell in cells.items() if cell)
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = ""
    for cells, remark in rows:
        row = "".join(f"<td>{html.escape(cells.get(name, ''))}</td>" for name in names)
        body += f"<tr{' class=failed' if remark else ''}>{row}</tr>"
        if remark:
            body += f'<tr class="remark"><td colspan="{len(names)}">{html.escape(remark)}</td></tr>'
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
