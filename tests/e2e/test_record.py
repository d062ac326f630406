"""The record of a search in MLflow, as the command leaves it in a SQLite store."""

import math
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

GRID = ("data=breast_cancer", "search=sklearn/grid", "validation=stratified_kfold", "tracking.experiment=record")
HYPERBAND = ("search.oracle.max_epochs=4", "search.oracle.factor=2", "tracking.experiment=record")


@pytest.fixture(scope="class", name="done")
def run_once(request, shared_workplace):
    """The store after the class's job, and what the job printed."""
    out, err = shared_workplace.run(*request.cls.job)
    return shared_workplace, out, err


def predict_elsewhere(workplace, uri, rows):
    """What a model predicts in a fresh process that knows the store, and nothing of Trialbook."""
    import numpy as np

    rows.to_pickle(workplace.folder / "rows.pkl")
    code = (
        "import sys; sys.modules['trialbook'] = None\n"
        "import mlflow.pyfunc, numpy, pandas\n"
        f"model = mlflow.pyfunc.load_model({uri!r})\n"
        "numpy.save('predicted.npy', model.predict(pandas.read_pickle('rows.pkl')))"
    )
    environment = workplace.environment(MLFLOW_TRACKING_URI=workplace.uri)
    subprocess.run([sys.executable, "-c", code], cwd=workplace.folder, env=environment, check=True)
    return np.load(workplace.folder / "predicted.npy")


