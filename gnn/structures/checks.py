"""Checks of records: what is impossible is rejected with a reason, what is merely odd is kept with a flag.

A reason is `code` or `code: detail`; codes are counted.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gnn.structures.cards import CardProperty
from gnn.structures.geometry import closest_pair, periodic_measure
from gnn.structures.record import Record
from gnn.structures.units import STRESS_UNITS

OVERLAP = 0.3
"""Å. Less than half of the shortest bond (H2, 0.74 Å): no self-consistent calculation means anything there."""

CLOSE = 0.5
"""Å. Closer than any bond; dimer scans for the repulsive wall reach it, so it is only a flag."""

MIN_VOLUME_PER_ATOM = 0.1
"""Å³. Hydrogen at the centre of Jupiter has about 1; below a tenth of that the cell is wrong."""

LARGE_FORCE = 50.0
"""eV/Å. Wild trial steps of relaxations have hundreds; violent MD stays below."""

LARGE_STRESS = 500 * STRESS_UNITS["GPa"]
HIGH_ENERGY = 20.0
"""eV/atom above zero, which is free atoms or less in every convention."""

MAX_ATOMIC_NUMBER = 118

FLAGS: dict[str, str] = {
    "large-force": f"an atom's force exceeds {LARGE_FORCE:g} eV/Å",
    "large-stress": "a stress component exceeds 500 GPa",
    "high-energy": f"the energy exceeds +{HIGH_ENERGY:g} eV/atom",
    "close-contact": f"two atoms are nearer than {CLOSE:g} Å",
    "implausible": "a property lies outside the range that its card calls plausible (implausible:NAME)",
    "scf-unconverged": "the electronic self-consistency loop ran to its limit",
    "unlabelled": "there is no energy, force, stress or property",
}
"""Flags that a record may carry, and what they mean."""


def examine(record: Record, properties: Mapping[str, CardProperty] | None = None) -> tuple[str | None, tuple[str, ...]]:
    """`reject_reason` and `flags_of` at once, which looks for close atoms only once."""
    for check in (_elements, _lengths, _finite, _volume):
        if (reason := check(record)) is not None:
            return reason, ()
    pair = closest_pair(record.positions, record.cell, record.pbc, CLOSE)
    if pair is not None and pair[2] < OVERLAP:
        return f"overlapping-atoms: atoms {pair[0]} and {pair[1]} are {pair[2]:.3f} Å apart", ()
    return None, _flags(record, properties or {}, pair is not None)


def reject_reason(record: Record) -> str | None:
    """Why a record is unreadable or impossible, as `code: detail`; None if it is neither."""
    return examine(record)[0]


def flags_of(record: Record, properties: Mapping[str, CardProperty] | None = None) -> tuple[str, ...]:
    """What is odd about a sound record, as keys of `FLAGS`; sorted, with those that it already carries."""
    return examine(record, properties)[1]


def _elements(record: Record) -> str | None:
    if record.n_atoms == 0:
        return "no-atoms"
    unknown = record.numbers[(record.numbers < 1) | (record.numbers > MAX_ATOMIC_NUMBER)]
    return f"unknown-element: atomic number {unknown[0]}" if len(unknown) else None


def _lengths(record: Record) -> str | None:
    n = record.n_atoms
    due = {
        "positions": (n, 3), "cell": (3, 3), "pbc": (3,), "forces": (n, 3), "stress": (6,),
        "magmoms": (n,), "charges": (n,), "fixed": (n,), "tags": (n,),
    }  # fmt: skip
    for name, shape in due.items():
        value = getattr(record, name)
        if value is not None and np.shape(value) != shape:
            return f"array-length: {name} has shape {np.shape(value)} where {shape} is due"
    for name, value in record.properties.items():
        if isinstance(value, list) and len(value) != n:
            return f"array-length: property {name} has {len(value)} numbers for {n} atoms"
    return None


def _finite(record: Record) -> str | None:
    names = ("positions", "cell", "energy", "free_energy", "forces", "stress", "magmoms", "charges")
    values = {name: getattr(record, name) for name in names} | record.properties
    for name, value in values.items():
        if value is not None and not np.isfinite(value).all():
            return f"non-finite: {name}"
    return None


def _volume(record: Record) -> str | None:
    if not record.pbc.any():
        return None
    measure = periodic_measure(record.cell, record.pbc)
    due = MIN_VOLUME_PER_ATOM * record.n_atoms if record.is_bulk else OVERLAP
    return f"no-volume: the cell spans {measure:.3g} where at least {due:.3g} is due" if measure < due else None


def _flags(record: Record, properties: Mapping[str, CardProperty], close: bool) -> tuple[str, ...]:
    flags = set(record.flags)
    if record.forces is not None and np.linalg.norm(record.forces, axis=1).max() > LARGE_FORCE:
        flags.add("large-force")
    if record.stress is not None and np.abs(record.stress).max() > LARGE_STRESS:
        flags.add("large-stress")
    if record.energy is not None and record.energy > HIGH_ENERGY * record.n_atoms:
        flags.add("high-energy")
    if close:
        flags.add("close-contact")
    if is_unlabelled(record):
        flags.add("unlabelled")
    flags.update(f"implausible:{name}" for name in _implausible(record, properties))
    return tuple(sorted(flags))


def is_unlabelled(record: Record) -> bool:
    """Whether there is nothing to learn from: no energy, forces, stress or property."""
    labels = (record.energy, record.free_energy, record.forces, record.stress)
    return not record.properties and all(label is None for label in labels)


def _implausible(record: Record, properties: Mapping[str, CardProperty]) -> list[str]:
    names = []
    for name, value in record.properties.items():
        declared = properties.get(name)
        if declared is None or declared.plausible is None:
            continue
        low, high = declared.plausible
        if np.min(value) < low or np.max(value) > high:
            names.append(name)
    return names
