"""scikit-learn's searches as ask and tell: the candidates and their order are scikit-learn's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sklearn.model_selection import ParameterGrid, ParameterSampler

from trialbook.errors import RequestError
from trialbook.search.distributions import distributions
from trialbook.search.halving import Halving, HalvingSearch
from trialbook.space import Space
from trialbook.trial import ParamValue, Result, Setting, Trial

EXHAUST = "exhaust"


class _Listed:
    """Candidates that are all known before the first is tried, so that nothing is learned from results."""

    trains_in_epochs = False
    note: str | None = None

    def __init__(self, candidates: Sequence[Mapping[str, ParamValue]], space: Space) -> None:
        self._candidates = candidates
        self._space = space
        self._asked = 0

    @property
    def total(self) -> int:
        """Number of candidates."""
        return len(self._candidates)

    def ask(self) -> Trial | None:
        """The next candidate, None after the last."""
        if self._asked == len(self._candidates):
            return None
        self._asked += 1
        return Trial(self._asked - 1, self._space.in_order(self._candidates[self._asked - 1]))

    def tell(self, trial: Trial, result: Result) -> None:
        """Nothing is learned."""


class GridSearch(_Listed):
    """Every point of the space, in the order of `sklearn.model_selection.ParameterGrid`.

    Args:
        space: The declared space; continuous ranges need `num`.

    Raises:
        SpaceError: For a continuous range without `num`.
    """

    def __init__(self, space: Space) -> None:
        super().__init__(ParameterGrid(space.grid()), space)


class RandomSearch(_Listed):
    """Points drawn from the space by `sklearn.model_selection.ParameterSampler`, as `RandomizedSearchCV` draws them.

    Args:
        space: The declared space.
        n_iter: Number of draws. Of a space of values and stepped ranges alone no point is drawn twice, so where it has
            fewer points than this, all of them are tried and `note` says so.
        seed: Seed of the draws.

    Raises:
        RequestError: For an `n_iter` that is not a whole number of at least 1.
    """

    def __init__(self, space: Space, *, n_iter: int, seed: int | None = None) -> None:
        _check_count("n_iter", n_iter)
        super().__init__(_draw(space, n_iter, seed), space)
        if self.total < n_iter:
            self.note = (
                f"The space has only {self.total} points, so {self.total} trials are run instead of n_iter={n_iter}."
            )


class HalvingGridSearch(HalvingSearch):
    """Every point of the space on few resources, then the best on more, as `HalvingGridSearchCV`.

    Args:
        space: The declared space; continuous ranges need `num`.
        setting: What the trials are evaluated on.
        maximize: Direction of the objective.
        **halving: The fields of `Halving`.

    Raises:
        RequestError: If the resources do not fit the data, or the space is not a grid.
    """

    def __init__(
        self,
        space: Space,
        *,
        setting: Setting,
        maximize: bool = True,
        **halving: Any,
    ) -> None:
        how = Halving(**halving)
        candidates = [space.in_order(params) for params in ParameterGrid(space.grid())]
        rungs = how.rungs(len(candidates), space, setting)
        super().__init__(candidates, how, rungs, maximize=maximize)


class HalvingRandomSearch(HalvingSearch):
    """Points drawn from the space on few resources, then the best on more, as `HalvingRandomSearchCV`.

    Args:
        space: The declared space.
        setting: What the trials are evaluated on.
        n_candidates: Number of draws; `exhaust` for as many as let the last iteration use the most resources.
        seed: Seed of the draws.
        maximize: Direction of the objective.
        **halving: The fields of `Halving`; `min_resources` is `smallest` unless given.

    Raises:
        RequestError: If the resources do not fit the data, or both `n_candidates` and `min_resources` are `exhaust`.
    """

    def __init__(
        self,
        space: Space,
        *,
        setting: Setting,
        n_candidates: int | str = EXHAUST,
        seed: int | None = None,
        maximize: bool = True,
        **halving: Any,
    ) -> None:
        how = Halving(**{"min_resources": "smallest"} | halving)
        if n_candidates == how.min_resources == EXHAUST:
            raise RequestError(
                "search.n_candidates and search.min_resources cannot both be exhaust; give one of them a whole number, "
                "or take search.min_resources=smallest."
            )
        least, most = how.bounds(space, setting)
        wanted = most // least if n_candidates == EXHAUST else _check_count("n_candidates", n_candidates, EXHAUST)
        candidates = _draw(space, wanted, seed)
        super().__init__(candidates, how, how.rungs(len(candidates), space, setting), maximize=maximize)
        if len(candidates) < wanted:
            self.note = f"The space has only {len(candidates)} points, so all of them start instead of {wanted}."


def _draw(space: Space, n_iter: int, seed: int | None) -> list[dict[str, ParamValue]]:
    sources = distributions(space)
    # The sampler stops at the end of a finite space by itself, but with a warning.
    sampler = ParameterSampler(sources, len(ParameterSampler(sources, n_iter)), random_state=seed)
    drawn = [{name: value.item() if hasattr(value, "item") else value for name, value in p.items()} for p in sampler]
    return [space.in_order(params) for params in drawn]


def _check_count(key: str, value: Any, word: str | None = None) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        allowed = "a whole number of at least 1" + (f" or {word}" if word else "")
        raise RequestError(f"search.{key} must be {allowed}, got {value!r}.")
    return value
