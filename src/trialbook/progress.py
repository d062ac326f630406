"""What a person at a terminal or in a notebook, or the log of a pipeline, sees of a search.

A terminal and a notebook show one line that changes; a pipe gets a line for each trial.
"""

from __future__ import annotations

import io
import logging
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from typing import Any, Protocol

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from trialbook.trial import Record, Result, State, Trial, beats, best_first, best_record, standings

_LEADERS = 50
_PIPE_WIDTH = 500
# How often a notebook's line changes at most, and how much it shows of what a trial prints.
_NOTEBOOK_SECONDS = 0.5
_GLANCE = 160


class Terminal:
    """Shows a search on a console.

    Args:
        console: Where to show it.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        if console is None and not self.console.is_jupyter and not sys.stdout.isatty():
            # A pipe has no width: there a table is as wide as it needs to be.
            self.console.width = _PIPE_WIDTH
        self._out = sys.stdout  # before anything is put in its place

    def say(self, message: str) -> None:
        """One line of plain text."""
        if self.console.is_jupyter:
            # A console's own lines are as wide as the notebook's page allows, and break.
            print(message, file=self._out)
        else:
            self.console.print(message, markup=False)

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Say what is being done for as long as it takes."""
        if not self.console.is_terminal:
            self.say(f"{what} …")
            yield
            return
        with self.console.status(f"{what} …"):
            yield

    @contextmanager
    def relaying(self, name: str) -> Iterator[None]:
        """Say what is logged under a name, such as that a store does not answer."""
        logger, handler = logging.getLogger(name), _Saying(self)
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)

    @contextmanager
    def search(self, total: int | None, *, maximize: bool, done: Sequence[Record] = ()) -> Iterator[SearchProgress]:
        """Watch a search of `total` trials, or of unknown length, of which some may be done already."""
        with _display(self) as display:
            yield SearchProgress(display, Tally.after(done, total, maximize=maximize))

    def leaderboard(self, records: Sequence[Record], metric: str, *, maximize: bool) -> None:
        """The best trials as a table, and a line for each reason of failure."""
        complete = best_first(records, maximize=maximize)
        standing = standings(records)
        names = list(dict.fromkeys(name for r in complete for name in r.trial.params))
        rows = []
        for record in complete[:_LEADERS]:
            trial, result = record.trial, record.result
            row = {
                "rank": str(1 + sum(beats(r, record, maximize=maximize) for r in complete)),
                "trial": f"{trial.number:03d}",
                metric: f"{record.objective:.4f}",
                "±": f"{result.objective_std or 0:.4f}",
                **{name: _short(trial.params.get(name, "")) for name in names},
                "epochs": "" if result.best_epoch is None else str(result.best_epoch),
                "seconds": f"{result.fit_seconds or 0:.2f}",
            }
            if standing:
                row |= {"resources": str(trial.details["resources"]), "standing": standing[trial.number]}
            rows.append(row)
        table = Table(title=f"Best {len(rows)} of {len(records)} trials", box=box.SIMPLE_HEAD)
        headings = [heading for heading in (rows[0] if rows else ()) if any(row[heading] for row in rows)]
        for heading in headings:
            table.add_column(heading, justify="right", no_wrap=True)
        for row in rows:
            table.add_row(*(row[heading] for heading in headings))
        self.console.print(table)
        reasons = [r.result.reason or "" for r in records if r.result.state is not State.COMPLETE]
        for reason in dict.fromkeys(reasons):
            self.say(f"{reasons.count(reason)} failed: {reason}")


