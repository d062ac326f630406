"""Row 5: a thousand trials of an objective that takes no time, each a run of its own in a SQLite database.

All draw three whole numbers at random. What remains is what each library costs, and its way of writing into MLflow.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from benchmarks import measure

NAMES = ("a", "b", "c")


def objective(values: Mapping[str, int]) -> float:
    """A number from 0 to 1."""
    return sum(values[name] for name in NAMES) / 66


def optuna_storage(trials: int) -> dict[str, Any]:
    """Optuna, whose storage is MLflow."""
    import mlflow
    import optuna
    from mlflow.optuna.storage import MlflowStorage

    measure.open_store()
    storage = MlflowStorage(mlflow.get_experiment_by_name("comparison").experiment_id)
    seconds, study = _optimized(optuna, trials, storage=storage)
    return {"seconds": seconds, "trials": measure.recorded("params.a LIKE '%'"), "score": study.best_value}


def optuna_callback(trials: int) -> dict[str, Any]:
    """Optuna, with the callback of its integration."""
    import mlflow
    import optuna
    from optuna_integration import MLflowCallback

    measure.open_store()
    callback = MLflowCallback(mlflow.get_tracking_uri(), metric_name="objective")
    seconds, study = _optimized(optuna, trials, callbacks=[callback])
    return {"seconds": seconds, "trials": measure.recorded("params.a LIKE '%'"), "score": study.best_value}


def _optimized(optuna: Any, trials: int, storage: Any = None, **options: Any) -> tuple[float, Any]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    started = time.perf_counter()
    study = optuna.create_study(
        storage=storage, study_name="instant", direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1)
    )
    study.optimize(
        lambda trial: objective({name: trial.suggest_int(name, 1, 22) for name in NAMES}), n_trials=trials, **options
    )
    if storage is not None:
        storage.flush_all_batches()
    return time.perf_counter() - started, study


def ray_tune(trials: int) -> dict[str, Any]:
    """Ray Tune, with its callback."""
    import mlflow
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    measure.open_store()
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR")
    callback = MLflowLoggerCallback(mlflow.get_tracking_uri(), experiment_name="comparison")
    tuner = tune.Tuner(
        lambda values: {"objective": objective(values)},
        param_space={name: tune.randint(1, 23) for name in NAMES},
        tune_config=tune.TuneConfig(metric="objective", mode="max", num_samples=trials),
        run_config=tune.RunConfig(callbacks=[callback], verbose=0),
    )
    started = time.perf_counter()
    best = tuner.fit().get_best_result().metrics["objective"]
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "trials": measure.recorded("params.a LIKE '%'"), "score": best}


def ours(trials: int) -> dict[str, Any]:
    """Trialbook's loop, its random search and its journal in MLflow, without a model: there is none."""
    import mlflow

    from trialbook.envelope import Envelope
    from trialbook.executors import SerialExecutor
    from trialbook.journal import Models, SearchRun
    from trialbook.search import loop
    from trialbook.search.sklearn import RandomSearch
    from trialbook.space import Space
    from trialbook.store import Store
    from trialbook.trial import Result, State

    measure.open_store()

    def scored(trial: Any, log: Any) -> Result:
        value = objective(trial.params)
        result = Result(State.COMPLETE, objective=value, objective_std=0.0, fold_scores=(value,))
        log.finish(result)
        return result

    started = time.perf_counter()
    store = Store(mlflow.get_tracking_uri())
    client = store.open()
    experiment_id = client.get_experiment_by_name("comparison").experiment_id
    run_id = client.create_run(experiment_id, tags={}).info.run_id
    nothing = Envelope(None, {}, {})
    journal = SearchRun(store, run_id, experiment_id, tags={}, envelope=nothing, maximize=True, models=Models(0))
    search = RandomSearch(Space.parse({name: {"low": 1, "high": 22} for name in NAMES}), n_iter=trials, seed=1)
    outcome = loop.run(search, SerialExecutor(), scored, journal)
    journal.finish(outcome.best)
    client.set_terminated(run_id, "FINISHED")
    seconds = time.perf_counter() - started
    recorded = measure.recorded("tags.`trialbook.kind` = 'trial'")
    return {"seconds": seconds, "trials": recorded, "score": outcome.best.objective}


if __name__ == "__main__":
    measure.main(optuna_storage=optuna_storage, optuna_callback=optuna_callback, ray_tune=ray_tune, ours=ours)
