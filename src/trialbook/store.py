"""The MLflow store: its address, this process's client of it, and what it may raise."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import get_tracking_uri
from sqlalchemy.exc import SQLAlchemyError

from trialbook.errors import RequestError

# What MLflow lets through when a store cannot be reached, opened or written to.
STORE_ERRORS = (MlflowException, SQLAlchemyError, OSError)


@functools.cache
def client(tracking_uri: str, registry_uri: str | None = None) -> MlflowClient:
    """This process's client of a store: making one opens a connection, so there is one for each address."""
    return MlflowClient(tracking_uri, registry_uri or tracking_uri)


def artifacts(location: str, tracking_uri: str) -> ArtifactRepository:
    """Where artifacts are kept, by its address: a client would ask the store for the address each time."""
    return get_artifact_repository(location, tracking_uri=tracking_uri)


def resolve_uri(given: str | None) -> str:
    """The store's address: as given, else MLflow's own default, which `MLFLOW_TRACKING_URI` sets.

    A local database is named by its whole path, because workers may run in other folders.
    """
    uri = given or str(get_tracking_uri())
    scheme, _, path = uri.partition(":///")
    if scheme.partition("+")[0] != "sqlite" or not path or path.startswith("/"):
        return uri
    return f"{scheme}:///{Path(path).absolute()}"


def without_credentials(words: str) -> str:
    """A text with the user and password of every address in it hidden."""
    return re.sub(r"://[^/@\s]+@", "://***@", words)


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
