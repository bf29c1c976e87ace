"""Molecular dynamics of many structures at a time, cells fixed: Newton's equations, or Langevin's.

Integrated by BAOAB (Leimkuhler & Matthews, Appl. Math. Res. eXpress 2013, 34): half a kick, half a drift, friction and
noise, half a drift, half a kick. Without friction it is velocity Verlet. Each structure has its own forces and its own
random numbers, so its path does not depend on what else is in the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from torch import Tensor

from gnn.errors import InputError
from gnn.potentials.potential import Potential, usual_max_atoms, warn_of_inherited_elements
from gnn.simulation.evaluation import Evaluation, Evaluator
from gnn.simulation.fitness import Failure, Limits, failures, in_words, unfit
from gnn.simulation.population import CELL_ROWS, Population, population_of, refuse_loose_constraints, select

VELOCITIES, INVERSE_MASS = "velocities", "inverse_mass"
"""(B, R, 3) Å per ASE's unit of time; (B, R, 1) per u, 0 where nothing may move."""
PADDED_STATE = frozenset({VELOCITIES, INVERSE_MASS})
OnTrajectory = Callable[[int, "Trajectory"], None]


@dataclass(frozen=True)
class DynamicsSettings:
    """How to move.

    temperature: K, of the bath and of the first velocities. steps: of `timestep` fs each. every: steps from one kept
    frame to the next; the last is kept, the start is not. friction: 1/fs; 0 conserves the energy. seed: of velocities
    and noise. limits: beyond which a structure is given up.
    """

    temperature: float = 300.0
    steps: int = 1000
    every: int = 100
    timestep: float = 1.0
    friction: float = 0.02
    seed: int = 0
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        numbers = (self.temperature, self.friction, self.timestep)
        if not (all(map(math.isfinite, numbers)) and min(numbers) >= 0 and self.timestep > 0):
            raise InputError(
                f"temperature {self.temperature:g} K and friction {self.friction:g}/fs must not be negative, "
                f"timestep {self.timestep:g} fs must be positive, and all of them finite"
            )
        if not 1 <= self.every <= self.steps:
            raise InputError(f"every {self.every} must be from 1 to steps {self.steps}: nothing would be kept")


@dataclass
class Trajectory:
    """One structure's path.

    frames: every `every` steps and the last, with momenta, and energy and forces as a single-point calculator.
    failure: why it was given up, with `reason` in words; None where it went to the end. The frames until then remain.
    """

    frames: list[Atoms] = field(default_factory=list)
    failure: Failure | None = None
    reason: str | None = None


def move_many(
    atoms_list: Sequence[Atoms],
    potential: Potential,
    settings: DynamicsSettings | None = None,
    max_atoms: int | None = None,
    on_result: OnTrajectory | None = None,
    only: Collection[int] | None = None,
) -> list[Trajectory]:
    """Move every structure; trajectories in the order given.

    Args:
        atoms_list: structures; atoms that are wholly fixed stay. One that has momenta keeps them, another gets those of
            the temperature, its centre of mass at rest.
        potential: what gives energy and forces.
        settings: how.
        max_atoms: atoms that are evaluated at one time.
        on_result: called with the index and the trajectory of each structure once those beside it have ended too.
        only: indices of those that are moved, all if None; the paths of the others stay empty.

    Raises:
        InputError: the potential gives no forces, or a structure has a constraint that cannot be kept.
    """
    settings = settings or DynamicsSettings()
    if "forces" not in potential.provides:
        raise InputError(f"the potential ({potential.theory}) gives no forces: nothing can move")
    refuse_loose_constraints(atoms_list)
    warn_of_inherited_elements(atoms_list, potential)
    tell = on_result or _nobody_asked
    wanted = range(len(atoms_list)) if only is None else sorted(only)
    trajectories = [_at_the_start(atoms, potential) for atoms in atoms_list]
    refused = [index for index in wanted if trajectories[index].failure is not None]
    fit = sorted(set(wanted) - set(refused))
    for index in refused:
        tell(index, trajectories[index])
    evaluator = Evaluator(potential, max_atoms or usual_max_atoms(potential.device))
    for group in groups(atoms_list, fit, evaluator.max_atoms):
        _Run(atoms_list, group, evaluator, settings, trajectories).to_the_end()
        for index in group:
            tell(index, trajectories[index])
    return trajectories


def _nobody_asked(index: int, trajectory: Trajectory) -> None:
    """Results are not wanted before the end."""


def groups(atoms_list: Sequence[Atoms], indices: Sequence[int], max_atoms: int) -> Iterator[list[int]]:
    """Indices in groups of at most `max_atoms` atoms, like sizes together; a larger structure is alone."""
    group: list[int] = []
    room = max_atoms
    for index in sorted(indices, key=lambda k: (-len(atoms_list[k]), k)):
        if group and len(atoms_list[index]) > room:
            yield group
            group, room = [], max_atoms
        group.append(index)
        room -= len(atoms_list[index])
    if group:
        yield group


def _at_the_start(atoms: Atoms, potential: Potential) -> Trajectory:
    found = unfit(atoms, potential) or _immovable(atoms)
    return Trajectory() if found is None else Trajectory([], *found)


def _immovable(atoms: Atoms) -> tuple[Failure, str] | None:
    """Why a structure has no path, though it has an energy; None where it has one."""
    masses = atoms.get_masses()
    if not (np.isfinite(masses).all() and (masses > 0).all()):
        return "error", "a mass is not a positive number"
    if not np.isfinite(atoms.get_momenta()).all():
        return "non_finite", "momenta are not finite"
    return None


