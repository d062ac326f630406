"""What a model takes, by its columns."""

import warnings

import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from mlflow.types import DataType
from mlflow.types.schema import AnyType
from sklearn.linear_model import LogisticRegression, Ridge

from trialbook.signature import signature_of

TEXTS = ["a", "b", None, "a"]
COLUMNS = {
    "float": [0.5, 1.5, np.nan, 2.5],
    "float32": np.array([0.5, 1.5, 2.5, 3.5], "float32"),
    "text": TEXTS,
    "object": pd.Series(TEXTS, dtype=object),
    "string": pd.Series(TEXTS, dtype="string"),
    "whole first": pd.Series([1, 1.0, 2, 2], dtype=object),
    "date": pd.date_range("2020-01-01", periods=4),
    "list": pd.Series([[1], [2], [1], [3]], dtype=object),
    7: [0.1, 0.2, 0.3, 0.4],
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_is_of_the_type_that_mlflow_finds_in_its_values(name):
    rows = pd.DataFrame({"first": [0.5, 0.25, 0.125, 0.75], name: COLUMNS[name]})
    (_, found) = signature_of(Ridge(), rows, np.zeros(4)).inputs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (_, expected) = infer_signature(rows).inputs
    assert (found.name, found.type) == (name, expected.type)
    assert found.required


@pytest.mark.parametrize(
    "values", [[1, 2, 3, 4], [True, False, True, True], pd.Categorical(list("abca")), [1.0, 2.0, np.nan, 4.0]]
)
def test_whole_numbers_booleans_and_categories_are_of_any_type(values):
    (found,) = signature_of(Ridge(), pd.DataFrame({"it": values}), np.zeros(4)).inputs
    assert found.type == AnyType()


def test_what_mlflow_does_not_know_is_of_any_type():
    mixed = pd.Series([1, 1.0, True, 2.5], dtype=object)
    months = pd.period_range("2020-01", periods=4, freq="M")
    rows = pd.DataFrame({"month": months, "mixed": mixed, "x": [0.5, 1.5, 2.5, 3.5]})
    found = {column.name: column.type for column in signature_of(Ridge(), rows, np.zeros(4)).inputs}
    assert found == {"month": AnyType(), "mixed": AnyType(), "x": DataType.double}


def test_a_classifier_may_be_asked_for_probabilities():
    signature = signature_of(LogisticRegression(), np.zeros((4, 2)), np.arange(4) % 2)
    assert [param.name for param in signature.params.params] == ["predict_method"]
    assert signature.inputs.is_tensor_spec()
