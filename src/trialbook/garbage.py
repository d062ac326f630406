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
    """Collect nothing meanwhile, and set aside what is there in the end: what is loaded now stays.

    Outside of Trialbook's own processes it stands inside `libraries_set_aside`.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def libraries_set_aside() -> Iterator[None]:
    """Let the collector pass over all that is there by now, until the end."""
    set_aside()
    try:
        yield
    finally:
        gc.unfreeze()


def set_aside() -> None:
    """Let the collector pass over all that is there by now."""
    gc.freeze()
