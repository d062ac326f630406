"""What a person at a terminal, or the log of a pipeline, sees of a search.

A terminal shows one live line; a pipe gets a line for each trial.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from trialbook.trial import Record, State, Trial, beats, best_first, standings

_LEADERS = 50
_PIPE_WIDTH = 500


class Terminal:
    """Shows a search on a console.

    Args:
        console: Where to show it.
    """

    def __init__(self, console: Console | None = None) -> None:
        # A pipe has no width: there a table is as wide as it needs to be.
        piped = None if sys.stdout.isatty() else _PIPE_WIDTH
        self.console = console or Console(highlight=False, soft_wrap=True, width=piped)

    def say(self, message: str) -> None:
        """One line of plain text."""
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
    def search(self, total: int | None, *, maximize: bool) -> Iterator[SearchProgress]:
        """Watch a search of `total` trials, or of unknown length."""
        with SearchProgress(self.console, total, maximize=maximize) as progress:
            yield progress

    def leaderboard(self, records: Sequence[Record], metric: str, *, maximize: bool) -> None:
        """The best trials as a table, and a line for each reason of failure."""
        complete = best_first(records, maximize=maximize)
        standing = standings(records)
        names = list(dict.fromkeys(name for r in complete for name in r.trial.params))
        table = Table(title=f"Best {min(_LEADERS, len(complete))} of {len(records)} trials", box=box.SIMPLE_HEAD)
        for heading in (
            "rank",
            "trial",
            metric,
            "±",
            *names,
            "epochs",
            "seconds",
            *(("resources", "standing") if standing else ()),
        ):
            table.add_column(heading, justify="right", no_wrap=True)
        for record in complete[:_LEADERS]:
            result = record.result
            rank = 1 + sum(beats(r, record, maximize=maximize) for r in complete)
            table.add_row(
                str(rank),
                f"{record.trial.number:03d}",
                f"{record.objective:.4f}",
                f"{result.objective_std or 0:.4f}",
                *(_short(record.trial.params.get(name, "")) for name in names),
                "" if result.best_epoch is None else str(result.best_epoch),
                f"{result.fit_seconds or 0:.2f}",
                *((str(record.trial.details["resources"]), standing[record.trial.number]) if standing else ()),
            )
        self.console.print(table)
        reasons = [r.result.reason or "" for r in records if r.result.state is not State.COMPLETE]
        for reason in dict.fromkeys(reasons):
            self.say(f"{reasons.count(reason)} failed: {reason}")


class SearchProgress:
    """The loop's observer: trials done, failed and running, the best so far, and the time left."""

    def __init__(self, console: Console, total: int | None, *, maximize: bool) -> None:
        self._console = console
        self._total = total
        self._maximize = maximize
        self._done = self._failed = self._running = 0
        self._best: Record | None = None
        self._started: dict[int, float] = {}
        self._live = Progress(
            SpinnerColumn(),
            TextColumn("trials"),
            MofNCompleteColumn(),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._live.add_task("trials", total=total, state="")

    def __enter__(self) -> SearchProgress:
        """Start the live line."""
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the live line."""
        self._live.stop()

    def started(self, trial: Trial) -> None:
        """A trial runs."""
        self._started[trial.number] = time.monotonic()
        self._running += 1
        self._update()

    def finished(self, record: Record) -> None:
        """A trial has ended."""
        self._running -= 1
        self._done += 1
        if record.result.state is not State.COMPLETE:
            self._failed += 1
        elif beats(record, self._best, maximize=self._maximize):
            self._best = record
        self._update()
        if not self._console.is_terminal:
            self._console.print(self._line(record), markup=False)

    def _update(self) -> None:
        parts = [f"{self._failed} failed", f"{self._running} running"]
        if self._best is not None:
            parts.append(f"best {self._best.objective:.4f} (trial {self._best.trial.number:03d})")
        self._live.update(self._task, completed=self._done, state=" · ".join(parts))

    def _line(self, record: Record) -> str:
        trial, result = record.trial, record.result
        seconds = time.monotonic() - self._started.pop(trial.number)
        count = f"{self._done}/{self._total}" if self._total else str(self._done)
        value = f"objective={record.objective:.4f}" if result.state is State.COMPLETE else f"({result.reason})"
        params = " ".join(f"{name}={_short(v)}" for name, v in trial.params.items())
        if trial.resources is not None:
            params += f" on {trial.resources} rows"
        best = "" if self._best is None else f" · best {self._best.objective:.4f} (trial {self._best.trial.number:03d})"
        return f"[{count}] trial {trial.number:03d} {result.state} {value} {params} · {seconds:.1f} s{best}"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
