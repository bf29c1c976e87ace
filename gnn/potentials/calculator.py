"""A potential as an ASE calculator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from gnn.errors import InputError
from gnn.potentials.edges import SKIN, EdgeKeeper, Frame
from gnn.potentials.evaluate import split
from gnn.potentials.potential import (
    AtomsPrediction,
    Potential,
    refuse_unknown_elements,
    warn_of_inherited_elements,
)

LABELS = ("forces", "stress")


class SluiceCalculator(Calculator):
    """Gives ASE the numbers that the batched evaluator gives.

    `energy` and `free_energy` are the same total energy (eV); `stress` only where the structure is periodic in three
    directions. Where the potential has them, `uncertainty` (eV/atom) and the properties are in `results` beside.

    Args:
        potential: what computes.
        skin: Å; neighbours are searched again only where atoms or cell have moved enough.

    Raises:
        InputError: the potential has no energies.
    """

    def __init__(self, potential: Potential, skin: float = SKIN) -> None:
        super().__init__()
        if "energy" not in potential.provides:
            only = ", ".join(sorted(potential.provides))
            raise InputError(f"a model of {only} alone has no energies for a calculator; use predict_atoms")
        self.potential = potential
        given = [name for name in LABELS if name in potential.provides]
        self.implemented_properties = ["energy", "free_energy", *given]
        self._edges = EdgeKeeper(potential.cutoff, skin)
        self._who: tuple[bytes, bytes] | None = None

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute everything the potential gives.

        Raises:
            InputError: the structure holds elements that the potential does not know, or two atoms in one place, which
                have no finite energy.
        """
        super().calculate(atoms, list(properties), list(system_changes))
        found = self._predict(self.atoms)
        if not np.isfinite(found.energy):
            formula = self.atoms.get_chemical_formula()
            raise InputError(f"the energy of {formula} is {found.energy}: are two atoms in one place?")
        optional = {"forces": found.forces, "stress": found.stress, "uncertainty": found.uncertainty}
        given = {name: value for name, value in optional.items() if value is not None}
        self.results = {"energy": found.energy, "free_energy": found.energy, **given, **found.properties}

    def _predict(self, atoms: Atoms) -> AtomsPrediction:
        refuse_unknown_elements([atoms], self.potential.elements, self.potential.theory)
        warn_of_inherited_elements([atoms], self.potential)
        who = (atoms.numbers.tobytes(), np.asarray(atoms.pbc).tobytes())
        if who != self._who:
            self._edges.forget(0)
            self._who = who
        batch, _ = self._edges.batch(_frame(atoms, self.potential.device))
        return split(self.potential.predict(batch), batch)[0]


def _frame(atoms: Atoms, device: torch.device) -> Frame:
    return Frame(
        keys=(0,),
        numbers=torch.as_tensor(atoms.numbers, dtype=torch.int64, device=device),
        n_atoms=torch.tensor([len(atoms)], device=device),
        pbc=torch.as_tensor(np.asarray(atoms.pbc, dtype=bool), device=device).view(1, 3),
        positions=torch.as_tensor(atoms.positions.copy(), device=device),
        cell=torch.as_tensor(np.array(atoms.cell[:], dtype=float), device=device).view(1, 3, 3),
    )
