"""Two sides of a claim, measured in turns: each time in a fresh process, in a fresh folder.

What a process says of its own seconds is taken from a line it prints (see `benchmarks.measure`); how long it takes as a
whole, and how much memory, is seen from outside.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.measure import MARK

ROOT = Path(__file__).parents[1]
_REQUIREMENTS = Path(__file__).parent / "peers"
_LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Measured:
    """One run of one side.

    Attributes:
        seconds: What the claim is about.
        process: The whole process, in seconds; None where that says nothing.
        driver: The most memory that the process took, in MB.
        worker: The most that any one process below it took; 0 if there was none.
        trials: How many trials were run, and are on record where they should be.
        score: A score by which the work of both sides is compared; None for no score.
        lines: What it printed, each line with the seconds after which it came.
    """

    seconds: float
    process: float | None
    driver: float
    worker: float
    trials: int = 0
    score: float | None = None
    lines: Sequence[tuple[float, str]] = ()


# A side is what measures itself once, in a folder of its own.
Side = Callable[[Path], Measured]


@dataclass(frozen=True)
class Goal:
    """What is claimed of the peer's seconds and ours.

    Attributes:
        faster: Whether it is that ours is at least so many `times` as fast; else, that it takes at most so many times
            as long.
        times: How many.
    """

    faster: bool
    times: float

    def ratio(self, peer: float, ours: float) -> float:
        """The number that the goal is about."""
        return peer / ours if self.faster else ours / peer

    def met(self, ratio: float) -> bool:
        """Whether it is reached."""
        return ratio >= self.times if self.faster else ratio <= self.times

    def __str__(self) -> str:
        """In words."""
        return f"at least {self.times:g} times as fast" if self.faster else f"at most {self.times:g} times as long"


@dataclass(frozen=True)
class Comparison:
    """A claim: the same work, by a peer and by Trialbook.

    Attributes:
        row: The claim's number.
        work: What is done.
        timed: What of it is timed.
        rival: What a user would write without Trialbook.
        peer: Measures that.
        ours: Measures Trialbook.
        goal: What is claimed.
        trials: How many trials each side must have run.
        tolerance: How far apart the scores of the two may be.
        repetitions: How often the two take turns, unless the command line says.
        per_trial: Whether milliseconds a trial are shown in place of seconds.
    """

    row: int
    work: str
    timed: str
    rival: str
    peer: Side
    ours: Side
    goal: Goal
    trials: int = 0
    tolerance: float = 0.0
    repetitions: int = 3
    per_trial: bool = False

    def run(self, repetitions: int | None, told: Callable[[str], None]) -> Compared:
        """Measure both sides in turns; the one that goes first, changes.

        Raises:
            SystemExit: If a side has not done the work.
        """
        pairs: list[tuple[Measured, Measured]] = []
        count = repetitions or self.repetitions
        for number in range(count):
            measured = {}
            for side in (self.peer, self.ours) if number % 2 == 0 else (self.ours, self.peer):
                with tempfile.TemporaryDirectory(prefix="comparison-") as folder:
                    measured[side] = side(Path(folder))
            peer, ours = measured[self.peer], measured[self.ours]
            self._check(peer, ours)
            pairs.append((peer, ours))
            told(f"row {self.row}, {number + 1} of {count}: peer {peer.seconds:.2f} s, Trialbook {ours.seconds:.2f} s")
        return Compared(self, pairs)

    def _check(self, peer: Measured, ours: Measured) -> None:
        for name, side in (("the peer", peer), ("Trialbook", ours)):
            if side.trials != self.trials:
                raise SystemExit(f"row {self.row}, {self.work}: {name} ran {side.trials} of {self.trials} trials")
        if peer.score is None or ours.score is None:
            if peer.score is not ours.score:
                raise SystemExit(f"row {self.row}, {self.work}: only one side has a score")
        elif not abs(peer.score - ours.score) <= self.tolerance:
            raise SystemExit(f"row {self.row}, {self.work}: the scores are {peer.score} and {ours.score}")


@dataclass(frozen=True)
class Compared:
    """A claim with its measurements, the peer's and ours in pairs."""

    claim: Comparison
    pairs: Sequence[tuple[Measured, Measured]]

    @property
    def ratio(self) -> float:
        """Of the medians."""
        peer, ours = (statistics.median(side.seconds for side in sides) for sides in zip(*self.pairs, strict=True))
        return self.claim.goal.ratio(peer, ours)

    @property
    def ratios(self) -> list[float]:
        """Of each pair."""
        return [self.claim.goal.ratio(peer.seconds, ours.seconds) for peer, ours in self.pairs]

    def cells(self) -> list[str]:
        """A line of the table, under `HEADINGS`."""
        claim, ratios = self.claim, self.ratios
        peers, ours = zip(*self.pairs, strict=True)
        among = f"{min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} pairs" if len(ratios) > 1 else "1 pair"
        said = "times as fast" if claim.goal.faster else "times as long"
        return [
            str(claim.row),
            claim.work,
            claim.rival,
            claim.timed,
            self._times(peers),
            self._times(ours),
            f"**{self.ratio:.2f}** {said} ({among})",
            f"{claim.goal}: {'met' if claim.goal.met(self.ratio) else '**not met**'}",
            f"{whole(peers)} / {whole(ours)}",
            f"{memory(peers)} / {memory(ours)}",
        ]

    def _times(self, sides: Sequence[Measured]) -> str:
        if self.claim.per_trial:
            return f"{spread([1000 * side.seconds / side.trials for side in sides], digits=1)} ms a trial"
        return f"{spread([side.seconds for side in sides])} s"


