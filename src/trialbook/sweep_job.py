"""One job of a sweep: a search in a process of its own.

Hydra's launcher calls `launch` wherever it runs its jobs: in the driver, in a worker, on another machine. From there
the search runs in a child process. So a search that exits or is killed takes nothing with it, and the memory that
TensorFlow keeps is given back. The child's standard input is its lifeline: when that closes, it stops.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from trialbook import garbage, interrupts
from trialbook.exits import DONE, FAILED, INTERRUPTED, Ended, ending

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from trialbook.sweep_record import Searched, SweepRun

PARENT_KEY = "sweep.run_id"
# What may be another when a sweep goes on: a search is recognised by the rest of its overrides.
CHANGEABLE = ("budget.", "promote.", "executor.", "executor=", "hydra.", "hydra/", "tracking.uri=", f"{PARENT_KEY}=")

_REQUEST, _ENDED = "request.json", "ended.json"
_POLL_SECONDS = 0.2
_GRACE_SECONDS = 8.0


@dataclass(frozen=True)
class Permit:
    """A file in the folder of a sweep, by which its driver lets the jobs run, wherever they are.

    Attributes:
        path: The file. It holds the driver's process id until the driver withdraws the permit.
    """

    path: Path

    @classmethod
    def of(cls, sweep_dir: str) -> Permit:
        """The permit of the sweep whose folder this is."""
        return cls(Path(sweep_dir, ".driver"))

    def issue(self) -> None:
        """Let jobs run as long as this process does."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(str(os.getpid()))

    def withdraw(self) -> None:
        """Let jobs stop, and no other start."""
        self.path.write_text("")

    @property
    def withdrawn(self) -> bool:
        """Whether jobs are to stop; where the sweep's folder cannot be seen, nobody can say so."""
        return self.path.exists() and not self.path.read_text()

    @property
    def driver(self) -> int | None:
        """The driver's process id, if it can be told."""
        with contextlib.suppress(OSError, ValueError):
            return int(self.path.read_text())
        return None


def launch(cfg: DictConfig) -> float:
    """Run one job of a sweep.

    Returns:
        The objective of its best trial in its original sign, for whatever sweeper asks; NaN if it has none.
    """
    from hydra.core.hydra_config import HydraConfig

    from trialbook import store
    from trialbook.launching import flags_again
    from trialbook.sweep_record import Job, SweepRun
    from trialbook.trial import State

    hydra_config = HydraConfig.get()
    permit = Permit.of(hydra_config.sweep.dir)
    if permit.withdrawn:
        return math.nan
    overrides = [word for word in hydra_config.overrides.task if not word.startswith(f"{PARENT_KEY}=")]
    request: dict[str, Any] = {
        "overrides": overrides,
        "choices": dict(hydra_config.runtime.choices),
        "flags": flags_again(hydra_config.runtime.config_sources),
        "label": f"#{hydra_config.job.num}",
        "live": sys.stdout.isatty() and hydra_config.runtime.choices["hydra/launcher"] == "basic",
    }
    if cfg.sweep.run_id is None:  # a dry run
        return _objective(_run(cfg, request, permit))
    words = shlex.join(word for word in overrides if not word.startswith(CHANGEABLE))
    job = Job(cfg.sweep.run_id, hydra_config.job.num, words)
    sweep = SweepRun(store.resolve_uri(cfg.tracking.uri), cfg.sweep.run_id)
    cfg.sweep.job, cfg.sweep.overrides = job.number, job.overrides
    past = sweep.search_of(job)
    if past is not None and past.state is State.COMPLETE:
        print(f"{request['label']} {past.title} is complete: objective {past.objective:.4f}", flush=True)
        return past.objective
    _take_up(past, sweep, cfg, request)
    ended = _run(cfg, request, permit)
    if ended.code != DONE:
        state = State.KILLED if permit.withdrawn else State.FAILED
        reason = "the sweep was interrupted" if permit.withdrawn else ended.reason or "it was interrupted"
        sweep.list_ended(job, "{search} {model} on {data}".format(**request["choices"]), state, ended.code, reason)
    return _objective(ended)


def _take_up(past: Searched | None, sweep: SweepRun, cfg: DictConfig, request: dict[str, Any]) -> None:
    """Go on with a search that has begun; one of which too little is on record is begun again."""
    if past is None:
        return
    if not past.can_go_on:
        sweep.client.delete_run(past.run_id)
        return
    cfg.resume = past.run_id
    request["overrides"] = [word for word in request["overrides"] if word.startswith(CHANGEABLE)]


def _objective(ended: Ended[float]) -> float:
    return math.nan if ended.value is None else ended.value


