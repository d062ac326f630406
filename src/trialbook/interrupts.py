"""Where an interrupt is raised: not in the middle of a call to a database, and again where something has swallowed it.

Python raises `KeyboardInterrupt` wherever the main thread happens to be. Within SQLAlchemy that may leave a transaction
open, which locks a SQLite database against the driver's own last words; and in a callback of a weak reference, of which
SQLAlchemy, Keras and TensorFlow have many, Python prints the exception and goes on as if nothing had happened.

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
    """Handle a signal by an interrupt, now or as soon as the main thread may be disturbed.

    Raises:
        KeyboardInterrupt: If that is now.
    """
    if _Here.undisturbed:
        _Here.due = True
    else:
        _Here.raised = True
        raise KeyboardInterrupt


def undisturbed(call: Callable[..., T], /, *args: object, **kwargs: object) -> T:
    """Make a call that is not interrupted; it should not take long.

    Raises:
        KeyboardInterrupt: After the call, if it would have been.
    """
    if threading.current_thread() is not threading.main_thread():
        return call(*args, **kwargs)
    _Here.undisturbed += 1
    try:
        return call(*args, **kwargs)
    finally:
        _Here.undisturbed -= 1
        if _Here.due and not _Here.undisturbed:
            _Here.due = False
            interrupt()


def check() -> None:
    """Raise an interrupt again: if one had been heard, it would not have come to this.

    Raises:
        KeyboardInterrupt: If one has been raised.
    """
    if _Here.raised:
        raise KeyboardInterrupt


@contextmanager
def heeded() -> Iterator[None]:
    """Have Ctrl-C handled in this way meanwhile, where it is handled in Python's own."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    _Here.raised = False
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
