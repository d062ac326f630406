"""Row 6: how long the command takes to answer, and to end a first trial, beside Python with the imports it needs.

What composes the configuration is Hydra, so an application of Hydra's that does nothing with the same one stands beside
the first two as well. All run in Trialbook's own environment. The database of MLflow is there already, as it is from a
user's second search on; its first opening, which takes seconds, is MLflow's.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import ROOT, Comparison, Goal, Measured, Side, run

SEARCH = ("search=sklearn/grid", "model=logistic_regression", "data=breast_cancer")
FIRST = (*SEARCH, "budget.max_trials=1", "promote.enabled=false")
READY = "ready"
PLAIN_HYDRA = ROOT / "benchmarks" / "peers" / "plain_hydra.py"
SAME_IMPORTS = "Python with the same imports"
IMPORTS = (
    "import hydra, mlflow, pandas, rich.live, skops.io, mlflow.store.tracking.sqlalchemy_store\n"
    "import sklearn.datasets, sklearn.linear_model, sklearn.model_selection, sklearn.pipeline, sklearn.preprocessing"
)
# What a command of Trialbook's, given as Python's arguments, has loaded in the end.
_LOADED = """
import atexit, runpy, sys
there = set(sys.modules)
atexit.register(lambda: print(*(name for name in sys.modules if name not in there), file=sys.stderr))
runpy.run_module("trialbook", run_name="__main__", alter_sys=True)
"""


@dataclass(frozen=True)
class Answer:
    """A side that is timed from the start of Python until it says something.

    Attributes:
        words: What Python is given.
        said: How the line begins until which it is timed; None for the end of the process.
        store: Whether it finds MLflow's database.
    """

    words: Sequence[str]
    said: str | None = None
    store: bool = False

    def __call__(self, folder: Path) -> Measured:
        """Run it."""
        environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
        if self.store:
            opening = "from benchmarks import measure; measure.open_store()"
            run([sys.executable, "-c", opening], folder, environment)
        measured = run([sys.executable, *self.words], folder, environment)
        if self.said is None:
            return measured
        seconds = next(seconds for seconds, line in measured.lines if line.startswith(self.said))
        return dataclasses.replace(measured, seconds=seconds)


@dataclass(frozen=True, eq=False)
class SameImports:
    """A side that imports what a command of Trialbook's does of the standard library and of others.

    Attributes:
        words: The command.
    """

    words: Sequence[str]

    def __call__(self, folder: Path) -> Measured:
        """Run it."""
        return Answer(("-c", f"import {', '.join(self.modules)}"))(folder)

    @functools.cached_property
    def modules(self) -> list[str]:
        """All that are loaded, in their order."""
        command = [sys.executable, "-c", _LOADED, *self.words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        told = subprocess.run(command, check=True, env=environment, capture_output=True, text=True).stderr
        return [name for name in told.split() if name.partition(".")[0] not in ("__main__", "trialbook")]


def comparisons() -> list[Comparison]:
    """The claims of this row."""
    claims = []
    alone = ("`import hydra`", Answer(("-c", "import hydra")))
    shown = (*SEARCH, "--cfg", "job")
    for work, words, rivals in (
        ("`trialbook --help`", ("--help",), [alone]),
        ("`trialbook --cfg job`", shown, [(SAME_IMPORTS, SameImports(shown)), alone]),
    ):
        nothing = ("a Hydra application that does nothing", Answer((str(PLAIN_HYDRA), *words)))
        for rival, peer in (*rivals, nothing):
            claims.append(_comparison(work, "the whole process", rival, peer, Answer(("-m", "trialbook", *words))))
    searching = Answer(("-c", f"{IMPORTS}\nprint('{READY}')"), READY)
    first = Answer(("-m", "trialbook", *FIRST), "[1/1]", store=True)
    work, timed = "first trial of a scikit-learn search", "start of Python to the trial's end"
    return [*claims, _comparison(work, timed, SAME_IMPORTS, searching, first)]


def _comparison(work: str, timed: str, rival: str, peer: Side, ours: Side) -> Comparison:
    return Comparison(6, work, timed, rival, peer, ours, Goal(faster=False, times=1.2), repetitions=7)
