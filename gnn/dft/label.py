"""Labelling many structures: resumable, one journal line a job, failures kept with their reason."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms
from pydantic import BaseModel, ConfigDict

from gnn.dft.engine import ELECTRONS, Engine, Frame, JobKind, LabelError, RelaxSettings
from gnn.files import Journal, canonical_json, digest, locked, write_text
from gnn.structures.readers.ase_atoms import fixed_mask
from gnn.structures.record import Record, Source

JOURNAL_VERSION = 1
RELAXED_SUFFIX, RELAXING_SUFFIX = "-relaxed", "-relaxing"
"""Of the config_type of the last step of a converged relaxation, and of all other steps."""


class LabelJob(BaseModel):
    """One structure to label and what to call the result; `fixed` are places of atoms that a relaxation holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    numbers: list[int]
    positions: list[list[float]]
    cell: list[list[float]]
    pbc: list[bool]
    kind: JobKind = "static"
    group: str | None = None
    config_type: str | None = None
    total_charge: int | None = None
    multiplicity: int | None = None
    fixed: list[int] = []

    @property
    def job_id(self) -> str:
        """Digest of what is to be computed; names and groups do not enter, nor what a plain structure does not say."""
        stated = {"total_charge": self.total_charge, "multiplicity": self.multiplicity, "fixed": self.fixed}
        return digest(
            {
                "numbers": self.numbers,
                "positions": np.round(self.positions, 6).tolist(),
                "cell": np.round(self.cell, 6).tolist(),
                "pbc": self.pbc,
                "kind": self.kind,
            }
            | {name: value for name, value in stated.items() if value}
        )

    def atoms(self) -> Atoms:
        """The structure as ASE Atoms; what it says of its electrons stands in `info`."""
        atoms = Atoms(numbers=self.numbers, positions=self.positions, cell=self.cell, pbc=self.pbc)
        atoms.set_constraint(FixAtoms(self.fixed) if self.fixed else None)
        atoms.info = {name: value for name in ELECTRONS if (value := getattr(self, name)) is not None}
        return atoms

    @classmethod
    def of(cls, atoms: Atoms, kind: JobKind, group: str | None, config_type: str | None) -> LabelJob:
        """A job for ASE Atoms; of their `info` what is said of electrons, of their constraints atoms wholly fixed."""
        return cls(
            numbers=atoms.numbers.tolist(),
            positions=np.round(atoms.positions, 8).tolist(),
            cell=np.round(atoms.cell[:], 8).tolist(),
            pbc=atoms.pbc.tolist(),
            kind=kind,
            group=group,
            config_type=config_type,
            fixed=np.flatnonzero(fixed_mask(atoms)).tolist(),
            **{name: atoms.info.get(name) for name in ELECTRONS},
        )


class LabelSummary(BaseModel):
    """Counts of a labelling: every job is done, failed or still to do."""

    model_config = ConfigDict(frozen=True)

    n_jobs: int
    done: int
    failed: int
    reused: int
    frames: int
    reasons: dict[str, int]
    cpu_s: float
    journal: str
    theory: str


Status = Literal["done", "failed"]


def label_journal(path: Path, engine_name: str, theory: str) -> Journal:
    """The journal of one engine at one level of theory."""
    return Journal(path, {"journal": "label", "version": JOURNAL_VERSION, "engine": engine_name, "theory": theory})


def label(
    jobs: Sequence[LabelJob],
    make_engine: Callable[[], Engine],
    journal_path: Path,
    relax: RelaxSettings,
    workers: int = 1,
    on_result: Callable[[dict[str, Any]], None] = lambda _: None,
) -> LabelSummary:
    """Run every job that the journal does not hold yet, `workers` at a time, and count all.

    A killed run continues from its journal; a job recorded as failed is not tried again (delete the journal's line to
    do so). Each worker thread holds one engine. Whoever interrupts does not wait for labels in flight: the engines are
    closed.
    """
    engines = [make_engine() for _ in range(workers)]
    journal = label_journal(journal_path, engines[0].name, engines[0].theory)
    try:
        with locked(journal_path.with_suffix(".lock"), f"labelling journal {journal_path}"):
            journal.mend()
            known = {record["job_id"] for record in journal.read()}
            todo = _unique([job for job in jobs if job.job_id not in known])
            with journal.appending() as append, closing(_run_all(todo, engines, relax)) as records:
                for record in records:
                    append(record)
                    on_result(record)
            return summarise(jobs, journal, reused=len(known & {job.job_id for job in jobs}))
    finally:
        for engine in engines:
            engine.close()


