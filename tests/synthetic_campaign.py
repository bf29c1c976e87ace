"""An invented but lifelike campaign in Li-Mg-Al-Si, for tests that look at reports. Run by a fixture in conftest.py."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pyarrow as pa

from gnn.screening.prototypes import PROTOTYPES, decorations
from gnn.screening.report.context import (
    CampaignFacts,
    CostRow,
    DftComparison,
    FunnelRow,
    HullEntry,
    KnownCompound,
    Parity,
    Provenance,
    ReportContext,
)
from gnn.screening.volumes import guess_volume
from gnn.structures.record import reduced_formula

ELEMENTS = ("Li", "Mg", "Al", "Si")
BONDS = {
    "LiMg": -0.10, "LiAl": -0.75, "LiSi": -0.95, "MgAl": -0.12, "MgSi": -0.72, "AlSi": 0.18,
}  # fmt: skip
KNOWN = {"AlLi": "NaTl", "Mg2Si": "fluorite", "Li2MgSi": "full-Heusler", "Al2Mg": "Laves-C15", "Li12Si7": "Li12Si7"}
SHORTLIST = 20
THRESHOLD = 0.05


def _unit(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def _formation(symbols: list[str], prototype: str) -> float:
    n = len(symbols)
    share = {symbol: amount / n for symbol, amount in Counter(symbols).items()}
    pairs = sum(w * share.get(pair[:2], 0) * share.get(pair[2:], 0) for pair, w in BONDS.items())
    return pairs * (0.5 + _unit(prototype)) + 0.14 * _unit(prototype + "".join(symbols))


def _rows() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for prototype in PROTOTYPES.values():
        if len(prototype.labels) == 1:
            continue
        for elements in decorations(prototype, ELEMENTS):
            unit = prototype.decorate(elements, 1.0)
            symbols = unit.get_chemical_symbols()
            atoms = prototype.decorate(elements, 0.93 * guess_volume(symbols))
            formation = _formation(symbols, prototype.name)
            rows.append(
                {
                    "candidate_id": hashlib.sha256(f"{prototype.name}{elements}".encode()).hexdigest()[:16],
                    "formula": reduced_formula(atoms.numbers),
                    "prototype": prototype.name,
                    "n_atoms": len(atoms),
                    "source": "prototypes",
                    "energy_per_atom": -3.0 + formation,
                    "formation_energy_per_atom": formation,
                    "uncertainty": 0.004 + 0.02 * _unit(f"u{prototype.name}{elements}") ** 2,
                    "converged": True,
                    "steps": 40,
                    "cpu_s": 0.3,
                    "stage_dropped": None,
                    "reason": None,
                    "numbers": atoms.numbers.tolist(),
                    "positions": atoms.positions.ravel().tolist(),
                    "cell": atoms.cell[:].ravel().tolist(),
                }
            )
    return rows


def _hull_entries(rows: list[dict[str, object]]) -> list[HullEntry]:
    chosen = [row for row in rows if _unit(f"ref{row['candidate_id']}") < 0.35]
    elements = [HullEntry(symbol, {symbol: 1}, 0.0, "sample") for symbol in ELEMENTS]
    return elements + [
        HullEntry(
            name=str(row["formula"]),
            composition=Counter(_symbols(row)),
            formation_energy_per_atom=float(row["formation_energy_per_atom"]) - 0.01,
            source="sample",
        )
        for row in chosen
    ]


def _symbols(row: dict[str, object]) -> list[str]:
    names = {3: "Li", 12: "Mg", 13: "Al", 14: "Si"}
    return [names[z] for z in row["numbers"]]


def _add_hull_distances(rows: list[dict[str, object]], entries: list[HullEntry]) -> None:
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram

    made = [PDEntry("".join(f"{s}{n}" for s, n in e.composition.items()),
                    e.formation_energy_per_atom * sum(e.composition.values())) for e in entries]  # fmt: skip
    diagram = PhaseDiagram(made)
    for row in rows:
        symbols = _symbols(row)
        entry = PDEntry("".join(symbols), float(row["formation_energy_per_atom"]) * len(symbols))
        row["hull_distance"] = float(diagram.get_e_above_hull(entry, allow_negative=True))


def _rank(rows: list[dict[str, object]]) -> None:
    for rank, row in enumerate(sorted(rows, key=lambda r: r["hull_distance"]), start=1):
        row["rank"] = rank
        row["shortlisted"] = rank <= SHORTLIST


def _dft(rows: list[dict[str, object]]) -> list[DftComparison]:
    chosen = [row for row in rows if _unit(f"dft{row['candidate_id']}") < 0.14 or row["rank"] <= 3]
    return [
        DftComparison(
            candidate_id=str(row["candidate_id"]),
            formula=str(row["formula"]),
            prototype=str(row["prototype"]),
            origin="labels-gpaw" if row["rank"] <= 3 else "sample-truth",
            model_formation_energy_per_atom=row["formation_energy_per_atom"],
            dft_formation_energy_per_atom=row["formation_energy_per_atom"] + 0.03 * (_unit(f"e{i}") - 0.5),
            uncertainty=row["uncertainty"],
            dft_hull_distance=row["hull_distance"] + 0.12 * (_unit(f"e{i}") - 0.5),
            rank=row["rank"],
            shortlisted=row["shortlisted"],
            in_training=row["rank"] > 3 and i % 11 == 0,
        )
        for i, row in enumerate(chosen)
    ]


def _known(rows: list[dict[str, object]]) -> list[KnownCompound]:
    found = {(row["formula"], row["prototype"]): row for row in rows}
    known = []
    for formula, prototype in KNOWN.items():
        row = found.get((formula, prototype))
        known.append(
            KnownCompound(
                formula=formula, name=prototype, found=row is not None, rank=row and row["rank"],
                shortlisted=bool(row and row["shortlisted"]), candidate_id=row and row["candidate_id"],
                hull_distance=row and row["hull_distance"], dft_hull_distance=0.0,
                comment="" if row else "19 atoms: beyond the largest cell",
            )
        )  # fmt: skip
    return known


def _parity() -> list[Parity]:
    random = np.random.default_rng(0)
    energy, force, stress = random.normal(-2.5, 1.0, 180), random.normal(0, 0.8, 2600), random.normal(0, 3.0, 1080)
    return [
        Parity("energy", "eV/atom", "test", energy, energy + random.normal(0, 0.008, energy.shape)),
        Parity("forces", "eV/Å", "test", force, force + random.normal(0, 0.035, force.shape)),
        Parity("stress", "GPa", "test", stress, stress + random.normal(0, 0.2, stress.shape)),
    ]


def report_context() -> ReportContext:
    """A context with every part filled."""
    rows = _rows()
    entries = _hull_entries(rows)
    _add_hull_distances(rows, entries)
    _rank(rows)
    n = len(rows)
    return ReportContext(
        facts=CampaignFacts(
            name="demo", state="COMPLETED", finished_at="2026-01-01 12:00 UTC", hull_reference="dft", n_candidates=n,
            spec_toml='[candidates]\nelements = ["Li", "Mg", "Al", "Si"]\n\n[selection]\nbudget = 20\n',
            elements=ELEMENTS, shards_total=8, stability_threshold=THRESHOLD,
        ),
        funnel=[
            FunnelRow("enumerated", 4210, 4210),
            FunnelRow("valid", 4210, 4188, {"atoms closer than 0.5 of their radii": 22}),
            FunnelRow("distinct", 4188, n, {"same structure as another": 4188 - n}),
            FunnelRow("relaxed", n, n - 9, {"not converged in 300 steps": 6, "cell exploded": 3}),
            FunnelRow("near the hull", n - 9, 131, {"more than 100 meV/atom above the hull": n - 140}),
            FunnelRow("shortlisted", 131, SHORTLIST, {"beyond the budget": 111 - 12, "uncertainty above 30 meV": 12}),
        ],
        candidates=pa.Table.from_pylist(rows),
        provenance=Provenance(
            code_version="0.1.0 (0a2cea2)",
            model="models:/alloys@champion", model_version="3", model_sha256="ab12" * 16,
            theory="pbe/gpaw-pw600-k3.6-mv0.5",
            lake_versions={"sample": 2, "sample-truth": 1}, graph_set_id="cd34" * 16,
            candidates_digest="ef56" * 16, machine="2 cores, x86_64", packages={"torch": "2.13.0", "ase": "3.29.0"},
            model_metrics={"energy MAE, meV/atom": 6.41, "force MAE, meV/Å": 28.3}, licences={"sample": "CC-BY-4.0"},
        ),
        hull_entries=entries,
        parity=_parity(),
        dft=_dft(rows),
        known=_known(rows),
        cost=[
            CostRow("enumerate", 4210, 6.1, 6.4), CostRow("deduplicate", 4188, 31.0, 16.2),
            CostRow("relax", n, 372.0, 190.0), CostRow("hull and selection", n - 9, 1.4, 1.5),
        ],
        files={"Candidates": "candidates.parquet", "Shortlist": "shortlist.extxyz", "VASP inputs": "dft/vasp"},
    )  # fmt: skip
