"""The table of speeds, from invented measurements and with a worker that only pretends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.bench import potential
from flows.bench.own_worker import architecture
from flows.bench.peers import client, environments
from flows.bench.peers.workers.fitting import LAST_PART, last_part, shuffled
from flows.bench.potential import Contender, Measured, SetResult, Settings, batches_of, parse_contender
from flows.bench.potential_tables import table_of
from gnn.errors import InputError, SluiceError

PRETENDER = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    if request["do"] == "die":
        sys.stderr.write("first\\nlast words\\n")
        sys.exit(3)
    found = {"version": "pretend 1.0", "parameters": 7, "import_mb": 1.0, "cpu_s": [0.5], "peak_mb": 9.0}
    print(json.dumps(found | {"train": request.get("train")}), flush=True)
"""


def measured(train: list[float], infer: list[float], peak: float, **more: Any) -> Measured:
    return Measured("package 1.2", 100, 1.0, peak, {"train": train, "infer": infer}, **more)


@pytest.fixture
def result() -> SetResult:
    floor = {
        "flops": 2e9,
        "products_s": 0.05,
        "moved_bytes": 3e6,
        "moved_s": 0.01,
        "gflop_rate": 40.0,
        "gbyte_rate": 0.3,
    }
    return SetResult(
        "3bpa",
        {"train": 216.0, "infer": 864.0},
        {
            "sluice ace_64_L0": measured([0.1, 0.2], [0.1, 0.1], 500.0, floors={"train": floor}),
            "sluice ace_64_L0-tabulated": measured([], [0.05, 0.05], 500.0),
            "mace 64_L0": measured([0.8, 1.6], [0.9, 0.7], 1000.0),
        },
    )


def test_tables_of_rates_ratios_and_floor(result: SetResult, tmp_path: Path) -> None:
    page = table_of([result], Settings(tmp_path, tmp_path), "command")
    speeds, pairs, floors = page.parts
    own, tabulated, mace = speeds.rows
    train = [pytest.approx(150), pytest.approx(1440), pytest.approx(694.4, abs=0.1), "8.00 (8.00 to 8.00)"]
    infer = [pytest.approx(100), pytest.approx(8640), pytest.approx(115.7, abs=0.1), "8.00 (7.00 to 9.00)"]
    assert own == ["sluice ace_64_L0", 100, *train, *infer, 500.0]
    assert tabulated[2:6] == [None, None, None, None]
    assert tabulated[9] == "16.00 (14.00 to 18.00)"
    assert mace[5] == "1.00 (1.00 to 1.00)"
    assert [column.name for column in speeds.columns if "atoms /" in column.name] == [
        "train, atoms / CPU s",
        "infer, atoms / CPU s",
    ]
    assert pairs.rows[0][1:] == ["sluice ace_64_L0", "mace 64_L0", "8.00 (8.00 to 8.00)", "8.00 (7.00 to 9.00)", 0.5]
    assert pairs.rows[1][3] is None
    assert floors.rows[0][7] == pytest.approx(3.0)
    assert "reference mace 64_L0" in page.markdown()


def test_without_the_reference_the_first_is_it(result: SetResult, tmp_path: Path) -> None:
    alone = SetResult("si", result.atoms, {"sluice ace_64_L0": result.measured["sluice ace_64_L0"]})
    page = table_of([alone], Settings(tmp_path, tmp_path), "command")
    assert page.parts[0].title.endswith("reference sluice ace_64_L0")
    assert [part.title for part in page.parts[1:]] == ["The arithmetic floor"]


def test_contenders() -> None:
    assert parse_contender("mace:64_L0") == Contender("mace", "64_L0")
    assert parse_contender("sluice:ace_64_L0-tabulated").tasks == ("infer",)
    with pytest.raises(InputError, match="PACKAGE:MODEL"):
        parse_contender("mace")
    with pytest.raises(InputError, match="unknown; choose of mace"):
        parse_contender("gap:2b")
    names = [contender.name for contender in potential.default_contenders(compiled=True)]
    assert len(set(names)) == len(names)
    assert {"sluice ace_64_L0", "sluice ace_64_L1", "mace 64_L0", "mace 64_L1", "nequip S-compiled"} <= set(names)
    assert {"sluice ace_64_L0-compiled", "sluice ace_64_L1-compiled"} <= set(names)


def test_names_of_our_models() -> None:
    assert architecture("ace_64_L1") == {"family": "ace", "channels": 64, "correlation": 3, "hidden_l_max": 1}
    assert architecture("ace_64_L0-compiled")["hidden_l_max"] == 0
    assert architecture("tensor_32-tabulated") == {"family": "tensor", "channels": 32, "correlation": 3}


def test_batches_are_of_the_size_of_the_set() -> None:
    found = batches_of("3bpa", 500)
    assert [len(batch) for batch in found["train"]] == [8, 8, 8]
    assert [len(batch) for batch in found["infer"]] == [32]
    assert [len(batch) for batch in batches_of("3bpa", 500, "cuda")["infer"]] == [128]


def test_on_a_gpu_wall_time_counts_and_more_peers_come(tmp_path: Path) -> None:
    assert Settings(tmp_path, tmp_path).clock == "cpu_s"
    assert Settings(tmp_path, tmp_path, device="cuda").clock == "wall_s"
    names = {contender.name for contender in potential.default_contenders(device="cuda")}
    assert names - {contender.name for contender in potential.default_contenders()} == {
        "mace 64_L0-cueq",
        "mace 64_L1-cueq",
    }


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "command_of", lambda *_: [sys.executable, "-c", PRETENDER])


