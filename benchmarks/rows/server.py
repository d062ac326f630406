"""Row 7: a sweep of searches against an `mlflow server`, beside the bare requests that the same record takes.

The requests of a first sweep are recorded by a proxy between the two. The peer makes them again, one after the other in
one session and without a client, against a fresh server; ids that a server gives are put in for those of the first one.
Both are timed from the start of a search's first trial to the end of its last, summed over the searches. The model
takes no time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import http.client
import json
import os
import pickle
import re
import signal
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from benchmarks import measure

HOST = "127.0.0.1"
REST_SECONDS = 3.0
TIMED = "first trial's start to last one's end, of each search"
_ID = re.compile(rb"\b(?:m-)?[0-9a-f]{32}\b")


@dataclass(frozen=True)
class Request:
    """A request, and what was answered."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    status: int
    reply: bytes


@contextlib.contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """A running server on a database in the folder, at rest; gives its address."""
    with ThreadingHTTPServer((HOST, 0), BaseHTTPRequestHandler) as found:
        port = found.server_port
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    with (folder / "server.log").open("w") as log:
        server = psutil.Popen(command, cwd=folder, env=kept, stdout=log, stderr=log, start_new_session=True)
    try:
        while True:
            if server.poll() is not None:
                raise SystemExit((folder / "server.log").read_text())
            with contextlib.suppress(urllib.error.URLError, OSError):
                urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=5).close()
                break
            time.sleep(0.1)
        # It answers while the half dozen processes that it has started still load their libraries.
        before, now = -1.0, processor_seconds(server)
        while now - before > 0.02 * REST_SECONDS:
            time.sleep(REST_SECONDS)
            before, now = now, processor_seconds(server)
        yield f"http://{HOST}:{port}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def processor_seconds(server: psutil.Process) -> float:
    """What a process and all below it have taken of the processor so far."""
    total = 0.0
    for process in (server, *server.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:2])
    return total


@contextlib.contextmanager
def recording(uri: str, requests: list[Request]) -> Iterator[str]:
    """A proxy in front of a server that writes down what passes; gives its address."""
    upstream = urlsplit(uri).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            server = http.client.HTTPConnection(upstream, timeout=60)
            server.request(self.command, self.path, body, headers)
            answer = server.getresponse()
            reply = answer.read()
            server.close()
            requests.append(Request(self.command, self.path, headers, body, answer.status, reply))
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

        def log_message(self, *_: Any) -> None:
            """Nothing is said."""

    with ThreadingHTTPServer((HOST, 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://{HOST}:{listening.server_port}"
        finally:
            listening.shutdown()
            thread.join()


@dataclass(frozen=True, eq=False)
class Sweep:
    """The sweep, and its side of the comparison.

    Attributes:
        searches: How many.
        trials: Of each.
    """

    searches: int
    trials: int

    def run(self, folder: Path, uri: str) -> Any:
        """Run it."""
        from benchmarks.harness import ROOT, run

        command = [sys.executable, "-m", "trialbook", f"--config-dir={Path(__file__).with_name('conf')}", "-m"]
        search = ["search=sklearn/random", f"search.n_iter={self.trials}", "model=constant", "data=breast_cancer"]
        seeds = f"seed={','.join(str(seed + 1) for seed in range(self.searches))}"
        return run([*command, *search, seeds, f"tracking.uri={uri}"], folder, {"PYTHONPATH": str(ROOT / "src")})

    def __call__(self, folder: Path) -> Any:
        """Run it against a fresh server, and read from the record how long its searches' trials took."""
        from mlflow import MlflowClient

        with mlflow_server(folder) as uri:
            measured = self.run(folder, uri)
            client = MlflowClient(uri)
            experiments = [experiment.experiment_id for experiment in client.search_experiments()]
            where = "tags.`trialbook.kind` = 'trial' and attributes.status = 'FINISHED'"
            by_search: dict[str, list[Any]] = {}
            for trial in client.search_runs(experiments, where):
                by_search.setdefault(trial.data.tags["mlflow.parentRunId"], []).append(trial.info)
        seconds = [max(t.end_time for t in trials) - min(t.start_time for t in trials) for trials in by_search.values()]
        count = sum(map(len, by_search.values()))
        return dataclasses.replace(measured, seconds=sum(seconds) / 1000, trials=count, lines=())

    @functools.cached_property
    def requests(self) -> bytes:
        """All requests of one such sweep, in the order of their answers."""
        requests: list[Request] = []
        with (
            tempfile.TemporaryDirectory(prefix="comparison-") as folder,
            mlflow_server(Path(folder)) as server,
            recording(server, requests) as uri,
        ):
            self.run(Path(folder), uri)
        return pickle.dumps([dataclasses.astuple(request) for request in requests])


@dataclass(frozen=True, eq=False)
class Replay:
    """The other side: the requests of a sweep, made again."""

    sweep: Sweep

    def __call__(self, folder: Path) -> Any:
        """Make them against a fresh server."""
        from benchmarks.harness import Script

        recorded = folder / "requests.pickle"
        recorded.write_bytes(self.sweep.requests)
        with mlflow_server(folder) as uri:
            return Script("benchmarks.rows.server", "replayed", {"uri": uri, "recorded": str(recorded)})(folder)


@dataclass
class Windows:
    """Seconds from the first trial's start to the last one's end of each search, added up as requests pass."""

    search_of: dict[str, str] = field(default_factory=dict)
    started: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)
    finished: set[str] = field(default_factory=set)

    def passed(self, request: Request, began: float, ended: float) -> None:
        """Take a request into account, under the ids of the record."""
        if request.path.endswith("/runs/create"):
            asked = json.loads(request.body)
            tags = {tag["key"]: tag["value"] for tag in asked["tags"]}
            if tags.get("trialbook.kind") == "trial":
                search = tags["mlflow.parentRunId"]
                self.search_of[json.loads(request.reply)["run"]["info"]["run_id"]] = search
                self.started.setdefault(search, began)
        elif request.path.endswith("/runs/update"):
            asked = json.loads(request.body)
            if asked["run_id"] in self.search_of and asked.get("status") == "FINISHED":
                self.finished.add(asked["run_id"])
                self.ended[self.search_of[asked["run_id"]]] = ended

    @property
    def seconds(self) -> float:
        """The sum."""
        return sum(self.ended[search] - started for search, started in self.started.items())


def replayed(uri: str, recorded: str) -> dict[str, Any]:
    """Make recorded requests against a fresh server; every answer must have the status it had."""
    import requests

    session, windows, ids = requests.Session(), Windows(), {}

    def renamed(content: bytes) -> bytes:
        return _ID.sub(lambda found: ids.get(found[0], found[0]), content)

    for request in (Request(*fields) for fields in pickle.loads(Path(recorded).read_bytes())):
        path, body = renamed(request.path.encode()).decode(), renamed(request.body)
        headers = {name: value for name, value in request.headers.items() if name == "Content-Type"}
        began = time.perf_counter()
        answer = session.request(request.method, uri + path, data=body, headers=headers)
        ended = time.perf_counter()
        if answer.status_code != request.status:
            raise SystemExit(f"{request.method} {path} was answered {answer.status_code}: {answer.text[:500]}")
        if path.endswith("/create") or path.endswith("/logged-models"):
            ids.update(zip(_ID.findall(request.reply), _ID.findall(answer.content), strict=True))
        windows.passed(request, began, ended)
    return {"seconds": windows.seconds, "trials": len(windows.finished)}


if __name__ == "__main__":
    measure.main(replayed=replayed)
