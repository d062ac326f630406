"""What would fail in every trial alike, tried once before anything is on record."""

from __future__ import annotations

from sklearn.base import clone

from trialbook import model_files
from trialbook.errors import ModelError
from trialbook.evaluate import configure, split
from trialbook.plan import Plan


def rehearse(plan: Plan, *, saved: bool, allow_pickle: bool) -> None:
    """Build the net of the search's first point without training it, and see whether the model can be saved.

    Args:
        plan: The search.
        saved: Whether models are to be saved at all.
        allow_pickle: Whether they may hold what only pickle can save.

    Raises:
        ModelError: If the builder gives no compiled model that fits the data, or the model cannot be saved.
    """
    if saved:
        model_files.check(plan.estimator, allow_pickle=allow_pickle)
    if not plan.trains_in_epochs:
        return
    preprocessing, net = split(configure(plan.estimator, plan.first_values))
    try:
        X = plan.data.X if preprocessing is None else clone(preprocessing).fit_transform(plan.data.X, plan.data.y)
        model = net.rehearse(X, plan.data.y)
    except ModelError:
        raise
    except (Exception, SystemExit):
        return  # it may fail for these values alone, and a trial that fails says so on record
    if saved:
        model_files.check_net(model, allow_pickle=allow_pickle)
