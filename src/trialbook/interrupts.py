"""Where an interrupt is raised: not in the middle of a call to a database, and again where something has swallowed it.

Python raises `KeyboardInterrupt` wherever the main thread happens to be. Within SQLAlchemy that may leave a transaction
open, which locks a SQLite database against the driver's own last words. In a callback of a weak reference, of which
SQLAlchemy, Keras and TensorFlow have many, Python prints the exception and goes on as if nothing had happened; and some
estimators of scikit-learn's end their training early for it, as if they had finished. So it is looked for again between
the folds of a trial, between trials, and before a model is registered.

How a signal is handled belongs to the process and not to a search, and so does what is kept here.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class _Here:
    """What is known of interrupts in this process.

    Attributes:
        undisturbed: How many calls the main thread is in that are not to be disturbed.
        due: Whether an interrupt waits for the end of them.
        raised: Whether one has been raised.
    """

    undisturbed = 0
    due = False
    raised = False


def interrupt(signum: int = signal.SIGINT, frame: object = None) -> None:
    """Handle a signal by an interrupt, now or as soon as the main thread may be disturbed; a second one does not wait.

    Raises:
        KeyboardInterrupt: If that is now.
    """
    if _Here.undisturbed and not _Here.due:
        _Here.due = True
        return
    _Here.due = False
    _Here.raised = True
    raise KeyboardInterrupt


def undisturbed(call: Callable[..., T], /, *args: object, **kwargs: object) -> T:
    """Make a call that is not interrupted; it should not take long.

    Raises:
        KeyboardInterrupt: After the call, if it would have been.
    """
    try:
        return holding(call, *args, **kwargs)
    finally:
        if not _Here.undisturbed:
            raise_due()


def holding(call: Callable[..., T], /, *args: object, **kwargs: object) -> T:
    """The same, but what would have interrupted the call is left to the next `check`: its caller gets the answer."""
    if not _is_main():
        return call(*args, **kwargs)
    _Here.undisturbed += 1
    try:
        return call(*args, **kwargs)
    finally:
        _Here.undisturbed -= 1


def raise_due() -> None:
    """Raise an interrupt that was held back, here where it does no harm.

    Raises:
        KeyboardInterrupt: If there is one.
    """
    if _Here.due and _is_main():
        interrupt()


def check() -> None:
    """Raise an interrupt that was held back, or again one that was swallowed: if heard, it would not have come to this.

    Raises:
        KeyboardInterrupt: If there has been one.
    """
    raise_due()
    if _Here.raised and _is_main():
        raise KeyboardInterrupt


@contextmanager
def heeded() -> Iterator[None]:
    """Have Ctrl-C handled in this way meanwhile, where it is handled in Python's own."""
    if not _is_main():
        yield
        return
    _Here.raised = _Here.due = False
    own = signal.getsignal(signal.SIGINT) in (signal.default_int_handler, interrupt)
    if own:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if own:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        _Here.raised = _Here.due = False


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()
