"""Batched relaxation beside ASE one structure at a time: the same model, cells and convergence test, in turns.

The cells are prototypes decorated with the model's elements at volumes 15 % below to 20 % above the guess.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from ase import Atoms
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS, FIRE

from flows.bench.rounds import in_turn, ratios, spread
from flows.bench.table import BenchTable, Cell, Column, Part, bench_table
from flows.relax import open_potential
from flows.settings import find_home
from gnn.errors import InputError
from gnn.potentials.calculator import SluiceCalculator
from gnn.potentials.potential import Potential
from gnn.screening.prototypes import PROTOTYPES, decorations
from gnn.screening.volumes import guess_volume
from gnn.simulation.relax import OptimiserName, RelaxSettings, relax_many

MAX_STEPS, SEED = 300, 0
LARGEST_CELL = 8
STRAIN = 0.03
"""Largest entry of the random strain of a rattled cell."""
COLUMNS = [
    Column(name="way"),
    Column(name="converged"),
    Column(name="moves a cell", digits=1),
    Column(name="of nine in ten at most", digits=0),
    Column(name="cells a CPU minute", digits=0),
    Column(name="times ASE FIRE", digits=1),
    Column(name="same energy within 1 meV/atom"),
]


@dataclass(frozen=True)
class Plan:
    """What is relaxed: `count` cells of `elements`, rattled by so many Å, to forces of fmax (eV/Å), over and over."""

    elements: tuple[str, ...]
    count: int = 60
    fmax: float = 0.05
    rattle: float = 0.0
    rounds: int = 3


@dataclass(frozen=True)
class Pass:
    """One way's pass over the cells (N,): CPU seconds, moves, energies in eV (NaN where not converged)."""

    cpu_s: float
    steps: np.ndarray
    energies: np.ndarray


Way = Callable[[Sequence[Atoms], Potential, float], tuple[list[int], list[float]]]


def cells(elements: Sequence[str], count: int, rattle: float = 0.0) -> list[Atoms]:
    """`count` prototypes of up to three of `elements`, in a fixed random order; rattled (Å) ones are strained as well.

    Shapes of the strain: symmetric, entries of up to `STRAIN`.
    """
    rng = np.random.default_rng(SEED)
    found = []
    for prototype in PROTOTYPES.values():
        if len(prototype.sites) > LARGEST_CELL:
            continue
        for chosen in combinations(elements, len(prototype.labels)):
            for decoration in decorations(prototype, chosen):
                of_label = dict(zip(prototype.labels, decoration, strict=True))
                volume = guess_volume([of_label[label] for label, _ in prototype.sites])
                found.append(prototype.decorate(decoration, volume * rng.uniform(0.85, 1.2)))
    order = rng.permutation(len(found))[:count]
    return [rattled(found[k], rattle, rng) for k in order]


