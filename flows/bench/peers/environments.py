"""Environments of peers: one virtual environment each under a folder, made by pip from pinned versions."""

from __future__ import annotations

import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from flows.bench.table import BenchTable, Cell, Column, Part, bench_table
from gnn.errors import InputError, SluiceError, named
from gnn.files import write_text

TORCH = "torch==2.13.0"
"""The torch of every peer: the same as ours, so that packages are compared and not versions of torch."""
STAMP = "installed.txt"
DONE_LINES = 12


@dataclass(frozen=True)
class Peer:
    """A package that is measured beside ours: its pinned requirement, its worker, and its sizes.

    `sizes` are tried in time-to-accuracy, the best of them counts; `speed` are those of the table of speeds, `on_gpu`
    those that it has on a GPU beside them. One that has none of them predicts properties of crystals, without forces.
    """

    name: str
    title: str
    requirement: str
    worker: str
    speed: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()
    on_gpu: tuple[str, ...] = ()


PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer(
            "mace",
            "MACE",
            "mace-torch==0.3.16",
            "mace",
            ("64_L0", "64_L1"),
            ("64_L0", "32_L0", "64_L1"),
            ("64_L0-cueq", "64_L1-cueq"),
        ),
        Peer("nequip", "NequIP", "nequip==0.19.1", "nequip", ("S",), ("S", "l1_32", "l2_32")),
        Peer("torchmd", "TensorNet", "torchmd-net==3.1.0", "torchmd", ("tn2_64",), ("tn2_64", "tn1_64", "tn2_128")),
        Peer("schnetpack", "PaiNN", "schnetpack==2.0.4", "schnetpack", ("painn_64",)),
        Peer("cgcnn", "CGCNN", "cgcnn2==0.6.0", "cgcnn"),
    )
}


def peer_named(name: str) -> Peer:
    """A peer by its name.

    Raises:
        InputError: there is none of that name.
    """
    return named("peer", name, PEERS)


def python_of(peer: Peer, home: Path) -> Path:
    """The interpreter of a peer's environment under `home`."""
    return home / peer.name / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def is_installed(peer: Peer, home: Path) -> bool:
    """Whether the environment holds the pinned version."""
    stamp = home / peer.name / STAMP
    return stamp.is_file() and peer.requirement in stamp.read_text(encoding="utf-8").split()


def install(peer: Peer, home: Path) -> bool:
    """Make a peer's environment; False where it was there already.

    Raises:
        SluiceError: pip failed; the message is the end of what it said.
    """
    if is_installed(peer, home):
        return False
    folder = home / peer.name
    if not python_of(peer, home).is_file():
        venv.create(folder, with_pip=True)
    command = [str(python_of(peer, home)), "-m", "pip", "install", "--quiet", TORCH, peer.requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        said = " ".join(done.stderr.split("\n")[-DONE_LINES:])
        raise SluiceError(f"{peer.requirement} could not be installed into {folder}: {said}")
    write_text(folder / STAMP, f"{TORCH}\n{peer.requirement}\n")
    return True


def require(peer: Peer, home: Path) -> Path:
    """The interpreter of an installed peer.

    Raises:
        InputError: it is not installed under `home`.
    """
    if not is_installed(peer, home):
        raise InputError(
            f"{peer.requirement} is not installed in {home / peer.name}; run `sluice bench peers --install {peer.name}`"
        )
    return python_of(peer, home)


def listing(home: Path) -> BenchTable:
    """Every peer with its pinned version and whether it is installed under `home`."""
    columns = [Column(name=name) for name in ("peer", "what", "requirement", "installed", "models")]
    rows: list[list[Cell]] = [
        [peer.name, peer.title, peer.requirement, "yes" if is_installed(peer, home) else "no", ", ".join(peer.speed)]
        for peer in PEERS.values()
    ]
    parts = [Part(title="Peers", columns=columns, rows=rows)]
    return bench_table("peers", "Packages that are measured beside ours", "sluice bench peers", parts)
