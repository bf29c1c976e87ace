"""One structure with its edges and labels, as arrays."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from gnn.graphs.neighbours import neighbour_list
from gnn.structures.atoms import atoms_to_record
from gnn.structures.record import Bools, Floats, Record, atoms_bytes

EnergyKind = Literal["energy", "free_energy"]
ATOMS_DIGEST_BYTES = 16


@dataclass(frozen=True)
class Graph:
    """N atoms and E directed edges, sorted by receiver.

    numbers (N,), senders and receivers (E,) and shifts (E, 3) are integers of any width; positions (N, 3) and cell
    (3, 3) Å; pbc (3,) and fixed (N,) bool. The vector of an edge is positions[sender] - positions[receiver] +
    shift @ cell. energy is the one to train on (eV, total): consistent with the forces where the data have that.
    Labels that are missing are None: forces (N, 3) eV/Å, stress (6,) eV/Å³ (xx yy zz yz xz xy, positive = tension),
    properties[name] a float or (N,) by its level. `kinds` holds the energies it was chosen from. total_charge (e) is
    seen by no network.
    """

    structure_id: str
    dataset: str
    theory: str
    group: str | None
    numbers: NDArray[np.integer]
    positions: Floats
    cell: Floats
    pbc: Bools
    senders: NDArray[np.integer]
    receivers: NDArray[np.integer]
    shifts: NDArray[np.integer]
    energy: float | None = None
    forces: Floats | None = None
    stress: Floats | None = None
    fixed: Bools | None = None
    properties: dict[str, float | Floats] = field(default_factory=dict)
    kinds: dict[EnergyKind, float] = field(default_factory=dict)
    total_charge: int | None = None

    @property
    def n_atoms(self) -> int:
        """N."""
        return len(self.numbers)

    @property
    def n_edges(self) -> int:
        """E."""
        return len(self.senders)

    @property
    def is_isolated_atom(self) -> bool:
        """One atom without periodicity: a reference energy, never a training structure."""
        return self.n_atoms == 1 and not self.pbc.any()

    @property
    def atoms_digest(self) -> bytes:
        """16 bytes that structures share if they show the same atoms, whatever their level of theory or charge."""
        shown = atoms_bytes(self.numbers, self.positions, self.cell, self.pbc)
        return hashlib.sha256(shown).digest()[:ATOMS_DIGEST_BYTES]

    @property
    def crystal_stress(self) -> Floats | None:
        """The stress to train on; None where it is not periodic in three directions, and so without a volume."""
        return self.stress if self.pbc.all() else None

    def with_energy(self, kind: EnergyKind) -> Graph:
        """The same graph with `energy` of this kind; None where it has no such energy."""
        return replace(self, energy=self.kinds.get(kind))


def graph_of_record(record: Record, cutoff: float) -> Graph:
    """The graph of a record, edges up to `cutoff` (Å).

    Raises:
        InputError: positions or cell have no neighbour list.
    """
    edges = neighbour_list(record.positions, record.cell, record.pbc, cutoff)
    kinds: dict[EnergyKind, float] = {}
    if record.energy is not None:
        kinds["energy"] = record.energy
    if record.free_energy is not None:
        kinds["free_energy"] = record.free_energy
    return Graph(
        structure_id=record.structure_id,
        dataset=record.dataset,
        theory=record.theory,
        group=record.group,
        numbers=record.numbers,
        positions=record.positions,
        cell=record.cell,
        pbc=record.pbc,
        senders=edges.senders,
        receivers=edges.receivers,
        shifts=edges.shifts,
        energy=record.training_energy,
        forces=record.forces,
        stress=record.stress,
        fixed=record.fixed,
        properties={name: _number_or_array(value) for name, value in record.properties.items()},
        kinds=kinds,
        total_charge=record.total_charge,
    )


def _number_or_array(value: float | list[float]) -> float | Floats:
    return np.asarray(value, dtype=float) if isinstance(value, list) else float(value)


def graph_of_atoms(atoms: Atoms, cutoff: float, dataset: str = "", theory: str = "") -> Graph:
    """The graph of ASE Atoms, with the labels its calculator already holds; nothing is computed.

    Raises:
        InputError: positions or cell have no neighbour list.
    """
    return graph_of_record(atoms_to_record(atoms, dataset, theory), cutoff)
