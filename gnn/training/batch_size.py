"""How large batches are, where the configuration leaves it to the data."""

from __future__ import annotations

from gnn.graphs.graph_set import Statistics

FEWEST_STRUCTURES, MOST_STRUCTURES = 2, 32
WITH_FORCES, WITHOUT_FORCES = 1000, 200
"""Structures to train on for each of a batch: with forces, every atom of a structure says something."""
FEWEST_ATOMS = 128
"""A batch of half as many atoms costs three quarters as much on a CPU: what is left is the cost of calls."""


def atoms_a_batch(statistics: Statistics, n_own: int) -> int:
    """Atoms of 2 to 32 structures of mean size, as many as `n_own` structures to train on call for; at least 128.

    What this is worth: docs/decisions/0023-small-batches.md.
    """
    share = WITHOUT_FORCES if statistics.force_rms is None else WITH_FORCES
    structures = min(max(n_own // share, FEWEST_STRUCTURES), MOST_STRUCTURES)
    return max(round(structures * statistics.mean_size), FEWEST_ATOMS)


def batches_told(max_atoms: int, statistics: Statistics) -> str:
    """The size of batches, for people."""
    structures = max(1, round(max_atoms / max(statistics.mean_size, 1.0)))
    return f"batches of up to {max_atoms} atoms, about {structures} structures"
