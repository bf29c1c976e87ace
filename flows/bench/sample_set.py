"""Labels the sample set by its plan and writes it: `python -m flows.bench.sample_set training|truth [--workers N]`.

Runs on until the plan is finished; what is in the shipped files or in the journal is not computed again, so it may be
stopped at any time, and a new machine goes on from the files.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flows.bench.sample_jobs import RELAX, SETTINGS
from flows.bench.sample_plan import plan
from flows.settings import find_home
from gnn.dft.gpaw import GpawEngine
from gnn.dft.label import LabelJob, journal_records, label, label_journal
from gnn.files import write_atomically
from gnn.structures.record import RECORD_SCHEMA, records_to_table

DATASETS = {"training": "sample", "truth": "sample-truth"}
SAMPLE = Path(__file__).resolve().parents[2] / "datasets" / "sample"


def shipped(part: str) -> Path:
    """The file that holds a part of the set."""
    return SAMPLE / f"{DATASETS[part]}.parquet"


def labelled_jobs(path: Path) -> set[str]:
    """Ids of the jobs whose frames a file holds."""
    if not path.is_file():
        return set()
    return set(pq.read_table(path, columns=["source_sha256"])["source_sha256"].to_pylist())


def open_jobs(part: str) -> list[LabelJob]:
    """Jobs of a part that its file does not hold yet, in the plan's order."""
    training, truth = plan()
    done = labelled_jobs(shipped(part))
    return [job for job in {"training": training, "truth": truth}[part] if job.job_id not in done]


def journal_path(part: str) -> Path:
    """The journal of a part that is being labelled."""
    return find_home().labels / f"sample-k{SETTINGS.k_density:g}-{part}.jsonl"


def export(part: str) -> int:
    """Add what the journal holds to the part's file; returns the number of rows in it."""
    records = journal_records(label_journal(journal_path(part), "gpaw", SETTINGS.theory), DATASETS[part])
    path = shipped(part)
    tables = [pq.read_table(path, schema=RECORD_SCHEMA)] if path.is_file() else []
    known = {row for table in tables for row in table["structure_id"].to_pylist()}
    fresh = {record.structure_id: record for record in records if record.structure_id not in known}
    table = pa.concat_tables([*tables, records_to_table(fresh.values())])
    write(part, table)
    return int(table.num_rows)


def write(part: str, table: pa.Table) -> None:
    """Put a table of records in the place of a part's file."""
    write_atomically(shipped(part), lambda temporary: pq.write_table(table, temporary, compression="zstd"))


def show(record: dict[str, Any]) -> None:
    """One line a job, on stderr."""
    what = f"{record['job']['config_type']} {record['job']['group']}"
    how = record.get("reason") or f"{len(record['frames'])} frames, {record['cpu_s']:.0f} CPU s"
    sys.stderr.write(f"{record['status']} {what}: {how}\n")


def main() -> None:
    """Label a part to its end, or only write what is labelled."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=sorted(DATASETS))
    parser.add_argument("--workers", type=int, default=1, help="structures labelled at a time, one a core")
    parser.add_argument("--export-only", action="store_true", help="write what the journal holds and stop")
    arguments = parser.parse_args()
    if not arguments.export_only:
        engine = partial(GpawEngine, SETTINGS)
        label(open_jobs(arguments.part), engine, journal_path(arguments.part), RELAX, arguments.workers, show)
    sys.stdout.write(f"{shipped(arguments.part)}: {export(arguments.part)} structures\n")


if __name__ == "__main__":
    main()
