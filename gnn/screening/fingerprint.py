"""A structure's fingerprint: equal for the same crystal in any cell, orientation or volume; cheap, but not injective.

Used to sort candidates into buckets before pairs are compared by a structure matcher.
"""

from __future__ import annotations

from collections import Counter
from functools import reduce
from math import gcd

import numpy as np
import vesin
from ase import Atoms

CUTOFF = 2.3
"""Radius in units of the cube root of the volume per atom; holds about 50 neighbours."""
DECIMALS = 2

AtomKey = tuple[int, tuple[tuple[int, int, int], ...]]
Fingerprint = tuple[tuple[AtomKey, int], ...]


def fingerprint(atoms: Atoms) -> Fingerprint:
    """Multiset of each atom's shells (element, distance, count), distances in units of the mean atomic spacing.

    Counts are divided by their common factor, so a supercell has its primitive cell's fingerprint.
    """
    spacing = (atoms.get_volume() / len(atoms)) ** (1 / 3)
    calculator = vesin.NeighborList(cutoff=CUTOFF * spacing, full_list=True)
    i, j, d = calculator.compute(points=atoms.positions, box=atoms.cell[:], periodic=True, quantities="ijd")
    bins = np.floor(d / spacing / 10.0**-DECIMALS + 0.5).astype(int)
    shells: list[Counter[tuple[int, int]]] = [Counter() for _ in atoms]
    for centre, neighbour, distance in zip(i, j, bins, strict=True):
        shells[centre][int(atoms.numbers[neighbour]), int(distance)] += 1
    keys: Counter[AtomKey] = Counter(
        (int(number), tuple(sorted((z, r, n) for (z, r), n in shell.items())))
        for number, shell in zip(atoms.numbers, shells, strict=True)
    )
    factor = reduce(gcd, keys.values())
    return tuple(sorted((key, count // factor) for key, count in keys.items()))