def rattled(atoms: Atoms, displacement: float, rng: np.random.Generator) -> Atoms:
    """The cell with a random strain and atoms displaced by a normal distribution of that width (Å); 0 leaves it."""
    if not displacement:
        return atoms
    strain = rng.uniform(-STRAIN, STRAIN, (3, 3))
    moved = atoms.copy()
    moved.set_cell(atoms.cell[:] @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
    moved.positions += rng.normal(0, displacement, atoms.positions.shape)
    return moved


def with_ase(optimiser: type[FIRE] | type[BFGS]) -> Way:
    """One structure after the other with an ASE optimiser and its Frechet cell filter."""

    def run(structures: Sequence[Atoms], potential: Potential, fmax: float) -> tuple[list[int], list[float]]:
        calculator = SluiceCalculator(potential)
        steps, energies = [], []
        for structure in structures:
            atoms = structure.copy()
            atoms.calc = calculator
            moves = optimiser(FrechetCellFilter(atoms), logfile=None)
            converged = moves.run(fmax=fmax, steps=MAX_STEPS)
            steps.append(moves.nsteps)
            energies.append(float(atoms.get_potential_energy()) if converged else float("nan"))
        return steps, energies

    return run


def batched(optimiser: OptimiserName, max_atoms: int | None = None) -> Way:
    """All together with in-flight batching."""

    def run(structures: Sequence[Atoms], potential: Potential, fmax: float) -> tuple[list[int], list[float]]:
        settings = RelaxSettings(fmax=fmax, max_steps=MAX_STEPS, optimiser=optimiser)
        results = relax_many(structures, potential, settings, max_atoms)
        energies = [r.energy if r.converged and r.energy is not None else float("nan") for r in results]
        return [r.steps for r in results], energies

    return run


WAYS: dict[str, Way] = {
    "ASE FIRE, one by one": with_ase(FIRE),
    "ASE BFGS, one by one": with_ase(BFGS),
    "Sluice fire, batched": batched("fire"),
    "Sluice lbfgs, one by one": batched("lbfgs", max_atoms=1),
    "Sluice lbfgs, batched (default)": batched("lbfgs"),
}


def timed(way: Way, structures: Sequence[Atoms], potential: Potential, fmax: float) -> Pass:
    """One pass in CPU seconds."""
    started = time.process_time()
    steps, energies = way(structures, potential, fmax)
    return Pass(time.process_time() - started, np.array(steps), np.array(energies))


def rows(passes: dict[str, list[Pass]], structures: Sequence[Atoms]) -> list[list[Cell]]:
    """The table's rows: medians over the rounds, ratios round by round to the first way."""
    first = next(iter(passes))
    faster = ratios({name: [one.cpu_s for one in rounds] for name, rounds in passes.items()}, first)
    n_atoms = np.array([len(atoms) for atoms in structures])
    n = len(structures)
    cells: list[list[Cell]] = []
    for name, rounds in passes.items():
        found = rounds[0]
        same = int((np.abs(found.energies - passes[first][0].energies) / n_atoms < 1e-3).sum())
        converged = f"{np.isfinite(found.energies).sum()} of {n}"
        a_minute = 60 * n / spread([one.cpu_s for one in rounds]).middle
        moves, most = float(found.steps.mean()), float(np.quantile(found.steps, 0.9))
        cells.append([name, converged, moves, most, a_minute, faster[name].middle, same])
    return cells


def run(model: str, plan: Plan) -> BenchTable:
    """Relax the cells in every way, in turn; without elements the first four of the model's.

    Raises:
        InputError: there is no such model, or it does not know an element.
    """
    torch.set_num_threads(1)
    potential = open_potential(model, find_home())
    potential = potential.lead() if hasattr(potential, "lead") else potential
    elements = known_elements(plan.elements, potential)
    structures = cells(elements, plan.count, plan.rattle)
    batched("lbfgs")(structures[:4], potential, plan.fmax)
    passes = in_turn(list(WAYS), plan.rounds, lambda name: timed(WAYS[name], structures, potential, plan.fmax))
    part = Part(title="Ways to relax", columns=COLUMNS, rows=rows(passes, structures))
    named = "".join(f" --element {element}" for element in elements)
    command = (
        f"sluice bench relaxation {model}{named} --cells {plan.count} --fmax {plan.fmax:g} --rattle {plan.rattle:g} "
        f"--rounds {plan.rounds}"
    )
    notes = [heading(structures, potential, plan)]
    return bench_table("relaxation", "Batched relaxation beside ASE", command, [part], seeds=[SEED], notes=notes)


def known_elements(wanted: Sequence[str], potential: Potential) -> tuple[str, ...]:
    """The elements wanted, if the potential knows them all; the first four that it knows where none is.

    Raises:
        InputError: it does not know one.
    """
    known = sorted(potential.elements)
    if strangers := sorted(set(wanted) - set(known)):
        raise InputError(f"--element {strangers[0]}: the model knows {', '.join(known)}")
    return tuple(wanted or known[:4])


def heading(structures: Sequence[Atoms], potential: Potential, plan: Plan) -> str:
    """What was measured."""
    work = f"{len(structures)} cells of 1 to {LARGEST_CELL} atoms ({sum(map(len, structures))} in all)"
    shaken = f", rattled by {plan.rattle:g} Å and strained by up to {STRAIN:.0%}" if plan.rattle else ""
    task = f"fmax {plan.fmax:g} eV/Å with cell, at most {MAX_STEPS} moves, model of {potential.theory}"
    return f"{work}{shaken}, {task}, one thread, {plan.rounds} rounds in turn."
