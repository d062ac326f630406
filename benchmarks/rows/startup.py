"""Row 6: how long the command takes to answer, and to end a first trial, beside Python with the imports it needs.

What composes the configuration, and lists its groups for `--help`, is Hydra; so an application of Hydra's that does
nothing stands beside these two as well. All run in Trialbook's own environment. The database of MLflow is there
already, as it is from a user's second search on; its first opening, which takes seconds, is MLflow's.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import ROOT, Comparison, Goal, Measured, run

SEARCH = ("search=sklearn/grid", "model=logistic_regression", "data=breast_cancer")
FIRST = (*SEARCH, "budget.max_trials=1", "promote.enabled=false")
READY = "ready"
PLAIN_HYDRA = ROOT / "benchmarks" / "peers" / "plain_hydra.py"
SAME_IMPORTS = "Python with the same imports"
IMPORTS = (
    "import hydra, mlflow, pandas, rich.live, skops.io, mlflow.store.tracking.sqlalchemy_store\n"
    "import sklearn.datasets, sklearn.linear_model, sklearn.model_selection, sklearn.pipeline, sklearn.preprocessing"
)


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


def comparisons() -> list[Comparison]:
    """The claims of this row."""
    claims = []
    for work, words in (("`trialbook --help`", ("--help",)), ("`trialbook --cfg job`", (*SEARCH, "--cfg", "job"))):
        ours = Answer(("-m", "trialbook", *words))
        for rival, peer in (
            (SAME_IMPORTS, Answer(("-c", "import hydra"))),
            ("a Hydra application that does nothing", Answer((str(PLAIN_HYDRA), *words))),
        ):
            claims.append(_comparison(work, "the whole process", rival, peer, ours))
    searching = Answer(("-c", f"{IMPORTS}\nprint('{READY}')"), READY)
    first = Answer(("-m", "trialbook", *FIRST), "[1/1]", store=True)
    work, timed = "first trial of a scikit-learn search", "start of Python to the trial's end"
    return [*claims, _comparison(work, timed, SAME_IMPORTS, searching, first)]


def _comparison(work: str, timed: str, rival: str, peer: Answer, ours: Answer) -> Comparison:
    return Comparison(6, work, timed, rival, peer, ours, Goal(faster=False, times=1.2), repetitions=7)
