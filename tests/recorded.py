"""All that a small search leaves on record, so that two ways to write it can be compared.

A module of its own, so that workers find what they run.
"""

import json

from mlflow import MlflowClient
from sklearn.datasets import load_breast_cancer
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures

import trialbook
from trialbook.estimator import KerasClassifier

# What no two runs have in common.
OF_THE_MOMENT = ("seconds", "worker", "token", "run", "driver", "parentRunId")


def net(input_shape, n_classes, units=4):
    import keras

    if units == 6:
        raise ArithmeticError("six are too many")
    model = keras.Sequential(
        [keras.Input(input_shape), keras.layers.Dense(units), keras.layers.Dense(1, activation="sigmoid")]
    )
    model.compile("sgd", "binary_crossentropy", metrics=["accuracy"])
    return model


# Hyperband's nets go on with each other, and one of them cannot be built.
NETS = {
    "model": KerasClassifier(net, seed=1),
    "space": {"units": [2, 4, 6, 8]},
    "search": {"keras_tuner/hyperband": {"max_epochs": 4, "factor": 2}},
    "objective": "val_loss",
}
# A small one and a large one, which holds all its rows, and some that cannot be fitted.
NEIGHBORS = {
    "model": make_pipeline(PolynomialFeatures(), KNeighborsClassifier()),
    "space": {"degree": [1, 3], "n_neighbors": [3, -1]},
    "search": "sklearn/grid",
}


def searched(folder, model, **options):
    """What `tune` returned for a search in a store of its own, and all its runs."""
    uri = f"sqlite:///{folder}/mlflow.db"
    X, y = load_breast_cancer(return_X_y=True)
    space = options.pop("space")
    found = trialbook.tune(model, space, X[:200], y[:200], tracking={"uri": uri}, **options)
    client = MlflowClient(uri, uri)
    (experiment,) = [e.experiment_id for e in client.search_experiments() if e.name != "Default"]
    return found, [told(client, run) for run in client.search_runs([experiment], order_by=["attributes.start_time"])]


def told(client, run):
    """All that a run says, without what belongs to the moment."""
    tags = {k: v for k, v in run.data.tags.items() if not any(word in k for word in OF_THE_MOMENT)}
    result = json.loads(tags.pop("trialbook.result", "{}"))
    metrics = {k: [m.value for m in client.get_metric_history(run.info.run_id, k)] for k in run.data.metrics}
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    models = [client.get_logged_model(m.model_id) for m in run.outputs.model_outputs]
    tags.pop("mlflow.note.content", None)
    return {
        "name": run.info.run_name,
        "status": run.info.status,
        "params": run.data.params,
        "tags": tags,
        "result": {k: v for k, v in result.items() if "seconds" not in k and k != "model_id"},
        "metrics": {k: v for k, v in metrics.items() if "seconds" not in k},
        "files": files,
        "models": [(model.status, model.params, model.tags.get("trialbook.fold")) for model in models],
        "is its model": [result.get("model_id") == model.model_id for model in models],
        "files of its model": [
            sorted(file.path for file in client.list_logged_model_artifacts(m.model_id)) for m in models
        ],
    }


def check_alike(one, other):
    """That two searches have left the same record."""
    assert len(one) == len(other)
    for mine, yours in zip(one, other, strict=True):
        for key, said in mine.items():
            assert said == yours[key], (mine["name"], key)