class _Saying(logging.Handler):
    """Has a terminal say what is logged."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        """Say it."""
        self._terminal.say(self.format(record))


@dataclass
class Tally:
    """How far a search is.

    Attributes:
        total: How many trials there will be; None if that is not known.
        maximize: Direction of the objective.
        before: How many trials had ended before this began to count.
    """

    total: int | None
    maximize: bool
    before: int = 0
    done: int = 0
    failed: int = 0
    running: int = 0
    best: Record | None = None
    _clock: float = field(default_factory=time.monotonic)

    @classmethod
    def after(cls, records: Sequence[Record], total: int | None, *, maximize: bool) -> Tally:
        """The tally of a search that is gone on with."""
        failed = sum(record.result.state is not State.COMPLETE for record in records)
        best = best_record(records, maximize=maximize)
        return cls(total, maximize, before=len(records), done=len(records), failed=failed, best=best)

    def add(self, record: Record) -> None:
        """A trial has ended."""
        self.running -= 1
        self.done += 1
        if record.result.state is not State.COMPLETE:
            self.failed += 1
        elif beats(record, self.best, maximize=self.maximize):
            self.best = record

    @property
    def count(self) -> str:
        """`7/30`, or `7` where the total is not known."""
        return f"{self.done}/{self.total}" if self.total else str(self.done)

    @property
    def best_so_far(self) -> str:
        """`best 0.9757 (trial 024)`, or nothing."""
        return "" if self.best is None else f"best {self.best.objective:.4f} (trial {self.best.trial.number:03d})"

    @property
    def state(self) -> str:
        """All but the count, in a line: failed, running, best, rate, time left."""
        parts = [f"{self.failed} failed", f"{self.running} running", self.best_so_far]
        seconds = time.monotonic() - self._clock
        if (ended := self.done - self.before) and seconds > 0:
            parts.append(f"{60 * ended / seconds:.3g}/min")
            if self.total is not None:
                parts.append(f"{_clock_time(seconds / ended * (self.total - self.done))} left")
        return " · ".join(part for part in parts if part)


class Display(Protocol):
    """Where the progress of a search is shown."""

    def update(self, tally: Tally) -> None:
        """The search has come further."""

    def ended(self, line: str) -> None:
        """A trial has ended, of which `line` tells."""


class SearchProgress:
    """The loop's observer: keeps the tally and shows it."""

    def __init__(self, display: Display, tally: Tally) -> None:
        self._display = display
        self._tally = tally
        self._started: dict[int, float] = {}
        display.update(tally)

    def started(self, trial: Trial) -> None:
        """A trial runs."""
        self._started[trial.number] = time.monotonic()
        self._tally.running += 1
        self._display.update(self._tally)

    def retried(self, trial: Trial, result: Result) -> None:
        """An attempt has failed, and the trial is tried again."""
        self._display.ended(f"trial {trial.number:03d} is tried again: {result.reason}")

    def finished(self, record: Record) -> None:
        """A trial has ended."""
        self._tally.add(record)
        self._display.update(self._tally)
        self._display.ended(self._line(record))

    def _line(self, record: Record) -> str:
        trial, result = record.trial, record.result
        seconds = time.monotonic() - self._started.pop(trial.number)
        value = f"objective={record.objective:.4f}" if result.state is State.COMPLETE else f"({result.reason})"
        params = " ".join(f"{name}={_short(v)}" for name, v in trial.params.items())
        if trial.resources is not None:
            params += f" on {trial.resources} rows"
        told = [
            f"[{self._tally.count}] trial {trial.number:03d} {result.state} {value} {params}",
            f"{seconds:.1f} s",
            self._tally.best_so_far,
        ]
        return " · ".join(part for part in told if part)


@contextmanager
def _display(terminal: Terminal) -> Iterator[Display]:
    console = terminal.console
    if console.is_jupyter:
        notebook = _Notebook()
        # What a training prints would pile up in the cell, for every trial anew.
        with redirect_stdout(notebook.printed), redirect_stderr(notebook.printed):
            yield notebook
        notebook.end()
    elif not console.is_terminal:
        yield _Pipe(terminal)
    else:
        live = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            TextColumn("{task.fields[state]}"),
            console=console,
            transient=True,
        )
        with live:
            yield _Live(live)


class _Pipe:
    """A line for each trial that has ended."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def update(self, tally: Tally) -> None:
        pass

    def ended(self, line: str) -> None:
        self._terminal.say(line)


class _Live:
    """One line at the bottom of a terminal."""

    def __init__(self, live: Progress) -> None:
        self._live = live
        self._task = live.add_task("trials", total=None, state="")

    def update(self, tally: Tally) -> None:
        what = f"{tally.count} trials"
        self._live.update(self._task, description=what, total=tally.total, completed=tally.done, state=tally.state)

    def ended(self, line: str) -> None:
        pass


class _Notebook:
    """One line in the output of a cell, without widgets, and while trials print something the last line of that."""

    def __init__(self) -> None:
        from IPython.display import display

        self._handle: Any = display({"text/plain": ""}, raw=True, display_id=True)
        self._line = ""
        self._shown = 0.0
        self.printed = _LastLine(self._show)

    def update(self, tally: Tally) -> None:
        self._line = f"{tally.count} trials · {tally.state}"
        self._show(self.printed.line, at_once=True)

    def ended(self, line: str) -> None:
        pass

    def end(self) -> None:
        self._show("", at_once=True)

    def _show(self, printed: str, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if at_once or now - self._shown > _NOTEBOOK_SECONDS:
            self._shown = now
            text = f"{self._line}\n{printed}" if printed else self._line
            self._handle.update({"text/plain": text}, raw=True)


class _LastLine(io.TextIOBase):
    """A stream that keeps its last line, and no more of it than can be read at a glance."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self.line = ""
        self._show = show

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        # A progress bar of a library's goes back to the beginning of its line instead of to the next one.
        if lines := [line for line in re.split(r"[\r\n\b]+", text) if line.strip()]:
            self.line = lines[-1][:_GLANCE]
            self._show(self.line)
        return len(text)


def _clock_time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
