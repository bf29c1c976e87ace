"""How far energies of small cells scatter with the k-mesh: `python -m flows.bench.sample_noise [--structures 20]`.

Cheap orderings of the set that ships, drawn at random and labelled at denser meshes, against those at the densest. What
is labelled is kept, so it may be stopped at any time.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from flows.bench.sample_jobs import SETTINGS, label_cost
from flows.demo import sample_file
from flows.settings import find_home
from gnn.dft.engine import RelaxSettings
from gnn.dft.gpaw import GpawEngine, GpawSettings
from gnn.dft.label import LabelJob, label, label_journal
from gnn.structures.atoms import record_to_atoms
from gnn.structures.record import RECORD_SCHEMA, Record, table_to_records

DENSITIES = (3.6, 4.5, 5.6)
"""Points per Å⁻¹; the last is the measure."""
CHEAP = 45
"""Atoms times irreducible k-points of a label that takes some four seconds at the set's own mesh."""
SEED = 1

Labels = dict[str, tuple[float, float | None]]
"""Energy (meV/atom), and CPU seconds where they are known, by structure."""


def drawn(count: int) -> list[Record]:
    """Orderings of the set, at random."""
    table = pq.read_table(sample_file("sample.parquet"), schema=RECORD_SCHEMA)
    orderings = [r for r in table_to_records(table) if (r.config_type or "").startswith("ordering")]
    random.Random(SEED).shuffle(orderings)  # noqa: S311 (no secret)
    density = GpawSettings.from_theory(orderings[0].theory).k_density
    return [r for r in orderings if label_cost(record_to_atoms(r), density) < CHEAP][:count]


def shipped(records: list[Record]) -> Labels:
    """The labels that the set has."""
    return {r.structure_id: (1e3 * r.energy / len(r.numbers), None) for r in records if r.energy is not None}


def labelled(records: list[Record], density: float, workers: int) -> Labels:
    """Labels at another density; what is in the journal already is not computed again."""
    settings = SETTINGS.model_copy(update={"k_density": density})
    journal: Path = find_home().labels / f"noise-k{density:g}.jsonl"
    jobs = [LabelJob.of(record_to_atoms(record), "static", record.structure_id, "noise") for record in records]
    label(jobs, partial(GpawEngine, settings), journal, RelaxSettings(), workers)
    found = [r for r in label_journal(journal, "gpaw", settings.theory).read() if r["status"] == "done"]
    return {r["job"]["group"]: (1e3 * r["frames"][0]["energy"] / len(r["job"]["numbers"]), r["cpu_s"]) for r in found}


def row(density: float, found: Mapping[float, Labels]) -> str:
    """One line of the table: deviations from the densest mesh, and what a label costs."""
    best = found[DENSITIES[-1]]
    both = [name for name in best if all(name in others for others in found.values())]
    deviation = np.array([found[density][name][0] - best[name][0] for name in both])
    costs = [seconds for name in both if (seconds := found[density][name][1]) is not None]
    cpu = f"{np.mean(costs):.1f}" if costs else "–"
    mean, spread, largest = np.abs(deviation).mean(), deviation.std(), np.abs(deviation).max()
    return f"| {density:g} | {len(both)} | {mean:.1f} | {spread:.1f} | {largest:.1f} | {cpu} |\n"


def main() -> None:
    """Label what is missing and print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--structures", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1, help="structures labelled at a time, one a core")
    arguments = parser.parse_args()
    records = drawn(arguments.structures)
    own = GpawSettings.from_theory(records[0].theory).k_density
    found = {own: shipped(records)}
    found |= {d: labelled(records, d, arguments.workers) for d in DENSITIES if d > own}
    sys.stdout.write(
        "| k-points per Å⁻¹ | structures | mean deviation, meV/atom | spread | largest | CPU s a label |\n"
    )
    sys.stdout.write("|---|---|---|---|---|---|\n")
    for density in sorted(found):
        sys.stdout.write(row(density, found))


if __name__ == "__main__":
    main()
