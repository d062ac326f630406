"""Successive halving: many candidates on few resources, then the best of them on more.

The schedule is that of scikit-learn's `HalvingGridSearchCV` and `HalvingRandomSearchCV`, which keep it private; the
parity tests hold the two together.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trialbook.errors import RequestError, SpaceError
from trialbook.space import Space
from trialbook.trial import ParamValue, Result, Setting, State, Trial

N_SAMPLES = "n_samples"


@dataclass(frozen=True)
class Rung:
    """One iteration: how many candidates are tried, each on how much of the resource."""

    n_candidates: int
    n_resources: int


@dataclass(frozen=True)
class Halving:
    """How a resource is handed out, in the words of scikit-learn's halving searches.

    Attributes:
        resource: `n_samples`, or the name of a hyperparameter that stands for effort, such as `n_estimators`.
        factor: Of how many candidates one goes on, to this many times the resources.
        min_resources: Resources of the first iteration; `smallest` for the least that makes sense, `exhaust` for what
            lets the last iteration use as much as possible.
        max_resources: Most resources a candidate gets; `auto` for all rows.
        aggressive_elimination: Whether to repeat the first iterations' resources until few enough candidates are left.
    """

    resource: str = N_SAMPLES
    factor: float = 3
    min_resources: int | str = "exhaust"
    max_resources: int | str = "auto"
    aggressive_elimination: bool = False

    def __post_init__(self) -> None:
        """Check what can be checked without the data."""
        if not _is_number(self.factor) or self.factor <= 1:
            raise RequestError(f"search.factor must be a number above 1, got {self.factor!r}.")
        for key, words in (("min_resources", ("smallest", "exhaust")), ("max_resources", ("auto",))):
            value = getattr(self, key)
            if value not in words and not (isinstance(value, int) and _is_number(value) and value >= 1):
                raise RequestError(
                    f"search.{key} must be a whole number of at least 1, or {' or '.join(words)}, got {value!r}."
                )
        if self.resource != N_SAMPLES and self.max_resources == "auto":
            raise RequestError(
                f"search.max_resources=auto means all rows, so with search.resource={self.resource} it must be a "
                "whole number."
            )

    def bounds(self, space: Space, setting: Setting) -> tuple[int, int]:
        """The least resources of the first iteration, before any `exhaust`, and the most of the last.

        Raises:
            RequestError: If there is nothing between them, or the resource is itself searched.
        """
        if self.resource in space.names:
            raise SpaceError(
                f"space.{self.resource} cannot be searched while search.resource={self.resource} hands it out; "
                f"remove it with ~model.space.{self.resource}, or take search.resource={N_SAMPLES}."
            )
        most = setting.n_samples if self.max_resources == "auto" else int(self.max_resources)
        if isinstance(self.min_resources, int):
            least = self.min_resources
        elif self.resource == N_SAMPLES:
            # Two rows of each class in each fold.
            least = setting.n_splits * 2 * (setting.n_classes or 1)
        else:
            least = 1
        if least > most:
            raise RequestError(f"search.min_resources={least} is above search.max_resources={most}.")
        if self.resource == N_SAMPLES and most > setting.n_samples:
            raise RequestError(f"search.max_resources={most} is above the {setting.n_samples} development rows.")
        return least, most

    def rungs(self, n_candidates: int, space: Space, setting: Setting) -> list[Rung]:
        """The iterations that this many candidates go through.

        Raises:
            RequestError: As `bounds`, and if the first iteration would leave a fold without rows.
        """
        least, most = self.bounds(space, setting)
        required = 1 + math.floor(math.log(n_candidates, self.factor))
        if self.min_resources == "exhaust":
            least = max(least, int(most // self.factor ** (required - 1)))
        possible = 1 + math.floor(math.log(most // least, self.factor))
        rungs = []
        for iteration in range(required if self.aggressive_elimination else min(possible, required)):
            power = max(0, iteration - required + possible) if self.aggressive_elimination else iteration
            rungs.append(Rung(n_candidates, min(int(self.factor**power * least), most)))
            n_candidates = math.ceil(n_candidates / self.factor)
        first = rungs[0].n_resources
        if self.resource == N_SAMPLES and int(first / setting.n_samples * setting.smallest_part) < 1:
            enough = math.ceil(setting.n_samples / setting.smallest_part)
            raise RequestError(
                f"the first iteration gets {first} of {setting.n_samples} rows, which leaves a fold without any to "
                f"train or validate on; give search.min_resources={enough} or more, or another validation such as "
                "stratified_kfold."
            )
        return rungs


class HalvingSearch:
    """Candidates that go through the rungs of a halving.

    A trial that failed is never taken up again, even where too few others are left to fill the next rung.

    Args:
        candidates: The hyperparameters of the first rung, in the order to try them.
        halving: How the resource is handed out.
        rungs: The iterations.
        maximize: Direction of the objective.
    """

    trains_in_epochs = False
    note: str | None = None

    def __init__(
        self, candidates: Sequence[Mapping[str, ParamValue]], halving: Halving, rungs: Sequence[Rung], *, maximize: bool
    ) -> None:
        self.resource = None if halving.resource == N_SAMPLES else halving.resource
        self.rungs = tuple(rungs)
        self._factor = halving.factor
        self._maximize = maximize
        self._candidates = [dict(params) for params in candidates]
        self._iteration = 0
        self._started = 0
        # Of the present rung: who is in it, who of them has not been asked for, and the scores told so far.
        self._present = list(range(len(candidates)))
        self._waiting = deque(self._present)
        self._scores: dict[int, float] = {}

    @property
    def total(self) -> int:
        """Number of trials of all rungs together."""
        return sum(rung.n_candidates for rung in self.rungs)

    def ask(self) -> Trial | None:
        """The next trial, None while the last results of a rung are outstanding and after the last rung."""
        if not self._waiting:
            return None
        candidate = self._waiting.popleft()
        n_resources = self.rungs[self._iteration].n_resources
        params = dict(self._candidates[candidate])
        if self.resource is not None:
            params[self.resource] = n_resources
        self._started += 1
        return Trial(
            self._started - 1,
            params,
            resources=n_resources if self.resource is None else None,
            rungs_above=len(self.rungs) - 1 - self._iteration,
            details={"iteration": self._iteration, "resources": n_resources, "candidate": candidate},
        )

    def tell(self, trial: Trial, result: Result) -> None:
        """Note a score; the last one of a rung decides who goes on."""
        score = result.objective if result.state is State.COMPLETE and result.objective is not None else math.nan
        self._scores[trial.details["candidate"]] = score if self._maximize else -score
        if len(self._scores) == len(self._present) and self._iteration + 1 < len(self.rungs):
            self._present = self._survivors()
            self._waiting = deque(self._present)
            self._scores = {}
            self._iteration += 1

    def _survivors(self) -> list[int]:
        """The best of the present rung, worst first; ties fall as NumPy's sort lets them, as in scikit-learn."""
        scores = np.array([self._scores[candidate] for candidate in self._present])
        worst_first = np.roll(np.argsort(scores), np.count_nonzero(np.isnan(scores)))
        keep = worst_first[-math.ceil(len(scores) / self._factor) :]
        return [self._present[i] for i in keep if math.isfinite(scores[i])]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
