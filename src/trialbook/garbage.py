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
def uncollected() -> Iterator[None]:
    """Collect nothing meanwhile, and take what is there in the end for old: what is loaded now stays."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        others = gc.get_freeze_count()
        gc.freeze()
        if not others:
            gc.unfreeze()
        gc.enable()


@contextmanager
def libraries_set_aside() -> Iterator[None]:
    """Let the collector pass over all that is there by now, meanwhile."""
    set_aside()
    try:
        yield
    finally:
        gc.unfreeze()


def set_aside() -> None:
    """Let the collector pass over all that is there by now."""
    gc.freeze()
