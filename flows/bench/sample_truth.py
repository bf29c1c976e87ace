"""Takes the truth's relaxations on until they are at rest: `python -m flows.bench.sample_truth [--workers N]`.

Resumes as `flows.bench.sample_set` does, after which it is run, and rounds follow until nothing is left to take on. The
first relaxations of the truth ended at 0.08 eV/Å. That is the minimum to 1 meV/atom where the energy is a bowl,
and a point on the way down where it is a slope: LiMgSi2 on bcc stopped there, 0.13 eV/atom above where it ends.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow.parquet as pq
from ase.filters import FrechetCellFilter

from flows.bench.sample_jobs import SETTINGS, label_cost
from flows.bench.sample_set import DATASETS, journal_path, shipped, show, write
from gnn.dft.engine import RelaxSettings
from gnn.dft.gpaw import GpawEngine
from gnn.dft.label import RELAXED_SUFFIX, RELAXING_SUFFIX, LabelJob, journal_records, label, label_journal
from gnn.screening.truth import TruthCase, distinct, is_relaxed, relaxations, truth_cases
from gnn.structures.atoms import record_to_atoms
from gnn.structures.record import RECORD_SCHEMA, Record, records_to_table, table_to_records

PART = "truth"
REST = RelaxSettings(fmax=0.03, max_steps=40)
"""Tighter than the screening that is compared with it, so that DFT doesn't stop before the model."""


def unrest(record: Record) -> float:
    """eV/Å: the largest row of forces, the cell's three rows included, as relaxations have it at their first step."""
    return float(np.linalg.norm(FrechetCellFilter(record_to_atoms(record)).get_forces(), axis=1).max())


def unfinished(records: Sequence[Record]) -> dict[str, TruthCase]:
    """Relaxations that are not at rest, by the id of the job that takes each on from its last frame.

    First those that the truth counts as ended, a crystal once, then the given up; the cheapest first.
    """
    given_up = (case for case in relaxations(records) if not is_relaxed(case.end))
    moving = (case for case in (*distinct(truth_cases(records)), *given_up) if unrest(case.end) > REST.fmax)
    ordered = sorted(moving, key=lambda case: (not is_relaxed(case.end), _cost(case)))
    return {_next_job(case).job_id: case for case in ordered}


def next_jobs(records: Sequence[Record]) -> list[LabelJob]:
    """The jobs of `unfinished`."""
    return [_next_job(case) for case in unfinished(records).values()]


def taken_on(records: Sequence[Record], further: Iterable[Record]) -> list[Record]:
    """`records` and the new frames of `next_jobs`, which count as frames of the relaxations that they take on."""
    cases, known = unfinished(records), {record.structure_id for record in records}
    new = [record for record in further if _job_of(record) in cases and record.structure_id not in known]
    passed = {cases[_job_of(record)].end.structure_id for record in new}
    return [
        *(_passed(record) if record.structure_id in passed else record for record in records),
        *(replace(record, source=cases[_job_of(record)].start.source) for record in new),
    ]


def _cost(case: TruthCase) -> int:
    return label_cost(record_to_atoms(case.end))


def _next_job(case: TruthCase) -> LabelJob:
    end = case.end
    return LabelJob.of(record_to_atoms(end), "relax", end.group, _name(end))


def _job_of(record: Record) -> str:
    return record.source.sha256 if record.source is not None else ""


def _passed(record: Record) -> Record:
    """A frame that was an end and is not any more."""
    return replace(record, config_type=f"{_name(record)}{RELAXING_SUFFIX}")


def _name(record: Record) -> str:
    return (record.config_type or "").removesuffix(RELAXED_SUFFIX).removesuffix(RELAXING_SUFFIX)


def shipped_truth() -> list[Record]:
    """The truth as it ships."""
    return list(table_to_records(pq.read_table(shipped(PART), schema=RECORD_SCHEMA)))


def main() -> None:
    """Take the truth on by one round, or only write what is labelled."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=1, help="structures labelled at a time, one a core")
    parser.add_argument("--export-only", action="store_true", help="write what the journal holds and stop")
    arguments = parser.parse_args()
    path, records = journal_path("rest"), shipped_truth()
    if not arguments.export_only:
        label(next_jobs(records), partial(GpawEngine, SETTINGS), path, REST, arguments.workers, show)
    further = journal_records(label_journal(path, "gpaw", SETTINGS.theory), DATASETS[PART])
    write(PART, records_to_table(taken_on(records, further)))
    sys.stdout.write(f"{shipped(PART)}: {len(unfinished(shipped_truth()))} relaxations to take on\n")


if __name__ == "__main__":
    main()