@pytest.mark.usefixtures("pretended")
def test_a_worker_answers_and_its_last_words_are_kept(tmp_path: Path) -> None:
    with client.worker("mace", tmp_path) as own:
        assert own.ask(do="time")["peak_mb"] == 9.0
        with pytest.raises(SluiceError, match=r"mace failed at 'die': first \| last words"):
            own.ask(do="die")


@pytest.mark.usefixtures("pretended")
def test_a_floor_that_is_not_found_loses_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(potential, "say", said.append)
    with client.worker("sluice", tmp_path) as own:
        own.process.kill()
        own.process.wait()
        assert potential.floors_of(own, Contender("sluice", "ace_8_L0")) == {}
    assert said[0].startswith("no floor: sluice failed at 'floor'")


@pytest.mark.usefixtures("pretended")
def test_tabulated_networks_are_not_trained(tmp_path: Path) -> None:
    with client.worker("sluice", tmp_path) as own:
        own_request = {"train": [[0]], "infer": [[0]]}
        assert potential.opened(own, Contender("sluice", "ace_8_L0"), own_request).parameters == 7
        assert own.ask(do="open", train=[])["train"] == []


def test_every_contender_has_the_same_allocator_and_threads() -> None:
    for name in (client.OWN, "mace"):
        environment = client.environment_of(name)
        assert client.TUNED.items() <= environment.items()
    assert client.environment_of("mace")["PYTHONPATH"] == str(client.FOLDER)
    assert "PYTHONPATH" not in client.environment_of(client.OWN)


def test_environments_are_known_by_their_stamp(tmp_path: Path) -> None:
    peer = environments.PEERS["mace"]
    assert not environments.is_installed(peer, tmp_path)
    with pytest.raises(InputError, match="sluice bench peers --install mace"):
        environments.require(peer, tmp_path)
    (tmp_path / "mace").mkdir()
    (tmp_path / "mace" / environments.STAMP).write_text("torch==2.13.0\nmace-torch==0.0.1\n")
    assert not environments.is_installed(peer, tmp_path)
    (tmp_path / "mace" / environments.STAMP).write_text(f"torch==2.13.0\n{peer.requirement}\n")
    assert environments.require(peer, tmp_path).parts[-2:] == ("bin", "python")
    assert not environments.install(peer, tmp_path)
    assert [row[3] for row in environments.listing(tmp_path).parts[0].rows] == ["yes", "no", "no", "no", "no"]


def test_installing_is_pinned_once_and_a_failure_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peer, commands = environments.PEERS["nequip"], []
    outcome = subprocess.CompletedProcess([], 0, "", "")

    def pretend(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return outcome

    monkeypatch.setattr(environments.subprocess, "run", pretend)
    monkeypatch.setattr(environments.venv, "create", lambda folder, **_: folder.mkdir(parents=True))
    assert environments.install(peer, tmp_path)
    assert not environments.install(peer, tmp_path)
    assert [command[-2:] for command in commands] == [[environments.TORCH, peer.requirement]]
    outcome = subprocess.CompletedProcess([], 1, "", "no such version\n")
    with pytest.raises(SluiceError, match=r"could not be installed.*no such version"):
        environments.install(environments.PEERS["mace"], tmp_path)
    assert not environments.is_installed(environments.PEERS["mace"], tmp_path)


def test_schedules_of_peers_end_at_the_budget() -> None:
    assert [last_part(p) for p in (0.0, LAST_PART, 1.0)] == [0.0, 0.0, 1.0]
    assert last_part((1 + LAST_PART) / 2) == pytest.approx(0.5)


def test_every_structure_once_a_pass() -> None:
    stream = shuffled(10, 3, seed=0)
    passed = [next(stream) for _ in range(6)]
    assert all(len({*passed[k], *passed[k + 1], *passed[k + 2]}) == 9 for k in (0, 3))
    assert passed[:3] != passed[3:]
    assert passed[0] == next(shuffled(10, 3, seed=0))
    assert sorted(next(shuffled(2, 5, seed=0))) == [0, 1]


@pytest.mark.slow
def test_our_own_worker_trains_infers_and_finds_its_floor(tmp_path: Path) -> None:
    import dataclasses

    import numpy as np
    from ase.build import molecule

    from flows.bench.frames import frames_of
    from flows.bench.peers.workers.frames import save_frames
    from gnn.graphs.graph import graph_of_atoms

    water = dataclasses.replace(graph_of_atoms(molecule("H2O"), 4.0), energy=-1.0, forces=np.ones((3, 3)))
    path = save_frames(tmp_path / "frames.npz", frames_of([water, water]))
    request = {"frames": str(path), "cutoff": 4.0, "seed": 0, "train": [[0], [1]], "infer": [[0, 1]]}
    with client.worker(client.OWN, tmp_path) as own:
        opened = own.ask(do="open", model="ace_4_L0", **request)
        timed = own.ask(do="time", task="train", seconds=0.0, least=3)
        floor = own.ask(do="floor", task="infer")
    assert opened["parameters"] > 0
    assert len(timed["cpu_s"]) == 3
    assert timed["peak_mb"] >= opened["import_mb"] > 0
    assert floor["flops"] > 0
    assert floor["products_s"] > 0