def _run(cfg: DictConfig, request: Mapping[str, Any], permit: Permit) -> Ended[float]:
    """Run the search in a process of its own, and wait for it."""
    from omegaconf import OmegaConf

    with tempfile.TemporaryDirectory(prefix="trialbook-job-") as folder:
        asked = {**request, "config": OmegaConf.to_yaml(cfg, resolve=True)}
        Path(folder, _REQUEST).write_text(json.dumps(asked))
        process = subprocess.Popen(
            # -P: the folder it is started from must not come before the standard library.
            [sys.executable, "-P", "-m", "trialbook.sweep_job", folder],
            stdin=subprocess.PIPE,
            env=_environment(),
        )
        code = _wait(process, permit)
        with contextlib.suppress(FileNotFoundError):
            return Ended(**json.loads(Path(folder, _ENDED).read_text()))
    how = (
        f"ended with exit code {code} before the search had"
        if code >= 0
        else f"was killed by {signal.Signals(-code).name}"
    )
    if not permit.withdrawn:
        print(f"{request['label']} trialbook: its process {how}", file=sys.stderr, flush=True)
    return Ended(FAILED, reason=f"its process {how}")


def _environment() -> dict[str, str]:
    """What the child needs to be like this process. The run of `mlflow run` is the sweep's, not a search's."""
    kept = {name: value for name, value in os.environ.items() if name != "MLFLOW_RUN_ID"}
    return kept | {"PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path)}


def _wait(process: subprocess.Popen[bytes], permit: Permit) -> int:
    """Wait for a child; stop it when the permit is withdrawn, or when the driver that this is a worker of has died."""
    worker = os.getppid() == permit.driver
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a worker at the same terminal: the driver answers a Ctrl-C
    try:
        while not permit.withdrawn and not (worker and os.getppid() != permit.driver):
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(_POLL_SECONDS)
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(_GRACE_SECONDS)
    finally:
        process.kill()
    return process.wait()


class Labelled:
    """A text stream that puts a label before every line, and writes lines whole: several searches may share a pipe.

    Args:
        stream: Where to write.
        label: What to put before each line.
    """

    def __init__(self, stream: TextIO, label: str) -> None:
        self._stream = stream
        self._label = label
        self._begun = ""

    def write(self, text: str) -> int:
        """Write the lines that are complete, and keep what is begun."""
        *lines, self._begun = (self._begun + text).split("\n")
        self._stream.write("".join(f"{self._label} {line}".rstrip() + "\n" for line in lines))
        self._stream.flush()
        return len(text)

    def flush(self) -> None:
        """Nothing that is complete waits."""

    def end(self) -> None:
        """Write a line that was never completed."""
        if self._begun:
            self.write("\n")

    def isatty(self) -> bool:
        """Whether it is a terminal: a line that is drawn again and again cannot be labelled."""
        return False

    def __getattr__(self, name: str) -> Any:
        """Everything else is as the stream has it."""
        return getattr(self._stream, name)


def main(folder: Path) -> int:
    """Run the search that is asked for in a folder, and leave there how it ended; returns the exit code."""
    from omegaconf import OmegaConf

    request = json.loads((folder / _REQUEST).read_text())
    if request["live"]:
        print(f"\n{request['label']} {' '.join(request['overrides'])}", flush=True)
    else:
        sys.stdout, sys.stderr = (Labelled(s, request["label"]) for s in (sys.stdout, sys.stderr))
    _stop_without_lifeline()
    cfg = OmegaConf.create(request["config"])
    ended = _search(cfg, request)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, Labelled):
            stream.end()
    with tempfile.NamedTemporaryFile("w", dir=folder, delete=False) as file:
        json.dump({"code": ended.code, "value": ended.value, "reason": ended.reason}, file)
    os.replace(file.name, folder / _ENDED)
    return ended.code


def _search(cfg: DictConfig, request: Mapping[str, Any]) -> Ended[float]:
    """Run the search; whatever happens is said."""
    try:
        with garbage.uncollected():
            from trialbook import app
            from trialbook.progress import Terminal

        ended = ending(lambda: app.run(cfg, request["overrides"], request["choices"], Terminal(), request["flags"]))
    except KeyboardInterrupt:
        return Ended(INTERRUPTED, reason="it was interrupted")
    except Exception as error:
        traceback.print_exc()
        return Ended(FAILED, reason=f"{type(error).__name__}: {' '.join(str(error).split())}")
    value = None if ended.value is None else ended.value.best.objective
    return Ended(ended.code, value, ended.reason)


def _stop_without_lifeline() -> None:
    """Stop as if interrupted once standard input is closed; a Ctrl-C at the terminal is for the driver to answer."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        main_thread = threading.main_thread().ident
        assert main_thread is not None
        signal.pthread_kill(main_thread, signal.SIGTERM)  # which wakes it from whatever it waits for

    signal.signal(signal.SIGTERM, interrupts.interrupt)
    signal.signal(signal.SIGINT, lambda signum, frame: None)
    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
