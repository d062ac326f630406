"""Calls to an MLflow store that neither lose nor double anything when the store is away.

A tracking server that restarts, a database that is busy, a reply that is lost: the call waits and is made again. What
creates something first looks whether an earlier attempt has created it after all; everything else may be repeated.
"""

from __future__ import annotations

import functools
import logging
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import requests
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from trialbook import interrupts
from trialbook.errors import StoreError, causes, disk_is_full

T = TypeVar("T")

# What MLflow lets through when a store cannot be reached, opened or written to.
STORE_ERRORS = (MlflowException, SQLAlchemyError, OSError)
# A tag by which a run or a model is found again if the reply to its creation was lost.
TOKEN = "trialbook.token"

_log = logging.getLogger(__name__)
_LONGEST_PAUSE = 5.0
# How long is waited, after an interrupt, for a store that turns out to be away or busy.
_LEAVING_SECONDS = 10.0
_AWAY = (408, 429, 502, 503, 504)
_OVERTAKEN_AT_MOST = 5
# How SQLite, MySQL and PostgreSQL call the refusal of a row that exists already, in a server's answer too.
_EXISTS = ("IntegrityError", "UniqueViolation")


class Insisting:
    """Anything whose every method is insisted on.

    Args:
        target: Has the methods.
        insist: How to insist on a call.
    """

    def __init__(self, target: object, insist: Callable[..., Any]) -> None:
        self._target = target
        self._insist = insist

    def __getattr__(self, name: str) -> Any:
        """A method of the target, made insistent."""
        found = getattr(self._target, name)
        return functools.partial(self._insist, found) if callable(found) else found


