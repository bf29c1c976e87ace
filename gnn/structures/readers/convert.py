"""From a raw row to a record: names, units, signs, theory, group and properties as the card says."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gnn.errors import InputError
from gnn.structures.cards import Card, CardProperty, ReadingRules, Units, force_unit
from gnn.structures.readers.lookup import MISSING, filled, find, is_label, usual
from gnn.structures.readers.raw import Raw, UnreadableRow
from gnn.structures.record import Record, Source, as_read, reduced_formula
from gnn.structures.units import (
    ENERGY_UNITS,
    LENGTH_UNITS,
    STRESS_UNITS,
    reorder_voigt,
    stress_from_virial,
    voigt_from_matrix,
    voigt_order,
)  # fmt: skip

Floats = NDArray[np.float64]
GroupBy = Literal["none", "column", "file", "folder", "formula", "chemical_system"]

GROUP_DIGITS = 8
"""Digits of a file's sha256 in the name of its group: names such as relax/opt.traj are those of many files."""

NO_VALUE = frozenset({"", "na", "n/a", "null", "none", "-", "--"})
"""What tables write where there is no number; `nan` is one, and is refused where an energy is due."""

WHAT_TO_WRITE = {
    "energy": '[units] energy = "eV"',
    "forces": '[units] forces = "eV/Å"',
    "stress": '[units] stress = "kBar" and [stress] sign = "compression" and order = "vasp"',
    "virial": '[units] energy = "eV"',
}


