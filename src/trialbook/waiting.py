"""Waits in which an interrupt is heard.

A signal's handler is Python code that the main thread runs when it next comes to it. One that waits for a lock comes to
it if the signal wakes it; but a signal may reach another thread, or the main one a moment before it waits, and then
nothing does. So whoever may have to wait for long looks up now and then.
"""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from multiprocessing.pool import IMapIterator

T = TypeVar("T")
_LOOK_SECONDS = 0.5


def first_done(futures: Collection[Future[T]]) -> set[Future[T]]:
    """Wait until at least one of some futures is done; returns those that are."""
    while not (done := wait(futures, timeout=_LOOK_SECONDS, return_when=FIRST_COMPLETED).done):
        pass
    return done


def result_of(future: Future[T]) -> T:
    """Wait for a future's result.

    Raises:
        BaseException: Whatever the future holds instead.
    """
    first_done([future])
    return future.result()


def until_set(event: threading.Event) -> None:
    """Wait until an event is set."""
    while not event.wait(_LOOK_SECONDS):
        pass


def each(results: IMapIterator[T]) -> Iterator[T]:
    """What a pool's `imap` or `imap_unordered` gives, one by one.

    Raises:
        Exception: Whatever the pool gives instead.
    """
    while True:
        try:
            yield results.next(_LOOK_SECONDS)
        except multiprocessing.TimeoutError:
            continue
        except StopIteration:
            return
