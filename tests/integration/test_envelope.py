"""What stands beside every model, against what MLflow writes itself."""

import mlflow.sklearn
import numpy as np
import pandas as pd
import pytest
from mlflow.models import Model
from sklearn.dummy import DummyRegressor

from trialbook import envelope

N = 7
TABLE = pd.DataFrame(
    {
        "number": [1.5, np.nan, 3, 4, 5, 6, 7],
        "whole": list(range(N)),
        "text": list("abcäeßg"),
        "yes": [True, False] * 3 + [True],
        "day": pd.date_range("2020-02-27", periods=N),
        "kind": pd.Categorical(list("aabbcca")),
        "missing": ["a", None, *"bcdef"],
    }
)
ROWS = {
    "table": TABLE,
    "counted columns": pd.DataFrame(np.arange(2 * N).reshape(N, 2)),
    "floats": np.linspace(0, 1, 3 * N).reshape(N, 3).astype("float32"),
    "whole numbers": np.arange(2 * N).reshape(N, 2),
    "images": np.linspace(0, 1, 4 * N).reshape(N, 2, 2),
}


# Of MLflow's own, about pandas.
@pytest.mark.filterwarnings("ignore:Operation with range")
@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_the_files_beside_a_model_are_those_that_mlflow_writes(tmp_path, rows):
    model, estimator = Model(), DummyRegressor().fit([[0.0]], [0.0])
    found = envelope.envelope_of(estimator, rows, np.arange(N) % 2)

    mlflow.sklearn.save_model(
        estimator,
        str(tmp_path / "model"),
        mlflow_model=model,
        signature=found.signature,
        input_example=rows[:5],
        pip_requirements=envelope.requirements_of(estimator),
        serialization_format="skops",
        skops_trusted_types=["sklearn.dummy.DummyRegressor"],
    )

    beside = [f for f in (tmp_path / "model").iterdir() if f.name not in ("MLmodel", "model.skops")]
    written = {f.name: f.read_text() for f in beside}
    assert found.files == written
    assert found.example == model.saved_input_example_info


def test_an_environment_without_pip_names_no_version_of_it(monkeypatch):
    monkeypatch.setattr(envelope, "_installed", {"setuptools": "80.0"}.get)

    files = envelope.environment_of(["mlflow==1"])

    assert "- pip\n- setuptools==80.0\n- wheel\n" in files["python_env.yaml"]
    assert "- pip\n- pip:\n" in files["conda.yaml"]
