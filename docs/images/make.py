"""Make the pictures in this folder anew: `python docs/images/make.py`, with Chromium and its driver installed.

Three searches of one net, one by scikit-learn and two by Keras Tuner, in a scratch store; then MLflow's own UI on it.
"""

import io
import sys
import tempfile
import time
from pathlib import Path

from mlflow import MlflowClient
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import trialbook
from trialbook.estimator import KerasClassifier
from trialbook.models import mlp

HERE = Path(__file__).parent
sys.path.append(str(HERE.parents[1] / "tests"))
from browser import Browser, mlflow_ui  # noqa: E402  the tests are no package

SPACE = {
    "units": {"low": 32, "high": 256, "step": 32, "num": 3},
    "learning_rate": [1e-2, 1e-3, 1e-4],
    "dropout": [0.0, 0.3],
}
SEARCHES = (
    "sklearn/grid",
    {"keras_tuner/bayesian": {"max_trials": 12}},
    {"keras_tuner/hyperband": {"max_epochs": 6, "factor": 3}},
)
_COLOURS = 256


def search(uri):
    """Run the searches."""
    X, y = load_digits(return_X_y=True, as_frame=True)
    model = make_pipeline(StandardScaler(), KerasClassifier(mlp, epochs=6, seed=1))
    for each in SEARCHES:
        aim = {"metric": "accuracy", "epoch": "best"}
        trialbook.tune(model, SPACE, X, y, search=each, objective=aim, name="digits", tracking={"uri": uri})


def picture(browser, name):
    """Save what the browser shows, once its charts have been drawn, in few colours."""
    time.sleep(3)
    # Without the toolbars that charts show under a mouse.
    browser.driver.execute_script("document.querySelectorAll('.modebar').forEach((bar) => bar.remove())")
    shown = Image.open(io.BytesIO(browser.driver.get_screenshot_as_png())).convert("RGB")
    shown.quantize(_COLOURS, Image.Quantize.FASTOCTREE).save(HERE / f"{name}.png", optimize=True)


def main():
    """Search, then take the pictures."""
    with tempfile.TemporaryDirectory() as folder:
        uri = sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{folder}/mlflow.db"
        if len(sys.argv) == 1:
            search(uri)
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name("trialbook").experiment_id
        runs = client.search_runs([experiment], max_results=1000)
        of_kind = {kind: [r for r in runs if r.data.tags["trialbook.kind"] == kind] for kind in ("search", "trial")}
        (hyperband,) = [r for r in of_kind["search"] if "hyperband" in r.info.run_name]
        best = max(of_kind["trial"], key=lambda run: run.data.metrics["objective"])
        with mlflow_ui(uri, Path(folder, "ui.log")) as address, Browser.started(1280, 1000) as browser:
            page = f"{address}/#/experiments/{experiment}/runs"
            browser.open(page, hyperband.info.run_name)
            browser.press("Model training")
            browser.open(page, hyperband.info.run_name)
            browser.driver.execute_script("document.querySelector(\"button[aria-label='Close']\")?.click()")
            browser.expand(hyperband.info.run_name)
            browser.wait_for("000 ")
            picture(browser, "tree")
            browser.compare(address, experiment, [run.info.run_id for run in of_kind["trial"]])
            picture(browser, "compare")
            browser.open(f"{page}/{best.info.run_id}/model-metrics", "objective")
            browser.find("input[placeholder='Search metric charts']")[0].send_keys("loss|accuracy")
            browser.wait_for("val_loss")
            picture(browser, "curves")
            report = Path(folder, "report.html")
            report.write_bytes(Path(client.download_artifacts(hyperband.info.run_id, "report.html")).read_bytes())
            browser.open(report.as_uri(), "Timeline")
            browser.driver.execute_script("document.querySelectorAll('h2')[2].scrollIntoView()")
            picture(browser, "report")


if __name__ == "__main__":
    main()
