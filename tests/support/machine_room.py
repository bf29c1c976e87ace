"""Servers, schedulers and flows as processes that can be killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

BIN = Path(sys.executable).parent
PATIENCE_S = 400.0


def find_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """Poll until `condition` is true, and give what it gave."""
    deadline = time.monotonic() + patience_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {patience_s:g} s")
        time.sleep(0.05)
    return found


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return response.status == 200
    except OSError:
        return False


@dataclass
class Room:
    """Processes of a test: started in their own sessions, killed one by one, and all gone at the end."""

    folder: Path
    plugins: Path
    environment: dict[str, str] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *command: str, prefix: tuple[str, ...] = (), **environment: str) -> subprocess.Popen:
        """Start a program of the virtual environment; its output goes to NAME.log and NAME.out."""
        base = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_"))}
        whole = {
            **base, "DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_LOGGING_LEVEL": "WARNING",
            "PYTHONPATH": str(self.plugins), **self.environment, **environment,
        }  # fmt: skip
        program = [*prefix, str(BIN / command[0]), *command[1:]]
        with (self.folder / f"{name}.log").open("ab") as log, (self.folder / f"{name}.out").open("wb") as out:
            process = subprocess.Popen(program, stdout=out, stderr=log, env=whole, start_new_session=True)
        self.processes[name] = process
        return process

    def whole_log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def log(self, name: str) -> str:
        """The end of it, for a message."""
        return self.whole_log(name)[-4000:]

    def output(self, name: str) -> Any:
        return json.loads((self.folder / f"{name}.out").read_text())

    def kill(self, name: str, whole_group: bool = False) -> None:
        """kill -9 of the process alone, or of all it started as well."""
        process = self.processes[name]
        if whole_group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()

    def descendants(self, name: str) -> list[psutil.Process]:
        """Processes that the process started, directly or not."""
        return psutil.Process(self.processes[name].pid).children(recursive=True)

    def runs(self, name: str) -> bool:
        """Whether a process has not ended."""
        return self.processes[name].poll() is None

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait until `condition` is true, and give what it gave."""
        return wait_until(condition, what)

    def wait(self, name: str, patience_s: float = PATIENCE_S) -> int:
        """The exit code."""
        try:
            return self.processes[name].wait(timeout=patience_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{name} did not end:\n{self.log(name)}") from None

    def prefect_server(
        self,
        name: str = "prefect",
        port: int | None = None,
        host: str = "127.0.0.1",
        prefix: tuple[str, ...] = (),
        **environment: str,
    ) -> str:
        """A Prefect server; its API address. The same name and port again continue its database."""
        port = port or find_port()
        api = f"http://{host}:{port}/api"
        home = {"PREFECT_HOME": str(self.folder / f"{name}-home"), "PREFECT_API_URL": api, **environment}
        command = ("prefect", "server", "start", "--host", host, "--port", str(port), "--no-ui")
        self.start(name, *command, prefix=prefix, **home)
        wait_until(lambda: answers(f"{api}/health"), f"the Prefect server: {self.log(name)}")
        return api

    def mlflow_server(self, port: int, host: str = "127.0.0.1", prefix: tuple[str, ...] = ()) -> str:
        """An MLflow server; its address. The same port again continues its store."""
        options = ("--host", host, "--port", str(port), "--workers", "1")
        store = f"sqlite:///{self.folder / 'mlflow.db'}"
        places = ("--backend-store-uri", store, "--artifacts-destination", str(self.folder / "artifacts"))
        self.start("mlflow", "mlflow", "server", *options, *places, prefix=prefix)
        url = f"http://{host}:{port}"
        wait_until(lambda: answers(f"{url}/health"), f"the MLflow server: {self.log('mlflow')}")
        return url

    def scheduler(self, port: int, host: str = "127.0.0.1", **environment: str) -> str:
        """A Dask scheduler; its address."""
        arguments = ("--host", host, "--port", str(port), "--no-dashboard", "--no-show")
        self.start("scheduler", "dask", "scheduler", *arguments, **environment)
        wait_until(lambda: listens(host, port), f"the scheduler: {self.log('scheduler')}")
        return f"tcp://{host}:{port}"

    def workers(self, address: str, count: int = 2, name: str = "workers", **more: Any) -> None:
        """Dask workers, each a process under its nanny."""
        prefix = more.pop("prefix", ())
        arguments = (address, "--nworkers", str(count), "--nthreads", "1", "--no-dashboard", *more.pop("options", ()))
        self.start(name, "dask", "worker", *arguments, prefix=prefix, **more)

    def close(self) -> None:
        """End everything."""
        for process in self.processes.values():
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            process.wait()


def listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0
