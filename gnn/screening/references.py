"""Reference entries of a hull: what the lake holds at one level of theory, or the same structures by the model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ase.data import chemical_symbols

from gnn.errors import InputError
from gnn.graphs.outliers import OutlierRule, outlier_reason
from gnn.lake.reference import parse_reference
from gnn.lake.table import Lake
from gnn.screening.campaign import FilterSpec
from gnn.screening.candidates import Candidate
from gnn.screening.filters import energy_reason, geometry_reason, uncertainty_reason
from gnn.screening.final_rows import relaxed_geometry
from gnn.screening.hull import HullEntry, ReferenceHull
from gnn.screening.prototypes import ELEMENTAL
from gnn.screening.tables import arrays_of
from gnn.screening.volumes import guess_volume

COLUMNS = (
    "structure_id", "dataset", "theory", "numbers", "positions", "cell", "pbc", "energy", "free_energy", "n_atoms",
    "elements", "formula", "total_charge", "config_type", "flags",
)  # fmt: skip
SOUND = OutlierRule()
"""What a row must not be flagged with to be a reference: the same as to be trained on."""
BATCH_ROWS = 10_000
"""Rows of the lake that are looked at together."""
ENTROPY_NOTE = 1e-3
"""eV/atom between energy and free energy above which a hull of energies is said to differ from the model's target."""


@dataclass(frozen=True)
class LakeEntries:
    """Lowest row of each formula at the theory; the versions read; remarks for people."""

    rows: list[dict[str, Any]]
    versions: dict[str, int]
    notes: list[str] = field(default_factory=list)


def pinned_versions(lake: Lake, references: Sequence[str], theory: str) -> dict[str, int]:
    """Data sets to take references from, with their versions; every set that holds `theory` where none is named.

    Raises:
        InputError: a named data set is not in the lake.
    """
    known = lake.datasets()
    if not references:
        return {name: lake.version(name) for name in known if theory in _theories(lake, name)}
    pinned = {}
    for reference in references:
        name, version = parse_reference(reference)
        if name not in known:
            raise InputError(f"hull data set {name!r} is not in the lake; there are {', '.join(known) or 'none'}")
        pinned[name] = lake.version(name) if version is None else version
    return pinned


def _theories(lake: Lake, dataset: str) -> set[str]:
    return set(pc.unique(lake.read(dataset, columns=["theory"])["theory"]).to_pylist())


def lake_entries(lake: Lake, versions: Mapping[str, int], theory: str, elements: Collection[str]) -> LakeEntries:
    """The row of lowest energy per atom of each formula: neutral bulk crystals of `elements` at `theory`.

    Rows with a flag that keeps them out of training are no references either: one energy that is too low would shift
    all formation energies and distances of its elements. The lake is read in bounded memory.
    """
    best: dict[str, dict[str, Any]] = {}
    flagged = 0
    at_theory = (pc.field("theory") == theory) & pc.field("energy").is_valid()
    for dataset, version in versions.items():
        for batch in lake.record_batches(dataset, version, BATCH_ROWS, COLUMNS, at_theory):
            crystals = _crystals_of(neutral_rows(batch), elements)
            sound = sound_rows(crystals)
            flagged += crystals.num_rows - sound.num_rows
            for row in _lowest_of_each_formula(sound):
                rival = best.get(row["formula"])
                if rival is None or _energy_per_atom(row) < _energy_per_atom(rival):
                    best[row["formula"]] = row
    rows = [best[formula] for formula in sorted(best)]
    return LakeEntries(rows, dict(versions), [*_notes(rows), *_flags_told(flagged)])


