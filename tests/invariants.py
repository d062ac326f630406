"""What holds in a store after every search, whatever happened while it ran.

`check(workplace)` reads everything from the store and fails with the first thing that does not hold. It needs a
workplace's `client` and `uri` only, so that it works on a tracking server as well as on a local store.
"""

import inspect
import json
import math
from collections import defaultdict
from pathlib import Path

TERMINAL = {"FINISHED", "FAILED", "KILLED"}
STATES = {"FINISHED": "complete", "FAILED": "failed", "KILLED": "killed"}


def check(workplace):
    """Assert the invariants of every search in the workplace's store."""
    client = workplace.client
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = every(client.search_runs, experiments)
    for run in runs:
        assert run.info.status in TERMINAL, f"{name(run)} is {run.info.status}"
    models = defaultdict(list)
    for model in every(client.search_logged_models, experiments):
        models[model.source_run_id].append(model)
    searches = [run for run in runs if kind(run) == "search"]
    assert searches, "there is no search"
    for search in searches:
        below = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == search.info.run_id]
        check_search(client, search, [run for run in below if kind(run) == "trial"], models)
        check_final_step(search, [run for run in below if kind(run) == "retrain"])
    check_registered(workplace, {run.info.run_id: run for run in runs})


def check_search(client, search, trials, models):
    """One run for each trial and attempt; parameters as asked; the best is the best."""
    if not trials and "config.yaml" not in {file.path for file in client.list_artifacts(search.info.run_id)}:
        assert search.info.status == "KILLED", f"{name(search)} never said what it was about"
        return
    config = config_of(client, search)
    attempts = defaultdict(dict)
    for trial in trials:
        number, attempt = (int(trial.data.tags[f"trialbook.{tag}"]) for tag in ("trial", "attempt"))
        assert attempt not in attempts[number], f"{name(trial)} has two runs for attempt {attempt}"
        attempts[number][attempt] = trial
    assert sorted(attempts) == list(range(len(attempts))), f"trials {sorted(attempts)} of {name(search)}"
    proposed = proposals(config)
    for number, runs in attempts.items():
        assert sorted(runs) == list(range(1, len(runs) + 1)), f"trial {number} has attempts {sorted(runs)}"
        last = runs[len(runs)]
        for trial in runs.values():
            asked = last.data.params if proposed is None else proposed[number]
            assert trial.data.params == asked, f"{name(trial)} was asked {asked}, has {trial.data.params}"
            assert trial is last or trial.info.status != "FINISHED", f"trial {number} went on after it had finished"
            check_trial(trial, models[trial.info.run_id], keeps_models=config.tracking.models == "all")
    check_best(search, [runs[len(runs)] for runs in attempts.values()])


def check_trial(trial, models, *, keeps_models):
    """A run's status, state, result and model tell the same story."""
    tags, metrics = trial.data.tags, trial.data.metrics
    assert tags["trialbook.state"] == STATES[trial.info.status], f"{name(trial)}: {tags['trialbook.state']}"
    assert "PENDING" not in {str(model.status) for model in models}, f"{name(trial)} has a model that is PENDING"
    if trial.info.status != "FINISHED":
        assert trial.info.status != "FAILED" or tags.get("trialbook.reason"), f"{name(trial)} failed without a reason"
        return
    assert math.isfinite(metrics["objective"]), f"{name(trial)} has the objective {metrics['objective']}"
    assert json.loads(tags["trialbook.result"])["objective"] == metrics["objective"]
    if keeps_models:
        (output,) = trial.outputs.model_outputs
        assert {model.model_id: str(model.status) for model in models}[output.model_id] == "READY", name(trial)
        assert next(m for m in models if m.model_id == output.model_id).params == trial.data.params


