"""Experiment tracking for hyperparameter search with Hydra, MLflow, scikit-learn and Keras Tuner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trialbook.api import Tuned, tune

__version__ = "0.1.0"
__all__ = ["Tuned", "__version__", "tune"]


def __getattr__(name: str) -> Any:
    """What is public, loaded when it is first asked for: the command's `--help` must not wait for MLflow."""
    if name not in ("Tuned", "tune"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from trialbook.garbage import uncollected

    with uncollected(aside=False):
        from trialbook import api
    return getattr(api, name)
