"""What a process under measurement does and says, the peer's and ours alike; it needs nothing but what it measures."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

MARK = "measured: "


def main(**sides: Callable[..., dict[str, Any]]) -> None:
    """Run the side that the command line names, with the keywords it gives as JSON, and print its report.

    Args:
        sides: Each returns its report: `seconds`, how many `trials` it ran, and a `score` to compare.
    """
    _, side, words = sys.argv
    print(f"\n{MARK}{json.dumps(sides[side](**json.loads(words)))}", flush=True)


def open_store() -> None:
    """Make the tables of MLflow's default store, a database in the present folder: no search's work."""
    import mlflow

    mlflow.set_experiment("comparison")


def recorded(where: str = "") -> int:
    """How many finished runs the default store holds.

    Args:
        where: What else must be true of them, as MLflow's searches say it.
    """
    import mlflow

    condition = " and ".join(filter(None, ["attributes.status = 'FINISHED'", where]))
    return len(mlflow.search_runs(filter_string=condition, search_all_experiments=True, output_format="list"))
