"""Batched relaxation of positions and cells with in-flight batching: who is finished leaves, who waits takes the place.

Each structure moves by its own forces only, so its result does not depend on what else is in the batch. A structure
that cannot go on (its energy is not a number, it explodes, it collapses) is set aside with its reason; the rest go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.typing import NDArray
from torch import Tensor

from gnn.errors import InputError, told
from gnn.potentials.potential import AtomsPrediction, Potential, usual_max_atoms, warn_of_inherited_elements
from gnn.simulation.evaluation import Evaluation, Evaluator
from gnn.simulation.fire import Fire
from gnn.simulation.fitness import Failure, Limits, failures, in_words, unfit
from gnn.simulation.lbfgs import Lbfgs
from gnn.simulation.optimiser import Optimiser
from gnn.simulation.population import (
    CELL_ROWS,
    Population,
    bounds,
    join,
    population_of,
    refuse_loose_constraints,
    select,
)

Floats = NDArray[np.float64]

Outcome = Literal["converged", "steps"] | Failure
"""converged; out of steps; what else may be the matter."""

OptimiserName = Literal["lbfgs", "fire"]
OPTIMISERS: dict[OptimiserName, Callable[[], Optimiser]] = {"lbfgs": Lbfgs, "fire": Fire}

OnResult = Callable[[int, "Relaxed"], None]


@dataclass(frozen=True)
class RelaxSettings:
    """How to relax.

    fmax: eV/Å, the largest norm of a row of forces, the cell's three rows included, as ASE's FrechetCellFilter has it.
    max_steps: moves, after which a structure is given up. cell: relax cells (only those periodic in three directions).
    volume_ratio: volume over first volume, beyond which a structure has collapsed or exploded. closest: Å between two
    atoms, below which it is given up. largest_force: eV/Å, above which it is given up.
    optimiser: `lbfgs` needs the fewest force calls; `fire` moves step by step as ASE's FIRE.
    """

    fmax: float = 0.05
    max_steps: int = 300
    cell: bool = True
    volume_ratio: tuple[float, float] = (0.3, 3.0)
    closest: float = 0.5
    largest_force: float = 1000.0
    optimiser: OptimiserName = "lbfgs"

    @property
    def limits(self) -> Limits:
        """Beyond which a structure is given up."""
        return Limits(self.volume_ratio, self.closest, self.largest_force)

    def __post_init__(self) -> None:
        if not self.fmax > 0 or self.max_steps < 0:
            raise InputError(f"fmax {self.fmax} must be positive and max_steps {self.max_steps} not negative")
        if self.optimiser not in OPTIMISERS:
            raise InputError(f"no optimiser {self.optimiser!r}; there are {', '.join(OPTIMISERS)}")


@dataclass(frozen=True)
class Relaxed:
    """One structure after its relaxation.

    atoms: relaxed, with energy, forces and stress as a single-point calculator (unchanged where it failed at once).
    energy eV; forces (N, 3) eV/Å; stress (6,) eV/Å³ or None; fmax eV/Å as the convergence test saw it; steps: moves
    made; reason: why it did not converge, in words, with `outcome` as its kind; cpu_s: its share of the CPU time;
    final: what the final potential says of `atoms`, where there is one and the structure did not fail.
    """

    atoms: Atoms
    converged: bool
    steps: int
    energy: float | None
    forces: Floats | None
    stress: Floats | None
    fmax: float | None
    outcome: Outcome
    reason: str | None
    cpu_s: float
    final: AtomsPrediction | None = None

    @property
    def failed(self) -> bool:
        """Whether the structure is of no use; one that only ran out of steps is not failed."""
        return self.outcome not in ("converged", "steps")


def relax_many(
    atoms_list: Sequence[Atoms],
    potential: Potential,
    settings: RelaxSettings | None = None,
    max_atoms: int | None = None,
    on_result: OnResult | None = None,
    final: Potential | None = None,
) -> list[Relaxed]:
    """Relax every structure; results in the order given.

    Args:
        atoms_list: structures; atoms that are wholly fixed stay. Their calculators are not used.
        potential: what gives energy and forces, and stress where cells are to be relaxed.
        settings: how.
        max_atoms: atoms that are evaluated at one time.
        on_result: called with the index and the result of each structure as soon as it is finished.
        final: looks at the relaxed structures once, those that finish together in one batch, for `Relaxed.final`;
            a whole committee's energies and uncertainty where `potential` is its lead.

    Raises:
        InputError: the potential gives no forces, or no stress though cells are to be relaxed, or a structure has a
            constraint that cannot be kept.
    """
    settings = settings or RelaxSettings()
    check_provides(potential, settings)
    refuse_loose_constraints(atoms_list)
    warn_of_inherited_elements(atoms_list, potential)
    room = max_atoms or usual_max_atoms(potential.device)
    run = _Run(atoms_list, potential, settings, room, on_result, final)
    while run.step():
        pass
    return [run.results[k] for k in range(len(atoms_list))]


def check_provides(potential: Potential, settings: RelaxSettings) -> None:
    """Do nothing if the potential gives what the relaxation needs.

    Raises:
        InputError: it gives no forces, or no stress though cells are to be relaxed.
    """
    needed = {"energy", "forces", "stress"} if settings.cell else {"energy", "forces"}
    if missing := sorted(needed - potential.provides):
        what, way_out = (" cells", ", or relax without the cell") if settings.cell else ("", "")
        if "energy" in missing:
            only = ", ".join(sorted(potential.provides)) or "nothing"
            raise InputError(f"the model was not trained on energies or forces (it predicts {only}): it cannot relax")
        raise InputError(
            f"the potential ({potential.theory}) gives no {' and no '.join(missing)}: it cannot relax{what}; "
            f"use another model{way_out}"
        )


class _Run:
    """One call of `relax_many`: the structures in flight, those that wait, and the results so far."""

    def __init__(
        self,
        atoms_list: Sequence[Atoms],
        potential: Potential,
        settings: RelaxSettings,
        max_atoms: int,
        on_result: OnResult | None,
        final: Potential | None,
    ) -> None:
        self.atoms_list = atoms_list
        self.potential = potential
        self.settings = settings
        self.on_result = on_result
        self.final = final
        self.optimiser = OPTIMISERS[settings.optimiser]()
        self.evaluator = Evaluator(potential, max_atoms)
        self.waiting = sorted(range(len(atoms_list)), key=lambda k: (-len(atoms_list[k]), k))[::-1]
        self.flying: Population | None = None
        self.results: dict[int, Relaxed] = {}
        self.clock = time.process_time()

    def step(self) -> bool:
        """Admit, evaluate, retire, move. False when nothing is left."""
        self._admit()
        if self.flying is None:
            return False
        evaluation = self.evaluator.evaluate(self.flying)
        share = self.flying.n_atoms / self.flying.n_atoms.sum()
        flying = replace(self.flying, cpu=self.flying.cpu + self._spent() * share)
        staying = self._retire(flying, evaluation)
        self.flying = self._moved(flying, evaluation, staying) if bool(staying.any()) else None
        return True

    def _spent(self) -> float:
        """CPU seconds since the last call."""
        before, self.clock = self.clock, time.process_time()
        return self.clock - before

    def _admit(self) -> None:
        """Take waiting structures in while there is room; one that is larger than the room flies alone."""
        room = self.evaluator.max_atoms - (int(self.flying.n_atoms.sum()) if self.flying is not None else 0)
        chosen: list[int] = []
        while self.waiting and (len(self.atoms_list[self.waiting[-1]]) <= room or (self.flying is None and not chosen)):
            index = self.waiting.pop()
            if self._refused(index):
                continue
            chosen.append(index)
            room -= len(self.atoms_list[index])
        if chosen:
            newcomers = self._newcomers(chosen)
            padded = self.optimiser.padded
            self.flying = newcomers if self.flying is None else join(self.flying, newcomers, padded)

    def _refused(self, index: int) -> bool:
        atoms = self.atoms_list[index]
        found = unfit(atoms, self.potential)
        if found is not None:
            self._finish(index, Relaxed(atoms.copy(), False, 0, None, None, None, None, *found, 0.0))
        return found is not None

    def _newcomers(self, chosen: list[int]) -> Population:
        atoms_list = [self.atoms_list[index] for index in chosen]
        newcomers = population_of(atoms_list, chosen, self.settings.cell, self.potential.device)
        return replace(newcomers, state=self.optimiser.start(bounds(newcomers)))

    def _retire(self, flying: Population, evaluation: Evaluation) -> Tensor:
        """Finish who is done; (B,) bool of who stays."""
        outcomes = judge(flying, evaluation, self.settings)
        sources = flying.source.tolist()
        finished = {
            sources[k]: _result(self.atoms_list[sources[k]], flying, evaluation, k, outcome, self.settings)
            for k, outcome in enumerate(outcomes)
            if outcome is not None
        }
        for index, result in self._scored(finished).items():
            self.evaluator.forget(index)
            self._finish(index, result)
        return torch.tensor([outcome is None for outcome in outcomes], device=flying.source.device)

    def _scored(self, finished: dict[int, Relaxed]) -> dict[int, Relaxed]:
        """The results with what the final potential says of those that are of use; its cost is theirs."""
        useful = [index for index, result in finished.items() if not result.failed]
        if self.final is None or not useful:
            return finished
        self._spent()
        scored = score({index: finished[index] for index in useful}, self.final)
        seconds = self._spent() / len(useful)
        return finished | {index: replace(result, cpu_s=result.cpu_s + seconds) for index, result in scored.items()}

    def _moved(self, flying: Population, evaluation: Evaluation, staying: Tensor) -> Population:
        padded = self.optimiser.padded
        kept = select(flying, staying, padded)
        rows = kept.numbers.shape[1]
        forces = evaluation.row_forces[staying, :rows]
        state, move = self.optimiser.step(kept.state, forces, evaluation.energy[staying])
        return replace(kept, coordinates=kept.coordinates + move * kept.free, state=state, steps=kept.steps + 1)

    def _finish(self, index: int, result: Relaxed) -> None:
        self.results[index] = result
        if self.on_result is not None:
            self.on_result(index, result)


def score(results: dict[int, Relaxed], final: Potential) -> dict[int, Relaxed]:
    """Results with the final potential's predictions; where it fails over one, that one has failed, with the reason."""
    try:
        predictions = final.predict_atoms([bare(result.atoms) for result in results.values()])
    except Exception as error:  # noqa: BLE001 - foreign models raise whatever they like over one structure
        if len(results) > 1:
            return {k: one for index, result in results.items() for k, one in score({index: result}, final).items()}
        reason = told(error)
        return {k: replace(r, converged=False, outcome="error", reason=reason) for k, r in results.items()}
    return {k: replace(r, final=p) for (k, r), p in zip(results.items(), predictions, strict=True)}


