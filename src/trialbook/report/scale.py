"""Where the values of a hyperparameter stand when they are drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trialbook.report.summary import Summary
from trialbook.tracking import text
from trialbook.trial import ParamValue, Record

# A range whose ends are this many times apart is drawn in the logarithm.
_LOG_FROM = 100
_TICKS = 5


@dataclass(frozen=True)
class Scale:
    """A scale: of numbers, perhaps logarithmic, or of categories one beside the other.

    Attributes:
        low: The least number.
        high: The largest.
        log: Whether numbers stand by their logarithms.
        whole: Whether they are whole numbers.
        marks: The numbers themselves, if they are few.
        categories: The categories as texts, in the order in which they stand; empty for numbers.
    """

    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    marks: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()

    @classmethod
    def of(cls, values: Sequence[ParamValue], *, log: bool = False) -> Scale:
        """A scale for some values.

        Args:
            values: At least one.
            log: Whether they were drawn from a logarithmic space.
        """
        numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)]
        if len(numbers) < len(values):
            return cls(categories=tuple(dict.fromkeys(map(text, values))))
        low, high = min(numbers), max(numbers)
        whole = all(isinstance(v, int) for v in numbers)
        distinct = sorted({float(v) for v in numbers})
        marks = tuple(distinct) if len(distinct) <= _TICKS else ()
        return cls(float(low), float(high), low > 0 and (log or high >= _LOG_FROM * low), whole, marks)

    def place(self, value: ParamValue) -> float:
        """Where a value stands, from 0 to 1."""
        if self.categories:
            return self.categories.index(text(value)) / max(1, len(self.categories) - 1)
        low, high, number = (math.log(v) if self.log else v for v in (self.low, self.high, float(value)))
        return 0.5 if low == high else (number - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        """Where to write what beside it."""
        if self.categories:
            return [(self.place(category), category) for category in self.categories]
        values: Sequence[float] = self.marks
        if not values:
            first, last = (math.log(v) if self.log else v for v in (self.low, self.high))
            steps = [first + i / (_TICKS - 1) * (last - first) for i in range(_TICKS)]
            values = [math.exp(step) if self.log else step for step in steps]
            values = list(dict.fromkeys(float(round(v)) for v in values)) if self.whole else values
        return [(self.place(value), str(int(value)) if self.whole else f"{value:.4g}") for value in values]


def scales_of(records: Sequence[Record], summary: Summary) -> dict[str, Scale]:
    """A scale for each hyperparameter that varies; these and their categories as the space has them in order."""
    asked = sorted(records, key=lambda r: r.trial.number)
    declared = {d.name: d for d in summary.space.dimensions} if summary.space else {}
    names = _varied(asked)
    found = {}
    for name in [*(n for n in declared if n in names), *(n for n in names if n not in declared)]:
        tried = [r.trial.params[name] for r in asked if name in r.trial.params]
        order = list(map(text, declared[name].values)) if name in declared else []
        tried.sort(key=lambda value: order.index(text(value)) if text(value) in order else len(order))
        found[name] = Scale.of(tried, log=name in declared and declared[name].log)
    return found


def _varied(records: Sequence[Record]) -> list[str]:
    """The hyperparameters that differ between trials, one that only some trials have included."""
    names = dict.fromkeys(name for r in records for name in r.trial.params)
    missing = object()
    return [n for n in names if len({repr(r.trial.params.get(n, missing)) for r in records}) > 1]