class Record:
    """What holds for every search; `job` gives the overrides, and `params` the names of its hyperparameters."""

    job: tuple[str, ...]
    params: tuple[str, ...]
    name: str
    model: str
    data: str
    n_test: int

    def trials(self, done):
        search = done[0].search_run()
        return [t for t in done[0].runs("trial") if t.data.tags["mlflow.parentRunId"] == search.info.run_id]

    def test_the_tree_is_a_search_above_its_trials_and_one_retrain(self, done):
        workplace, _, _ = done
        search = workplace.search_run()
        assert search.info.status == "FINISHED"
        assert search.info.run_name == f"{self.name} {self.model} on {self.data}"
        trials = self.trials(done)
        assert [int(t.data.tags["trialbook.trial"]) for t in trials] == list(range(len(trials)))
        assert {t.info.status for t in trials} == {"FINISHED"}
        (retrain,) = workplace.runs("retrain")
        assert retrain.data.tags["mlflow.parentRunId"] == search.info.run_id
        assert retrain.info.status == "FINISHED"

    def test_a_trial_has_its_hyperparameters_and_nothing_else_as_parameters(self, done):
        for trial in self.trials(done):
            assert set(trial.data.params) == set(self.params)

    def test_a_trials_name_explains_itself(self, done):
        trial = self.trials(done)[0]
        assert trial.info.run_name.startswith("000 ")
        for name in self.params:
            assert f"{name}=" in trial.info.run_name

    def test_a_trial_has_its_objective_its_folds_and_its_times(self, done):
        workplace, _, _ = done
        for trial in self.trials(done):
            metrics = trial.data.metrics
            folds = [m.value for m in workplace.client.get_metric_history(trial.info.run_id, "objective_fold")]
            assert metrics["objective"] == pytest.approx(sum(folds) / len(folds))
            assert math.isfinite(metrics["objective_std"])
            assert metrics["fit_seconds"] > 0
            assert metrics["score_seconds"] > 0

    def test_a_trial_has_tags_to_tell_and_replay_it(self, done):
        told = []
        for trial in self.trials(done):
            tags = trial.data.tags
            assert tags["trialbook.search"] == self.name
            assert tags["trialbook.model"] == self.model
            assert tags["trialbook.state"] == "complete"
            assert tags["trialbook.attempt"] == "1"
            told.append(int(tags.get("trialbook.told", tags["trialbook.trial"])))
        assert sorted(told) == list(range(len(told)))

    def test_a_trials_model_is_ready_linked_and_predicts(self, done):
        import mlflow.pyfunc
        from sklearn.metrics import accuracy_score

        workplace, _, _ = done
        X, y = self.rows()
        for trial in self.trials(done)[:2]:
            (output,) = trial.outputs.model_outputs
            model = workplace.client.get_logged_model(output.model_id)
            assert str(model.status) == "READY"
            assert model.params == trial.data.params
            assert {m.key: m.value for m in model.metrics}["objective"] == trial.data.metrics["objective"]
            folder = model.artifact_location
            loaded = mlflow.pyfunc.load_model(folder)
            assert loaded.metadata.signature is not None
            # Trained on most of these rows: what the trial promised must be near what the model does.
            assert accuracy_score(y, loaded.predict(X)) == pytest.approx(trial.data.metrics["objective"], abs=0.1)

    def test_the_search_run_has_configuration_overrides_data_and_best_values(self, done):
        import yaml

        workplace, _, _ = done
        search = workplace.search_run()
        assert yaml.safe_load(workplace.text(search, "config.yaml"))["seed"] == 1
        assert yaml.safe_load(workplace.text(search, "overrides.yaml")) == list(self.job)
        inputs = {i.tags[0].value: i.dataset for i in search.inputs.dataset_inputs}
        assert set(inputs) == {"training", "testing"}
        assert {i.name for i in inputs.values()} == {self.data}
        assert inputs["training"].digest == search.data.tags["trialbook.data_digest"]
        best = max(self.trials(done), key=lambda t: t.data.metrics["objective"])
        assert search.data.metrics["best_objective"] == best.data.metrics["objective"]
        assert search.data.tags["trialbook.best_run"] == best.info.run_id
        assert {name: search.data.tags[f"best_{name}"] for name in self.params} == best.data.params
        assert search.data.metrics["trials_complete"] == len(self.trials(done))
        assert search.data.metrics["trials_failed"] == 0

    def test_the_search_run_has_a_leaderboard_a_report_and_a_note(self, done):
        workplace, _, _ = done
        search = workplace.search_run()
        assert {"leaderboard.json", "leaderboard.csv", "report.html"} <= workplace.artifacts(search)
        board = workplace.text(search, "leaderboard.csv").splitlines()
        assert len(board) == 1 + len(self.trials(done))
        assert {"rank_test_score", "mean_test_score", "std_test_score", "params"} <= set(board[0].split(","))
        report = workplace.text(search, "report.html")
        assert "Plotly.newPlot" in report
        assert 'src="http' not in report
        note = search.data.tags["mlflow.note.content"]
        assert f"models:/{self.data}@champion" in note
        assert "trialbook search=" in note or "trialbook data=" in note

    def test_the_final_model_is_retrained_tested_once_and_champion(self, done):
        from sklearn.metrics import accuracy_score

        workplace, out, _ = done
        (retrain,) = workplace.runs("retrain")
        search = workplace.search_run()
        assert retrain.data.tags["trialbook.trial_run"] == search.data.tags["trialbook.best_run"]
        assert {"test_confusion_matrix.png", "test_roc_curve_plot.png"} <= workplace.artifacts(retrain)
        assert retrain.data.metrics["test_accuracy"] == pytest.approx(retrain.data.metrics["test_accuracy_score"])
        version = workplace.client.get_model_version_by_alias(self.data, "champion")
        assert version.run_id == retrain.info.run_id
        assert version.tags["trialbook.trial_run"] == search.data.tags["trialbook.best_run"]
        assert f"Registered {self.data} version 1 as champion" in out
        X_test, y_test = self.test_rows()
        assert len(y_test) == self.n_test
        predicted = predict_elsewhere(workplace, f"models:/{self.data}@champion", X_test)
        assert accuracy_score(y_test, predicted) == retrain.data.metrics["test_accuracy"]

    def test_the_output_is_plain_lines_then_the_leaderboard_and_the_way_to_the_ui(self, done):
        _, out, err = done
        n = len(self.trials(done))
        lines = out.splitlines()
        assert sum(line.startswith("[") for line in lines) == n
        assert f"[{n}/{n}] trial" in out
        assert "mlflow ui --backend-store-uri" in lines[-1]
        assert err == ""

    def rows(self):
        bunch = self.load()
        return bunch.data, bunch.target

    def test_rows(self):
        from sklearn.model_selection import train_test_split

        X, y = self.rows()
        _, X_test, _, y_test = train_test_split(X, y, test_size=0.2, random_state=0, stratify=y)
        return X_test, y_test

    test_rows.__test__ = False


