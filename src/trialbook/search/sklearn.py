"""scikit-learn's searches as ask and tell: the candidates and their order are scikit-learn's own."""

from __future__ import annotations

from collections.abc import Iterator

from sklearn.model_selection import ParameterGrid

from trialbook.space import Space
from trialbook.trial import Result, Trial


class GridSearch:
    """Every point of the space, in the order of `sklearn.model_selection.ParameterGrid`.

    Args:
        space: The declared space; continuous ranges need `num`.
        seed: Not used, as a grid draws nothing; every search takes the same arguments.
        metric: Not used, as a grid learns nothing.
        maximize: Not used either.

    Raises:
        SpaceError: For a continuous range without `num`.
    """

    trains_in_epochs = False

    def __init__(
        self, space: Space, *, seed: int | None = None, metric: str = "objective", maximize: bool = True
    ) -> None:
        del seed, metric, maximize
        self._grid = ParameterGrid(space.grid())
        self._trials: Iterator[Trial] = (Trial(number, params) for number, params in enumerate(self._grid))

    @property
    def total(self) -> int:
        """Number of candidates."""
        return len(self._grid)

    def ask(self) -> Trial | None:
        """The next candidate, None after the last."""
        return next(self._trials, None)

    def tell(self, trial: Trial, result: Result) -> None:
        """A grid learns nothing."""