def check_best(search, trials):
    """What the search run says about its trials is what they say themselves."""
    metrics, tags = search.data.metrics, search.data.tags
    complete = [trial for trial in trials if trial.info.status == "FINISHED"]
    if search.info.status == "FINISHED":
        assert complete, f"{name(search)} finished without a complete trial"
        assert "trialbook.best_run" in tags, f"{name(search)} finished without a best trial"
        assert metrics["trials_complete"] == len(complete)
        assert metrics["trials_failed"] == sum(trial.info.status == "FAILED" for trial in trials)
    if "trialbook.best_run" not in tags:
        return
    # Of a halving search, trials on the most resources beat the others.
    rung = max(int(trial.data.tags.get("trialbook.iteration", 0)) for trial in complete)
    final = [trial for trial in complete if int(trial.data.tags.get("trialbook.iteration", 0)) == rung]
    sign = 1 if tags["trialbook.direction"] == "maximize" else -1
    best = max(final, key=lambda t: (sign * t.data.metrics["objective"], -int(t.data.tags["trialbook.trial"])))
    assert tags["trialbook.best_run"] == best.info.run_id, f"the best is {name(best)}, not {tags['trialbook.best_run']}"
    assert metrics["best_objective"] == best.data.metrics["objective"]
    assert {k.removeprefix("best_"): v for k, v in tags.items() if k.startswith("best_")} == best.data.params


def check_final_step(search, retrains):
    """Each winner was retrained at most once, and the last of them is the best trial."""
    done = sorted((run for run in retrains if run.info.status == "FINISHED"), key=lambda run: run.info.start_time)
    retrained = [run.data.tags["trialbook.trial_run"] for run in done]
    assert len(set(retrained)) == len(retrained), f"{name(search)} was retrained more than once: {retrained}"
    assert not retrained or retrained[-1] == search.data.tags["trialbook.best_run"]


def check_registered(workplace, runs):
    """Every registered version comes from a finished retraining, loads, and predicts."""
    import mlflow.artifacts
    import mlflow.pyfunc

    client = workplace.client
    retrained = []
    for registered in client.search_registered_models():
        for version in client.search_model_versions(f"name = '{registered.name}'"):
            run = runs[version.run_id]
            assert (kind(run), run.info.status) == ("retrain", "FINISHED"), f"version {version.version}: {name(run)}"
            retrained.append(version.run_id)
            model = client.get_logged_model(version.source.removeprefix("models:/"))
            assert str(model.status) == "READY"
            folder = mlflow.artifacts.download_artifacts(model.artifact_location, tracking_uri=workplace.uri)
            loaded = mlflow.pyfunc.load_model(folder)
            rows = loaded.input_example
            assert len(loaded.predict(rows)) == len(rows)
    assert len(set(retrained)) == len(retrained), "a retrained model has been registered twice"


def config_of(client, search):
    """The configuration that is on a search's run."""
    from omegaconf import OmegaConf

    return OmegaConf.create(Path(client.download_artifacts(search.info.run_id, "config.yaml")).read_text())


def proposals(config):
    """Each trial's parameters in the order of asking; None for a search whose results decide what it proposes."""
    import hydra.utils

    from trialbook.space import Space
    from trialbook.tracking import text

    if config.search["_target_"].rpartition(".")[2] not in ("GridSearch", "RandomSearch"):
        return None
    make = hydra.utils.instantiate(config.search, _partial_=True, _convert_="all")
    offered = {"space": Space.parse(config.model.space), "seed": config.seed}
    search = make(**{key: value for key, value in offered.items() if key in inspect.signature(make).parameters})
    return [{key: text(value) for key, value in trial.params.items()} for trial in iter(search.ask, None)]


def every(find, experiments):
    """All pages of what a client's search call finds."""
    found, token = [], None
    while True:
        page = find(experiments, page_token=token, max_results=100)
        found.extend(page)
        if not (token := page.token):
            return found


def kind(run):
    return run.data.tags.get("trialbook.kind")


def name(run):
    return f"{kind(run)} run {run.info.run_name} ({run.info.run_id}, {run.info.status})"