def neutral_rows(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The rows of the lake without a total charge; where none is stated there is none."""
    return batch.filter(pc.equal(batch["total_charge"].fill_null(0), 0))


def sound_rows(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The rows of the lake without a flag that keeps a row out of training."""
    sound = [outlier_reason(flags or (), None, SOUND) is None for flags in batch["flags"].to_pylist()]
    return batch.filter(pa.array(sound, pa.bool_()))


def _crystals_of(batch: pa.RecordBatch, elements: Collection[str]) -> pa.RecordBatch:
    """The rows that are periodic in three directions and made of `elements`."""
    foreign = pc.invert(pc.is_in(pc.list_flatten(batch["elements"]), value_set=pa.array(list(elements), pa.string())))
    rows_of_foreign = pc.list_parent_indices(batch["elements"]).to_numpy()[foreign.to_numpy(zero_copy_only=False)]
    keep = np.array([all(pbc) for pbc in batch["pbc"].to_pylist()], dtype=bool)
    keep[rows_of_foreign] = False
    return batch.filter(pa.array(keep))


def _lowest_of_each_formula(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The row of lowest energy per atom of each formula, the first of equals; only these become Python objects."""
    per_atom = batch["energy"].to_numpy() / batch["n_atoms"].to_numpy()
    formulas = batch["formula"].to_pylist()
    lowest = {formulas[row]: row for row in np.argsort(per_atom, kind="stable")[::-1]}
    rows: list[dict[str, Any]] = batch.take(pa.array(list(lowest.values()), pa.int64())).to_pylist()
    return rows


def _flags_told(flagged: int) -> list[str]:
    return [f"{flagged} flagged rows of the lake are no references of the hull"] if flagged else []


def _energy_per_atom(row: Mapping[str, Any]) -> float:
    return float(row["energy"] / row["n_atoms"])


def _notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    gaps = [abs(r["energy"] - r["free_energy"]) / r["n_atoms"] for r in rows if r.get("free_energy") is not None]
    if not gaps or max(gaps) <= ENTROPY_NOTE:
        return []
    return [
        "hull references are energies extrapolated to zero smearing; the model's target, the free energy, differs"
        f" by up to {1000 * max(gaps):.1f} meV/atom"
    ]


def counts_of(numbers: Iterable[int]) -> dict[str, float]:
    """Element -> atoms."""
    symbols, counts = np.unique([chemical_symbols[number] for number in numbers], return_counts=True)
    return {str(symbol): float(count) for symbol, count in zip(symbols, counts, strict=True)}


def entry_of_row(row: Mapping[str, Any]) -> HullEntry:
    """The hull entry of a lake row."""
    numbers, _, cell = arrays_of(dict(row))
    return HullEntry(
        composition=tuple(counts_of(numbers).items()),
        energy_per_atom=_energy_per_atom(row),
        name=row["formula"],
        source=f"{row['dataset']}:{row['structure_id'][:12]}",
        theory=row["theory"],
        volume_per_atom=abs(float(np.linalg.det(cell))) / len(numbers),
    )


def reference_candidates(entries: Sequence[Mapping[str, Any]], elements: Iterable[str]) -> list[Candidate]:
    """Structures that the model relaxes for its own hull: the lake's lowest, and each element's common crystals."""
    rows = [Candidate(*arrays_of(dict(row)), row["formula"], f"reference:{row['structure_id']}") for row in entries]
    crystals = [
        Candidate.of(
            prototype.decorate((symbol,), _volume(prototype.sites, symbol)),
            prototype.name,
            f"reference:{prototype.name}:{symbol}",
        )
        for symbol in sorted(set(elements))
        for prototype in ELEMENTAL
    ]
    return [*rows, *crystals]


def _volume(sites: Sequence[Any], symbol: str) -> float:
    return guess_volume([symbol] * len(sites))


def model_entries(
    references: Iterable[Candidate], results: Mapping[str, Mapping[str, Any]], theory: str, filters: FilterSpec
) -> tuple[list[HullEntry], dict[str, str]]:
    """Hull entries by the model, and by source why other references are none: what a candidate would be dropped for.

    Elements' common crystals are the wildest structures of a campaign; one of them in a hole of the model would shift
    the whole hull.
    """
    entries, left_out = [], {}
    for reference in references:
        result = results.get(reference.candidate_id)
        if result is None:
            left_out[reference.source] = "not computed"
            continue
        if (reason := _no_reference(reference, result, filters)) is not None:
            left_out[reference.source] = reason
            continue
        entries.append(
            HullEntry(
                composition=tuple(counts_of(reference.numbers).items()),
                energy_per_atom=result["energy_per_atom"],
                name=reference.formula,
                source=reference.source,
                theory=f"model of {theory}",
            )
        )
    return entries, left_out


def _no_reference(reference: Candidate, result: Mapping[str, Any], filters: FilterSpec) -> str | None:
    """Why what the model made of a structure is no reference; None where it is one."""
    if not result["converged"]:
        return "not converged"
    reason = energy_reason(result["energy_per_atom"], None, filters) or uncertainty_reason(
        result["uncertainty"], filters
    )
    if reason is None:
        relaxed = relaxed_geometry(dict(result), len(reference.numbers))
        reason = geometry_reason(reference.numbers, *relaxed, filters)
    return None if reason is None else reason[0]


def dft_hull(
    lake: Lake, versions: Mapping[str, int], theory: str, elements: Collection[str]
) -> tuple[ReferenceHull, list[str]]:
    """The fixed hull of the lake's entries, and remarks on them and on elements without a reference.

    Raises:
        InputError: no element has a reference at the theory.
    """
    entries = lake_entries(lake, versions, theory, elements)
    hull = ReferenceHull([entry_of_row(row) for row in entries.rows])
    missing = hull.missing(elements)
    if len(missing) == len(set(elements)):
        raise InputError(
            f"the lake has no reference energy at {theory} for {', '.join(missing)}; ingest or label these elements,"
            ' or set [hull] reference = "model"'
        )
    notes = [
        f"no reference energy at {theory} for {', '.join(missing)}: candidates that hold them get no hull distance"
    ]
    return hull, [*(notes if missing else []), *entries.notes]
