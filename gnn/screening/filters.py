"""What is impossible, unfinished or too uncertain to go on: each check gives a reason that is counted, or None."""

from __future__ import annotations

import math

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from numpy.typing import NDArray

from gnn.graphs.neighbours import neighbour_list
from gnn.screening.campaign import FilterSpec
from gnn.screening.volumes import guess_volume, roomy_volume

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
PERIODIC = np.ones(3, dtype=bool)

Reason = tuple[str, str] | None
"""A reason that is counted and a detail that is not, or None."""


def geometry_reason(numbers: Ints, positions: Floats, cell: Floats, spec: FilterSpec) -> Reason:
    """Why a crystal cannot be: numbers (N,), positions (N, 3) and cell (3, 3) in Å."""
    if not (np.isfinite(positions).all() and np.isfinite(cell).all()):
        return "not finite", ""
    volume = abs(float(np.linalg.det(cell)))
    if volume < 0.1 * len(numbers):
        return "no volume", f"{volume:.3g} Å³"
    if (reason := _volume_reason(numbers, volume, spec)) is not None:
        return reason
    return _distance_reason(numbers, positions, cell, spec)


def _volume_reason(numbers: Ints, volume: float, spec: FilterSpec) -> Reason:
    if spec.volume_ratio is None:
        return None
    symbols = [chemical_symbols[number] for number in numbers]
    low, high = spec.volume_ratio
    least, most = low * guess_volume(symbols), high * roomy_volume(symbols)
    if least <= volume <= most:
        return None
    told = f"{volume / guess_volume(symbols):.2f} of the elements' volume"
    return ("too dense" if volume < least else "too dilute"), told


def _distance_reason(numbers: Ints, positions: Floats, cell: Floats, spec: FilterSpec) -> Reason:
    if spec.min_distance <= 0:
        return None
    radii = covalent_radii[numbers]
    edges = neighbour_list(positions, cell, PERIODIC, 2 * spec.min_distance * float(radii.max()))
    if not len(edges):
        return None
    distances = np.linalg.norm(positions[edges.senders] - positions[edges.receivers] + edges.shifts @ cell, axis=1)
    # a short bond of small atoms must not hide a larger pair that is too close for its size
    relative = distances / (radii[edges.senders] + radii[edges.receivers])
    worst = int(np.argmin(relative))
    if relative[worst] >= spec.min_distance:
        return None
    i, j = sorted((edges.senders[worst], edges.receivers[worst]))
    pair = f"{chemical_symbols[numbers[i]]}-{chemical_symbols[numbers[j]]}"
    return "atoms too close", f"{pair} {distances[worst]:.2f} Å"


def energy_reason(energy_per_atom: float | None, formation_energy: float | None, spec: FilterSpec) -> Reason:
    """Why an energy (eV/atom) is no energy: missing, not finite, or a formation energy beyond physics."""
    if energy_per_atom is None or not math.isfinite(energy_per_atom):
        return "no energy", ""
    limit = spec.max_formation_energy
    if limit is not None and formation_energy is not None and abs(formation_energy) > limit:
        return f"formation energy beyond {limit:g} eV/atom", f"{formation_energy:.2f}"
    return None


def uncertainty_reason(uncertainty: float | None, spec: FilterSpec) -> Reason:
    """Whether the model is too unsure (eV/atom); a potential without uncertainty passes."""
    if spec.max_uncertainty is None or uncertainty is None or uncertainty <= spec.max_uncertainty:
        return None
    return f"uncertainty above {spec.max_uncertainty:g} eV/atom", f"{uncertainty:.3f}"


def hull_reason(hull_distance: float, spec: FilterSpec) -> Reason:
    """Whether a candidate lies too far above the hull (eV/atom)."""
    if spec.max_hull_distance is None or hull_distance <= spec.max_hull_distance:
        return None
    return f"more than {spec.max_hull_distance:g} eV/atom above the hull", f"{hull_distance:.3f}"
