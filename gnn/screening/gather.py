"""Candidates of every source a campaign names: decorations, files, the lake."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from gnn.errors import InputError
from gnn.lake.reference import parse_reference
from gnn.lake.table import Lake
from gnn.screening.campaign import CampaignSpec
from gnn.screening.candidate_files import candidate_files
from gnn.screening.candidates import Candidate, decorated_derivatives, decorated_prototypes
from gnn.screening.manifest import ModelPin
from gnn.screening.references import entry_of_row, lake_entries
from gnn.screening.volumes import fitted_volumes
from gnn.structures.cards import structures_card
from gnn.structures.readers import Rejected, UnreadableFile, read_records
from gnn.structures.record import Record, Source, table_to_records


@dataclass(frozen=True)
class Inputs:
    """What a campaign is prepared from, besides its spec: the lake, versions of its references, model, candidate sets.

    datasets: the spec's data sets of candidates as NAME@VERSION.
    """

    lake: Lake
    versions: Mapping[str, int]
    model: ModelPin
    datasets: Sequence[str] = ()


@dataclass(frozen=True)
class Unreadable:
    """A row or file that gave no candidate, and why."""

    source: str
    reason: str


def gather(spec: CampaignSpec, inputs: Inputs) -> Iterator[Candidate | Unreadable]:
    """Candidates of all sources one after the other, those with a named prototype first."""
    volumes = _volumes(spec, inputs)
    yield from decorated_prototypes(spec.candidates, volumes)
    yield from decorated_derivatives(spec.candidates, volumes)
    for name, path in candidate_files(spec).items():
        yield from _of_file(path, name)
    for reference in inputs.datasets:
        yield from _of_dataset(inputs.lake, reference)


def _volumes(spec: CampaignSpec, inputs: Inputs) -> dict[str, float]:
    """Atomic volumes fitted to the hull's entries where the campaign asks for them."""
    if spec.candidates.volume == "elements":
        return {}
    rows = lake_entries(inputs.lake, inputs.versions, inputs.model.theory, inputs.model.elements).rows
    entries = [entry_of_row(row) for row in rows]
    crystals = [(dict(e.composition), (e.volume_per_atom or 0.0) * sum(n for _, n in e.composition)) for e in entries]
    return fitted_volumes(crystals)


def _of_file(path: Path, name: str) -> Iterator[Candidate | Unreadable]:
    card = structures_card("candidates")
    try:
        for row, record in enumerate(read_records(path, card)):
            where = f"file:{name}{_place(record.source, row)}"
            yield Unreadable(where, record.reason) if isinstance(record, Rejected) else _let_in(record, where)
    except UnreadableFile as error:
        yield Unreadable(f"file:{name}", f"unreadable file: {error}")


def _place(source: Source | None, row: int) -> str:
    """Where in a file a row stands: the member, of an archive, and the row within it."""
    if source is None:
        return f"#{row}"
    _, mark, member = source.file.partition("!")
    return f"{mark}{member}#{source.row}"


def pinned_datasets(lake: Lake, references: Sequence[str]) -> list[str]:
    """Data sets of candidates as NAME@VERSION, the newest where none is named: a campaign goes on from what it began.

    Raises:
        InputError: one is not in the lake.
    """
    known, pinned = lake.datasets(), []
    for reference in references:
        name, version = parse_reference(reference)
        if name not in known:
            there = ", ".join(known) or "none"
            raise InputError(f"candidates.datasets: {name!r} is not in the lake; there are {there}")
        pinned.append(f"{name}@{lake.version(name) if version is None else version}")
    return pinned


def _of_dataset(lake: Lake, reference: str) -> Iterator[Candidate | Unreadable]:
    name, version = parse_reference(reference)
    for batch in lake.record_batches(name, version):
        for record in table_to_records(pa.Table.from_batches([batch])):
            yield _let_in(record, f"lake:{name}#{record.structure_id[:16]}")


def _let_in(record: Record, source: str) -> Candidate | Unreadable:
    if not record.is_bulk:
        return Unreadable(source, "not periodic in three directions")
    return Candidate(record.numbers, record.positions, record.cell, None, source)
