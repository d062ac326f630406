"""The MLflow store: its address, its first opening, and this process's client of it."""

from __future__ import annotations

import fcntl
import functools
import getpass
import hashlib
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

import sqlalchemy
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.tracking import get_tracking_uri

from trialbook import interrupts
from trialbook.credentials import without_credentials
from trialbook.errors import RequestError
from trialbook.outage import STORE_ERRORS, Insisting, PatientClient
from trialbook.waiting import each

T = TypeVar("T")

# A number of ours among PostgreSQL's advisory locks, which all users of a database share.
_FIRST_OPENING = 0x7472_6961_6C

# What is installed on clusters of Databricks only.
_DATABRICKS = "dbruntime"
# Files that are sent to a server at a time.
_UPLOADS = 4


@dataclass(frozen=True)
class Store:
    """A store, and for how long to wait for it when it is away; what a worker is told.

    Attributes:
        uri: Its address.
        outage_timeout: Seconds for which it may be away.
    """

    uri: str
    outage_timeout: float = 600.0

    def __post_init__(self) -> None:
        """Refuse what could never be meant."""
        seconds = self.outage_timeout
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds < 0:
            raise RequestError(f"tracking.outage_timeout must be a number of seconds of at least 0; got {seconds!r}.")

    @property
    def client(self) -> MlflowClient:
        """This process's client of the store."""
        # It has all the methods of one, but is not made from one: a call that MLflow makes up of several is repeated
        # whole.
        return cast(MlflowClient, _patient(self))

    @property
    def is_away(self) -> bool:
        """Whether somebody in this process waits for it just now."""
        return _patient(self).is_away

    @property
    def shown(self) -> str:
        """The address without credentials."""
        return without_credentials(self.uri)

    @property
    def is_file(self) -> bool:
        """Whether it is a database in a file of this machine."""
        return self.uri.startswith("sqlite")

    @property
    def is_server(self) -> bool:
        """Whether it is a tracking server."""
        return self.uri.startswith("http")

    def artifacts(self, location: str) -> ArtifactRepository:
        """Where artifacts are kept, by its address: the client would ask the store for the address each time."""
        found = get_artifact_repository(location, tracking_uri=self.uri)
        return cast(ArtifactRepository, Insisting(found, _patient(self).insist))

    def folder(self, location: str) -> Path | None:
        """The folder where artifacts are kept, by its address; None if they are not kept in files of this machine."""
        artifacts = get_artifact_repository(location, tracking_uri=self.uri)
        return Path(artifacts.artifact_dir) if isinstance(artifacts, LocalArtifactRepository) else None

    def upload(self, folder: Path, location: str) -> None:
        """Put all files of a folder where artifacts are kept, by its address; to a server several at a time.

        Raises:
            StoreError: If the store is away for too long, or its disk is full.
        """
        artifacts = get_artifact_repository(location, tracking_uri=self.uri)
        if not isinstance(artifacts, HttpArtifactRepository):
            _patient(self).insist(artifacts.log_artifacts, str(folder))
            return

        def upload(file: Path) -> None:
            inside = file.parent.relative_to(folder).as_posix()
            _patient(self).insist(artifacts.log_artifact, str(file), None if inside == "." else inside)

        files = [file for file in folder.rglob("*") if file.is_file()]
        # Of daemonic threads, so that an interrupt need not wait for a server that does not answer.
        with ThreadPool(min(_UPLOADS, len(files))) as pool:
            try:
                for _ in each(pool.imap_unordered(upload, files)):
                    pass
            except KeyboardInterrupt:
                self.hurry()  # the calls are made in other threads, which do not hear of it
                raise

    def hurry(self) -> None:
        """Hear that somebody wants to leave: wait no longer if it is away, and not for long if it turns out to be."""
        _patient(self).hurry()

    def insist(self, call: Callable[..., T], /, *args: object, **kwargs: object) -> T:
        """Make a call that goes past the client, again and again while the store is away.

        Raises:
            StoreError: If it is away for too long, or its disk is full.
        """
        return _patient(self).insist(functools.partial(self.whole, call, *args, **kwargs))

    def whole(self, call: Callable[..., T], /, *args: object, **kwargs: object) -> T:
        """Make a call that is interrupted only where that does no harm.

        A request to a server can be broken off. Of a transaction of a database's the end is waited for, and the
        interrupt is left to the next check for it.
        """
        return call(*args, **kwargs) if self.is_server else interrupts.holding(call, *args, **kwargs)

    def open(self) -> MlflowClient:
        """The client, once the store has answered; one that does not answer now is not waited for.

        Raises:
            RequestError: If the store cannot be used.
        """
        try:
            with _first(self.uri):
                MlflowClient(self.uri, self.uri).search_experiments(max_results=1)
        except STORE_ERRORS as error:
            raise RequestError(f"tracking.uri={self.shown} cannot be used: {one_line(error)}") from error
        _patient(self).take_time()
        return self.client


