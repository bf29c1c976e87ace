"""Data-set cards: how a set is read, in TOML, so that a new set of a known format needs no code.

A card says reader, columns, units, stress sign and order, total or per-atom energies, theory, group rule, properties,
licence, citation and what is expected. `[[files]]` tables change any of the reading rules for the files they match.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from gnn.errors import InputError
from gnn.structures.properties import PropertyName, PropertySpec
from gnn.structures.units import ENERGY_UNITS, LENGTH_UNITS, STRESS_UNITS, VOIGT_ORDERS, voigt_order

SCHEMA_VERSION = 1
AUTO = "auto"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Units(_Model):
    """Units of the file; None = what the format itself defines, an error where it defines nothing."""

    energy: str | None = None
    length: str | None = None
    forces: str | None = None
    stress: str | None = None

    @field_validator("energy", "length", "forces", "stress")
    @classmethod
    def _known(cls, value: str | None, info: Any) -> str | None:
        tables = {"energy": ENERGY_UNITS, "length": LENGTH_UNITS, "stress": STRESS_UNITS}
        if value is None or info.field_name not in tables:
            if value is not None:
                force_unit(value)
            return value
        if value not in tables[info.field_name]:
            raise ValueError(f"unknown unit {value!r}; known are {', '.join(tables[info.field_name])}")
        return value


def force_unit(name: str) -> float:
    """eV/Å of one unit written ENERGY/LENGTH, as `eV/Å`, `Ha/Bohr`, `kcal/mol/Å`.

    Raises:
        ValueError: there is no such unit.
    """
    energy, _, length = name.rpartition("/")
    if energy not in ENERGY_UNITS or length not in LENGTH_UNITS:
        raise ValueError(f"unknown unit {name!r}; write ENERGY/LENGTH, as 'eV/Å' or 'kcal/mol/Å'")
    return ENERGY_UNITS[energy] / LENGTH_UNITS[length]


class StressRule(_Model):
    """How six or nine numbers of a stress are to be understood."""

    sign: Literal["tension", "compression"] | None = Field(default=None, description="what a positive diagonal means")
    order: str = Field(default="ase", description=f"order of six components, by name or written out: {VOIGT_ORDERS}")

    @field_validator("order")
    @classmethod
    def _known_order(cls, value: str) -> str:
        voigt_order(value)
        return value


class Columns(_Model):
    """Which column, info key or dotted path holds what; None = the usual names."""

    structure: str | None = None
    energy: str | None = None
    free_energy: str | None = None
    forces: str | None = None
    stress: str | None = None
    virial: str | None = None
    magmoms: str | None = None
    charges: str | None = None
    total_charge: str | None = None
    multiplicity: str | None = None
    config_type: str | None = None


class GroupRule(_Model):
    """What must stay on one side of a split.

    `column` takes `template` ("{element} {description}") or `column`, and drops what the regular expression `remove`
    matches, so that snapshots of one trajectory share a name.
    """

    by: Literal["none", "column", "file", "folder", "formula", "chemical_system"] = "none"
    column: str | None = None
    template: str | None = None
    remove: str | None = None


class CardProperty(PropertySpec):
    """A declared target and where it stands: `column` (else its own name), times `factor`.

    Values outside `plausible` stay, with a flag.
    """

    column: str | None = None
    factor: float = 1.0
    plausible: tuple[float, float] | None = None

    def spec(self) -> PropertySpec:
        """What consumers of the lake need to know."""
        return PropertySpec(unit=self.unit, level=self.level, extensive=self.extensive)


class ReadingRules(_Model):
    """The part of a card that `[[files]]` may change for some files."""

    reader: str = AUTO
    rows: tuple[int, int] | None = Field(
        default=None, description="first and past-the-last row that are read; others are skipped"
    )
    theory: str | None = None
    theory_column: str | None = None
    theory_map: dict[str, str] = Field(default_factory=dict)
    labels: bool = Field(
        default=True,
        description="whether labels are read at all; false = structures only, with charge and multiplicity",
    )
    energy_is: Literal["total", "per_atom"] = "total"
    units: Units = Units()
    stress: StressRule = StressRule()
    columns: Columns = Columns()
    group: GroupRule | None = None
    config_type: str | None = None
    levels: tuple[str, ...] = Field(default=(), description="names of the keys that lead to a row of nested JSON")
    type_map: tuple[str, ...] = Field(
        default=(), description="elements of DeePMD's types, where type_map.raw is missing"
    )
    pbc: tuple[bool, bool, bool] | None = None


class FileRules(_Model):
    """Changes of the reading rules for files whose path ends in a match of `match` (a glob)."""

    match: str
    rules: dict[str, Any]

    def fits(self, path: Path) -> bool:
        """Whether this table is about `path`."""
        return fnmatch(path.as_posix(), f"*/{self.match}") or fnmatch(path.name, self.match)


class ExpectedFile(_Model):
    """What a file should be."""

    sha256: str | None = None
    rows: int | None = None


class Expected(_Model):
    """What an ingest of the whole set should give; differences are warned about."""

    rows_in: int | None = None
    kept: int | None = None
    duplicates: int | None = None
    quarantined: int | None = None
    files: dict[str, ExpectedFile] = Field(default_factory=dict)


class Card(ReadingRules):
    """How one data set is read, and what it is."""

    schema_version: int = SCHEMA_VERSION
    name: str
    description: str = ""
    licence: str | None = None
    citation: str | None = None
    url: str | None = None
    properties: dict[PropertyName, CardProperty] = Field(default_factory=dict)
    files: tuple[FileRules, ...] = ()
    expected: Expected = Expected()
    fallback_theory: str | None = Field(
        default=None, description="level of theory of rows for which neither file nor card tells one"
    )

    @field_validator("files", mode="before")
    @classmethod
    def _gather(cls, value: Any) -> Any:
        """`[[files]]` tables are flat in TOML: everything beside `match` is a rule."""
        if not isinstance(value, list | tuple):
            return value
        return [_file_rules(item) for item in value]

    @property
    def property_specs(self) -> dict[str, PropertySpec]:
        """Declared targets without their columns."""
        return {name: declared.spec() for name, declared in self.properties.items()}

    def rules_for(self, path: Path) -> ReadingRules:
        """The rules for one file: the card's, with those of every fitting `[[files]]` table laid over them.

        Raises:
            InputError: a `[[files]]` table holds what is no rule.
        """
        rules: dict[str, Any] = self.model_dump(include=set(ReadingRules.model_fields), exclude_unset=True)
        for table in self.files:
            if table.fits(path):
                rules = _laid_over(rules, table.rules)
        try:
            return ReadingRules.model_validate(rules)
        except ValidationError as error:
            raise InputError(f"card {self.name}, [[files]] for {path.name}: {_first_error(error)}") from None

    def with_theory(self, theory: str | None) -> Card:
        """The same card with `theory` for rows whose file tells none.

        Raises:
            InputError: the card itself says another theory.
        """
        if theory is None or theory in (self.theory, self.fallback_theory):
            return self
        said = self.theory or (self.theory_column and f"column {self.theory_column}") or self.fallback_theory
        if said is not None:
            raise InputError(
                f"--theory {theory} contradicts card {self.name}, which says {said}; leave --theory out or give "
                "--card auto"
            )
        return self.model_copy(update={"fallback_theory": theory})


def _file_rules(item: Any) -> Any:
    if not isinstance(item, dict) or "rules" in item:
        return item
    return {"match": item.get("match"), "rules": {key: value for key, value in item.items() if key != "match"}}


def _laid_over(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _laid_over(merged[key], value) if nested else value
    return merged


def _first_error(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}, not {first.get('input')!r}" if where else str(first["msg"])


def generic_card(name: str, theory: str | None = None) -> Card:
    """A card that leaves everything to the file's format."""
    return Card(name=name, theory=theory)