def forget_failures(journal: Journal, job_ids: Iterable[str]) -> int:
    """Take the failures of these jobs out of the journal, so that they are tried again; how many there were."""
    ids = set(job_ids)
    with locked(journal.path.with_suffix(".lock"), f"labelling journal {journal.path}"):
        journal.mend()
        records = journal.read()
        kept = [record for record in records if record["status"] == "done" or record["job_id"] not in ids]
        if len(kept) < len(records):
            lines = [canonical_json(record) for record in (journal.header, *kept)]
            write_text(journal.path, "\n".join(lines) + "\n")
    return len(records) - len(kept)


def _unique(jobs: Iterable[LabelJob]) -> list[LabelJob]:
    return list({job.job_id: job for job in jobs}.values())


def _run_all(
    jobs: Sequence[LabelJob], engines: Sequence[Engine], relax: RelaxSettings
) -> Generator[dict[str, Any], None, None]:
    free: SimpleQueue[Engine] = SimpleQueue()
    for engine in engines:
        free.put(engine)

    def run(job: LabelJob) -> dict[str, Any]:
        engine = free.get()
        try:
            return run_one(job, engine, relax)
        finally:
            free.put(engine)

    pool = ThreadPoolExecutor(len(engines))
    try:
        for future in as_completed([pool.submit(run, job) for job in jobs]):
            yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # labels in flight end with their engines


def run_one(job: LabelJob, engine: Engine, relax: RelaxSettings) -> dict[str, Any]:
    """The journal record of one job: its frames, or the reason there are none."""
    record: dict[str, Any] = {"job_id": job.job_id, "job": job.model_dump()}
    try:
        labelled = engine.run(job.atoms(), job.kind, relax)
    except LabelError as error:
        return {**record, "status": "failed", "reason": str(error)}
    if not all(frame.is_finite for frame in labelled.frames):
        return {**record, "status": "failed", "reason": "labels that are not finite"}
    frames = [frame.to_json() for frame in labelled.frames]
    return {**record, "status": "done", "converged": labelled.converged, "cpu_s": labelled.cpu_s, "frames": frames}


def summarise(jobs: Sequence[LabelJob], journal: Journal, reused: int) -> LabelSummary:
    """Count what the journal holds of `jobs`."""
    wanted = {job.job_id for job in jobs}
    records = [record for record in journal.read() if record["job_id"] in wanted]
    done = [record for record in records if record["status"] == "done"]
    reasons: dict[str, int] = {}
    for record in records:
        if record["status"] == "failed":
            reasons[record["reason"]] = reasons.get(record["reason"], 0) + 1
    return LabelSummary(
        n_jobs=len(wanted),
        done=len(done),
        failed=len(records) - len(done),
        reused=reused,
        frames=sum(len(record["frames"]) for record in done),
        reasons=reasons,
        cpu_s=sum(record["cpu_s"] for record in done),
        journal=str(journal.path),
        theory=journal.header["theory"],
    )


def journal_records(journal: Journal, dataset: str) -> list[Record]:
    """Every labelled frame of a journal as a record of `dataset`; the steps of a relaxation carry its config_type."""
    records = []
    for row, entry in enumerate(journal.read()):
        if entry["status"] == "done":
            records.extend(_entry_records(entry, dataset, str(journal.header["theory"]), row, journal.path))
    return records


def _entry_records(entry: dict[str, Any], dataset: str, theory: str, row: int, path: Path) -> list[Record]:
    job = LabelJob(**entry["job"])
    fixed = np.isin(np.arange(len(job.numbers)), job.fixed) if job.fixed else None
    last = len(entry["frames"]) - 1
    records = []
    for step, frame in enumerate(map(Frame.from_json, entry["frames"])):
        config_type = job.config_type or "labelled"
        if job.kind == "relax":
            config_type += RELAXED_SUFFIX if entry["converged"] and step == last else RELAXING_SUFFIX
        records.append(
            Record(
                dataset=dataset,
                theory=theory,
                numbers=np.array(job.numbers, dtype=np.int64),
                positions=frame.positions,
                cell=frame.cell,
                pbc=np.array(job.pbc, dtype=bool),
                total_charge=job.total_charge,
                multiplicity=job.multiplicity,
                fixed=fixed,
                energy=frame.energy,
                free_energy=frame.free_energy,
                forces=frame.forces,
                stress=frame.stress,
                config_type=config_type,
                group=job.group,
                source=Source(file=path.name, row=row, sha256=entry["job_id"]),
            )
        )
    return records
