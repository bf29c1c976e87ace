"""Compounds that are known to exist: would the campaign have found them?"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gnn.errors import InputError
from gnn.screening.campaign import DedupeSpec, first_mistake
from gnn.screening.candidates import Candidate
from gnn.screening.dedupe import Crystal, Matcher
from gnn.screening.manifest import KnownOutcome
from gnn.screening.prototypes import PROTOTYPES
from gnn.screening.volumes import guess_volume
from gnn.structures.record import reduced_formula, symbol_number

UNFIT = ("constraints", "sane")
"""Stages whose rejects are compared with nothing: among them are cells that would break the matcher."""


class KnownCompound(BaseModel):
    """A compound of the literature. `prototype` with `elements` on its labels A, B, C, D is its structure."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    formula: str
    name: str = ""
    prototype: str | None = Field(default=None, description="null where its structure is none of the prototypes")
    elements: list[str] = []
    structure_type: str = Field(default="", description="structure type, space group, atoms of the primitive cell")
    status: str = Field(default="stable", description="stable, metastable, high pressure, ...")
    citation: str

    @model_validator(mode="after")
    def _fits(self) -> KnownCompound:
        for symbol in self.elements:
            symbol_number(symbol)
        formula = normal_formula(self.formula)
        if self.prototype is None:
            return self
        if self.prototype not in PROTOTYPES:
            raise ValueError(f"unknown prototype {self.prototype!r}")
        if len(self.elements) != len(PROTOTYPES[self.prototype].labels):
            raise ValueError(
                f"{self.prototype} has {len(PROTOTYPES[self.prototype].labels)} sites to name elements for"
            )
        if reduced_formula(self.crystal().numbers) != formula:
            raise ValueError(f"{self.prototype} of {'-'.join(self.elements)} is not {self.formula}")
        return self

    def crystal(self) -> Crystal:
        """The structure, at the sum of its elements' volumes."""
        prototype = PROTOTYPES[self.prototype or ""]
        symbols = prototype.decorate(tuple(self.elements), 1.0).get_chemical_symbols()
        atoms = prototype.decorate(tuple(self.elements), guess_volume(symbols))
        return Crystal(self.formula, atoms.numbers.astype(np.int64), atoms.positions, np.array(atoms.cell[:]))


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    compound: list[KnownCompound] = []


def normal_formula(formula: str) -> str:
    """A formula as records write it: reduced, metals first.

    Raises:
        ValueError: it is none.
    """
    from ase.formula import Formula

    try:
        reduced = Formula(formula).reduce()[0]
    except (ValueError, ZeroDivisionError):  # what ASE raises of its own has no words
        reduced = Formula("")
    if not reduced.count():
        raise ValueError(f"{formula!r} is no formula; write elements and whole numbers, as Li15Si4")
    for symbol in reduced.count():
        symbol_number(symbol)
    return str(reduced.format("metal"))


def read_known(path: Path) -> list[KnownCompound]:
    """Compounds of a TOML file with tables [[compound]].

    Raises:
        InputError: no such file, not TOML, or a compound that cannot be.
    """
    if not path.is_file():
        raise InputError(f"no table of known compounds {path}; give a TOML file or leave known_compounds out")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        return _Table.model_validate(content).compound
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}") from None
    except ValidationError as error:
        raise InputError(f"{path}: {first_mistake(error, 'table')}") from None


def known_outcomes(
    compounds: Sequence[KnownCompound],
    candidates: Iterable[Candidate],
    outcomes: Mapping[str, Mapping[str, Any]],
    spec: DedupeSpec,
) -> list[KnownOutcome]:
    """What became of each compound; `outcomes` are the rows of the final table by candidate id."""
    by_formula: dict[str, list[Candidate]] = {normal_formula(compound.formula): [] for compound in compounds}
    for candidate in candidates:
        if candidate.formula in by_formula:
            by_formula[candidate.formula].append(candidate)
    matcher = Matcher(spec)
    return [_outcome(c, by_formula[normal_formula(c.formula)], outcomes, matcher) for c in compounds]


def _outcome(
    compound: KnownCompound,
    same_formula: Sequence[Candidate],
    outcomes: Mapping[str, Mapping[str, Any]],
    matcher: Matcher,
) -> KnownOutcome:
    row, comment = None, "no candidate has this formula"
    if compound.prototype is not None and same_formula:
        row, comment = _by_structure(compound.crystal(), same_formula, outcomes, matcher)
    elif same_formula:
        row = min((outcomes[c.candidate_id] for c in same_formula), key=_order)
        comment = f"its structure ({compound.structure_type}) is no candidate; this is the best of its formula"
    return KnownOutcome(
        formula=compound.formula,
        name=compound.name,
        prototype=compound.prototype,
        citation=compound.citation,
        found=row is not None and bool(row["shortlisted"]) and compound.prototype is not None,
        rank=None if row is None else row["rank"],
        candidate_id=None if row is None else row["candidate_id"],
        hull_distance=None if row is None else row["hull_distance"],
        comment="; ".join(part for part in (compound.status, comment, _fate(row)) if part),
    )


def _by_structure(
    crystal: Crystal, same_formula: Sequence[Candidate], outcomes: Mapping[str, Mapping[str, Any]], matcher: Matcher
) -> tuple[Mapping[str, Any] | None, str]:
    unfit = []
    for candidate in same_formula:
        if (row := outcomes[candidate.candidate_id])["stage_dropped"] in UNFIT:
            unfit.append(row)
            continue
        if matcher.same(
            crystal, Crystal(candidate.candidate_id, candidate.numbers, candidate.positions, candidate.cell)
        ):
            return representative(outcomes, candidate.candidate_id), ""
    return None, "; ".join(("its structure is not among the candidates", *_uncompared(unfit)))


def _uncompared(unfit: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"{len(unfit)} of its formula could not be compared, the first {_fate(unfit[0])}"] if unfit else []


def representative(outcomes: Mapping[str, Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    """The row that stands for candidate `name`: itself, or the one that it repeats."""
    row = outcomes[name]
    while row["duplicate_of"] is not None:
        row = outcomes[row["duplicate_of"]]
    return row


def _order(row: Mapping[str, Any]) -> tuple[bool, int, str]:
    return row["rank"] is None, row["rank"] or 0, row["candidate_id"]


def _fate(row: Mapping[str, Any] | None) -> str:
    if row is None or row["stage_dropped"] is None:
        return ""
    return f"dropped at {row['stage_dropped']}: {row['reason']}"