def bare(atoms: Atoms) -> Atoms:
    """Numbers, positions, cell and periodicity alone."""
    return Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)


def judge(population: Population, evaluation: Evaluation, settings: RelaxSettings) -> list[Outcome | None]:
    """Who is finished, and how; None for those that go on. A failure counts before convergence."""
    outcomes: list[Outcome | None] = list(failures(evaluation, settings.limits))
    ends: list[tuple[Outcome, Tensor]] = [
        ("converged", evaluation.fmax < settings.fmax),
        ("steps", population.steps >= settings.max_steps),
    ]
    for name, holds in ends:
        for k in torch.nonzero(holds).flatten().tolist():
            outcomes[k] = outcomes[k] or name
    return outcomes


def _reason(outcome: Outcome, evaluation: Evaluation, k: int, settings: RelaxSettings) -> str | None:
    if outcome == "converged":
        return None
    if outcome == "steps":
        return f"not converged after {settings.max_steps} steps: fmax {float(evaluation.fmax[k]):.3f} eV/Å"
    return in_words(outcome, evaluation, k)


def _result(
    before: Atoms, population: Population, evaluation: Evaluation, k: int, outcome: Outcome, settings: RelaxSettings
) -> Relaxed:
    atoms = before.copy()
    atoms.info = dict(before.info)
    rows = slice(CELL_ROWS, CELL_ROWS + len(atoms))
    periodic = bool(atoms.pbc.all())
    if bool(population.free[k, 0, 0] > 0):
        atoms.set_cell(evaluation.where.cell[k].cpu().numpy())
    positions = evaluation.padded_positions[k, rows].cpu().numpy()
    atoms.set_positions(positions, apply_constraint=False)
    energy = float(evaluation.energy[k])
    forces = evaluation.forces[k, rows].cpu().numpy().copy()
    stress = evaluation.stress[k].cpu().numpy().copy() if evaluation.stress is not None and periodic else None
    if np.isfinite(energy):
        labels = {"energy": energy, "free_energy": energy, "forces": forces} | (
            {} if stress is None else {"stress": stress}
        )
        atoms.calc = SinglePointCalculator(atoms, **labels)
    return Relaxed(
        atoms=atoms,
        converged=outcome == "converged",
        steps=int(population.steps[k]),
        energy=energy if np.isfinite(energy) else None,
        forces=forces if np.isfinite(forces).all() else None,
        stress=stress,
        fmax=float(evaluation.fmax[k]) if bool(evaluation.fmax[k].isfinite()) else None,
        outcome=outcome,
        reason=_reason(outcome, evaluation, k, settings),
        cpu_s=float(population.cpu[k]),
    )
