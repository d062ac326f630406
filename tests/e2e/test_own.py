"""Somebody's own modules and configurations, beside their work and outside the repository."""

import shutil
from pathlib import Path

import pytest

OWN = Path(__file__).parents[1] / "own"

pytestmark = pytest.mark.slow


@pytest.fixture(name="project")
def make_project(workplace):
    """A folder with conf/ and, next to it, mine.py; and a workplace elsewhere."""
    project = workplace.folder / "project"
    shutil.copytree(OWN, project)
    return project, workplace.inside("elsewhere")


def test_a_module_next_to_the_configurations_is_found_from_anywhere(project):
    folder, elsewhere = project
    elsewhere.run(f"--config-dir={folder}/conf", "data=people", "model=logistic", "search=sklearn/grid")
    search = elsewhere.search_run()
    assert search.data.tags["trialbook.model"] == "logistic"
    # The command on record finds them, too.
    assert f"trialbook --config-dir={folder}/conf data=people" in search.data.tags["mlflow.note.content"]


@pytest.mark.exhaustive
@pytest.mark.parametrize("model", ["tree", "net", "tuned", "wide_and_deep"])
def test_models_of_every_style_are_searched_with_modules_from_elsewhere(project, model):
    folder, elsewhere = project
    data = "breast_cancer" if model == "tree" else "people"
    out, _ = elsewhere.run("--config-dir", f"{folder}/conf", f"data={data}", f"model={model}", "search=sklearn/grid")
    assert f"Registered {data} version 1 as champion" in out


@pytest.mark.exhaustive
@pytest.mark.parametrize(("model", "data"), [("layered", "people"), ("clipped", "breast_cancer")])
def test_what_only_pickle_can_save_is_saved_when_that_is_allowed(project, model, data):
    folder, elsewhere = project
    words = (f"--config-dir={folder}/conf", f"data={data}", f"model={model}", "search=sklearn/grid")
    _, err = elsewhere.run(*words, code=2)
    assert "needs pickle" in err
    assert not (elsewhere.folder / "mlflow.db").exists()
    elsewhere.run(*words, "tracking.allow_pickle=true")
    # A champion that runs code when it is loaded is not loaded without the user's word.
    out, _ = elsewhere.run(
        f"--config-dir={folder}/conf",
        f"data={data}",
        "model=logistic" if data == "people" else "model=svm",
        "search=sklearn/grid",
        "budget.max_trials=1",
        "data.test_seed=5",
    )
    assert "as challenger" in out
    assert "cannot be scored on these test rows" in out
