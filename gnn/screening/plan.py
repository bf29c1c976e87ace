"""How a campaign is cut into shards: balanced by atoms, the same every time."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gnn.screening.names import Names

ATOMS_PER_SHARD = 20_000
"""About ten minutes of relaxation on one core with a network."""
SHARDS_PER_WORKER = 3
SMALLEST_SHARD = 8
"""Structures below which cutting further costs more than it balances."""
MOST_SHARDS = 1000
"""More tasks than this a flow's page and its server do not bear."""
NO_SHARD = -1

Ints = NDArray[np.int32]


def number_of_shards(sizes: Sequence[int] | Ints, workers: int, atoms_per_shard: int | None = None) -> int:
    """How many shards to cut for structures of `sizes` atoms.

    By `atoms_per_shard` where given, else a few a worker, or by size where that is more.
    """
    atoms = int(np.sum(sizes, dtype=np.int64))
    if atoms_per_shard is not None:
        wanted = math.ceil(atoms / atoms_per_shard)
    else:
        few = min(SHARDS_PER_WORKER * workers, len(sizes) // SMALLEST_SHARD)
        wanted = max(few, math.ceil(atoms / ATOMS_PER_SHARD))
    return max(1, min(wanted, MOST_SHARDS, len(sizes)))


def plan_shards(sizes: Sequence[int] | Ints, names: Names, n_shards: int) -> Ints:
    """The shard of each structure: large ones are dealt first, each to the shard with the fewest atoms so far.

    Shapes: sizes (n,) atoms, names (n,), which settle who comes first among equals; gives (n,).
    """
    shard_of = np.empty(len(sizes), dtype=np.int32)
    loads = [(0, shard) for shard in range(n_shards)]
    for place in np.lexsort((names.array, -np.asarray(sizes, dtype=np.int64))):
        atoms, shard = loads[0]
        shard_of[place] = shard
        heapq.heapreplace(loads, (atoms + int(sizes[place]), shard))
    return shard_of


class Plan(Mapping[int, list[str]]):
    """Shard -> ids of its structures in order: candidates, and after them `more` that only the hull needs.

    shard_of: shard of each of `names` and then of each of `more`, NO_SHARD where it is not computed.
    """

    def __init__(self, names: Names, more: Sequence[str], shard_of: Ints) -> None:
        self.names = names
        self.more = list(more)
        self.shard_of = shard_of

    @cached_property
    def order(self) -> NDArray[np.uint32]:
        """Places by shard, in order inside one; those without a shard first."""
        return np.argsort(self.shard_of, kind="stable").astype(np.uint32)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where each shard begins in `order`, and where the last ends."""
        n_shards = int(self.shard_of.max(initial=NO_SHARD)) + 1
        counts = np.bincount(self.shard_of[self.shard_of >= 0], minlength=n_shards)
        return len(self.shard_of) - int(counts.sum()) + np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))

    def places(self, shard: int) -> NDArray[np.uint32]:
        """Places of a shard's structures."""
        return self.order[self.starts[shard] : self.starts[shard + 1]]

    @property
    def n_planned(self) -> int:
        """Structures of all shards."""
        return int(self.starts[-1] - self.starts[0])

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))

    def __contains__(self, shard: object) -> bool:
        return isinstance(shard, int) and 0 <= shard < len(self)

    def __getitem__(self, shard: int) -> list[str]:
        if shard not in self:
            raise KeyError(shard)
        return [self.name(int(place)) for place in self.places(shard)]

    def name(self, place: int) -> str:
        """Who stands at a place."""
        return self.names[place] if place < len(self.names) else self.more[place - len(self.names)]
