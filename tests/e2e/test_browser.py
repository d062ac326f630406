"""What people see: the search, its trials, its note and its report in MLflow's own UI, in a headless Chromium."""

import pytest
from browser import CHROMEDRIVER, CHROMIUM, MISSING, Browser, mlflow_ui

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.skipif(not (CHROMIUM and CHROMEDRIVER), reason=MISSING),
]

MODEL = ("data=breast_cancer", "model=svm", "model.space.C.num=2", "model.space.gamma.num=2", "tracking.models=none")


@pytest.fixture(scope="module", name="site")
def serve_searches(make_workplace_in):
    """Two searches of different libraries on one model, and a UI on their store."""
    workplace = make_workplace_in("browser")
    out, _ = workplace.run(*MODEL, "search=sklearn/grid", "validation=stratified_kfold")
    workplace.told = out.split()[-1]
    workplace.run(*MODEL, "search=keras_tuner/bayesian", "search.oracle.max_trials=5", "promote.enabled=false")
    with mlflow_ui(workplace.uri, workplace.folder / "ui.log") as address:
        yield workplace, f"{address}/#/experiments/{workplace.runs('search')[0].info.experiment_id}"


@pytest.fixture(scope="module", name="grid_run")
def find_grid(site):
    (run,) = [run for run in site[0].runs("search") if run.info.run_name.startswith("sklearn/grid")]
    return run


@pytest.fixture(scope="module", name="browser")
def start_browser():
    with Browser.started() as browser:
        yield browser


def trials_below(workplace, run):
    return [trial for trial in workplace.runs("trial") if trial.data.tags["mlflow.parentRunId"] == run.info.run_id]


def test_trials_stand_below_their_search(site, browser, grid_run):
    workplace, experiment = site
    browser.open(f"{experiment}/runs", "sklearn/grid svm on breast_cancer", "keras_tuner/bayesian svm on breast_cancer")
    trial = trials_below(workplace, grid_run)[0]
    assert trial.info.run_name not in browser.text
    browser.expand("sklearn/grid")
    browser.wait_for(trial.info.run_name)


def test_the_address_that_the_command_tells_shows_the_runs(site):
    workplace, experiment = site
    address = workplace.told.replace("http://127.0.0.1:5000", experiment.partition("/#/")[0])
    # A newcomer's browser, in which nothing has been chosen yet.
    with Browser.started() as browser:
        browser.open(address, "sklearn/grid svm on breast_cancer", "Model registry")
        assert "Judges" not in browser.text


def test_the_search_shows_its_note(site, browser, grid_run):
    browser.open(
        f"{site[1]}/runs/{grid_run.info.run_id}", "6 trials: 6 complete.", "Registered breast_cancer version 1"
    )


def test_the_report_is_drawn_inside_the_artifact_view(site, browser, grid_run):
    browser.open(f"{site[1]}/runs/{grid_run.info.run_id}/artifacts/report.html", "report.html")
    with browser.inside_frame():
        browser.wait_for("Leaderboard")
        drawn = browser.find(".js-plotly-plot .main-svg")
        assert len(drawn) >= 4
        assert all(svg.size["width"] > 100 and svg.size["height"] > 50 for svg in drawn)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_report_alone_fits_a_phone_offline_in_light_and_dark(site, grid_run, tmp_path, dark):
    page = tmp_path / "report.html"
    page.write_text(site[0].text(grid_run, "report.html"))
    with Browser.started(390, 800, dark=dark) as browser:
        browser.open(page.as_uri(), "Leaderboard", "Timeline")
        assert len(browser.find(".js-plotly-plot .main-svg")) >= 4
        assert browser.driver.execute_script("return document.documentElement.scrollWidth") <= 390
        paper = browser.driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert paper == ("rgb(22, 24, 29)" if dark else "rgb(255, 255, 255)")
        loaded = browser.driver.execute_script("return performance.getEntriesByType('resource').map((r) => r.name)")
        assert not [name for name in loaded if name.startswith("http")]


def test_trials_of_both_libraries_stand_in_one_comparison(site, browser):
    workplace, experiment = site
    trials = workplace.runs("trial")
    names = {name for trial in trials for name in trial.data.params}
    assert names == {"kernel", "C", "gamma"}
    assert all("objective" in trial.data.metrics for trial in trials)
    address, _, number = experiment.rpartition("/#/experiments/")
    browser.compare(address, number, [trial.info.run_id for trial in trials])
    # Of the chart, not of the table below it.
    axes = [axis.text for axis in browser.find(".parcoords .axis-title")]
    assert sorted(axes) == sorted([*names, "objective"])
