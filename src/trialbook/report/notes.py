"""The notes in Markdown that MLflow shows on the run of a search or a sweep."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from itertools import groupby

from trialbook.report.summary import HowTo, Registered, Summary, merged, name_of
from trialbook.space import Dimension
from trialbook.tracking import text
from trialbook.trial import Record

_BEST = 5
_CAUSES = 5


def note(summary: Summary) -> str:
    """The note on a search run: the best trials, what failed, what was searched, and the ways back to it."""
    sections = [
        f"**{summary.title}**: {counts(summary)}. It ended because {summary.stopped}.",
        summary.registered.said if summary.registered else "",
        _best(summary),
        failures(summary),
        _searched(summary),
        _ways_back(summary.how_to),
        _model(summary.registered, summary.how_to),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def sweep_note(
    title: str,
    searches: Sequence[Summary],
    *,
    failed: Sequence[str] = (),
    registered: Sequence[Registered] = (),
    how_to: HowTo | None = None,
) -> str:
    """The note on a sweep run.

    Args:
        title: What was swept over.
        searches: The searches that have ended.
        failed: For each job that left no search, a line that names it and says why.
        registered: What the final step registered.
        how_to: The ways back to the sweep.
    """
    rows = [["search", "objective", "best", "trial", "hyperparameters", "trials"]]
    for search in searches:
        best = next(iter(search.complete), None)
        rows.append(
            [search.title, search.metric]
            + (["", "", ""] if best is None else [score_of(best), f"{best.trial.number:03d}", _plain(best)])
            + [counts(search)]
        )
    # Objectives of different names stand in no one table.
    metrics = dict.fromkeys(search.metric for search in searches)
    boards = [_best(merged(title, [s for s in searches if s.metric == metric])) for metric in metrics]
    causes = [f"{search.title}: {line}" for search in searches for line in _causes(search)]
    sections = [
        f"**{title}**: {len(searches)} searches" + (f", and {len(failed)} jobs that failed." if failed else "."),
        _table(rows),
        *(f"The best trials of all searches:\n\n{board}" for board in boards if board),
        _bullets([*failed, *causes[:_CAUSES]]),
        *(each.said for each in registered),
        _ways_back(how_to),
        *(_model(each, how_to) for each in registered),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def counts(summary: Summary) -> str:
    """How many trials ended how: `12 trials: 11 complete, 1 failed`."""
    states = [str(r.result.state) for r in summary.records]
    told = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states)))
    return f"{len(states)} trials" + (f": {told}" if told else "")


def failures(summary: Summary) -> str:
    """Which trials failed and why, a line for each cause."""
    return _bullets(_causes(summary))


def score_of(record: Record) -> str:
    """The objective for people, with its spread where there are several folds."""
    if len(record.result.fold_scores) < 2:
        return f"{record.objective:.4f}"
    return f"{record.objective:.4f} ± {record.result.objective_std or 0:.4f}"


def described(dimension: Dimension) -> str:
    """A hyperparameter's part of the space in a few words: `units 32 … 512 step 32`."""
    if dimension.distribution is not None:
        said = "a distribution"
    elif dimension.values:
        said = ", ".join(text(value) for value in dimension.values)
    else:
        said = f"{dimension.low:g} … {dimension.high:g}"
        said += f" step {dimension.step:g}" if dimension.step is not None else ""
        said += " logarithmic" if dimension.log else ""
    if dimension.when:
        said += ", only with " + " and ".join(
            f"{name} = {' or '.join(map(text, values))}" for name, values in dimension.when.items()
        )
    return said


def _searched(summary: Summary) -> str:
    direction = "maximized" if summary.maximize else "minimized"
    lines = [f"`{summary.metric}` was {direction} over:"] if summary.space else [f"`{summary.metric}` was {direction}."]
    if summary.space:
        lines += ["", *(f"- `{d.name}`: {described(d)}" for d in summary.space.dimensions)]
    return "\n".join(lines)


def _best(summary: Summary) -> str:
    best = summary.complete[:_BEST]
    if not best:
        return ""
    names = [name for name in summary.names if any(name in r.trial.params for r in best)]
    rows = [["rank", "trial", summary.metric, *names]]
    for rank, record in enumerate(best, start=1):
        params = record.trial.params
        cells = [text(params[name]) if name in params else "" for name in names]
        rows.append([str(rank), name_of(record), score_of(record), *cells])
    return _table(rows)


def _causes(summary: Summary) -> list[str]:
    """A line for each cause of failure, the most frequent first."""

    def cause(record: Record) -> str:
        return f"{record.result.state}: {record.result.reason or 'no reason is on record'}"

    found = [
        (cause_of, [f"{r.trial.number:03d}" for r in records])
        for cause_of, records in groupby(sorted(summary.incomplete, key=cause), key=cause)
    ]
    found.sort(key=lambda pair: -len(pair[1]))
    lines = []
    for said, numbers in found[:_CAUSES]:
        which = ", ".join(numbers[:_CAUSES]) + (" …" if len(numbers) > _CAUSES else "")
        lines.append(f"{'trial' if len(numbers) == 1 else f'{len(numbers)} trials,'} {which} {said}")
    return lines


def _ways_back(how_to: HowTo | None) -> str:
    if how_to is None:
        return ""
    seeded = "" if how_to.seed is None else f" (seed {how_to.seed})"
    again, resume = (
        f"{_in_store(how_to)}{command}" if how_to.language == "bash" and "tracking.uri=" not in command else command
        for command in (how_to.again, how_to.resume)
    )
    return (
        f"Run it again{seeded}:\n\n{_code(again, how_to.language)}\n\n"
        f"Go on with it if it was interrupted:\n\n{_code(resume, how_to.language)}"
    )


def _in_store(how_to: HowTo) -> str:
    """What before a command makes it use the store."""
    return f"MLFLOW_TRACKING_URI={shlex.quote(how_to.uri)} "


def _model(registered: Registered | None, how_to: HowTo | None) -> str:
    """How to load and to serve a registered model."""
    if registered is None or how_to is None:
        return ""
    load = (
        f'import mlflow\n\nmlflow.set_tracking_uri("{how_to.uri}")\n'
        f'model = mlflow.pyfunc.load_model("{registered.uri}")  # then model.predict(rows), a DataFrame'
    )
    serve = f"{_in_store(how_to)}mlflow models serve -m {shlex.quote(registered.uri)} --env-manager local --port 5001"
    return f"Load the registered model:\n\n{_code(load, 'python')}\n\nServe it:\n\n{_code(serve, 'bash')}"


def _code(lines: str, language: str) -> str:
    return f"```{language}\n{lines}\n```"


def _table(rows: Sequence[Sequence[str]]) -> str:
    heading, *body = [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]
    return "\n".join([heading, "|" + " --- |" * len(rows[0]), *body])


def _cell(words: str) -> str:
    return re.sub(r"\s+", " ", words).replace("|", "\\|")


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {_cell(line)}" for line in lines)


def _plain(record: Record) -> str:
    return ", ".join(f"{name} = {text(value)}" for name, value in record.trial.params.items())
