"""Foreign models: any ASE calculator as a potential, found by the entry-point group `sluice.potentials`.

An entry point names a function that gives a `Potential`; called without arguments, or with `model=`. The level of
theory is what the model was trained on; it is fixed, and so are the corrections its energies carry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module, metadata
from inspect import signature
from pathlib import Path
from threading import local
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.data import chemical_symbols

from gnn.errors import InputError, SluiceError, told
from gnn.files import digest, file_sha256
from gnn.graphs.batch import Batch
from gnn.models.device import device_of
from gnn.potentials.potential import (
    AtomsPrediction,
    BatchPrediction,
    Potential,
    refuse_unknown_elements,
)

ENTRY_POINT_GROUP = "sluice.potentials"
ALL_ELEMENTS = frozenset(chemical_symbols[1:])
PROVIDES = frozenset({"energy", "forces", "stress"})


class CalculatorPotential:
    """An ASE calculator as a potential; structures are computed one by one, since the calculator knows nothing else.

    A calculator remembers its last structure, so threads cannot share one: each thread has its own.

    Args:
        make_calculator: gives a calculator; called once a thread, when its first structure comes.
        theory: level of theory of its energies.
        elements: chemical symbols it knows.
        provides: of energy, forces, stress.
    """

    cutoff = 0.0
    device = torch.device("cpu")

    def __init__(
        self,
        make_calculator: Callable[[], Calculator],
        theory: str,
        elements: frozenset[str] = ALL_ELEMENTS,
        provides: frozenset[str] = PROVIDES,
    ) -> None:
        self._make = make_calculator
        self.theory = theory
        self.elements = elements
        self.provides = provides
        self._of_thread = local()

    @property
    def _calculator(self) -> Calculator:
        """The calculator of the present thread."""
        if not hasattr(self._of_thread, "calculator"):
            self._of_thread.calculator = self._make()
        return self._of_thread.calculator

    def prepare(self) -> None:
        """Make the calculator of the present thread now.

        Raises:
            InputError: it cannot be made.
        """
        try:
            _ = self._calculator
        except SluiceError:
            raise
        except Exception as error:  # noqa: BLE001 - packages raise whatever a missing or damaged file brings up
            raise InputError(f"the model of {self.theory} cannot be opened: {told(error)}") from None

    def calculator(self) -> Calculator:
        """A calculator of its own, for use with ASE."""
        return self._make()

    def predict(self, batch: Batch) -> BatchPrediction:
        """Energy, forces and stress; see `Potential.predict`."""
        rows = [self._compute(atoms) for atoms in atoms_of_batch(batch)]
        forces = np.concatenate([row[1] for row in rows]) if "forces" in self.provides else None
        stress = np.stack([row[2] for row in rows]) if "stress" in self.provides else None
        return BatchPrediction(
            energy=torch.tensor([row[0] for row in rows], dtype=torch.float64),
            forces=None if forces is None else torch.from_numpy(forces),
            stress=None if stress is None else torch.from_numpy(stress),
        )

    def _compute(self, atoms: Atoms) -> tuple[float, np.ndarray, np.ndarray]:
        atoms.calc = self._calculator
        energy = float(atoms.get_potential_energy(force_consistent="free_energy" in atoms.calc.implemented_properties))
        forces = np.array(atoms.get_forces(), dtype=float) if "forces" in self.provides else np.zeros((0, 3))
        wants_stress = "stress" in self.provides and atoms.pbc.all()
        stress = np.array(atoms.get_stress(), dtype=float) if wants_stress else np.zeros(6)
        return energy, forces, stress

    def predict_atoms(
        self,
        atoms_list: Sequence[Atoms],
        max_atoms: int | None = None,  # noqa: ARG002
    ) -> list[AtomsPrediction]:
        """Predictions in order; see `Potential.predict_atoms`. `max_atoms` has no effect."""
        refuse_unknown_elements(atoms_list, self.elements, self.theory)
        return [self._one(atoms.copy()) for atoms in atoms_list]

    def _one(self, atoms: Atoms) -> AtomsPrediction:
        atoms.set_constraint()
        energy, forces, stress = self._compute(atoms)
        return AtomsPrediction(
            energy=energy,
            forces=forces if "forces" in self.provides else None,
            stress=stress if "stress" in self.provides and atoms.pbc.all() else None,
        )


def atoms_of_batch(batch: Batch) -> list[Atoms]:
    """The structures of a batch as ASE Atoms."""
    sizes = batch.n_atoms.tolist()
    numbers = batch.numbers.cpu().split(sizes)
    positions = batch.positions.detach().cpu().double().split(sizes)
    cells = batch.cell.detach().cpu().double().numpy()
    pbc = batch.pbc.cpu().numpy()
    return [
        Atoms(numbers=numbers[k].numpy(), positions=positions[k].numpy(), cell=cells[k], pbc=pbc[k])
        for k in range(len(sizes))
    ]


def foreign_names() -> list[str]:
    """Names of the foreign potentials that installed packages offer."""
    return sorted(entry.name for entry in metadata.entry_points(group=ENTRY_POINT_GROUP))


def foreign(name: str, device: str = "cpu") -> Potential:
    """The foreign potential `NAME`, or `NAME:MODEL` where its maker takes a model; on `device` where it takes one.

    Raises:
        InputError: there is none of that name, it takes no model, there is no such device or it can only use the CPU,
            or the package behind it is not installed.
    """
    kind, _, model = name.partition(":")
    for entry in metadata.entry_points(group=ENTRY_POINT_GROUP, name=kind):
        make = entry.load()
        takes = signature(make).parameters
        if model and "model" not in takes:
            raise InputError(f"foreign:{kind} takes no model: leave out {model!r}")
        where = str(device_of(device))
        if "device" not in takes and where != "cpu" and device != "auto":
            raise InputError(f"foreign:{kind} computes on the CPU only: leave out device {device!r}")
        wanted = {"model": model or None, "device": where}
        given = {key: value for key, value in wanted.items() if value is not None and key in takes}
        potential: Potential = make(**given)
        return potential
    raise InputError(f"no foreign potential {kind!r}; there are {', '.join(foreign_names()) or 'none'}")


def opened(name: str, device: str = "cpu") -> Potential:
    """The foreign potential `name` with its model in memory, so that a mistake shows before there is work.

    Raises:
        InputError: as `foreign`, or its model cannot be opened.
    """
    potential = foreign(name, device)
    if isinstance(potential, CalculatorPotential):
        potential.prepare()
    return potential


def foreign_digest(name: str, potential: Potential) -> str:
    """What tells one foreign model from another: its name and what it knows, and its file where its name has one."""
    model = name.partition(":")[2]
    known = {"foreign": name, "theory": potential.theory, "elements": sorted(potential.elements)}
    path = Path(model)
    return digest(known | ({"file": file_sha256(path)} if model and path.is_file() else {}))


def required(module: str, extra: str) -> Any:
    """Import `module`.

    Raises:
        InputError: it is not installed; the message says which extra brings it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{error.name} is not installed; `pip install 'sluice-materials[{extra}]'` brings what {extra} needs"
        ) from None