class TestGridOverAPipeline(Record):
    job = (*GRID, "model=logistic_regression")
    params = ("C", "class_weight")
    name, model, data, n_test = "sklearn/grid", "logistic_regression", "breast_cancer", 114

    def load(self):
        from sklearn.datasets import load_breast_cancer

        return load_breast_cancer(as_frame=True)

    def test_it_tries_every_point(self, done):
        tried = [tuple(t.data.params.values()) for t in self.trials(done)]
        assert len(set(tried)) == len(tried) == 12


class TestHyperbandOverANet(Record):
    job = ("search=keras_tuner/hyperband", *HYPERBAND)
    params = ("units", "learning_rate", "dropout")
    name, model, data, n_test = "keras_tuner/hyperband", "mlp", "digits", 360

    def load(self):
        from sklearn.datasets import load_digits

        return load_digits(as_frame=True)

    def test_every_epoch_is_a_point_of_the_curves(self, done):
        workplace, _, _ = done
        for trial in self.trials(done):
            tags = trial.data.tags
            expected = list(range(int(tags["trialbook.initial_epoch"]), int(tags["trialbook.epochs"])))
            for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
                history = workplace.client.get_metric_history(trial.info.run_id, name)
                assert [m.step for m in history] == expected

    def test_the_objective_is_the_best_epochs(self, done):
        workplace, _, _ = done
        for trial in self.trials(done):
            curve = {m.step: m.value for m in workplace.client.get_metric_history(trial.info.run_id, "val_accuracy")}
            assert trial.data.metrics["objective"] == pytest.approx(max(curve.values()))
            best_epoch = int(trial.data.tags["trialbook.best_epoch"])
            assert curve[best_epoch - 1] == pytest.approx(max(curve.values()))

    def test_the_winner_is_retrained_for_its_best_epoch_count(self, done):
        workplace, _, _ = done
        (retrain,) = workplace.runs("retrain")
        best = workplace.client.get_run(retrain.data.tags["trialbook.trial_run"])
        epochs = int(best.data.tags["trialbook.best_epoch"])
        history = workplace.client.get_metric_history(retrain.info.run_id, "loss")
        assert [m.step for m in history] == list(range(epochs))

    def test_continued_trials_name_what_they_continue(self, done):
        by_number = {t.data.tags["trialbook.trial"]: t for t in self.trials(done)}
        continued = [t for t in by_number.values() if "trialbook.continues" in t.data.tags]
        assert continued
        for trial in continued:
            earlier = by_number[trial.data.tags["trialbook.continues"]]
            assert trial.data.params == earlier.data.params
            assert trial.data.tags["trialbook.initial_epoch"] == earlier.data.tags["trialbook.epochs"]

    def test_the_bare_net_loads_too(self, done):
        import mlflow.keras

        workplace, _, _ = done
        (output,) = self.trials(done)[0].outputs.model_outputs
        net = mlflow.keras.load_model(workplace.client.get_logged_model(output.model_id).artifact_location)
        assert net.output_shape == (None, 10)


class TestGridOverANet(Record):
    job = (*GRID, "model=mlp", "model.estimator.steps.1.1.epochs=2", "~model.space.units", "~model.space.dropout")
    params = ("learning_rate",)
    name, model, data, n_test = "sklearn/grid", "mlp", "breast_cancer", 114

    load = TestGridOverAPipeline.load

    def test_each_fold_has_its_own_curves(self, done):
        workplace, _, _ = done
        for trial in self.trials(done):
            for fold in range(3):
                history = workplace.client.get_metric_history(trial.info.run_id, f"fold_{fold}/val_loss")
                assert [m.step for m in history] == [0, 1]
