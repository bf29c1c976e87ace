"""Structures as JSON holds them: pymatgen's dictionaries, JARVIS', plain cell-symbols-positions; and CIF text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import atomic_numbers

from gnn.structures.readers.raw import DISORDERED, Raw, UnreadableRow, unreadable_row

if TYPE_CHECKING:
    from pymatgen.core import Structure

CHARGE_ROUNDING = 1e-3
"""What sums of rounded charges of atoms, or of oxidation states, may be off by, in e."""


def raw_of_structure(structure: Structure) -> Raw:
    """The raw row of an ordered pymatgen Structure, without labels.

    Raises:
        UnreadableRow: a site is shared by several elements or partly empty.
    """
    if not structure.is_ordered:
        raise UnreadableRow(DISORDERED)
    return Raw(
        numbers=np.array([site.specie.Z for site in structure], dtype=np.int64),
        positions=np.asarray(structure.frac_coords, dtype=float) @ structure.lattice.matrix,
        cell=np.array(structure.lattice.matrix, dtype=float),
        pbc=np.array(structure.lattice.pbc, dtype=bool),
    )


def looks_like_structure(value: Any) -> bool:
    """Whether a JSON value is a structure that `decode` knows."""
    return isinstance(value, Mapping) and any(all(key in value for key in keys) for keys in DECODERS)


def decode(value: Any) -> Raw:
    """The structure in a JSON value.

    Raises:
        UnreadableRow: it is none, is disordered, or names an unknown element.
    """
    if isinstance(value, str):
        return _of_cif(value)
    if isinstance(value, Mapping):
        for keys, decoder in DECODERS.items():
            if all(key in value for key in keys):
                return _guarded(decoder, value)
    raise UnreadableRow(f"unreadable-row: no structure but {str(value)[:80]!r}")


def _of_cif(text: str) -> Raw:
    from gnn.structures.readers.cif import raw_of_cif

    try:
        return raw_of_cif(text)
    except UnreadableRow:
        raise
    except Exception as error:  # noqa: BLE001 - pymatgen raises whatever its parsing steps on; the reason is kept
        raise UnreadableRow(unreadable_row(error)) from None


def _guarded(decoder: Any, value: Mapping[str, Any]) -> Raw:
    try:
        raw: Raw = decoder(value)
    except UnreadableRow:
        raise
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UnreadableRow(unreadable_row(error)) from None
    return raw


def _pymatgen(value: Mapping[str, Any]) -> Raw:
    """A pymatgen Structure dictionary, `abc` coordinates first, as pymatgen itself reads it."""
    matrix = np.array(value["lattice"]["matrix"], dtype=float)
    pbc = value["lattice"].get("pbc", (True, True, True))
    coordinates = np.array([site["abc"] for site in value["sites"]], dtype=float).reshape(-1, 3)
    symbols = [_only_species(site["species"]) for site in value["sites"]]
    return _with_site_properties(_raw(symbols, coordinates @ matrix, matrix, pbc), value)


def _pymatgen_molecule(value: Mapping[str, Any]) -> Raw:
    positions = np.array([site["xyz"] for site in value["sites"]], dtype=float).reshape(-1, 3)
    symbols = [_only_species(site["species"]) for site in value["sites"]]
    return _with_site_properties(_raw(symbols, positions, np.zeros((3, 3)), (False, False, False)), value)


def _with_site_properties(raw: Raw, value: Mapping[str, Any]) -> Raw:
    """What pymatgen keeps beside the sites: the charge, values that every site has, and which atoms do not move."""
    if charge := _charge(value):
        raw.values["total_charge"] = charge
    if value.get("spin_multiplicity"):
        raw.values["multiplicity"] = value["spin_multiplicity"]
    stated = [site.get("properties") or {} for site in value["sites"]]
    for name in stated[0] if stated else ():
        column = [properties.get(name) for properties in stated]
        if all(item is not None for item in column):
            raw.values[name] = column
    moves = raw.values.pop("selective_dynamics", None)
    if moves is not None and not np.any(moves, axis=1).all():
        raw.fixed = ~np.any(moves, axis=1)
    return raw


def _charge(value: Mapping[str, Any]) -> float | None:
    """The charge, whole where it is so but for rounding; None where it is the sum of oxidation states and not whole."""
    charge = float(value.get("charge") or 0)
    if abs(charge - round(charge)) < CHARGE_ROUNDING:
        return round(charge)
    decorated = sum(species.get("oxidation_state") or 0 for site in value["sites"] for species in site["species"])
    return None if abs(charge - decorated) < CHARGE_ROUNDING else charge


def _only_species(species: list[Mapping[str, Any]]) -> str:
    if len(species) != 1 or abs(float(species[0]["occu"]) - 1) > 1e-6:
        raise UnreadableRow(DISORDERED)
    return str(species[0]["element"])


def _jarvis(value: Mapping[str, Any]) -> Raw:
    """JARVIS atoms: coordinates are fractional unless `cartesian` is true."""
    matrix = np.array(value["lattice_mat"], dtype=float)
    coordinates = np.array(value["coords"], dtype=float).reshape(-1, 3)
    positions = coordinates if _is_true(value.get("cartesian")) else coordinates @ matrix
    return _raw([str(symbol).strip() for symbol in value["elements"]], positions, matrix, (True, True, True))


def _is_true(value: Any) -> bool:
    return value is True or str(value).lower() == "true"


def _plain(value: Mapping[str, Any]) -> Raw:
    cell = np.array(value["cell"], dtype=float).reshape(3, 3)
    default = (True,) * 3 if cell.any() else (False,) * 3
    positions = np.array(value["positions"], dtype=float).reshape(-1, 3)
    raw = _raw(list(value["symbols"]), positions, cell, value.get("pbc", default))
    tags = np.array(value.get("tags") or [], dtype=np.int64)
    raw.tags = tags if tags.any() else None
    return raw


def _numbered(value: Mapping[str, Any]) -> Raw:
    from ase.data import chemical_symbols

    numbers = np.array(value["numbers"]).ravel()
    return _plain({**value, "symbols": [chemical_symbols[int(z)] for z in numbers]})


def _raw(symbols: list[str], positions: Any, cell: Any, pbc: Any) -> Raw:
    unknown = [symbol for symbol in symbols if symbol == "X" or symbol not in atomic_numbers]
    if unknown:
        raise UnreadableRow(f"unknown-element: {unknown[0]!r}")
    if len(symbols) != len(positions):
        raise UnreadableRow(f"array-length: {len(symbols)} elements and {len(positions)} positions")
    return Raw(
        numbers=np.array([atomic_numbers[symbol] for symbol in symbols], dtype=np.int64),
        positions=positions,
        cell=cell,
        pbc=np.broadcast_to(np.asarray(pbc, dtype=bool), (3,)).copy(),
    )


DECODERS: dict[tuple[str, ...], Any] = {
    ("lattice", "sites"): _pymatgen,
    ("sites",): _pymatgen_molecule,
    ("lattice_mat", "coords", "elements"): _jarvis,
    ("cell", "symbols", "positions"): _plain,
    ("cell", "numbers", "positions"): _numbered,
}
"""Keys that tell a kind of structure, and what reads it."""