class PatientClient(Insisting):
    """An `MlflowClient` whose every call waits for a store that is away.

    Args:
        client: What makes the calls.
        name: What to call the store.
        timeout: Seconds for which it may be away.
    """

    def __init__(self, client: MlflowClient, name: str, timeout: float) -> None:
        super().__init__(client, self.insist)
        self._client = client
        self._name = name
        self._timeout = timeout
        self._away_since: float | None = None
        self._leaving = False
        self._leave_by: float | None = None
        self._lock = threading.Lock()

    @property
    def is_away(self) -> bool:
        """Whether somebody waits for the store just now."""
        return self._away_since is not None

    def hurry(self) -> None:
        """Hear that somebody wants to leave: a store that is away must answer at once, another one soon."""
        with self._lock:
            self._leaving = True
            if self.is_away and self._leave_by is None:
                self._leave_by = time.monotonic()

    def take_time(self) -> None:
        """Be as patient as at first, for somebody else."""
        with self._lock:
            self._leaving, self._leave_by = False, None

    def insist(self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Make a call, again and again while the store is away; and a few times if another process was faster.

        Raises:
            StoreError: If it is away for too long, or its disk is full.
        """
        try:
            return self._persist(functools.partial(call, *args, **kwargs))
        except KeyboardInterrupt:
            self.hurry()
            raise

    def _persist(self, call: Callable[[], T]) -> T:
        overtaken = 0
        while True:
            try:
                with _unlogged():
                    answer = call()
            except STORE_ERRORS as error:
                if disk_is_full(error):
                    raise StoreError(f"there is no space left to write to {self._name}") from error
                if is_away(error):
                    self._wait(error)
                elif is_overtaken(error) and overtaken < _OVERTAKEN_AT_MOST:
                    overtaken += 1
                else:
                    raise
            else:
                self._answered()
                return answer

    def create_run(self, experiment_id: str, *, tags: Mapping[str, str], **more: Any) -> Run:
        """Create a run; exactly one, whatever becomes of the replies."""
        token = uuid.uuid4().hex

        def find() -> Sequence[Run]:
            return self._client.search_runs([experiment_id], f"tags.`{TOKEN}` = '{token}'")

        try:
            return self._once(find, self._client.create_run, experiment_id, tags={**tags, TOKEN: token}, **more)
        except KeyboardInterrupt:
            # If it was created all the same, nobody but the store knows it.
            with suppress(StoreError, *STORE_ERRORS):
                for run in find():
                    self._client.set_terminated(run.info.run_id, "KILLED")
            raise

    def create_logged_model(self, experiment_id: str, *, tags: Mapping[str, str], **more: Any) -> LoggedModel:
        """Create a logged model; exactly one."""
        token = uuid.uuid4().hex

        def find() -> Sequence[LoggedModel]:
            return self._client.search_logged_models([experiment_id], f"tags.`{TOKEN}` = '{token}'")

        return self._once(find, self._client.create_logged_model, experiment_id, tags={**tags, TOKEN: token}, **more)

    def create_model_version(self, name: str, source: str, run_id: str, **more: Any) -> ModelVersion:
        """Register a run's model; exactly once."""

        def find() -> Sequence[ModelVersion]:
            return self._client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")

        return self._once(find, self._client.create_model_version, name, source, run_id, **more)

    def log_outputs(self, run_id: str, models: list[LoggedModelOutput]) -> None:
        """Name the models a run has made; each once."""
        wanted = {model.model_id for model in models}

        def find() -> list[None]:
            outputs = self._client.get_run(run_id).outputs
            known = {model.model_id for model in outputs.model_outputs} if outputs else set()
            return [None] if wanted <= known else []

        self._once(find, self._client.log_outputs, run_id, models)

    def _once(self, find: Callable[[], Sequence[T]], create: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Create something, unless an earlier attempt is found to have created it though its reply never came."""
        attempts = 0

        def attempt() -> T:
            nonlocal attempts
            attempts += 1
            if attempts > 1 and (found := find()):
                return found[0]
            return create(*args, **kwargs)

        return self.insist(attempt)

    def _answered(self) -> None:
        if self._away_since is None:
            return
        # Of several threads that have waited, the first tells.
        with self._lock:
            if self._away_since is not None:
                seconds = time.monotonic() - self._away_since
                self._away_since = None
                _log.warning("%s answers again after %.0f s.", self._name, seconds)

    def _wait(self, error: Exception) -> None:
        interrupts.raise_due()
        now = time.monotonic()
        with self._lock:
            known = self._away_since is not None
            if self._away_since is None:
                self._away_since = now
            away = now - self._away_since
            left = self._timeout - away
            if self._leaving:
                self._leave_by = self._leave_by or now + _LEAVING_SECONDS
                left = min(left, self._leave_by - now)
            if not known and left > 0:
                _log.warning("%s does not answer; waiting up to %g s for it.", self._name, round(left, 1))
        if left <= 0:
            raise StoreError(f"{self._name} has not answered for {away:.0f} s") from error
        time.sleep(min(_LONGEST_PAUSE, 0.1 + away / 4, left))


@contextmanager
def _unlogged() -> Iterator[None]:
    """Without the traceback that MLflow logs of a database's error before it raises it, in this thread."""
    logger = logging.getLogger("mlflow.store.db.utils")
    thread = threading.get_ident()

    def from_elsewhere(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logger.addFilter(from_elsewhere)
    try:
        yield
    finally:
        logger.removeFilter(from_elsewhere)


def is_away(error: BaseException) -> bool:
    """Whether a store is out of reach or busy, so that the same call may succeed later."""
    for cause in causes(error):
        if isinstance(cause, requests.ConnectionError | requests.Timeout):
            return True
        if isinstance(cause, requests.exceptions.RetryError) and any(
            f"too many {code}" in str(cause) for code in _AWAY
        ):
            return True
        if isinstance(cause, requests.HTTPError) and cause.response is not None and cause.response.status_code in _AWAY:
            return True
        if isinstance(cause, DBAPIError):
            if isinstance(cause.orig, sqlite3.Error):
                return getattr(cause.orig, "sqlite_errorcode", None) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            return cause.connection_invalidated or isinstance(cause, OperationalError)
    return False


def is_overtaken(error: BaseException) -> bool:
    """Whether another process has made, a moment earlier, what MLflow was about to make because it had found none.

    Data sets, aliases and tags are looked for and then made, each time in one transaction: nothing of it was written,
    and the same call now finds what the other has made. A name that is taken for good is MLflow's own answer.
    """
    return (
        isinstance(error, MlflowException)
        and error.error_code != "RESOURCE_ALREADY_EXISTS"
        and any(word in str(error) for word in _EXISTS)
    )
