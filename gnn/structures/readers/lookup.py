"""Finding values in a row: by dotted path, by the usual spellings of a label, by template."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np

from gnn.errors import InputError

MISSING = object()
"""What `find` gives for a path that leads nowhere; None is a value that a file may state."""

ORIGINS = ("", "ref", "reference", "dft", "qm", "true", "target", "label", "vasp", "pbe", "abinitio")
"""Words that people put before a label's name to say where it is from."""

SPELLINGS: dict[str, tuple[str, ...]] = {
    "energy": (
        "energy",
        "energies",
        "total_energy",
        "potential_energy",
        "tot_energy",
        "e_tot",
        "etot",
        "e",
        "e_0_energy",
    ),
    "free_energy": ("free_energy", "e_fr_energy"),
    "forces": ("forces", "force", "f"),
    "stress": ("stress", "stresses", "stress_tensor", "virial_stress"),
    "virial": ("virial", "virials"),
    "magmoms": ("magmoms", "magnetic_moments", "magmom"),
    "charges": ("charges", "atomic_charges", "partial_charges", "charge"),
    "total_charge": ("total_charge", "charge", "net_charge"),
    "multiplicity": ("multiplicity", "spin_multiplicity"),
    "config_type": ("config_type", "configuration_type"),
}
"""Usual names of each label, without case and origin."""

ONE_NUMBER = frozenset({"energy", "free_energy"})
"""Labels that are one number a structure; an array under one of their names is something else."""

WHOLE = frozenset({"total_charge", "multiplicity"})
"""Labels that are one bare number: under the same name stand values of the atoms, of a single one too."""

PER_ATOM = frozenset({"magmoms", "charges"})
"""Labels that are one number an atom; a word in their place is none, and says nothing."""

ARRAYS = frozenset({"forces", "stress", "virial", "magmoms", "charges"})
"""Labels that are several numbers; one number under one of their names is something else: a total, a largest one."""

_FULL_SPELLINGS = {
    label: frozenset(f"{origin}_{name}" if origin else name for origin in ORIGINS for name in names)
    for label, names in SPELLINGS.items()
}


def find(values: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path of nested mappings and lists; a key that itself holds dots is tried first."""
    if path in values:
        return values[path]
    node: Any = values
    for part in path.split("."):
        if isinstance(node, Mapping) and part in node:
            node = node[part]
        elif isinstance(node, list | tuple) and part.lstrip("-").isdigit() and int(part) < len(node):
            node = node[int(part)]
        else:
            return MISSING
    return node


@lru_cache(maxsize=4096)
def _word(key: str) -> str:
    return key.lower().replace("-", "_")


def usual(values: Mapping[str, Any], label: str) -> tuple[str, Any]:
    """Key and value of a label under one of its usual names, ("", MISSING) where there is none.

    Raises:
        InputError: several keys fit and disagree; the card must say which.
    """
    names = _FULL_SPELLINGS[label]
    return the_one(label, {k: value for k, value in values.items() if _word(k) in names and can_be(label, value)})


def the_one(label: str, found: Mapping[str, Any]) -> tuple[str, Any]:
    """The first of the keys that fit a label, and its value; ("", MISSING) where there is none.

    Raises:
        InputError: they disagree; the card must say which.
    """
    key, first = next(iter(found.items()), ("", MISSING))
    if any(not _same(first, value) for value in islice(found.values(), 1, None)):
        keys = " and ".join(repr(key) for key in found)
        raise InputError(
            f'{keys} both look like the {label} and differ; write [columns] {label} = "{key}" in a card, '
            "with the one that is meant"
        )
    return key, first


def can_be(label: str, value: Any) -> bool:
    """Whether a value has the form of a label. Words are let through: they may say why there is no number."""
    if value is None or isinstance(value, bool | np.bool_):
        return False  # a bare word in the comment of an XYZ file is a true flag
    if isinstance(value, str):
        return label not in PER_ATOM
    if label in ONE_NUMBER:
        return _size(value) == 1  # ASE writes per-atom `energies` beside the energy
    several = isinstance(value, list | tuple) or np.ndim(value) > 0
    return (label not in ARRAYS or several) and not (label in WHOLE and several)


def _size(value: Any) -> int:
    try:
        return int(np.size(value))
    except ValueError:
        return len(value)


def usual_names(label: str) -> frozenset[str]:
    """The usual names of a label, in lower case."""
    return _FULL_SPELLINGS[label]


def labels_named(key: str) -> list[str]:
    """Labels of which a key is one of the usual names."""
    return [label for label, names in _FULL_SPELLINGS.items() if _word(key) in names]


def is_label(key: str) -> bool:
    """Whether a key is one of the usual names of any label."""
    return bool(labels_named(key))


def _same(left: Any, right: Any) -> bool:
    try:
        if np.size(left) == np.size(right) == 1:  # of one atom, a value an atom is the value
            left, right = np.ravel(left), np.ravel(right)
        return bool(np.shape(left) == np.shape(right) and np.allclose(left, right, rtol=0, atol=1e-8, equal_nan=True))
    except (TypeError, ValueError):  # words, or lists of lists of several lengths
        return bool(left == right)


def filled(template: str, values: Mapping[str, Any]) -> str | None:
    """`template` with each {path} replaced by its value; None where one of them is missing."""
    missing = False

    def replace(match: re.Match[str]) -> str:
        nonlocal missing
        value = find(values, match[1])
        missing |= value is MISSING or value is None
        return str(value)

    text = re.sub(r"\{([^{}]+)\}", replace, template)
    return None if missing else text