def client(uri: str) -> MlflowClient:
    """This process's client of a store that is waited for as long as usual."""
    return Store(uri).client


@functools.cache
def _patient(store: Store) -> PatientClient:
    """There is one client for each store in a process: to make one opens a connection."""
    found = MlflowClient(store.uri, store.uri)
    if store.is_server:
        if find_spec(_DATABRICKS) is None:
            # MLflow looks for it five times at each request; to look through all folders takes longer than the rest.
            sys.modules.setdefault(_DATABRICKS, cast(ModuleType, None))
        return PatientClient(found, store.shown, store.outage_timeout)
    if store.is_file:
        _write_ahead(found)
    whole = cast(MlflowClient, Insisting(found, interrupts.undisturbed))
    return PatientClient(whole, store.shown, store.outage_timeout)


def _write_ahead(mlflow_client: MlflowClient) -> None:
    """Let a SQLite database append what is written to a log, and not wait for the disk at each write.

    A trial writes about ten times, and with SQLite's default each write waits for the disk several times. A killed
    process loses nothing by this; a machine that loses power may lose the last seconds, and the database stays sound.
    """
    # MLflow offers no way to configure its connections. Without this attribute they are merely slower.
    engine = getattr(getattr(mlflow_client._tracking_client, "store", None), "engine", None)
    if engine is None:
        return

    @sqlalchemy.event.listens_for(engine, "connect")
    def configure(connection: Any, _: object) -> None:
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        if mode == "delete":
            # As long as somebody else writes, it stays as it is.
            with suppress(sqlite3.OperationalError):
                (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode == "wal":
            connection.execute("PRAGMA synchronous = NORMAL")

    engine.dispose()  # connections made before


@contextmanager
def _first(uri: str) -> Iterator[None]:
    """Keep other processes from opening a database meanwhile: whoever is first makes its tables.

    MLflow makes and alters some dozens of tables then, and two who do that at once leave neither a complete set.
    """
    if uri.startswith("sqlite"):
        name = hashlib.sha256(str(Path(uri.partition(":///")[2]).resolve()).encode()).hexdigest()[:16]
        with Path(tempfile.gettempdir(), f"trialbook-{getpass.getuser()}-{name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    elif uri.startswith("postgresql"):
        engine = sqlalchemy.create_engine(uri)
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(f"SELECT pg_advisory_lock({_FIRST_OPENING})"))
            yield
        engine.dispose()
    else:
        yield


def resolve_uri(given: str | None) -> str:
    """The store's address: as given, else MLflow's own default, which `MLFLOW_TRACKING_URI` sets.

    A local database is named by its whole path, because workers may run in other folders.
    """
    uri = given or str(get_tracking_uri())
    scheme, _, path = uri.partition(":///")
    if scheme.partition("+")[0] != "sqlite" or not path or path.startswith("/"):
        return uri
    return f"{scheme}:///{Path(path).absolute()}"


def one_line(error: BaseException) -> str:
    """What an error says, on one line and without credentials."""
    return " ".join(without_credentials(str(error)).split())


def find_experiment(mlflow_client: MlflowClient, name: str) -> str:
    """The id of an experiment, created on first use.

    Raises:
        RequestError: If it has been deleted.
    """
    if (found := mlflow_client.get_experiment_by_name(name)) is not None:
        if found.lifecycle_stage == LifecycleStage.DELETED:
            raise RequestError(
                f"tracking.experiment={name} has been deleted; bring it back with mlflow experiments restore "
                f"--experiment-id {found.experiment_id}, or choose another name."
            )
        return str(found.experiment_id)
    try:
        return str(mlflow_client.create_experiment(name))
    except MlflowException:
        # Another driver was a moment faster.
        if (found := mlflow_client.get_experiment_by_name(name)) is None:
            raise
        return str(found.experiment_id)
