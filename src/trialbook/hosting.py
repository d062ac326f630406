"""Trials on a Dask worker: what `trialbook.cluster` sends there.

A Dask worker is only the host. The trials run in worker processes beside it, the same as those of
`trialbook.processes`, so they are killed, replaced and limited to their share of the cores in the same way, and a trial
that takes its process down leaves the Dask worker and the other trials on it alone.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distributed import Event, Worker, WorkerPlugin, get_worker

from trialbook.errors import WorkerDied
from trialbook.processes import ProcessExecutor

_LOOK_SECONDS = 1.0
# When a driver dies without a word, its worker processes stay with the Dask worker, but not for ever.
_IDLE_SECONDS = 600.0


class Host(WorkerPlugin):
    """The worker processes of one search on one Dask worker: as many as that has threads.

    Args:
        name: What the plugin is registered as.
        packed: What the worker processes run, from `trialbook.worker.pack`.
        settings: Arguments of `ProcessExecutor`.
        modules: The source of the user's own modules, by file name: they may be missing here.
        environment: What is added to the environment of the worker processes.
    """

    def __init__(
        self,
        name: str,
        packed: bytes,
        settings: Mapping[str, Any],
        modules: Mapping[str, str],
        environment: Mapping[str, str],
    ) -> None:
        self.name = name
        self._packed = packed
        self._settings = settings
        self._modules = modules
        self._environment = environment

    def setup(self, worker: Worker) -> None:
        """Begin to start the worker processes."""
        folder = Path(worker.local_directory, self.name)
        for name, source in self._modules.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(source)
        self.executor = ProcessExecutor(worker.state.nthreads, **self._settings, idle_seconds=_IDLE_SECONDS)
        self.executor.start_packed(self._packed, [str(folder)], self._environment)

    def teardown(self, worker: Worker) -> None:
        """End them."""
        self.executor.shutdown(wait=False)


async def ready(name: str, dask_worker: Worker) -> None:
    """Wait until the worker processes of a Dask worker can take trials."""
    executor = _executor(dask_worker, name)
    while not executor.ready:
        await asyncio.sleep(0.1)
    executor.wait_until_ready()


def run(name: str, token: str, args: Sequence[Any]) -> Any:
    """Run one trial in a worker process of this Dask worker; a task of Dask's.

    Args:
        name: What the plugin is registered as.
        token: Names this attempt at the trial.
        args: What to call the worker process with.

    Raises:
        WorkerDied: If the worker process has died, or an earlier Dask worker with this attempt.
    """
    # Dask runs a task again whose worker it has lost. Whether to try a trial again is for the loop to say, and on
    # record, so the second time ends here.
    begun = Event(token)
    if begun.is_set():
        raise WorkerDied("the Dask worker that ran it is gone")
    begun.set()
    dask_worker = get_worker()
    executor = _executor(dask_worker, name)
    future = executor.call(*args)
    while not concurrent.futures.wait([future], timeout=_LOOK_SECONDS).done:
        if not _wanted(dask_worker):
            executor.kill(future)
    return future.result()


def _executor(dask_worker: Worker, name: str) -> ProcessExecutor:
    host: Any = dask_worker.plugins[name]
    executor: ProcessExecutor = host.executor
    return executor


def _wanted(dask_worker: Worker) -> bool:
    """Whether anybody waits for the present task: Dask has no way to interrupt one, but it does tell."""
    task = dask_worker.state.tasks.get(dask_worker.get_current_task())
    return task is not None and task.state != "cancelled"
