"""How much energies weigh against forces, where the configuration leaves it to the data."""

from __future__ import annotations

from gnn.graphs.graph_set import Statistics
from gnn.training.config import LossConfig

LEAST, MOST = 10.0, 40.0
"""Weights at the beginning: of molecules in motion, and of small symmetric cells."""
PER_ANGSTROM = 150.0
"""What an Å of energy spread over force adds."""
LEAST_FORCE = 1e-3
"""eV/Å: RMS forces below it are noise about what symmetry forbids, and set no scale."""
RISE = 10.0
"""How many times as heavy they are after the hand-over."""


def energy_spread(statistics: Statistics) -> float | None:
    """What energies tell beside forces, in Å; None where there are no energies or no forces to speak of.

    The RMS energy (eV/atom, references and bonding subtracted) over the RMS force (eV/Å). A molecule in motion has
    0.01 Å, elements in many phases 0.2 to 0.4 Å, prototypes of compounds, where symmetry forbids most forces, 2 Å.
    """
    forces = statistics.force_rms or 0.0
    if forces < LEAST_FORCE or statistics.energy_rms is None:
        return None
    return statistics.energy_rms / forces


def energy_weights(statistics: Statistics) -> tuple[float, float]:
    """Weights of the energy at the beginning and after the hand-over; they rise with `energy_spread`.

    What this is worth: docs/decisions/0009-energy-weights.md.
    """
    early = min(LEAST + PER_ANGSTROM * (energy_spread(statistics) or 0.0), MOST)
    return early, RISE * early


def with_energy_weights(losses: LossConfig, statistics: Statistics) -> LossConfig:
    """The same with the weights of the energy filled in where they are None: the late one rises from the other."""
    term = losses.energy
    early = energy_weights(statistics)[0] if term.weight is None else term.weight
    late = RISE * early if term.late_weight is None else term.late_weight
    return losses.model_copy(update={"energy": term.model_copy(update={"weight": early, "late_weight": late})})