class Converter:
    """Makes records of one file's rows.

    `units` is what the file's format defines; what the card says comes first. A label whose unit neither tells is an
    error, since units are never guessed. `remark` is told of values that look like labels and are not read.
    """

    def __init__(
        self,
        card: Card,
        rules: ReadingRules,
        units: Units,
        default_group: GroupBy,
        remark: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.remark = remark
        self.explained = bool(card.properties or rules.columns.model_dump(exclude_none=True))
        self.card = card
        self.rules = rules
        self.units = units.model_copy(update=rules.units.model_dump(exclude_none=True))
        self.default_group = default_group
        self.length = LENGTH_UNITS[self.units.length or "Å"]

    def record(self, raw: Raw, source: Source) -> Record:
        """The record of one row.

        Raises:
            UnreadableRow: a label is no number, or has the wrong shape.
            InputError: the card must say more.
        """
        if self.rules.labels and not self.explained:
            self._look_for_strangers(raw)
        pbc = raw.pbc if self.rules.pbc is None else np.array(self.rules.pbc)
        cell = np.asarray(raw.cell, dtype=float) * self.length if pbc.any() else np.zeros((3, 3))
        return Record(
            dataset=self.card.name,
            theory=self.theory(raw),
            numbers=raw.numbers,
            positions=np.asarray(raw.positions, dtype=float) * self.length,
            cell=cell,
            pbc=pbc,
            total_charge=self._electrons(raw, "total_charge"),
            multiplicity=self._electrons(raw, "multiplicity"),
            fixed=raw.fixed,
            tags=raw.tags,
            config_type=self.rules.config_type or _text(self._value(raw, "config_type")[1]),
            group=self.group(raw, source),
            flags=raw.flags,
            source=source,
            **(self._labels(raw, cell, pbc) if self.rules.labels else {}),
        )

    def _electrons(self, raw: Raw, label: Literal["total_charge", "multiplicity"]) -> int | None:
        """Part of the structure; of one that is read without labels, what is no whole number is left where it is."""
        try:
            return _integer(self._value(raw, label)[1], label)
        except UnreadableRow:
            if self.rules.labels:
                raise
            return None

    def _labels(self, raw: Raw, cell: Floats, pbc: NDArray[np.bool_]) -> dict[str, Any]:
        """Fields of the record that are labels."""
        n = len(raw.numbers)
        return {
            "energy": self._energy(raw, "energy", n),
            "free_energy": self._energy(raw, "free_energy", n),
            "forces": self._forces(raw, n),
            "stress": self._stress(raw, cell) if pbc.all() else None,
            "magmoms": _per_atom(self._value(raw, "magmoms")[1], n),
            "charges": _per_atom(self._value(raw, "charges")[1], n),
            "properties": self._properties(raw, n),
        }

    def _look_for_strangers(self, raw: Raw) -> None:
        """Numbers beside the structure of which nobody says what they are, though an energy or forces are missing.

        Raises:
            InputError: there is no label at all, or the format says nothing about units.
        """
        energy, forces = (usual(raw.values, label)[1] is not MISSING for label in ("energy", "forces"))
        if energy and forces:
            return
        numbers, arrays = numeric_names(raw.values), vector_names(raw.values, len(raw.numbers))
        if numbers and not energy and (not forces or self.units.energy is None):
            raise InputError(self._undeclared(numbers))
        if numbers and not energy:
            self.remark(f"no energy is read, but there is {_quoted(numbers)}; {_meant('energy', numbers)} in a card")
        if arrays and not forces:
            self.remark(f"no forces are read, but there is {_quoted(arrays)}; {_meant('forces', arrays)} in a card")

    def _undeclared(self, names: list[str]) -> str:
        unit = "eV/atom" if "per_atom" in names[0] or "hull" in names[0] else "eV"
        return (
            f"{', '.join(names)}: numbers, and no card says what they are; write one with theory = 'KEY' and, for each "
            f"target, [properties.{names[0]}] unit = '{unit}' (or what is true; {_meant('energy', names)}), and give "
            "--card CARD.toml"
        )

    def _value(self, raw: Raw, label: str) -> tuple[str, Any]:
        """Key and value of a label: from the card's column, else under its usual names."""
        column = getattr(self.rules.columns, label)
        if column is None:
            return usual(raw.values, label)
        return column, find(raw.values, column)

    def _unit(self, label: str, key: str) -> str:
        unit = getattr(self.units, "energy" if label == "virial" else label)
        if unit is None:
            raise InputError(
                f"{key!r} looks like the {label} and nothing says its unit; write {WHAT_TO_WRITE[label]} "
                f"(or what is true) in a card and give --card CARD.toml"
            )
        return str(unit)

    def _energy(self, raw: Raw, label: Literal["energy", "free_energy"], n: int) -> float | None:
        key, value = self._value(raw, label)
        number = _number(value, key)
        if number is None:
            return None
        scale = ENERGY_UNITS[self._unit("energy", key)]
        return number * scale * (n if self.rules.energy_is == "per_atom" else 1)

    def _forces(self, raw: Raw, n: int) -> Floats | None:
        key, value = self._value(raw, "forces")
        array = _floats(value, key)
        if array is None:
            return None
        if array.size != 3 * n:
            raise UnreadableRow(f"array-length: {key} has {array.size} numbers where {3 * n} are due")
        return np.asarray(array.reshape(n, 3) * force_unit(self._unit("forces", key)))

    def _stress(self, raw: Raw, cell: Floats) -> Floats | None:
        key, value = self._value(raw, "stress")
        array = _floats(value, key)
        if array is None:
            return self._stress_of_virial(raw, cell)
        scale = STRESS_UNITS[self._unit("stress", key)]
        sign = self.rules.stress.sign
        if sign is None and self.rules.units.stress is not None:
            raise InputError(
                f'card {self.card.name} gives {key!r} a unit but no sign; write [stress] sign = "tension" (ASE) or '
                '"compression" (VASP)'
            )
        return _voigt(array, self.rules.stress.order, key) * scale * (-1 if sign == "compression" else 1)

    def _stress_of_virial(self, raw: Raw, cell: Floats) -> Floats | None:
        key, value = self._value(raw, "virial")
        array = _floats(value, key)
        if array is None:
            return None
        scale = ENERGY_UNITS[self._unit("virial", key)]
        volume = abs(float(np.linalg.det(cell)))
        if volume == 0:
            raise UnreadableRow("no-volume: a virial without a cell")
        if array.size == 6:
            return -_voigt(array, self.rules.stress.order, key) * scale / volume
        return stress_from_virial(_matrix(array, key) * scale, volume)

    def theory(self, raw: Raw) -> str:
        """The row's level of theory.

        Raises:
            UnreadableRow: it lacks the column that says it.
            InputError: neither file nor card tells, or the card does not know what the column says.
        """
        rules = self.rules
        if rules.theory_column is not None:
            return self._theory_of_column(raw, rules.theory_column)
        theory = rules.theory or raw.theory or _text(raw.values.get("theory")) or self.card.fallback_theory
        if theory is None:
            raise InputError(
                f"neither the file nor card {self.card.name} says the level of theory; give --theory KEY "
                '(as pbe/vasp-pw520) or write theory = "KEY" in a card'
            )
        return theory

    def _theory_of_column(self, raw: Raw, column: str) -> str:
        path = column if "{" in column else f"{{{column}}}"
        name = filled(path, raw.values)
        if name is None:
            raise UnreadableRow(f"no-theory: the row has no {column}")
        if self.rules.theory_map and name not in self.rules.theory_map:
            raise InputError(
                f"theory {name!r} is not in the card's theory_map ({', '.join(self.rules.theory_map)}); write "
                f'[theory_map] "{name}" = "KEY"'
            )
        return self.rules.theory_map.get(name, name)

    def _properties(self, raw: Raw, n: int) -> dict[str, float | list[float]]:
        properties = {}
        for name, declared in self.card.properties.items():
            value = self._property(raw, name, declared, n)
            if value is not None:
                properties[name] = value
        return properties

    def _property(self, raw: Raw, name: str, declared: CardProperty, n: int) -> float | list[float] | None:
        key = declared.column or name
        array = _floats(find(raw.values, key), key)
        if array is None or np.isnan(array).all():
            return None
        due = n if declared.level == "atom" else 1
        if array.size != due:
            raise UnreadableRow(f"array-length: property {name} has {array.size} numbers where {due} are due")
        return as_read((array.ravel() * declared.factor).tolist())

    def group(self, raw: Raw, source: Source) -> str | None:
        """What the row must stay together with in a split: the card's word, else the row's own, else the format's."""
        rule = self.rules.group
        by = self.default_group if rule is None else rule.by
        if rule is None and raw.group is not None:
            return raw.group
        if by == "column" and rule is not None:
            return self._group_of_column(raw, rule.template or f"{{{rule.column}}}", rule.remove)
        names = {
            "none": lambda: None,
            "file": lambda: f"{source.file}#{source.sha256[:GROUP_DIGITS]}",
            "folder": lambda: source.file.rpartition("/")[0] or source.file,
            "formula": lambda: reduced_formula(raw.numbers),
            "chemical_system": lambda: chemical_system(raw.numbers),
        }
        name: str | None = names[by]()
        return name

    def _group_of_column(self, raw: Raw, template: str, remove: str | None) -> str | None:
        name = filled(template, raw.values)
        if name is None or remove is None:
            return name
        return re.sub(remove, "", name).strip() or None


def chemical_system(numbers: NDArray[np.int64]) -> str:
    """Elements present, sorted and joined, as `Li-O-P`."""
    from ase.data import chemical_symbols

    return "-".join(sorted({chemical_symbols[z] for z in numbers}))


def numeric_names(values: dict[str, Any]) -> list[str]:
    """Names of values that are decimal numbers and no label: what could be a target; ids and counts are whole."""
    return [name for name, value in values.items() if _is_decimal(value) and not is_label(name)]


def vector_names(values: dict[str, Any], n: int) -> list[str]:
    """Names of values that are three decimal numbers an atom: what could be forces."""
    return [name for name, value in values.items() if isinstance(value, np.ndarray | list) and _are_vectors(value, n)]


def _are_vectors(value: Any, n: int) -> bool:
    try:
        array = np.asarray(value)
    except ValueError:
        return False
    return array.shape == (n, 3) and array.dtype.kind == "f"


def _quoted(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _meant(label: str, names: list[str]) -> str:
    per_atom = ' and energy_is = "per_atom"' if label == "energy" and "atom" in names[0].lower() else ""
    return f'if {names[0]} is the {label}, write [columns] {label} = "{names[0]}"{per_atom}'


def _is_decimal(value: Any) -> bool:
    if isinstance(value, str):
        return re.fullmatch(r"\s*[-+]?\d*\.\d+([eE][-+]?\d+)?\s*", value) is not None
    return isinstance(value, float)


def _text(value: Any) -> str | None:
    return None if value is MISSING or value is None else str(value)


def _floats(value: Any, key: str) -> Floats | None:
    if value is MISSING or value is None or (isinstance(value, str) and value.strip().lower() in NO_VALUE):
        return None
    try:
        return np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise UnreadableRow(f"not-a-number: {key} is {str(value)[:80]!r}") from None


def _number(value: Any, key: str) -> float | None:
    array = _floats(value, key)
    if array is None:
        return None
    if array.size != 1:
        raise UnreadableRow(f"array-length: {key} has {array.size} numbers where 1 is due")
    return float(array.ravel()[0])


def _integer(value: Any, key: str) -> int | None:
    number = _number(value, key)
    if number is None:
        return None
    if not number.is_integer():
        raise UnreadableRow(f"not-a-number: {key} is {number} where an integer is due")
    return int(number)


def _per_atom(value: Any, n: int) -> Floats | None:
    """Per-atom scalars; what has another shape (a total under the same name) is no label of the atoms."""
    if value is MISSING or value is None or np.shape(value) not in ((n,), (n, 1)):
        return None
    return np.asarray(value, dtype=float).ravel()


def _voigt(array: Floats, order: str, key: str) -> Floats:
    if array.size == 6:
        return reorder_voigt(array.ravel(), voigt_order(order))
    return voigt_from_matrix(_matrix(array, key))


def _matrix(array: Floats, key: str) -> Floats:
    if array.size != 9:
        raise UnreadableRow(f"array-length: {key} has {array.size} numbers where 6 or 9 are due")
    return array.reshape(3, 3)
