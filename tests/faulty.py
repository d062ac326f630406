"""An estimator that misbehaves as its hyperparameter says, for tests of what a search makes of it."""

import os
import signal
import time
import weakref
from pathlib import Path

from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.naive_bayes import GaussianNB

MODEL = """
estimator:
  _target_: faulty.Faulty
  folder: {folder}
space:
  case: {{values: {cases}}}
"""


class Faulty(ClassifierMixin, BaseEstimator):
    """Writes `<case>.<attempt>` with its process id into a folder, then does what its case says.

    What it fits in the end is naive Bayes, so that it can be saved like any model of scikit-learn's.

    Args:
        case: `fine…`, `waits…` until there is a file `go`, `hangs`, `dies…`, `swallows…` an interrupt that it causes,
            or what to raise: `memory`, `disk` or `wrong…`. With `_once` behind it, only in the first attempt; `late…`
            swallows in its second.
        folder: Where to write, and to look for `go`.
    """

    def __init__(self, case="fine", folder="."):
        self.case = case
        self.folder = folder

    def fit(self, X, y):
        attempt = self._begin()
        what, _, once = self.case.partition("_")
        if attempt == 1 or once != "once":
            self._misbehave(what.rstrip("0123456789"))
        if what.startswith("late") and attempt == 2:
            self._misbehave("swallows")
        return GaussianNB().fit(X, y)

    def predict(self, X):
        """It is another estimator that predicts."""
        raise NotImplementedError

    def _begin(self):
        """Which attempt at this case it is."""
        attempt = 1 + len(list(Path(self.folder).glob(f"{self.case}.[0-9]*")))
        part = Path(self.folder, f".{self.case}.{os.getpid()}")
        part.write_text(str(os.getpid()))
        part.rename(Path(self.folder, f"{self.case}.{attempt}"))
        return attempt

    def _misbehave(self, what):
        if what == "waits":
            deadline = time.monotonic() + 120
            while not Path(self.folder, "go").exists() and time.monotonic() < deadline:
                time.sleep(0.01)
        elif what == "hangs":
            time.sleep(600)
        elif what == "dies":
            os._exit(9)
        elif what == "swallows":
            # Python prints what is raised in a callback of a weak reference, and goes on.
            referred = GaussianNB()
            watched = weakref.ref(referred, lambda _: signal.raise_signal(signal.SIGINT))
            del referred
            assert watched() is None
        elif what in ERRORS:
            raise ERRORS[what]


ERRORS = {
    "memory": MemoryError("no more memory"),
    "disk": OSError(28, "No space left on device"),
    "wrong": ArithmeticError("it never works"),
}


def tuned(workplace, *cases):
    """The overrides that search over these cases, with what they need in the workplace."""
    folder = workplace.folder / "conf" / "model"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "faulty.yaml").write_text(MODEL.format(folder=workplace.folder, cases=f"[{', '.join(cases)}]"))
    (workplace.folder / "faulty.py").write_text(Path(__file__).read_text())
    return [
        f"--config-dir={workplace.folder / 'conf'}",
        "model=faulty",
        "data=breast_cancer",
        "search=sklearn/grid",
        "tracking.allow_pickle=true",  # of the estimator itself nothing is saved, but that shows only once it is fitted
    ]
