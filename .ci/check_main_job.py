"""Check what the main job left in MLflow: the tree of runs, the models, the registered champion."""

import mlflow.pyfunc
from mlflow import MlflowClient
from sklearn.datasets import load_digits

URI = "sqlite:///mlflow.db"


def main():
    client = MlflowClient(URI, URI)
    experiment = client.get_experiment_by_name("trialbook")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    (search,) = [run for run in runs if run.data.tags["trialbook.kind"] == "search"]
    (retrain,) = [run for run in runs if run.data.tags["trialbook.kind"] == "retrain"]
    trials = [run for run in runs if run.data.tags["trialbook.kind"] == "trial"]
    assert {run.info.status for run in runs} == {"FINISHED"}, [run.info.status for run in runs]
    assert {run.data.tags["mlflow.parentRunId"] for run in [retrain, *trials]} == {search.info.run_id}
    assert search.data.tags["mlflow.project.entryPoint"] == "main"
    assert len(trials) == search.data.metrics["trials_complete"] == 30, len(trials)
    for trial in trials:
        (output,) = trial.outputs.model_outputs
        assert str(client.get_logged_model(output.model_id).status) == "READY"
    seconds = (search.info.end_time - search.info.start_time) / 1000
    best = max(trials, key=lambda run: run.data.metrics["objective"])
    assert search.data.metrics["best_objective"] == best.data.metrics["objective"]
    version = client.get_model_version_by_alias("digits", "champion")
    assert version.run_id == retrain.info.run_id
    mlflow.set_tracking_uri(URI)
    rows, labels = load_digits(return_X_y=True, as_frame=True)
    right = (mlflow.pyfunc.load_model("models:/digits@champion").predict(rows) == labels).mean()
    assert right > 0.95, right
    print(f"{len(trials)} trials, search run of {seconds:.0f} s, champion right on {right:.1%} of all rows")


main()
