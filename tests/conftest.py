"""What the tests share: the command in a subprocess, and the store it leaves."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


class Workplace:
    """A folder in which the command is run, with its own SQLite store."""

    def __init__(self, folder):
        self.folder = folder
        self.uri = f"sqlite:///{folder}/mlflow.db"

    def inside(self, name):
        """Another workplace, in a folder of this one."""
        folder = self.folder / name
        folder.mkdir()
        return Workplace(folder)

    def environment(self, **extra):
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        path = os.pathsep.join(filter(None, [str(ROOT / "src"), str(self.folder), os.environ.get("PYTHONPATH")]))
        return {**kept, "PYTHONPATH": path, **extra}

    @contextlib.contextmanager
    def started(self, *words):
        """The command while it runs; whatever becomes of the test, it does not outlive it."""
        process = subprocess.Popen(
            [sys.executable, "-m", "trialbook", *words],
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                yield process
            finally:
                process.kill()

    def run(self, *words, code=0):
        with self.started(*words) as process:
            out, err = process.communicate(timeout=600)
            assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
        return out, err

    def mlflow_run(self, *overrides, options=(), project=ROOT):
        """`mlflow run` of the project with each override as a parameter; its exit code, and all that it printed."""
        environment = self.environment(MLFLOW_TRACKING_URI=self.uri)
        # The project's command says `python`; let that be this one.
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
        outputs = (f"hydra.run.dir={self.folder}/outputs", f"hydra.sweep.dir={self.folder}/multirun")
        parameters = [word for override in (*overrides, *outputs) for word in ("-P", override)]
        done = subprocess.run(
            [sys.executable, "-m", "mlflow", "run", str(project), "--env-manager", "local", *options, *parameters],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        return done.returncode, done.stdout + done.stderr

    @staticmethod
    def read_until(process, start):
        """What a started command prints up to the first line that starts so."""
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith(start):
                return "".join(lines)
        raise AssertionError(f"no line starts with {start!r}:\n{''.join(lines)}\n{process.stderr.read()}")

    @property
    def client(self):
        from mlflow import MlflowClient

        return MlflowClient(self.uri, self.uri)

    def runs(self, kind):
        client = self.client
        experiments = [e.experiment_id for e in client.search_experiments()]
        found = client.search_runs(experiments, f"tags.`trialbook.kind` = '{kind}'", max_results=1000)
        tags = ("trialbook.trial", "trialbook.attempt")
        return sorted(found, key=lambda run: [int(run.data.tags.get(tag, 0)) for tag in tags])

    def search_run(self):
        (run,) = self.runs("search")
        return run

    def artifacts(self, run):
        return {file.path for file in self.client.list_artifacts(run.info.run_id)}

    def text(self, run, name):
        return Path(self.client.download_artifacts(run.info.run_id, name)).read_text()


@pytest.fixture(scope="session", name="make_workplace_in")
def offer_workplaces(tmp_path_factory):
    """For fixtures that serve more than one test: a workplace in a folder of the given name."""
    return lambda name: Workplace(tmp_path_factory.mktemp(name))


@pytest.fixture
def ctrl_c():
    """SIGINT as Python handles it, also in tests that were started in the background, where shells have it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(name="workplace")
def make_workplace(tmp_path):
    return Workplace(tmp_path)


@pytest.fixture(scope="class", name="shared_workplace")
def make_shared_workplace(make_workplace_in):
    return make_workplace_in("workplace")
