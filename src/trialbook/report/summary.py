"""What is told about a search, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from trialbook.space import Space
from trialbook.trial import Record, State, best_first, standings

# Under which a trial among those of several searches keeps its number.
_OWN_NUMBER = "own_number"
# More of them cannot be told apart.
_CURVES = 5

Curve = Sequence[tuple[int, float]]
"""The values of a metric, each with its epoch counted from 1."""


@dataclass(frozen=True)
class Span:
    """When and where a trial ran.

    Attributes:
        start: Seconds since 1970.
        end: Seconds since 1970.
        worker: The process it ran in, as host:pid; None where that is not on record.
    """

    start: float
    end: float
    worker: str | None = None


@dataclass(frozen=True)
class HowTo:
    """The ways back to a search; every address without credentials.

    Attributes:
        again: What runs the same search again.
        resume: What goes on with it if it was interrupted.
        uri: Address of its store.
        seed: Its seed.
        language: What `again` and `resume` are written in: `bash` or `python`.
    """

    again: str
    resume: str
    uri: str
    seed: int | None = None
    language: str = "bash"


@dataclass(frozen=True)
class Registered:
    """A model that the final step has registered.

    Attributes:
        said: What was registered and why, in a sentence or two.
        uri: Its address, such as `models:/digits@champion`.
    """

    said: str
    uri: str


@dataclass(frozen=True)
class Summary:
    """What is told about a search once it has ended.

    Attributes:
        title: What was searched, such as `sklearn/grid mlp on digits`.
        metric: The objective's name.
        maximize: Its direction.
        records: Every trial.
        stopped: Why no more trials were started.
        space: What was searched over; None if that is not known any more.
        how_to: The ways back to it.
        registered: What the final step registered, if anything.
        spans: For each trial, by its number, when and where it ran.
        curves: For some of the best trials, by their number, each metric's learning curve.
        standing: What became of each trial of a halving search, by its number.
    """

    title: str
    metric: str
    maximize: bool
    records: Sequence[Record]
    stopped: str
    space: Space | None = None
    how_to: HowTo | None = None
    registered: Registered | None = None
    spans: Mapping[int, Span] = field(default_factory=dict)
    curves: Mapping[int, Mapping[str, Curve]] = field(default_factory=dict)
    standing: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Trials of one search stand among each other as they ended."""
        if not self.standing:
            object.__setattr__(self, "standing", standings(self.records))

    @property
    def complete(self) -> list[Record]:
        """The complete trials, best first."""
        return best_first(self.records, maximize=self.maximize)

    @property
    def incomplete(self) -> list[Record]:
        """The failed and killed trials, in the order they were asked for."""
        return sorted((r for r in self.records if not completed(r)), key=lambda r: r.trial.number)

    @property
    def names(self) -> list[str]:
        """All hyperparameters tried, in the space's order; a search may hand out one that is not in the space."""
        return list(dict.fromkeys(name for r in self.records for name in r.trial.params))


def completed(record: Record) -> bool:
    """Whether a trial has an objective."""
    return record.result.state is State.COMPLETE


def name_of(record: Record) -> str:
    """What a trial is called: its number in its own search, with which the name of its run begins."""
    return f"{record.trial.details.get(_OWN_NUMBER, record.trial.number):03d}"


def merged(title: str, searches: Sequence[Summary]) -> Summary:
    """Several searches with one objective as one, in which `search` is a hyperparameter among the others.

    Trials are numbered anew, in the order of the searches, but keep their names.
    """
    records: list[Record] = []
    spans: dict[int, Span] = {}
    curves: dict[int, Mapping[str, Curve]] = {}
    standing: dict[int, str] = {}
    for i, search in enumerate(searches):
        first = len(records)
        ordered = sorted(search.records, key=lambda r: r.trial.number)
        anew = {r.trial.number: first + position for position, r in enumerate(ordered)}
        for record in ordered:
            trial = record.trial
            details = dict(trial.details) | {_OWN_NUMBER: trial.number}
            if "candidate" in details:
                details["candidate"] = f"{i}.{details['candidate']}"
            renumbered = replace(
                trial,
                number=anew[trial.number],
                continues=None if trial.continues is None else anew.get(trial.continues),
                params={"search": search.title, **trial.params},
                details=details,
            )
            records.append(replace(record, trial=renumbered))
        spans |= {anew[number]: span for number, span in search.spans.items() if number in anew}
        curves |= {anew[number]: found for number, found in search.curves.items() if number in anew}
        standing |= {anew[number]: word for number, word in search.standing.items()}
    first_search = searches[0]
    whole = Summary(
        title,
        first_search.metric,
        first_search.maximize,
        records,
        stopped="all have ended",
        spans=spans,
        standing=standing,
    )
    best = [r.trial.number for r in whole.complete if r.trial.number in curves]
    return replace(whole, curves={number: curves[number] for number in best[:_CURVES]})
