"""What is the matter with a structure that cannot start, or cannot go on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from gnn.errors import InputError
from gnn.graphs.neighbours import check_cell
from gnn.potentials.potential import Potential, unknown_elements
from gnn.simulation.evaluation import Evaluation

Failure = Literal["elements", "non_finite", "exploded", "collapsed", "too_close", "forces", "error"]
"""Elements the potential does not know; energy or forces not finite; volume too large; volume too small; atoms on top
of each other; forces beyond any sense; the potential failed."""


@dataclass(frozen=True)
class Limits:
    """Beyond which a structure is given up.

    volume_ratio: volume over first volume. closest: Å between two atoms. largest_force: eV/Å, of an atom or the cell.
    """

    volume_ratio: tuple[float, float] = (0.3, 3.0)
    closest: float = 0.5
    largest_force: float = 1000.0


def unfit(atoms: Atoms, potential: Potential) -> tuple[Failure, str] | None:
    """Why a structure cannot even start, in kind and in words; None where it can."""
    if unknown := unknown_elements(atoms, potential.elements):
        return "elements", f"the potential has never seen {', '.join(unknown)}"
    if len(atoms) == 0:
        return "error", "there are no atoms"
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell[:]).all()):
        return "non_finite", "positions or cell are not finite"
    try:
        check_cell(np.array(atoms.cell[:]), np.asarray(atoms.pbc))
    except InputError as error:
        return "error", str(error)
    return None


def failures(evaluation: Evaluation, limits: Limits) -> list[Failure | None]:
    """What is the matter with each structure; None for those that are sound."""
    finite = evaluation.energy.isfinite() & evaluation.fmax.isfinite()
    low, high = limits.volume_ratio
    ratio = evaluation.volume_ratio
    tests: list[tuple[Failure, Tensor]] = [
        ("error", torch.tensor([error is not None for error in evaluation.errors], device=finite.device)),
        ("too_close", evaluation.shortest < limits.closest),
        ("non_finite", ~finite),
        ("collapsed", ratio < low),
        ("exploded", ratio > high),
        ("forces", evaluation.fmax > limits.largest_force),
    ]
    found: list[Failure | None] = [None] * len(evaluation.errors)
    for name, holds in tests:
        for k in torch.nonzero(holds).flatten().tolist():
            found[k] = found[k] or name
    return found


def in_words(failure: Failure, evaluation: Evaluation, k: int) -> str:
    """What is the matter with structure `k`, for people."""
    texts: dict[Failure, str | None] = {
        "error": evaluation.errors[k],
        "too_close": f"two atoms came within {float(evaluation.shortest[k]):.2f} Å",
        "non_finite": "the energy or a force is not a finite number",
        "collapsed": f"collapsed: the volume fell to {float(evaluation.volume_ratio[k]):.2f} of the first",
        "exploded": f"exploded: the volume grew to {float(evaluation.volume_ratio[k]):.2f} times the first",
        "forces": f"a force of {float(evaluation.fmax[k]):.0f} eV/Å",
    }
    return texts[failure] or failure
