"""How far energies of small cells scatter with the k-mesh: `python -m flows.bench.sample_noise [--structures 20]`.

Labels of orderings at several densities of k-points, compared with those at the densest. What is labelled is kept, so
it may be stopped at any time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from flows.bench.sample_plan import SETTINGS, orderings_of_four
from flows.settings import find_home
from gnn.dft.engine import RelaxSettings
from gnn.dft.gpaw import GpawEngine
from gnn.dft.label import LabelJob, label, label_journal

DENSITIES = (2.8, 3.6, 4.5, 5.6)
"""Points per Å⁻¹; the last is the measure."""


def labels(jobs: list[LabelJob], density: float, workers: int) -> dict[str, tuple[float, float]]:
    """Energy (meV/atom) and CPU seconds of the jobs that could be labelled, by job id."""
    settings = SETTINGS.model_copy(update={"k_density": density})
    journal: Path = find_home().labels / f"noise-k{density:g}.jsonl"
    label(jobs, partial(GpawEngine, settings), journal, RelaxSettings(), workers)
    return {
        record["job_id"]: (1e3 * record["frames"][0]["energy"] / len(record["job"]["numbers"]), record["cpu_s"])
        for record in label_journal(journal, "gpaw", settings.theory).read()
        if record["status"] == "done"
    }


def row(density: float, found: Mapping[float, Mapping[str, tuple[float, float]]]) -> str:
    """One line of the table: deviations from the densest mesh, and what a label costs."""
    best = found[DENSITIES[-1]]
    both = [name for name in best if all(name in others for others in found.values())]
    deviation = np.array([found[density][name][0] - best[name][0] for name in both])
    cpu = np.mean([found[density][name][1] for name in both])
    mean, spread, largest = np.abs(deviation).mean(), deviation.std(), np.abs(deviation).max()
    return f"| {density:g} | {len(both)} | {mean:.1f} | {spread:.1f} | {largest:.1f} | {cpu:.1f} |\n"


def main() -> None:
    """Label what is missing and print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--structures", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1, help="structures labelled at a time, one a core")
    arguments = parser.parse_args()
    jobs = list(islice(orderings_of_four(), arguments.structures))
    found = {density: labels(jobs, density, arguments.workers) for density in DENSITIES}
    sys.stdout.write(
        "| k-points per Å⁻¹ | structures | mean deviation, meV/atom | spread | largest | CPU s a label |\n"
    )
    sys.stdout.write("|---|---|---|---|---|---|\n")
    for density in DENSITIES:
        sys.stdout.write(row(density, found))


if __name__ == "__main__":
    main()