class _Run:
    """Structures that move together, all by the same number of steps."""

    def __init__(
        self,
        atoms_list: Sequence[Atoms],
        group: Sequence[int],
        evaluator: Evaluator,
        settings: DynamicsSettings,
        trajectories: list[Trajectory],
    ) -> None:
        self.atoms_list = atoms_list
        self.evaluator = evaluator
        self.settings = settings
        self.trajectories = trajectories
        self.step = settings.timestep * units.fs
        self.noise = {index: np.random.default_rng([settings.seed, index]) for index in group}
        self.moving = self._started(group)

    def to_the_end(self) -> None:
        """All steps of all structures; those that fail drop out."""
        evaluation = self._evaluated()
        for step in range(1, self.settings.steps + 1):
            if evaluation is None:
                return
            self._kick(evaluation)
            self._drift()
            self._thermalise()
            self._drift()
            evaluation = self._evaluated()
            if evaluation is not None:
                self._kick(evaluation)
                self._keep(evaluation, step)
        for index in self.moving.source.tolist():
            self.evaluator.forget(index)

    def _started(self, group: Sequence[int]) -> Population:
        chosen = [self.atoms_list[index] for index in group]
        start = population_of(chosen, group, relax_cell=False, device=self.evaluator.potential.device)
        velocities, inverse_mass = torch.zeros_like(start.coordinates), torch.zeros_like(start.free)
        for k, (index, atoms) in enumerate(zip(group, chosen, strict=True)):
            rows = slice(CELL_ROWS, CELL_ROWS + len(atoms))
            first = first_velocities(atoms, self.settings.temperature, self.noise[index])
            velocities[k, rows] = torch.from_numpy(first).to(velocities)
            inverse_mass[k, rows, 0] = torch.from_numpy(1 / atoms.get_masses()).to(velocities)
        state = {VELOCITIES: velocities * start.free, INVERSE_MASS: inverse_mass * start.free}
        return replace(start, state=state)

    def _kick(self, evaluation: Evaluation) -> None:
        """Half a step of the forces."""
        acceleration = evaluation.row_forces * self.moving.state[INVERSE_MASS]
        self._set_velocities(self.moving.state[VELOCITIES] + 0.5 * self.step * acceleration)

    def _drift(self) -> None:
        """Half a step of the positions."""
        moved = self.moving.coordinates + 0.5 * self.step * self.moving.state[VELOCITIES]
        self.moving = replace(self.moving, coordinates=moved)

    def _thermalise(self) -> None:
        """Friction and noise of a whole step, exactly as an Ornstein-Uhlenbeck process has them."""
        kept = math.exp(-self.settings.friction * self.settings.timestep)
        if kept < 1:
            thermal = (units.kB * self.settings.temperature * self.moving.state[INVERSE_MASS]).sqrt()
            noise = math.sqrt(1 - kept * kept) * thermal * self._normal()
            self._set_velocities(kept * self.moving.state[VELOCITIES] + noise)

    def _set_velocities(self, velocities: Tensor) -> None:
        self.moving = replace(self.moving, state=self.moving.state | {VELOCITIES: velocities})

    def _evaluated(self) -> Evaluation | None:
        """Energies and forces of those that can go on; the others are given up. None where nobody is left."""
        if not len(self.moving):
            return None
        evaluation = self.evaluator.evaluate(self.moving)
        found = failures(evaluation, self.settings.limits)
        if not any(found):
            return evaluation
        for k, (index, failure) in enumerate(zip(self.moving.source.tolist(), found, strict=True)):
            if failure is not None:
                trajectory = self.trajectories[index]
                trajectory.failure, trajectory.reason = failure, in_words(failure, evaluation, k)
                self.evaluator.forget(index)
        sound = torch.tensor([failure is None for failure in found], device=self.moving.source.device)
        self.moving = select(self.moving, sound, PADDED_STATE)
        return self._evaluated()

    def _normal(self) -> Tensor:
        """(B, R, 3) standard normal numbers, of each structure's own."""
        found = np.zeros(tuple(self.moving.coordinates.shape))
        sizes = self.moving.n_atoms.tolist()
        for k, (index, size) in enumerate(zip(self.moving.source.tolist(), sizes, strict=True)):
            found[k, CELL_ROWS : CELL_ROWS + size] = self.noise[index].standard_normal((size, 3))
        return torch.from_numpy(found).to(self.moving.coordinates)

    def _keep(self, evaluation: Evaluation, step: int) -> None:
        """Add the present frame to every trajectory where it is time to."""
        if step % self.settings.every and step != self.settings.steps:
            return
        for k, (index, size) in enumerate(zip(self.moving.source.tolist(), self.moving.n_atoms.tolist(), strict=True)):
            rows = slice(CELL_ROWS, CELL_ROWS + size)
            atoms = self.atoms_list[index].copy()
            atoms.set_positions(evaluation.padded_positions[k, rows].cpu().numpy(), apply_constraint=False)
            atoms.set_velocities(self.moving.state[VELOCITIES][k, rows].cpu().numpy())
            energy = float(evaluation.energy[k])
            forces = evaluation.forces[k, rows].cpu().numpy().copy()
            atoms.calc = SinglePointCalculator(atoms, energy=energy, free_energy=energy, forces=forces)
            self.trajectories[index].frames.append(atoms)


def first_velocities(atoms: Atoms, temperature: float, rng: np.random.Generator) -> np.ndarray:
    """(N, 3) Å per ASE's unit of time: the structure's own, else of the temperature (K), the centre of mass at rest."""
    if atoms.has("momenta"):
        return np.asarray(atoms.get_velocities())
    thermal = atoms.copy()
    thermal.set_constraint()
    MaxwellBoltzmannDistribution(thermal, temperature_K=temperature, rng=rng)
    if len(thermal) > 1:
        Stationary(thermal, preserve_temperature=False)
    return np.asarray(thermal.get_velocities())
