"""Every search on every model, as tests/matrix.py lists them: a few trials through the loop, with folds."""

import importlib.util
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from trialbook import app
from trialbook.__main__ import conf_dir
from trialbook.errors import RequestError
from trialbook.executors import SerialExecutor
from trialbook.search import loop
from trialbook.testing import MemoryJournal
from trialbook.trial import State

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("matrix", ROOT / "tests" / "matrix.py")
matrix = importlib.util.module_from_spec(spec)
spec.loader.exec_module(matrix)

WORKING = [(s, m) for s in matrix.SEARCHES for m in matrix.MODELS if matrix.works(s, m)]
REFUSED = [(s, m) for s in matrix.SEARCHES for m in matrix.MODELS if not matrix.works(s, m)]


def plan_of(search, model):
    data, needed = matrix.MODELS[model]
    validation = "kfold" if data == "diabetes" else "stratified_kfold"
    overrides = [f"search={search}", f"model={model}", f"data={data}", f"validation={validation}"]
    overrides += ["validation.n_splits=2"]
    if search == "keras_tuner/hyperband":
        overrides += ["search.oracle.max_epochs=2"]
    elif model in matrix.NETS:
        overrides += ["+model.space.epochs=1"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("config", [*overrides, *needed, "budget.max_trials=2"])
    return app.compose(cfg, {"search": search, "model": model})


@pytest.mark.exhaustive
@pytest.mark.parametrize(("search", "model"), WORKING)
def test_the_search_works_on_the_model(search, model):
    plan = plan_of(search, model)
    journal = MemoryJournal()
    evaluator = plan.evaluator(keep_models=True)
    outcome = loop.run(plan.search, SerialExecutor(), evaluator, journal, budget=plan.budget)
    assert [r.result.state for r in outcome.records] == [State.COMPLETE] * 2, outcome.records[0].result.reason
    for record in outcome.records:
        assert len(record.result.fold_scores) == 2
        assert set(record.trial.params) <= set(plan.space.names)
        ((_, estimator),) = journal.logs[record.trial.number].models
        assert len(estimator.predict(plan.data.X_test)) == len(plan.data.y_test)


@pytest.mark.slow
@pytest.mark.parametrize(("search", "model"), REFUSED)
def test_the_combination_is_refused_before_anything_runs(search, model):
    with pytest.raises(RequestError, match=rf"search={search} hands out training epochs, which model={model} does not"):
        plan_of(search, model).evaluator(keep_models=True)


def test_the_readme_says_what_is_tested():
    assert matrix.table() in (ROOT / "README.md").read_text()
