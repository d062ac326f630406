"""Servers for tests: PostgreSQL, `mlflow server`, and a proxy in front of it that loses or refuses what it is told to.

Each is a context manager that leaves nothing running.
"""

import contextlib
import http.client
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

# Where Debian keeps the programs of a server, newest first; elsewhere they are on the path.
_DEBIAN = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
HOST = "127.0.0.1"
# Without the processes for jobs of MLflow's own, half a dozen of them, which look for work all the time.
QUIET = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def free_port():
    """A port that nobody listens on at the moment."""
    with socket.socket() as found:
        found.bind((HOST, 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def postgresql(_=None):
    """A private PostgreSQL server with an empty database; gives its address. Skips where none is installed."""
    pytest.importorskip("psycopg")
    found = shutil.which("initdb") or next((path / "initdb" for path in _DEBIAN), None)
    if found is None:
        pytest.skip("no PostgreSQL server is installed")
    user = {}
    if os.getuid() == 0:
        # The server does not run as root.
        other = next((entry for entry in pwd.getpwall() if entry.pw_name in ("postgres", "nobody")), None)
        if other is None:
            pytest.skip("PostgreSQL does not run as root, and there is nobody else")
        user = {"user": other.pw_uid, "group": other.pw_gid, "extra_groups": []}
    # Not in the test's folder, into which that other user may not go.
    with tempfile.TemporaryDirectory(prefix="trialbook-postgresql-") as data:
        if user:
            os.chown(data, user["user"], user["group"])

        def call(program, *words):
            command = [Path(found).parent / program, "-D", data, *words]
            subprocess.run(command, check=True, cwd=data, stdout=subprocess.DEVNULL, **user)

        call("initdb", "--auth=trust", "--username=trialbook", "--no-sync")
        port = free_port()
        settings = f"-c listen_addresses={HOST} -p {port} -c unix_socket_directories={data} -c fsync=off"
        call("pg_ctl", "start", "--wait", f"--options={settings}", f"--log={data}/log")
        try:
            yield f"postgresql+psycopg://trialbook@{HOST}:{port}/postgres"
        finally:
            call("pg_ctl", "stop", "--wait", "--mode=fast")


@contextlib.contextmanager
def git(folder):
    """A server of the repositories in a folder; gives its address. Skips where git has no server."""
    port = free_port()
    command = [
        "git",
        "daemon",
        "--verbose",
        "--export-all",
        f"--base-path={folder}",
        f"--listen={HOST}",
        f"--port={port}",
    ]
    with subprocess.Popen([*command, str(folder)], stderr=subprocess.PIPE, text=True, start_new_session=True) as server:
        try:
            if "Ready to rumble" not in server.stderr.readline():
                pytest.skip("git has no server here")
            yield f"git://{HOST}:{port}"
        finally:
            # git starts its server as a process of its own.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)


class MlflowServer:
    """`mlflow server` on a backend, with proxied artifacts; it can be stopped and started again."""

    def __init__(self, folder, backend):
        self.folder = folder
        self.backend = backend
        self.port = free_port()
        self.uri = f"http://{HOST}:{self.port}"
        self._process = None

    def start(self):
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        with (self.folder / "server.log").open("a") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(self.port)),
                    *("--workers", "1", "--backend-store-uri", self.backend),
                    *("--artifacts-destination", str(self.folder / "mlartifacts")),
                ],
                cwd=self.folder,
                env={**kept, **QUIET},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            assert self._process.poll() is None, (self.folder / "server.log").read_text()
            with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
                return
            time.sleep(0.1)
        raise AssertionError("mlflow server does not start")

    def stop(self):
        """As a crash stops it, at once."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def mlflow_server(folder, backend=None):
    """A running `mlflow server`, by default on an SQLite database in the folder."""
    server = MlflowServer(folder, backend or f"sqlite:///{folder}/server.db")
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def proxy(server, loses=None, refuses=None):
    """A proxy in front of a server; gives its address.

    `loses(method, path)` says whether to lose the reply to a request that the server has carried out, and
    `refuses(method, path)` whether to answer it with 403 instead of handing it on.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = self.path.partition("?")[0]
            if refuses and refuses(self.command, path):
                self.answer(403, [], b"no more room for you")
                return
            upstream = http.client.HTTPConnection(HOST, server.port, timeout=60)
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            upstream.request(self.command, self.path, body, {**headers, "Host": f"{HOST}:{server.port}"})
            reply = upstream.getresponse()
            content = reply.read()
            upstream.close()
            if loses and loses(self.command, path):
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            kept = [(n, v) for n, v in reply.getheaders() if n.lower() not in ("transfer-encoding", "content-length")]
            self.answer(reply.status, kept, content)

        def answer(self, status, headers, content):
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer((HOST, 0), Handler) as listening:
        listening.daemon_threads = True
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://{HOST}:{listening.server_port}"
        finally:
            listening.shutdown()
            thread.join()