def emt() -> CalculatorPotential:
    """ASE's effective-medium theory: answers at once, for tests."""
    from ase.calculators.emt import EMT, parameters

    return CalculatorPotential(EMT, "emt/ase", frozenset(parameters))


def chgnet(model: str = "0.3.0", device: str = "cpu") -> CalculatorPotential:
    """CHGNet, whose weights are in its wheel: PBE/PBE+U of MPtrj, energies with MP2020 corrections."""
    dynamics, network = required("chgnet.model.dynamics", "chgnet"), required("chgnet.model.model", "chgnet")

    def make() -> Calculator:
        loaded = network.CHGNet.load(model_name=model, verbose=False)
        return dynamics.CHGNetCalculator(model=loaded, use_device=device)

    return CalculatorPotential(make, f"pbe+u-mp2020/chgnet-{model}", frozenset(chemical_symbols[1:95]))


def sevennet(model: str = "7net-0", device: str = "cpu") -> CalculatorPotential:
    """SevenNet; the weights of 7net-0 are in its wheel: PBE/PBE+U of MPtrj, uncorrected."""
    module = required("sevenn.calculator", "sevennet")

    def make() -> Calculator:
        return module.SevenNetCalculator(model=model, device=device)

    return CalculatorPotential(make, f"pbe+u-mptrj/{model}", frozenset(chemical_symbols[1:95]))


def mace(model: str | None = None, device: str = "cpu") -> CalculatorPotential:
    """MACE from the model file at path `model`."""
    path = _named("mace", model)
    module = required("mace.calculators", "mace")

    def make() -> Calculator:
        return module.MACECalculator(model_paths=path, device=device, default_dtype="float64")

    return CalculatorPotential(make, f"mace/{Path(path).stem}")


def matgl(model: str | None = None) -> CalculatorPotential:
    """A matgl potential (M3GNet, TensorNet, CHGNet) from the folder or published name `model`."""
    name = _named("matgl", model)
    package, calculators = required("matgl", "matgl"), required("matgl.ext.ase", "matgl")

    def make() -> Calculator:
        return calculators.PESCalculator(package.load_model(name), stress_unit="eV/A3")

    return CalculatorPotential(make, f"matgl/{Path(name).name}")


def orb(model: str = "orb_v3_conservative_inf_omat", device: str = "cpu") -> CalculatorPotential:
    """An Orb model by the name of its loader; its package fetches the weights."""
    loaders = required("orb_models.forcefield.pretrained", "orb")
    module = required("orb_models.forcefield.calculator", "orb")
    if not hasattr(loaders, model):
        raise InputError(f"orb-models has no {model!r}; its names are those in orb_models.forcefield.pretrained")

    def make() -> Calculator:
        return module.ORBCalculator(getattr(loaders, model)(device=device), device=device)

    return CalculatorPotential(make, f"orb/{model}")


def _named(package: str, model: str | None) -> str:
    if model is None:
        raise InputError(f"{package} needs a model: write foreign:{package}:PATH")
    return model