def structures_card(name: str) -> Card:
    """A card that reads structures and leaves every label where it is, so that no unit and no theory is needed.

    Total charge and multiplicity are read: they are part of a structure.
    """
    return Card(name=name, theory="none", labels=False)


def read_card(path: Path) -> Card:
    """The card in a TOML file.

    Raises:
        InputError: no TOML, or not a card.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"card {path} cannot be read: {error}") from None
    content.setdefault("name", path.stem)
    try:
        return Card.model_validate(content)
    except ValidationError as error:
        raise InputError(f"card {path}, {_first_error(error)}") from None


def known_cards(folders: Sequence[Path]) -> dict[str, Path]:
    """Names and files of the cards in `folders`; the first folder wins."""
    cards: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.toml")):
            cards.setdefault(path.stem, path)
    return cards


def load_card(name_or_path: str, folders: Sequence[Path]) -> Card:
    """The card of that name in `folders`, or in that file.

    Raises:
        InputError: there is none (the known ones are listed), or it cannot be read.
    """
    path = Path(name_or_path).expanduser()
    if path.suffix == ".toml":
        if not path.is_file():
            raise InputError(f"there is no card {path}")
        return read_card(path)
    cards = known_cards(folders)
    if name_or_path not in cards:
        known = ", ".join(sorted(cards)) or "none"
        raise InputError(f"there is no card {name_or_path!r}; known are: {known}; or give the path of a .toml file")
    return read_card(cards[name_or_path])
