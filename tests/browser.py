"""A headless Chromium and a real `mlflow ui`, for the test of what people see and for the pictures in docs/images."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from urllib.parse import quote

import servers

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
MISSING = "Chromium and its driver are not installed (apt-get install chromium chromium-driver)"
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
)
_PATIENCE = 120


@contextlib.contextmanager
def mlflow_ui(uri, log):
    """A server of a store's UI; gives its address. What it says goes to the file `log`."""
    port = servers.free_port()
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--port", str(port), "--workers", "1"]
    with (
        open(log, "w") as said,
        subprocess.Popen(command, env={**os.environ, **servers.QUIET}, stdout=said, stderr=said) as server,
    ):
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_until(lambda: _answers(f"{address}/health"), f"mlflow ui does not answer, see {log}")
            yield address
        finally:
            server.terminate()


class Browser:
    """Chromium on one page at a time."""

    def __init__(self, driver):
        self.driver = driver

    @classmethod
    @contextlib.contextmanager
    def started(cls, width=1280, height=800, *, dark=False):
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            for flag in (*_FLAGS, f"--user-data-dir={profile}"):
                options.add_argument(flag)
            driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
            try:
                size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
                driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
                scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
                driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
                yield cls(driver)
            finally:
                driver.quit()

    def open(self, address, *texts):
        """Go to a page and wait for texts on it."""
        self.driver.get(address)
        for text in texts:
            self.wait_for(text)

    @property
    def text(self):
        return self.driver.execute_script("return document.body.innerText") or ""

    def wait_for(self, text):
        _wait_until(lambda: text in self.text, lambda: f"{text!r} is not on the page:\n{self.text[:3000]}")

    def find(self, css):
        """The elements of a page, as soon as there are any."""
        from selenium.webdriver.common.by import By

        found = []

        def look():
            found[:] = self.driver.find_elements(By.CSS_SELECTOR, css)
            return found

        _wait_until(look, lambda: f"there is no {css} on the page:\n{self.text[:3000]}")
        return found

    def press(self, text):
        """Click what says this and nothing else, the innermost such element."""
        self.wait_for(text)
        script = (
            "const all = [...document.querySelectorAll('body *')].filter((e) => (e.innerText || '').trim() === "
            "arguments[0]); all.at(-1).click()"
        )
        self.driver.execute_script(script, text)

    def expand(self, name):
        """Unfold what stands below a run in MLflow's list of runs."""
        self.wait_for(name)
        script = (
            "const link = [...document.querySelectorAll('a')].find((a) => a.innerText.startsWith(arguments[0]));"
            "const sign = link.closest('[role=gridcell]').querySelector('svg').parentElement;"
            "sign.dispatchEvent(new MouseEvent('click', {bubbles: true}))"
        )
        self.driver.execute_script(script, name)

    def compare(self, address, experiment_id, run_ids):
        """Open MLflow's comparison of runs, with `objective` as its metric."""
        from selenium.webdriver.common.keys import Keys

        runs, experiments = (quote(json.dumps(ids)) for ids in (run_ids, [experiment_id]))
        self.open(f"{address}/#/compare-runs?runs={runs}&experiments={experiments}", f"Comparing {len(run_ids)} Runs")
        _parameters, metrics, *_ = self.find("input[role=combobox]")
        metrics.send_keys(Keys.BACKSPACE)  # what MLflow chooses is the first by name
        metrics.send_keys("objective")
        _wait_until(lambda: self.find("[role=option]"), "no metrics are offered")
        metrics.send_keys(Keys.ENTER, Keys.ESCAPE)

    @contextlib.contextmanager
    def inside_frame(self, css="iframe"):
        self.driver.switch_to.frame(self.find(css)[0])
        try:
            yield
        finally:
            self.driver.switch_to.default_content()

    def save(self, path):
        self.driver.save_screenshot(str(path))


def _answers(address):
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def _wait_until(true, complaint):
    deadline = time.monotonic() + _PATIENCE
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(complaint if isinstance(complaint, str) else complaint())
        time.sleep(0.1)
