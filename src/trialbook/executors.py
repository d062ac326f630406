"""Where trials run, as `concurrent.futures.Executor`s: what all have in common, and the plain one.

`trialbook.processes` and `trialbook.cluster` have the others.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

from trialbook.errors import RequestError

T = TypeVar("T")


class TrialExecutor(Executor):
    """Runs the trials of one search: `start` it once with what runs a trial, then `submit` that as often as needed.

    `shutdown(cancel_futures=True)` does not wait for trials that nobody waits for any more: they are killed.

    Args:
        retries: How often a trial is tried again whose worker died, or whose error may pass.

    Attributes:
        workers: How many trials run at a time; known at the latest when the executor has started.
        in_driver: Whether trials run in the driver's own process.
        workers_write: Whether the processes in which trials run write what belongs to them into the store.
    """

    workers = 1
    in_driver = False
    workers_write = True

    def __init__(self, *, retries: int = 1) -> None:
        check_at_least("retries", retries, 0)
        self.retries = retries

    def start(
        self, work: Callable[..., Any], prepare: Callable[[], None] | None = None, *, leaves_memory: bool = False
    ) -> None:
        """Begin to start the workers.

        Args:
            work: What runs a trial; the only thing that may be submitted. Each worker is sent it once.
            prepare: Called in each worker before `work` reaches it, to load what takes long.
            leaves_memory: Whether trials leave memory behind, so that workers should be replaced now and then.

        Raises:
            RequestError: If there can be no workers as configured.
        """

    def wait_until_ready(self) -> None:
        """Wait until every worker can take a trial.

        Raises:
            ExecutorError: If a worker cannot be started.
        """


class SerialExecutor(TrialExecutor):
    """Runs each call in this process, at once, so that one loop serves one worker and many.

    Args:
        retries: How often a trial is tried again whose error may pass.
        trial_timeout: Always None: a process cannot kill what runs in itself.
    """

    in_driver = True

    def __init__(self, *, retries: int = 1, trial_timeout: float | None = None) -> None:
        super().__init__(retries=retries)
        if trial_timeout is not None:
            raise RequestError(
                f"executor.trial_timeout={trial_timeout} needs trials in processes of their own; choose "
                "executor=processes, which takes executor.workers=1 too."
            )

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


def check_at_least(name: str, value: Any, least: float, *, optional: bool = False, whole: bool = True) -> None:
    """Refuse a setting of an executor that is no number, or too small a one.

    Raises:
        RequestError: Naming it.
    """
    if value is None and optional:
        return
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or value < least:
        number = "whole number" if whole else "number of seconds"
        or_null = ", or null" if optional else ""
        raise RequestError(f"executor.{name} must be a {number} of at least {least:g}{or_null}; got {value!r}.")
