"""Drivers of searches that can be killed at any moment: the command, each time in a process of its own.

To start Python and to import everything takes longer than a small search. So one process imports, and every run of the
command is a fork of it. A fork kills itself with SIGKILL where it is told to: after so many calls that change the
store, or that tell the process that writes for it, and a moment later if a delay is given.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

TRACKING = (
    *("create_experiment", "create_run", "update_run_info", "log_batch", "log_metric", "log_param", "set_tag"),
    *("delete_tag", "log_inputs", "log_outputs", "create_logged_model", "finalize_logged_model"),
    *("log_logged_model_params", "set_logged_model_tags", "delete_logged_model"),
)
REGISTRY = (
    *("create_registered_model", "create_model_version", "set_registered_model_alias"),
    *("set_registered_model_tag", "set_model_version_tag", "transition_model_version_stage", "update_model_version"),
)
ARTIFACTS = ("log_artifact", "log_artifacts", "delete_artifacts")


class Drivers:
    """One process that imports everything, and the runs of the command that are forked from it."""

    def __init__(self, workplace, *imported):
        self.workplace = workplace
        self._log = (workplace.folder / "drivers.log").open("a")
        self._process = subprocess.Popen(
            [sys.executable, __file__, *imported],
            cwd=workplace.folder,
            env=workplace.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()
        self._log.close()

    def run(self, *words, kill_after=None, delay=0.0):
        """Run the command; returns its exit code (None if it was killed), what it said, and how it changed the store.

        `kill_after` is how many changes it may make, `delay` how many seconds it then still has.
        """
        order = {"words": words, "kill_after": kill_after, "delay": delay}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return answer["code"], answer["said"], answer["changes"]


def serve():
    """Run what is ordered on standard input, one line of JSON each."""
    import importlib

    from trialbook.__main__ import main

    for name in ("trialbook.app", "mlflow.models.evaluation", "optuna.visualization", "plotly.io", *sys.argv[1:]):
        importlib.import_module(name)
    out = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        order = json.loads(line)
        said, changes = Path("said.txt"), Path("changes.txt")
        changes.write_text("")
        if (pid := os.fork()) == 0:
            file = os.open(said, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
            os.dup2(file, 1)
            os.dup2(file, 2)
            watch(changes, order["kill_after"], order["delay"])
            code = main(order["words"])
            sys.stdout.flush()
            os._exit(code)
        _, status = os.waitpid(pid, 0)
        code = None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)
        answer = {"code": code, "said": said.read_text(), "changes": changes.read_text().split()}
        print(json.dumps(answer), file=out, flush=True)


def watch(changes, kill_after, delay):
    """Note every call that changes the store, and kill this process after so many."""
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Registry
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Tracking

    from trialbook import saved_model
    from trialbook.scribe import Scribe

    made = []

    def count(name):
        made.append(name)
        with changes.open("a") as file:
            file.write(f"{name}\n")
        if len(made) == kill_after:
            if delay:
                threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
            else:
                os.kill(os.getpid(), signal.SIGKILL)

    def counted(name, method):
        def call(*args, **kwargs):
            answer = method(*args, **kwargs)
            count(name)
            return answer

        return call

    def passed_on(scribe, what, *args, pass_on=Scribe._pass_on):
        answer = pass_on(scribe, what, *args)
        count(f"scribe.{what}")
        return answer

    Scribe._pass_on = passed_on
    # A local model is written straight to its place.
    owners = ((Tracking, TRACKING), (Registry, REGISTRY), (LocalArtifactRepository, ARTIFACTS), (saved_model, ["save"]))
    for owner, names in owners:
        for name in names:
            setattr(owner, name, counted(name, getattr(owner, name)))


if __name__ == "__main__":
    serve()
