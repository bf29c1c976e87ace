"""Candidates of every source a campaign names: decorations, files, the lake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gnn.errors import InputError
from gnn.lake.reference import parse_reference
from gnn.lake.table import Lake
from gnn.screening.campaign import CampaignSpec
from gnn.screening.candidates import Candidate, decorated_derivatives, decorated_prototypes
from gnn.screening.manifest import ModelPin
from gnn.screening.references import entry_of_row, lake_entries
from gnn.screening.volumes import fitted_volumes
from gnn.structures.cards import structures_card
from gnn.structures.readers import Rejected, UnreadableFile, read_records
from gnn.structures.record import Record, table_to_records


@dataclass(frozen=True)
class Inputs:
    """What a campaign is prepared from, besides its spec: the lake, the pinned versions of its data sets, the model."""

    lake: Lake
    versions: Mapping[str, int]
    model: ModelPin


@dataclass
class Gathered:
    """Candidates of all sources, and rows that could not be read (source -> reason)."""

    candidates: list[Candidate] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)


def gather(spec: CampaignSpec, inputs: Inputs) -> Gathered:
    """Candidates of all sources, those with a named prototype first."""
    gathered = Gathered()
    volumes = _volumes(spec, inputs)
    gathered.candidates += decorated_prototypes(spec.candidates, volumes)
    gathered.candidates += decorated_derivatives(spec.candidates, volumes)
    for name in spec.candidates.files:
        _gather_file(spec.path(name), name, gathered)
    for reference in spec.candidates.datasets:
        _gather_dataset(inputs.lake, reference, gathered)
    return gathered


def _volumes(spec: CampaignSpec, inputs: Inputs) -> dict[str, float]:
    """Atomic volumes fitted to the hull's entries where the campaign asks for them."""
    if spec.candidates.volume == "elements":
        return {}
    rows = lake_entries(inputs.lake, inputs.versions, inputs.model.theory, inputs.model.elements).rows
    entries = [entry_of_row(row) for row in rows]
    crystals = [(dict(e.composition), (e.volume_per_atom or 0.0) * sum(n for _, n in e.composition)) for e in entries]
    return fitted_volumes(crystals)


def _gather_file(path: Path, name: str, gathered: Gathered) -> None:
    card = structures_card("candidates")
    try:
        for row, record in enumerate(read_records(path, card)):
            if isinstance(record, Rejected):
                gathered.unreadable[f"file:{name}#{record.row}"] = record.reason
            else:
                _let_in(record, f"file:{name}#{row if record.source is None else record.source.row}", gathered)
    except UnreadableFile as error:
        gathered.unreadable[f"file:{name}"] = f"unreadable file: {error}"


def _gather_dataset(lake: Lake, reference: str, gathered: Gathered) -> None:
    name, version = parse_reference(reference)
    if name not in lake.datasets():
        known = ", ".join(lake.datasets()) or "none"
        raise InputError(f"candidates.datasets: {name!r} is not in the lake; there are {known}")
    for record in table_to_records(lake.read(name, version)):
        _let_in(record, f"lake:{name}#{record.structure_id[:16]}", gathered)


def _let_in(record: Record, source: str, gathered: Gathered) -> None:
    if not record.is_bulk:
        gathered.unreadable[source] = "not periodic in three directions"
    else:
        gathered.candidates.append(Candidate(record.numbers, record.positions, record.cell, None, source))
