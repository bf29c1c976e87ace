"""Model against DFT: relaxed candidates whose crystal the lake holds at the model's level of theory."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from ase import units

from gnn.errors import InputError
from gnn.lake.table import Lake
from gnn.screening.campaign import DedupeSpec
from gnn.screening.dedupe import Crystal, known_among
from gnn.screening.hull import ReferenceHull
from gnn.screening.references import entry_of_row, lake_entries, neutral_rows, pinned_versions, sound_rows
from gnn.screening.report.context import DftComparison
from gnn.screening.tables import arrays_of

COLUMNS = [
    "structure_id",
    "formula",
    "theory",
    "numbers",
    "positions",
    "cell",
    "pbc",
    "energy",
    "stress",
    "n_atoms",
    "config_type",
    "total_charge",
    "flags",
]
UNFINISHED = ("relaxing", "strained", "rattled", "volume")
"""Words in `config_type` that mark geometries which no relaxation ends in."""

LARGEST_PRESSURE = 3.0 * units.GPa
"""eV/Å³; a label under more is of a crystal that was squeezed or stretched, not of its end of a relaxation."""

FAILED = ("relaxed", "plausible")
"""Stages whose dropped candidates have no end of a relaxation that could be compared."""

Row = Mapping[str, Any]


def dft_comparisons(
    rows: Iterable[Row],
    lake: Lake,
    theory: str,
    trained_on: Mapping[str, int],
    spec: DedupeSpec,
    campaign_hull: ReferenceHull | None = None,
    volume_window: float | None = None,
) -> list[DftComparison]:
    """Every relaxed candidate that the lake's newest versions hold at `theory`, with both formation energies.

    Args:
        rows: rows of the final table, gone through twice; those are kept whose formula the lake holds.
        lake: where DFT energies are looked for.
        theory: the model's.
        trained_on: data sets that the model was trained on, and their versions; what these hold is marked.
        spec: when two crystals are the same.
        campaign_hull: the DFT hull that the campaign measured against, so that both distances are to the same hull;
            else the hull of what the lake holds now.
        volume_window: share by which volumes of one crystal may differ; None where every cell relaxed to its own.
    """
    versions = pinned_versions(lake, (), theory)
    formulas = {row["formula"] for row in rows if _is_comparable(row)}
    library = _library(lake, versions, theory, formulas)
    shared = {row["formula"] for _, row in library.values()}
    relaxed = {row["candidate_id"]: row for row in rows if _is_comparable(row) and row["formula"] in shared}
    crystals = (Crystal(name, *arrays_of(dict(row)), row["energy_per_atom"]) for name, row in relaxed.items())
    found = known_among(crystals, [crystal for crystal, _ in library.values()], spec, volume_window)
    elements = {symbol for name in found for symbol in relaxed[name]["chemical_system"].split("-")}
    hull = campaign_hull or ReferenceHull(
        [entry_of_row(row) for row in lake_entries(lake, versions, theory, elements).rows]
    )
    seen = _seen_in_training(lake, trained_on, [library[match][1] for match in found.values()])
    comparisons = [_comparison(relaxed[name], library[match], hull, seen) for name, match in found.items()]
    return [comparison for comparison in comparisons if comparison is not None]


def _is_comparable(row: Row) -> bool:
    return row["formation_energy_per_atom"] is not None and row["stage_dropped"] not in FAILED


def _library(
    lake: Lake, versions: Mapping[str, int], theory: str, formulas: set[str]
) -> dict[str, tuple[Crystal, Row]]:
    """Crystals of the lake by name, lowest energy first: what could be a reference, and no step of a relaxation."""
    rows: list[dict[str, Any]] = []
    comparable = pc.field("formula").isin(pa.array(sorted(formulas), pa.string()))
    wanted = comparable & (pc.field("theory") == theory) & pc.field("energy").is_valid()
    for dataset, version in versions.items():
        for batch in lake.record_batches(dataset, version, columns=COLUMNS, where=wanted):
            sound = sound_rows(neutral_rows(batch)).to_pylist()
            rows += [{**row, "dataset": dataset} for row in sound if _is_finished(row)]
    rows.sort(key=lambda row: row["energy"] / row["n_atoms"])
    named = {f"{row['dataset']}:{row['structure_id']}": row for row in rows}
    return {name: (Crystal(name, *arrays_of(row), row["energy"] / row["n_atoms"]), row) for name, row in named.items()}


def _seen_in_training(lake: Lake, trained_on: Mapping[str, int], labels: Sequence[Row]) -> set[str]:
    """Ids of the labels that a trained version holds; of one that is gone, all of its data set count as seen."""
    ids = pa.array({label["structure_id"] for label in labels}, pa.string())
    seen: set[str] = set()
    for dataset, version in trained_on.items():
        try:
            seen |= _held(lake, dataset, version, ids)
        except (InputError, OSError):
            seen |= {label["structure_id"] for label in labels if label["dataset"] == dataset}
    return seen


def _held(lake: Lake, dataset: str, version: int, ids: pa.Array) -> set[str]:
    wanted = pc.field("structure_id").isin(ids)
    batches = lake.record_batches(dataset, version, columns=["structure_id"], where=wanted)
    return {name for batch in batches for name in batch["structure_id"].to_pylist()}


def _is_finished(row: Row) -> bool:
    stress = row["stress"]
    squeezed = stress is not None and abs(sum(stress[:3]) / 3) > LARGEST_PRESSURE
    on_the_way = any(word in (row["config_type"] or "") for word in UNFINISHED)
    return all(row["pbc"]) and not squeezed and not on_the_way


def _comparison(
    row: Row, match: tuple[Crystal, Row], hull: ReferenceHull, seen: Collection[str]
) -> DftComparison | None:
    crystal, label = match
    counts = dict(entry_of_row(label).composition)
    if hull.missing(counts) or crystal.energy_per_atom is None:
        return None
    return DftComparison(
        candidate_id=row["candidate_id"],
        formula=row["formula"],
        prototype=row["prototype"] or "",
        origin=label["dataset"],
        model_formation_energy_per_atom=row["formation_energy_per_atom"],
        dft_formation_energy_per_atom=hull.formation_energy(counts, crystal.energy_per_atom),
        uncertainty=row["uncertainty"],
        dft_hull_distance=hull.distance(counts, crystal.energy_per_atom),
        rank=row["rank"],
        shortlisted=row["shortlisted"],
        in_training=label["structure_id"] in seen,
    )
