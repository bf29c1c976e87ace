"""A small machine room: servers, schedulers and flows as processes that can be killed, and what a calm run gives.

Every fault is judged by the same measure: the final table of a campaign that was disturbed equals that of one that was
not (energies within 0.1 meV/atom, the same convergence flags, funnel and shortlist), every structure stands in one
journal once, and nothing that was journalled before the fault was computed again.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from ase.io import write
from emt_cells import labelled_cells
from in_process import without_servers
from tiny_network import TINY_MODEL

from flows.settings import Home
from gnn.lake.table import Lake
from gnn.structures.cards import generic_card
from gnn.structures.readers import read_records

BIN = Path(sys.executable).parent
PATIENCE_S = 400.0
SAME_ENERGY = 1e-4
"""eV/atom within which a disturbed relaxation is the same."""

CAMPAIGN = """
name = "metals"
model = "foreign:patient"
[candidates]
elements = ["Al", "Cu", "Ni"]
min_elements = 2
prototypes = ["CsCl", "L1_0", "L1_2"]
[relaxation]
max_steps = 40
max_atoms = 8
[filters]
max_hull_distance = 0.5
[hull]
reference = "model"
[selection]
budget = 4
[handoff]
formats = []
[shards]
atoms = 16
"""

PATIENT = """
import os, time
from pathlib import Path
from ase.calculators.emt import EMT, parameters
from gnn.potentials.foreign import CalculatorPotential

class Patient(CalculatorPotential):
    def predict(self, batch):
        time.sleep(float(os.environ.get("PAUSE_S", "0")))
        return super().predict(batch)

def patient():
    return Patient(EMT, "emt/ase", frozenset(parameters))
