"""A search as an Optuna study, which is what Optuna draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trialbook.report.summary import Summary
from trialbook.tracking import text
from trialbook.trial import ParamValue, Record

if TYPE_CHECKING:
    import optuna

_LOG_FROM = 100
"""A range whose ends are this many times apart is drawn in the logarithm."""


def study_of(records: Sequence[Record], summary: Summary) -> optuna.Study:
    """Complete trials as a study."""
    import optuna

    # Its notes on experimental features are for those who call it, which the reader of a report does not.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize" if summary.maximize else "minimize")
    declared = {d.name: d.log for d in summary.space.dimensions} if summary.space else {}
    axes = {name: _axis(records, name, log=declared.get(name, False)) for name in varied(records)}
    for record in sorted(records, key=lambda r: r.trial.number):
        params = {name: record.trial.params[name] for name in axes if name in record.trial.params}
        study.add_trial(
            optuna.create_trial(
                params={name: _on(axes[name], value) for name, value in params.items()},
                distributions={name: axes[name] for name in params},
                value=record.objective,
            )
        )
    return study


def varied(records: Sequence[Record]) -> list[str]:
    """The hyperparameters that differ between trials, one that only some trials have included."""
    names = dict.fromkeys(name for r in records for name in r.trial.params)
    missing = object()
    return [n for n in names if len({repr(r.trial.params.get(n, missing)) for r in records}) > 1]


def _axis(records: Sequence[Record], name: str, *, log: bool) -> optuna.distributions.BaseDistribution:
    """The axis of a hyperparameter, from the values tried."""
    import optuna

    values = [r.trial.params[name] for r in records if name in r.trial.params]
    if values and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        low, high = min(values), max(values)
        log = low > 0 and (log or high >= _LOG_FROM * low)
        if all(isinstance(v, int) for v in values):
            return optuna.distributions.IntDistribution(low, high, log=log)
        return optuna.distributions.FloatDistribution(float(low), float(high), log=log)
    return optuna.distributions.CategoricalDistribution(list(dict.fromkeys(map(text, values))))


def _on(axis: optuna.distributions.BaseDistribution, value: ParamValue) -> ParamValue:
    """A value as it stands on an axis: by its text on one of categories, where 1 and True must differ."""
    import optuna

    return text(value) if isinstance(axis, optuna.distributions.CategoricalDistribution) else value
