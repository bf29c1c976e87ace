"""Small programs in place of the services: they start at once, answer, and have descendants like the real ones."""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.services import discover, lifecycle, report
from flows.services.config import LOOPBACK
from flows.services.programs import Program, Setting, programs
from flows.services.state import NAMES, Name, read_state
from flows.settings import Home

SERVER = """
import http.server, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print("begun", flush=True)
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"fine")
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Page).serve_forever()
"""
FAILING = "import sys; print('the database said no to password hunter2!'); sys.exit(3)"
PORTS = ("prefect_port", "mlflow_port", "dask_port", "dashboard_port")  # the order of NAMES
Maker = Callable[[Setting], dict[Name, Program]]


@pytest.fixture(autouse=True)
def _nobody_elses_services(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME")
    names += ("MLFLOW_TRACKING_PASSWORD", "SLUICE_CLUSTER", "SLUICE_AUTH", "SLUICE_AUTH_FILE", "SLUICE_DATABASE_URL")
    for name in (*names, "SLUICE_DATABASE_URL_FILE", "NO_PROXY", "no_proxy"):
        # set, then delete: what a test makes this process use is undone after it
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def ports() -> dict[str, int]:
    """Settings with four ports that are free now."""
    import socket

    sockets = [socket.socket() for _ in PORTS]
    for each in sockets:
        each.bind((LOOPBACK, 0))
    found = {name: each.getsockname()[1] for name, each in zip(PORTS, sockets, strict=True)}
    for each in sockets:
        each.close()
    return found


def answering(port: int) -> str | None:
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/", timeout=2):
            return None
    except OSError as error:
        return str(error)


def make_fakes(failing: tuple[Name, ...] = (), silent: tuple[Name, ...] = ()) -> Maker:
    """Programs like the real ones, but small: `failing` ones end at once, `silent` ones never answer."""

    def make(setting: Setting) -> dict[Name, Program]:
        found: dict[Name, Program] = {}
        own = dict(zip(NAMES, PORTS, strict=False))
        for name, real in programs(setting).items():
            port = getattr(setting.settings, own.get(name, "dashboard_port"))
            script = FAILING if name in failing else SERVER
            is_silent = name in silent
            found[name] = Program(
                name=name,
                url=real.url,
                command=[sys.executable, "-c", script, str(port)] if name in own else sleeping(),
                environment=real.environment,
                trouble=(lambda _: "silent") if is_silent else probe(port) if name in own else (lambda _: None),
                version=lambda: "1.0",
                after=real.after,
                dies_with=real.dies_with,
                ports=() if name == "dask-workers" else real.ports[:1],
            )
        return found

    return make


def sleeping() -> list[str]:
    return [sys.executable, "-c", "import time; time.sleep(600)"]


def probe(port: int) -> Callable[[object], str | None]:
    return lambda _: answering(port)


@pytest.fixture
def use_fakes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let every part of the package see small programs."""

    def use(failing: tuple[Name, ...] = (), silent: tuple[Name, ...] = ()) -> None:
        for module in (lifecycle, discover, report):
            monkeypatch.setattr(module, "programs", make_fakes(failing, silent))

    return use


@pytest.fixture
def started_home(home: Home) -> Iterator[Home]:
    """A home whose services are stopped after the test, whatever happened."""
    yield home
    if read_state(home) is not None:
        lifecycle.down(home)


@pytest.fixture
def until() -> Callable[..., None]:
    """Wait for something that takes a moment."""

    def wait(condition: Callable[[], bool], seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.05)

    return wait


@pytest.fixture
def state_text(home: Home) -> Callable[[], str]:
    """The record as it lies on disk."""
    return lambda: json.dumps(json.loads((Path(home.services) / "state.json").read_text()))