"""


@pytest.fixture(scope="session")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH with the potential `foreign:patient`: EMT that takes its time without using the CPU."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "patient_potential.py").write_text(textwrap.dedent(PATIENT))
    info = folder / "patient_potential-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: patient-potential\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sluice.potentials]\npatient = patient_potential:patient\n")
    return folder


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


@pytest.fixture
def room(tmp_path: Path, plugins: Path) -> Iterator[Room]:
    """An empty room."""
    found = Room(tmp_path, plugins)
    yield found
    found.close()


@pytest.fixture(scope="session")
def standing_server(tmp_path_factory: pytest.TempPathFactory, plugins: Path) -> Iterator[str]:
    """A Prefect server for the tests that do not kill it; its API address."""
    found = Room(tmp_path_factory.mktemp("standing"), plugins)
    yield found.prefect_server()
    found.close()


@dataclass
class Campaign:
    """The campaign `metals` in a home of its own, run by the real command."""

    room: Room
    home: Home
    file: Path

    @property
    def folder(self) -> Path:
        return self.home.campaigns / "metals"

    def launch(self, cluster: str = "threads", pause_s: float = 0.0, name: str = "flow", **environment: str) -> None:
        """Start `sluice screen`."""
        options = ("--cluster", cluster, *(("--workers", "2") if ":" not in cluster else ()))
        command = ("sluice", "screen", str(self.file), "--json", *options)
        self.room.start(name, *command, SLUICE_HOME=str(self.home.root), PAUSE_S=str(pause_s), **environment)

    def run(self, cluster: str = "threads", **environment: str) -> dict[str, Any]:
        """Run it to its end, which must be good; what the command printed."""
        self.launch(cluster, **environment)
        assert self.room.wait("flow") == 0, self.room.log("flow")
        found: dict[str, Any] = self.room.output("flow")
        return found

    def records(self) -> list[dict[str, Any]]:
        """Whole records of all journals."""
        found = []
        for path in sorted((self.folder / "shards").glob("*.part.jsonl")):
            content = path.read_bytes()
            found += [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()[1:]]
        return found

    def wait_for_records(self, count: int, name: str = "flow") -> list[dict[str, Any]]:
        """Wait until so many structures are journalled while the flow still runs."""

        def enough() -> list[dict[str, Any]]:
            assert self.room.processes[name].poll() is None, self.room.log(name)
            found = self.records()
            return found if len(found) >= count else []

        found: list[dict[str, Any]] = wait_until(enough, f"{count} records: {self.room.log(name)}")
        return found

    def rows(self) -> dict[str, dict[str, Any]]:
        """The final table by candidate."""
        rows = pq.read_table(self.folder / "candidates.parquet").to_pylist()
        assert len({row["candidate_id"] for row in rows}) == len(rows)
        return {row["candidate_id"]: row for row in rows}


@pytest.fixture
def campaign(room: Room, tmp_path: Path) -> Campaign:
    """A campaign that was not started."""
    file = tmp_path / "metals.toml"
    file.write_text(CAMPAIGN)
    return Campaign(room, Home(tmp_path / "home"), file)


TRAINING = f"""
preset = "small"
device = "cpu"
minutes = 1.0
register_as = "metals"
[data]
datasets = ["cells"]
cutoff = 4.0
split_by = "structure"
{TINY_MODEL}"""


@dataclass
class Training:
    """A training of a minute in a home of its own, by the real command, tracked by a server."""

    room: Room
    home: Home
    file: Path

    def launch(self, url: str) -> None:
        """Start `sluice train`."""
        command = ("sluice", "train", str(self.file), "--json")
        self.room.start("flow", *command, SLUICE_HOME=str(self.home.root), MLFLOW_TRACKING_URI=url)

    def states(self) -> list[Path]:
        """Where its state is saved."""
        return list(self.home.root.rglob("state.json"))

    def wait_for_state(self) -> None:
        """Wait until it saved its state for the first time."""
        wait_until(lambda: self.states() or not self.room.runs("flow"), "the first saved state")
        assert self.room.runs("flow"), self.room.log("flow")

    def curve(self) -> list[int]:
        """The steps of its points so far."""
        (state,) = self.states()
        return [point["step"] for point in json.loads(state.read_text())["curve"]]

    def judge(self, url: str) -> dict[str, int]:
        """Wait for a good end; every point must have come to the server at `url` once, and the model be registered."""
        from mlflow import MlflowClient

        assert self.room.wait("flow") == 0, self.room.log("flow")
        assert "points wait" in self.room.whole_log("flow")
        result, expected = self.room.output("flow"), self.curve()
        client = MlflowClient(tracking_uri=url, registry_uri=url)
        assert client.get_run(result["run_id"]).info.status == "FINISHED"
        steps = [point.step for point in client.get_metric_history(result["run_id"], "lr")]
        assert steps == expected
        assert client.get_model_version("metals", result["model_version"]).tags["sha256"] == result["sha256"]
        lost, twice = len(set(expected) - set(steps)), len(steps) - len(set(steps))
        return {"structures": len(expected), "before": 0, "lost": lost, "twice": twice, "missing": lost}


@pytest.fixture
def training(room: Room, tmp_path: Path, cells: Path) -> Training:
    """A training that was not started."""
    home, card = Home(tmp_path / "home"), generic_card("cells", "emt/ase")
    Lake(home.lake).append("cells", read_records(cells, card), card)
    (tmp_path / "train.toml").write_text(TRAINING)
    return Training(room, home, tmp_path / "train.toml")


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory, plugins: Path) -> Iterator[Campaign]:
    """The campaign, finished without any disturbance: shard after shard in this process, without any server."""
    folder = tmp_path_factory.mktemp("calm")
    (folder / "metals.toml").write_text(CAMPAIGN)
    found = Campaign(Room(folder, plugins), Home(folder / "home"), folder / "metals.toml")
    with pytest.MonkeyPatch.context() as patched, without_servers() as run:
        patched.syspath_prepend(str(plugins))
        result = run(found.file, found.home)
    assert result.state == "COMPLETED"
    assert len(found.records()) == result.computed
    yield found


Judge = Callable[..., dict[str, int]]


@pytest.fixture
def judge(calm: Campaign, request: pytest.FixtureRequest) -> Judge:
    """Compares a campaign with the calm one; gives the counts, and adds them to the table of faults."""

    def compare(campaign: Campaign, before: list[dict[str, Any]], how: str) -> dict[str, int]:
        records, expected = campaign.records(), calm.records()
        ids = [record["candidate_id"] for record in records]
        kept = [record for record in before if record in records]
        counts = {
            "structures": len(expected),
            "before": len(before),
            "lost": len(before) - len(kept),
            "twice": len(ids) - len(set(ids)),
            "missing": len({record["candidate_id"] for record in expected} - set(ids)),
        }
        note(request, how, counts)
        assert (counts["lost"], counts["twice"], counts["missing"]) == (0, 0, 0)
        assert len(ids) == len(expected)
        assert_same(campaign, calm)
        return counts

    return compare


def note(request: pytest.FixtureRequest, how: str, counts: dict[str, Any]) -> None:
    """Keep a row of the table of faults in the file that SLUICE_FAULT_TABLE names."""
    if table := os.environ.get("SLUICE_FAULT_TABLE"):
        doc = " ".join((request.function.__doc__ or request.node.name).split())
        with Path(table).open("a") as stream:
            stream.write(json.dumps({"fault": doc, "how": how, **counts}) + "\n")


@pytest.fixture
def noted(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Adds a row to the table of faults."""
    return lambda how, **counts: note(request, how, counts)


def assert_same(campaign: Campaign, calm: Campaign) -> None:
    """The two final tables say the same; which of equal candidates is on the shortlist may differ."""
    found, expected = campaign.rows(), calm.rows()
    assert found.keys() == expected.keys()
    for name, row in expected.items():
        other = found[name]
        assert other["converged"] == row["converged"], name
        assert (other["energy_per_atom"] is None) == (row["energy_per_atom"] is None), name
        if row["energy_per_atom"] is not None:
            assert abs(other["energy_per_atom"] - row["energy_per_atom"]) < SAME_ENERGY, name
    assert funnel(campaign) == funnel(calm)
    for one, other in zip(scores(campaign), scores(calm), strict=True):
        assert abs(one - other) < SAME_ENERGY


def funnel(campaign: Campaign) -> list[tuple[str, int, int]]:
    stages = json.loads((campaign.folder / "manifest.json").read_text())["funnel"]
    return [(stage["stage"], stage["n_in"], stage["n_out"]) for stage in stages]


def scores(campaign: Campaign) -> list[float]:
    """Scores of the shortlist, the best first."""
    return sorted(row["score"] for row in campaign.rows().values() if row["shortlisted"])


@pytest.fixture
def same(calm: Campaign) -> Callable[[Campaign], None]:
    """Asserts that a campaign's final table is the calm one's."""
    return lambda campaign: assert_same(campaign, calm)


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Finds ports of loopback that nobody uses."""
    return find_port


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of three hundred labelled cells, which nobody changes."""
    path = tmp_path_factory.mktemp("cells") / "cells.xyz"
    write(path, labelled_cells(300), format="extxyz")
    return path
