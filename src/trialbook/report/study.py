"""A search as an Optuna study, which is what Optuna weighs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from trialbook.report.scale import Scale
from trialbook.tracking import text
from trialbook.trial import Record

if TYPE_CHECKING:
    import optuna


def study_of(records: Sequence[Record], scales: Mapping[str, Scale], *, maximize: bool) -> optuna.Study:
    """Complete trials as a study of those hyperparameters that have a scale."""
    import optuna

    # Its notes on experimental features are for those who call it, which the reader of a report does not.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize" if maximize else "minimize")
    axes = {name: _axis(scale) for name, scale in scales.items()}
    for record in sorted(records, key=lambda r: r.trial.number):
        params = {name: record.trial.params[name] for name in axes if name in record.trial.params}
        study.add_trial(
            optuna.create_trial(
                # By its text among categories, where 1 and True must differ.
                params={n: text(value) if scales[n].categories else value for n, value in params.items()},
                distributions={name: axes[name] for name in params},
                value=record.objective,
            )
        )
    return study


def _axis(scale: Scale) -> optuna.distributions.BaseDistribution:
    import optuna

    if scale.categories:
        return optuna.distributions.CategoricalDistribution(scale.categories)
    if scale.whole:
        return optuna.distributions.IntDistribution(int(scale.low), int(scale.high), log=scale.log)
    return optuna.distributions.FloatDistribution(scale.low, scale.high, log=scale.log)
