"""Where trials run, as `concurrent.futures.Executor`s."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

T = TypeVar("T")


class SerialExecutor(Executor):
    """Runs each call in this process, at once, so that one loop serves one worker and many."""

    workers = 1

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run the call now and return its finished future.

        An `Exception` is kept in the future, as in any executor. An interrupt is not an answer of the call
        but the user's word to the driver, so it passes through.
        """
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future
