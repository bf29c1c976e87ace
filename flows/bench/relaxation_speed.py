"""Batched relaxation beside ASE one structure at a time: the same model, cells and convergence test, in turns.

`sluice bench relaxation MODEL [--cells N] [--rounds N]`; the cells are prototypes decorated with the
model's elements at volumes 15 % below to 20 % above the guess.
"""

from __future__ import annotations

import sys
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
from flows.settings import apply_quiet_defaults, find_home
from gnn.potentials.calculator import SluiceCalculator
from gnn.potentials.potential import Potential
from gnn.screening.prototypes import PROTOTYPES, decorations
from gnn.screening.volumes import guess_volume
from gnn.simulation.relax import OptimiserName, RelaxSettings, relax_many

FMAX, MAX_STEPS, SEED = 0.05, 300, 0
LARGEST_CELL = 8
COLUMNS = [
    Column(name="way"),
    Column(name="converged"),
    Column(name="moves a cell", digits=1),
    Column(name="cells a CPU minute", digits=0),
    Column(name="times ASE FIRE", digits=1),
    Column(name="same energy within 1 meV/atom"),
]


@dataclass(frozen=True)
class Pass:
    """One way's pass over the cells: CPU seconds, moves, energies in eV (NaN where not converged)."""

    cpu_s: float
    steps: int
    energies: np.ndarray


Way = Callable[[Sequence[Atoms], Potential], tuple[int, list[float]]]


def cells(elements: Sequence[str], count: int) -> list[Atoms]:
    """`count` prototypes of up to three of `elements`, in a fixed random order."""
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
    return [found[k] for k in order]


def with_ase(optimiser: type[FIRE] | type[BFGS]) -> Way:
    """One structure after the other with an ASE optimiser and its Frechet cell filter."""

    def run(structures: Sequence[Atoms], potential: Potential) -> tuple[int, list[float]]:
        calculator = SluiceCalculator(potential)
        steps, energies = 0, []
        for structure in structures:
            atoms = structure.copy()
            atoms.calc = calculator
            moves = optimiser(FrechetCellFilter(atoms), logfile=None)
            converged = moves.run(fmax=FMAX, steps=MAX_STEPS)
            steps += moves.nsteps
            energies.append(float(atoms.get_potential_energy()) if converged else float("nan"))
        return steps, energies

    return run


def batched(optimiser: OptimiserName, max_atoms: int | None = None) -> Way:
    """All together with in-flight batching."""

    def run(structures: Sequence[Atoms], potential: Potential) -> tuple[int, list[float]]:
        settings = RelaxSettings(fmax=FMAX, max_steps=MAX_STEPS, optimiser=optimiser)
        results = relax_many(structures, potential, settings, max_atoms)
        energies = [r.energy if r.converged and r.energy is not None else float("nan") for r in results]
        return sum(r.steps for r in results), energies

    return run


WAYS: dict[str, Way] = {
    "ASE FIRE, one by one": with_ase(FIRE),
    "ASE BFGS, one by one": with_ase(BFGS),
    "Sluice fire, batched": batched("fire"),
    "Sluice lbfgs, one by one": batched("lbfgs", max_atoms=1),
    "Sluice lbfgs, batched (default)": batched("lbfgs"),
}


def timed(way: Way, structures: Sequence[Atoms], potential: Potential) -> Pass:
    """One pass in CPU seconds."""
    started = time.process_time()
    steps, energies = way(structures, potential)
    return Pass(time.process_time() - started, steps, np.array(energies))


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
        cells.append([name, converged, found.steps / n, a_minute, faster[name].middle, same])
    return cells


def run(model: str, count: int, rounds: int) -> BenchTable:
    """Relax `count` cells of the model's elements in every way, in turn.

    Raises:
        InputError: there is no such model.
    """
    torch.set_num_threads(1)
    potential = open_potential(model, find_home())
    potential = potential.lead() if hasattr(potential, "lead") else potential
    structures = cells(sorted(potential.elements)[:4], count)
    batched("lbfgs")(structures[:4], potential)
    passes = in_turn(list(WAYS), rounds, lambda name: timed(WAYS[name], structures, potential))
    part = Part(title="Ways to relax", columns=COLUMNS, rows=rows(passes, structures))
    notes = [heading(structures, potential, rounds)]
    command = f"sluice bench relaxation MODEL --cells {count} --rounds {rounds}"
    return bench_table("relaxation", "Batched relaxation beside ASE", command, [part], seeds=[SEED], notes=notes)


def heading(structures: Sequence[Atoms], potential: Potential, rounds: int) -> str:
    """What was measured."""
    work = f"{len(structures)} cells of 1 to {LARGEST_CELL} atoms ({sum(map(len, structures))} in all)"
    task = f"fmax {FMAX} eV/Å with cell, at most {MAX_STEPS} moves, model of {potential.theory}, float32"
    return f"{work}, {task}, one thread, {rounds} rounds in turn."


def main() -> None:
    """Print the table."""
    apply_quiet_defaults()
    count, rounds = (int(sys.argv[k]) if len(sys.argv) > k else default for k, default in ((2, 60), (3, 3)))
    sys.stdout.write(run(sys.argv[1], count, rounds).markdown())


if __name__ == "__main__":
    main()
