"""How a campaign is cut into shards: balanced by atoms, the same every time."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gnn.screening.candidates import Candidate

ATOMS_PER_SHARD = 20_000
"""About ten minutes of relaxation on one core with a network."""
SHARDS_PER_WORKER = 3
SMALLEST_SHARD = 8
"""Structures below which cutting further costs more than it balances."""
MOST_SHARDS = 1000
"""More tasks than this a flow's page and its server do not bear."""


def number_of_shards(candidates: Sequence[Candidate], workers: int, atoms_per_shard: int | None = None) -> int:
    """How many shards to cut: by `atoms_per_shard` where given, else a few a worker, or by size where that is more."""
    atoms = sum(candidate.n_atoms for candidate in candidates)
    if atoms_per_shard is not None:
        wanted = math.ceil(atoms / atoms_per_shard)
    else:
        few = min(SHARDS_PER_WORKER * workers, len(candidates) // SMALLEST_SHARD)
        wanted = max(few, math.ceil(atoms / ATOMS_PER_SHARD))
    return max(1, min(wanted, MOST_SHARDS, len(candidates)))


def plan_shards(candidates: Sequence[Candidate], n_shards: int) -> list[list[Candidate]]:
    """Deal candidates to shards, large ones first, each to the shard with the fewest atoms so far; order is kept."""
    shards: list[list[int]] = [[] for _ in range(n_shards)]
    atoms = [0] * n_shards
    for place in sorted(range(len(candidates)), key=lambda k: (-candidates[k].n_atoms, candidates[k].candidate_id)):
        lightest = atoms.index(min(atoms))
        shards[lightest].append(place)
        atoms[lightest] += candidates[place].n_atoms
    return [[candidates[place] for place in sorted(shard)] for shard in shards if shard]
