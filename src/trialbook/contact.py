"""The first contact with a tracking server or a database: whether it is there and lets us in, told within seconds.

MLflow itself would try for minutes, which is right for a search that runs and wrong for a misspelt address.
"""

from __future__ import annotations

import contextlib
import re

import sqlalchemy
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from trialbook.credentials import without_credentials
from trialbook.errors import RequestError

_SECONDS = 10
# What the first call of every search asks, too, but without its patience.
_ENDPOINT = "/api/2.0/mlflow/experiments/search"


def reach(uri: str) -> None:
    """Ask a store for anything, once. One that is a file is opened soon enough.

    Raises:
        RequestError: If it does not answer, or not to us.
    """
    if uri.startswith(("http://", "https://")):
        _reach_server(uri)
    elif uri.startswith(("postgresql", "mysql", "mssql")):
        _reach_database(uri)


def _reach_database(uri: str) -> None:
    try:
        engine = sqlalchemy.create_engine(uri)
        with contextlib.closing(engine.connect()):
            pass
        engine.dispose()
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        lines = without_credentials(str(error)).splitlines()
        said = " ".join(line.strip() for line in lines if "sqlalche.me" not in line)
        raise RequestError(f"tracking.uri={without_credentials(uri)} cannot be used: {said}") from error


def _reach_server(uri: str) -> None:
    shown = without_credentials(uri)
    try:
        answer = http_request(
            get_default_host_creds(uri), _ENDPOINT, "GET", params={"max_results": 1}, max_retries=0, timeout=_SECONDS
        )
    except (MlflowException, OSError) as error:
        raise RequestError(f"tracking.uri={shown} does not answer: {_reason(error)}.") from error
    if answer.status_code in (401, 403):
        raise RequestError(
            f"tracking.uri={shown} refuses the credentials (HTTP {answer.status_code}); set MLFLOW_TRACKING_USERNAME "
            "and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
        )


def _reason(error: Exception) -> str:
    """What happened, which stands at the core of several layers of messages."""
    text = " ".join(without_credentials(str(error)).split()).rstrip(".")
    found = re.findall(r"(?:\[Errno -?\d+\] |ResponseError\(['\"])([^'\")]+)", text)
    return found[-1] if found else text