HEADINGS = [
    "row",
    "work",
    "peer",
    "what is timed",
    "time of the peer",
    "of Trialbook",
    "Trialbook is",
    "goal",
    "whole process, s: peer / Trialbook",
    "peak memory, MB, driver + largest worker: peer / Trialbook",
]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median, and how far the values reach."""
    low, middle, high = (f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values)))
    return middle if len(values) == 1 else f"{middle} ({low} to {high})"


def whole(sides: Sequence[Measured]) -> str:
    """The median of the whole process, or a dash."""
    seconds = [side.process for side in sides if side.process is not None]
    return f"{statistics.median(seconds):.1f}" if seconds else "-"


def memory(sides: Sequence[Measured]) -> str:
    """The largest of the peaks, of the driver and of its largest worker."""
    driver, worker = (max(getattr(side, name) for side in sides) for name in ("driver", "worker"))
    return f"{driver:.0f} + {worker:.0f}" if worker else f"{driver:.0f}"


@dataclass(frozen=True, eq=False)
class Script:
    """A side that is a function of a row's module (see `benchmarks.measure.main`).

    Attributes:
        module: The module.
        side: The function.
        words: Its keywords.
        peers: The file of requirements of the environment that it runs in; None for Trialbook's own.
    """

    module: str
    side: str
    words: dict[str, Any] = field(default_factory=dict)
    peers: str | None = None

    def __call__(self, folder: Path) -> Measured:
        """Run it, and read what it says."""
        python = sys.executable if self.peers is None else python_of(self.peers)
        path = [ROOT] if self.peers else [ROOT, ROOT / "src"]
        command = [str(python), "-m", self.module, self.side, json.dumps(self.words)]
        measured = run(command, folder, {"PYTHONPATH": os.pathsep.join(map(str, path))})
        (report,) = (line.removeprefix(MARK) for _, line in measured.lines if line.startswith(MARK))
        return Measured(**{**vars(measured), "lines": (), **json.loads(report)})


def run(command: Sequence[str], folder: Path, environment: dict[str, str] | None = None) -> Measured:
    """Run a command in a folder; what it has said to standard error is shown if it fails.

    Raises:
        SystemExit: If it fails.
    """
    # What is set for MLflow on this machine is no part of the comparison, nor are TensorFlow's notes.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    kept |= {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONUNBUFFERED": "1", **(environment or {})}
    lines = []
    with (folder / "errors.txt").open("w+") as errors:
        started = time.perf_counter()
        with subprocess.Popen(command, cwd=folder, env=kept, stdout=subprocess.PIPE, stderr=errors, text=True) as child:
            watch = _Watch(child.pid)
            watch.start()
            assert child.stdout is not None
            for line in child.stdout:
                lines.append((time.perf_counter() - started, line.rstrip("\n")))
        seconds = time.perf_counter() - started
        watch.join()
        if child.returncode != 0:
            errors.seek(0)
            print("\n".join([*(line for _, line in lines[-20:]), errors.read()[-4000:]]), file=sys.stderr)
            raise SystemExit(f"{' '.join(command)} failed")
    return Measured(seconds, seconds, watch.driver, watch.worker, lines=lines)


class _Watch(threading.Thread):
    """Looks again and again at how much memory a process takes, and each one below it, until it has ended."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process(pid)
        self.driver = self.worker = 0.0

    def run(self) -> None:
        while (now := _megabytes(self._process)) is not None:
            self.driver = max(self.driver, now)
            try:
                below = self._process.children(recursive=True)
            except psutil.Error:
                return
            self.worker = max([self.worker, *(_megabytes(process) or 0.0 for process in below)])
            time.sleep(_LOOK_SECONDS)


def _megabytes(process: psutil.Process) -> float | None:
    """What a process takes now; None if it has ended."""
    try:
        return process.memory_info().rss / 2**20 if process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def python_of(requirements: str) -> Path:
    """The Python of an environment with these requirements, which is made if there is none.

    It is kept in the user's cache folder under a name that tells its contents.
    """
    file = _REQUIREMENTS / requirements
    contents = [file.read_bytes(), (ROOT / "requirements.txt").read_bytes(), sys.version.encode()]
    name = f"{file.stem}-{hashlib.sha256(b''.join(contents)).hexdigest()[:12]}"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "trialbook-benchmarks")
    folder, python = cache / name, cache / name / "bin" / "python"
    complete = folder / "complete"
    if not complete.exists():
        print(f"installing the peers of {file.name} into {folder}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--requirement", str(file)], check=True)
        complete.touch()
    return python
