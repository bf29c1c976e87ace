"""The real services: started, used, broken, mended and stopped, with nothing left behind."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.services import processes
from flows.services.state import NAMES, ServicesState, read_state
from flows.settings import Home

pytestmark = [pytest.mark.server, pytest.mark.long, pytest.mark.timeout(900)]

PASSWORD = "hunter2-Sesame"
FLOW = """
import sys
from prefect import flow, task
from flows.cluster import dask_client
import os

@task
def one():
    with dask_client(os.environ["SLUICE_CLUSTER"]) as client:
        return client.submit(sum, [1, 2]).result()

@flow(name="three")
def three():
    return one()

print(three())
"""
SERVED = """
import sys
from pathlib import Path
from flows.registry import find, register
from flows.services.discover import use_running
from flows.settings import Home

home = Home(Path(sys.argv[1]))
used = use_running(home)
assert ("MLFLOW_TRACKING_URI" in used) == (sys.argv[2] == "served"), used
if len(sys.argv) > 3:
    register(Path(sys.argv[3]), "copper", home)
print(" ".join(str(find(f"copper/{n}", home).sha256) for n in sys.argv[4:]))
"""


def sluice(home: Home, *arguments: str, **variables: str) -> Any:
    """Run a verb as people do, in a process of its own; its JSON."""
    done = run([str(Path(sys.executable).with_name("sluice")), *arguments, "--json"], home, **variables)
    return json.loads(done)


def run(command: list[str], home: Home, **variables: str) -> str:
    environment = {**os.environ, "SLUICE_HOME": str(home.root), **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, cwd=home.root)
    assert done.returncode == 0, done.stderr
    return done.stdout


def python(home: Home, script: str, *arguments: str, **variables: str) -> str:
    return run([sys.executable, "-c", script, *arguments], home, **variables).strip()


def up_arguments(ports: dict[str, int]) -> list[str]:
    pairs = [(f"--{name.replace('_', '-')}", str(port)) for name, port in ports.items()]
    return ["up", *[word for pair in pairs for word in pair], "--workers", "1", "--timeout", "500"]


def state_of(home: Home) -> ServicesState:
    state = read_state(home)
    assert state is not None
    return state


def left_over(state: ServicesState, root: Path) -> list[str]:
    """Processes with a mark of the services, or with their home in command or environment."""
    found = [p for started in state.services.values() for p in processes.family(started.token)]
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and str(root) in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return [f"{p.pid} {p.name()}" for p in found]


@pytest.fixture
def cared_for(home: Home) -> Iterator[Home]:
    yield home
    if read_state(home) is not None:
        sluice(home, "down")


def page(url: str, **headers: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
        return answer.read().decode()


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> list[Path]:
    """Three small checkpoints."""
    make = runpy.run_path(str(repository / "tests" / "flows" / "test_registry.py"))["make_checkpoint"]
    folder = tmp_path_factory.mktemp("checkpoints")
    return [make(folder / str(seed), seed) for seed in range(3)]


def test_a_home_before_with_and_after_services(
    cared_for: Home, ports: dict[str, int], checkpoints: list[Path], until: Callable[..., None]
) -> None:
    home = cared_for
    first = python(home, SERVED, str(home.root), "embedded", str(checkpoints[0]), "1")

    result = sluice(home, *up_arguments(ports))
    assert [row["name"] for row in result["services"]] == list(NAMES)
    assert {row["health"] for row in result["services"]} == {"healthy"}
    assert all(row["version"] for row in result["services"])
    state = state_of(home)
    check_loopback(state)
    api = f"http://127.0.0.1:{ports['prefect_port']}/api"
    assert api in page(f"{api.removesuffix('/api')}/ui-settings")
    assert "<html" in page(f"http://127.0.0.1:{ports['mlflow_port']}/").lower()

    # what was registered before is there, and what is registered now will be there later
    shas = python(home, SERVED, str(home.root), "served", str(checkpoints[1]), "1", "2").split()
    assert shas[0] == first
    served = page(f"http://127.0.0.1:{ports['mlflow_port']}/api/2.0/mlflow-artifacts/artifacts?path=")
    assert json.loads(served)["files"]

    assert sluice(home, "up")["started"] == []
    check_flow_and_status(home)
    check_mending(home, state, until)

    down = sluice(home, "down")
    assert sorted(down["stopped"]) == sorted(NAMES)
    assert left_over(state, home.root) == []
    assert sluice(home, "status")["services"] == []
    assert sluice(home, "down")["processes"] == 0

    third = python(home, SERVED, str(home.root), "embedded", str(checkpoints[2]), "1", "2", "3").split()
    assert third[:2] == shas
    assert len(set(third)) == 3


def check_loopback(state: ServicesState) -> None:
    """Every port that any of the processes listens on is on loopback."""
    hosts = set()
    for started in state.services.values():
        for process in processes.family(started.token):
            hosts |= {c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    assert hosts == {"127.0.0.1"}


def check_flow_and_status(home: Home) -> None:
    """A flow of another process runs on the server and on the cluster, and `status` shows it."""
    prelude = "from flows.services.discover import use_running; from flows.settings import find_home\n"
    assert python(home, prelude + "use_running(find_home())\n" + FLOW).endswith("3")
    found = sluice(home, "status")
    assert [(row["flow"], row["state"]) for row in found["runs"]] == [("three", "Completed")]
    assert ("sluice", "default") in {(row["pool"], row["queue"]) for row in found["queues"]}
    assert found["dask"]["workers"] == 1
    assert found["notes"] == []


def check_mending(home: Home, state: ServicesState, until: Callable[..., None]) -> None:
    """Who is killed is told, and started again, alone."""
    for name in ("prefect", "dask"):
        victim = state.services[name]  # type: ignore[index]
        os.kill(victim.pid or 0, signal.SIGKILL)
        until(lambda victim=victim: not processes.is_alive(victim.pid, victim.token))
    health = {row["name"]: row["health"] for row in sluice(home, "status")["services"]}
    assert (health["prefect"], health["dask"], health["mlflow"]) == ("ended", "ended", "healthy")
    mended = sluice(home, "up", "--timeout", "500")
    assert {"prefect", "dask"} <= set(mended["started"]) <= {"prefect", "dask", "dask-workers", "worker"}
    assert {row["health"] for row in mended["services"]} == {"healthy"}


def test_with_a_password_nobody_gets_in_without(
    cared_for: Home, ports: dict[str, int], checkpoints: list[Path], tmp_path: Path
) -> None:
    """Bound to all interfaces, so the password and TLS are required; reached at loopback, so that no name is needed."""
    home = cared_for
    (tmp_path / "auth").write_text(f"ann:{PASSWORD}\n")
    wide = ["--host", "0.0.0.0", "--address", "127.0.0.1", "--auth-file", str(tmp_path / "auth")]
    sluice(home, *up_arguments(ports), *wide)
    state = state_of(home)
    for url in (f"http://127.0.0.1:{ports['prefect_port']}/api/flows/filter", mlflow_search(ports)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(
                urllib.request.Request(url, data=b"{}", headers={"Content-Type": "application/json"})
            )
        assert refused.value.code == 401

    assert python(home, SERVED, str(home.root), "served", str(checkpoints[0]), "1")
    check_flow_and_status(home)
    with pytest.raises(AssertionError):
        python(home, FLOW, SLUICE_CLUSTER=f"tls://127.0.0.1:{ports['dask_port']}")
    check_no_secret(home, state)
    sluice(home, "down")
    assert left_over(state, home.root) == []


def mlflow_search(ports: dict[str, int]) -> str:
    return f"http://127.0.0.1:{ports['mlflow_port']}/api/2.0/mlflow/experiments/search"


def check_no_secret(home: Home, state: ServicesState) -> None:
    """The password stands in no file under the home and in no command line."""
    for path in home.root.rglob("*"):
        if path.is_file() and path.name != "auth":
            assert PASSWORD.encode() not in path.read_bytes(), path
    for started in state.services.values():
        for process in processes.family(started.token):
            assert PASSWORD not in " ".join(process.cmdline())
