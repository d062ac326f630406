"""Python's garbage collector, kept from what the libraries bring.

TensorFlow, MLflow and scikit-learn are a million objects that stay. While they are loaded the collector would go
through all that is there already again and again, which takes a quarter of the time; later, every pass through them
takes as long as a tenth of a small net's trial.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected(*, aside: bool = True) -> Iterator[None]:
    """Collect nothing meanwhile: what is loaded now stays.

    Args:
        aside: Whether what is there in the end is set aside. In a process that is not Trialbook's own that must end,
            see `libraries_set_aside`.
    """
    if not gc.isenabled():
        yield
        return
    try:
        gc.disable()
        yield
    finally:
        if aside:
            set_aside()
        elif not gc.get_freeze_count():
            # All is old now. What is young is gone through soon, and more than once.
            gc.freeze()
            gc.unfreeze()
        gc.enable()


@contextmanager
def libraries_set_aside() -> Iterator[None]:
    """Let the collector pass over what is set aside meanwhile, until the end."""
    others = gc.get_freeze_count()
    try:
        yield
    finally:
        if not others:
            gc.unfreeze()


def set_aside() -> None:
    """Let the collector pass over all that is there by now."""
    gc.freeze()
