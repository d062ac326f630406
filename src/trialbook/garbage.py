"""Python's garbage collector, kept from what the libraries bring.

TensorFlow, MLflow and scikit-learn are a million objects that stay. While they are loaded the collector would go
through all that is there already again and again, which takes a quarter of the time; later, every pass through them
takes as long as a tenth of a small net's trial.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

# What searches of this process have left, as long as it is there.
_left: list[weakref.ref[object]] = []


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


def collect_again() -> None:
    """End `uncollected` before its block does: what follows is no longer the loading of what stays."""
    if not gc.isenabled():
        set_aside()
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


def collect_left() -> None:
    """Collect what is left of earlier searches, if anything is: nets and executors refer to themselves.

    To be called before anything is set aside. It takes a while, because all that is there is gone through.
    """
    _left[:] = [left for left in _left if left() is not None]
    if _left:
        gc.collect()


def leave(thing: object) -> None:
    """Say what a search leaves behind when it ends."""
    _left.append(weakref.ref(thing))


def set_aside() -> None:
    """Let the collector pass over all that is there by now."""
    gc.freeze()
