"""Before anything is relaxed: gather candidates, drop what cannot or need not be computed, cut the rest into shards."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from gnn.errors import InputError
from gnn.files import digest
from gnn.screening.campaign import CampaignSpec
from gnn.screening.candidate_files import candidate_files
from gnn.screening.candidates import ID_LENGTH, Candidate, Reason, constraint_reason
from gnn.screening.dedupe import Crystal, duplicates, known_among
from gnn.screening.filters import geometry_reason
from gnn.screening.gather import Inputs, Unreadable, gather
from gnn.screening.known import read_known
from gnn.screening.ledger import Ledger
from gnn.screening.library import lake_library
from gnn.screening.names import Names, links
from gnn.screening.plan import NO_SHARD, Plan, number_of_shards, plan_shards
from gnn.screening.preparation import PLAN_NAME, Prepared, keep_prepared, kept_key, number_planned, read_prepared
from gnn.screening.references import lake_entries, reference_candidates
from gnn.screening.shelf import Shelf, ShelfBuilder, formula_hash, shared
from gnn.structures.readers.sources import source_sha256

PREPARATION_VERSION = 1


def preparation_key(spec: CampaignSpec, inputs: Inputs) -> str:
    """Digest of everything that decides the preparation."""
    return digest(
        {
            "version": PREPARATION_VERSION,
            "spec": spec.spec_digest,
            "lake": dict(sorted(inputs.versions.items())),
            "elements": sorted(inputs.model.elements),
            "theory": inputs.model.theory,
            "files": {name: source_sha256(path) for name, path in candidate_files(spec).items()},
        }
        | ({"datasets": list(inputs.datasets)} if inputs.datasets else {})
    )


def prepared(spec: CampaignSpec, inputs: Inputs, folder: Path, workers: int, n_shards: int | None = None) -> Prepared:
    """The preparation in `folder`, made now unless it is there already.

    Raises:
        InputError: a file is missing or cannot be used, or no candidate is left to compute.
    """
    refuse_unusable_files(spec)
    key = preparation_key(spec, inputs)
    if (found := read_prepared(folder, key)) is not None:
        return found
    if kept_key(folder) not in (None, key):
        raise InputError(
            f"campaign {spec.name} was prepared from other files, lake versions or code ({folder / PLAN_NAME});"
            " start it anew with --fresh, or under another name"
        )
    # as many shards as a damaged preparation of the same had: those that are finished must fit
    n_shards = number_planned(folder) or n_shards
    return keep_prepared(prepare(spec, inputs, workers, n_shards, folder), folder, key)


def refuse_unusable_files(spec: CampaignSpec) -> None:
    """Do nothing if every file of candidates is there and the table of known compounds can be read.

    Raises:
        InputError: naming the first that is not, or one that is listed twice.
    """
    candidate_files(spec)
    if spec.known_compounds is not None:
        read_known(spec.path(spec.known_compounds))


def prepare(
    spec: CampaignSpec, inputs: Inputs, workers: int, n_shards: int | None = None, scratch: Path | None = None
) -> Prepared:
    """Gather, check and cut, into `n_shards` where given, else for `workers`; see the module.

    Structures wait in a file without a name under `scratch`, else where temporary files go.
    """
    found = _Gathered.of(spec, inputs, scratch)
    shelf, ledger = found.shelf, Ledger(found.shelf.names, scratch=scratch)
    ledger.close("read", ((name, _coded(row.reason)) for name, row in found.unreadable.items()))
    known = frozenset(inputs.model.elements)
    ledger.close("constraints", _rejected(shelf, ledger, lambda c: constraint_reason(c, spec.candidates, known)))
    ledger.close("sane", _rejected(shelf, ledger, lambda c: _geometry_reason(c, spec)))
    duplicate_of = links(shelf.names, _repeated(shelf, ledger, found.formulas, spec))
    ledger.close("distinct", ((name, ("duplicate", f"of {first}")) for name, first in duplicate_of.items()))
    in_lake = _in_lake(shelf, ledger, found.formulas, spec, inputs)
    refused = in_lake if spec.filters.novel_only else {}
    ledger.close("novel", ((name, ("already in the lake", where)) for name, where in refused.items()))
    if not ledger.n_alive:
        raise InputError(f"campaign {spec.name}: no candidate is left to compute; {_last_losses(ledger)}")
    references = _references(spec, inputs, found.elements)
    plan = _plan(ledger, found.sizes, references, spec, workers, n_shards)
    sources = {name: row.source for name, row in found.unreadable.items()}
    return Prepared(shelf.candidates, references, ledger, plan, duplicate_of, in_lake, sources, found.elements)


@dataclass(frozen=True)
class _Gathered:
    """All candidates on the shelf; sizes (n,) in atoms and hashes of formulas (n,) by place; what could not be read."""

    shelf: Shelf
    sizes: NDArray[np.int64]
    formulas: NDArray[np.int64]
    elements: frozenset[str]
    unreadable: dict[str, Unreadable]

    @classmethod
    def of(cls, spec: CampaignSpec, inputs: Inputs, scratch: Path | None) -> _Gathered:
        builder, sizes, formulas = ShelfBuilder(scratch), array("q"), array("q")
        unreadable, numbers = dict[str, Unreadable](), set[int]()
        for found in gather(spec, inputs):
            if isinstance(found, Unreadable):
                unreadable[_source_id(found.source)] = found
                continue
            builder.add(found)
            sizes.append(found.n_atoms)
            formulas.append(formula_hash(found.formula))
            numbers.update(found.numbers.tolist())
        elements = frozenset(chemical_symbols[number] for number in numbers)
        before = np.zeros(len(unreadable), dtype=np.int64)
        atoms, hashes = (np.concatenate((before, np.asarray(values, dtype=np.int64))) for values in (sizes, formulas))
        return cls(builder.shelf(list(unreadable)), atoms, hashes, elements, unreadable)


def _source_id(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()[:ID_LENGTH]


def _coded(reason: str) -> tuple[str, str]:
    code, _, detail = reason.partition(": ")
    return code, detail


def _rejected(
    shelf: Shelf, ledger: Ledger, why: Callable[[Candidate], Reason]
) -> Iterator[tuple[str, tuple[str, str]]]:
    for _, candidate in shelf.each(ledger.is_in):
        if (reason := why(candidate)) is not None:
            yield candidate.candidate_id, reason


def _geometry_reason(candidate: Candidate, spec: CampaignSpec) -> Reason:
    return geometry_reason(candidate.numbers, candidate.positions, candidate.cell, spec.filters)


def _crystal(name: object, candidate: Candidate) -> Crystal:
    return Crystal(str(name), candidate.numbers, candidate.positions, candidate.cell)


def _repeated(shelf: Shelf, ledger: Ledger, formulas: NDArray[np.int64], spec: CampaignSpec) -> NDArray[np.uint32]:
    """Place, from 1, of the first candidate that each repeats; 0 for most. One formula at a time is in memory."""
    first_of = np.zeros(len(shelf.names), dtype=np.uint32)
    for group in shared(formulas, ledger.places()):
        crystals = (_crystal(place, shelf.at(int(place))) for place in group)
        for place, first in duplicates(crystals, spec.dedupe, volume_window=spec.relaxation.volume_window).items():
            first_of[int(place)] = int(first) + 1
    return first_of


def _in_lake(
    shelf: Shelf, ledger: Ledger, formulas: NDArray[np.int64], spec: CampaignSpec, inputs: Inputs
) -> dict[str, str]:
    """Candidates that the lake holds -> the structure there."""
    library = lake_library(inputs.lake, inputs.versions)(formulas[ledger.places()])
    if not library:
        return {}
    is_shared = np.isin(formulas, [formula_hash(crystal.formula) for crystal in library])
    rows = shelf.each(lambda place: ledger.is_in(place) and bool(is_shared[place]))
    crystals = (_crystal(row.candidate_id, row) for _, row in rows)
    return known_among(crystals, library, spec.dedupe, spec.relaxation.volume_window)


def _references(spec: CampaignSpec, inputs: Inputs, elements: frozenset[str]) -> dict[str, Candidate]:
    if spec.hull.reference == "dft":
        return {}
    known = elements & set(inputs.model.elements)
    rows = lake_entries(inputs.lake, inputs.versions, inputs.model.theory, known).rows
    return {candidate.candidate_id: candidate for candidate in reference_candidates(rows, known)}


def _plan(
    ledger: Ledger,
    atoms: NDArray[np.int64],
    references: Mapping[str, Candidate],
    spec: CampaignSpec,
    workers: int,
    n_shards: int | None,
) -> Plan:
    """Those that are still in, and after them the references, dealt to shards."""
    places, more = ledger.places(), list(references)
    sizes = np.concatenate((atoms[places], [row.n_atoms for row in references.values()])).astype(np.int32)
    names = Names.joined((Names.of_array(ledger.ids.array[places]), Names(more)))
    dealt = plan_shards(sizes, names, n_shards or number_of_shards(sizes, workers, spec.shards.atoms))
    shard_of = np.full(len(ledger.ids) + len(more), NO_SHARD, dtype=np.int32)
    shard_of[places], shard_of[len(ledger.ids) :] = dealt[: len(places)], dealt[len(places) :]
    return Plan(ledger.ids, more, shard_of)


def _last_losses(ledger: Ledger) -> str:
    lost = {reason: n for stage in ledger.stages for reason, n in stage.rejected.items()}
    if not lost:
        return "no source gave any"
    return "dropped: " + ", ".join(f"{n} {reason}" for reason, n in lost.items())
