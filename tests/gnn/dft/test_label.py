"""Labelling many structures: counted, resumable after kill -9, failures kept with their reason."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.constraints import FixAtoms

from gnn.dft.emt import EmtEngine
from gnn.dft.engine import LabelError, RelaxSettings
from gnn.dft.label import LabelJob, forget_failures, journal_records, label, label_journal
from gnn.errors import InputError, SluiceError

RELAX = RelaxSettings(fmax=0.02, max_steps=30)
SLOW_PROGRAM = """
import sys, time
from pathlib import Path
from ase.build import bulk
from gnn.dft.emt import EmtEngine
from gnn.dft.engine import RelaxSettings
from gnn.dft.label import LabelJob, label

class Slow(EmtEngine):
    def run(self, *args):
        with Path(sys.argv[2]).open("a") as log:
            log.write("run\\n")
        time.sleep(0.1)
        return super().run(*args)

jobs = [LabelJob.of(bulk("Cu", "fcc", a=3.5 + 0.01 * i), "static", f"g{i}", "test") for i in range(12)]
print("ready", flush=True)
print(label(jobs, Slow, Path(sys.argv[1]), RelaxSettings()).model_dump_json())
"""


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_job_is_counted_once(tmp_path, make_jobs):
    summary = label(make_jobs(4, bad=2), EmtEngine, tmp_path / "j.jsonl", RELAX)
    assert (summary.n_jobs, summary.done, summary.failed, summary.reused, summary.frames) == (6, 4, 2, 0, 4)
    assert summary.reasons == {"EMT has no parameters for Si": 2}
    assert summary.theory == "emt/ase"


def test_what_a_structure_says_of_electrons_and_fixed_atoms_is_kept(tmp_path, make_jobs):
    slab = bulk("Cu", "fcc", a=3.6, cubic=True)
    plain = LabelJob.of(slab, "relax", "Cu", "test")
    slab.info = {"total_charge": 1, "multiplicity": 2, "energy": 7.0}
    slab.set_constraint(FixAtoms([0, 2]))
    job = LabelJob.of(slab, "relax", "Cu", "test")
    assert job.job_id != plain.job_id
    again = job.atoms()
    assert again.info == {"total_charge": 1, "multiplicity": 2}
    assert again.constraints[0].index.tolist() == [0, 2]

    class Charged(EmtEngine):
        def run(self, atoms, *rest):
            atoms.info = {}
            return super().run(atoms, *rest)

    label([job], Charged, tmp_path / "j.jsonl", RELAX)
    records = journal_records(label_journal(tmp_path / "j.jsonl", "emt", "emt/ase"), "labels")
    assert {(record.total_charge, record.multiplicity) for record in records} == {(1, 2)}
    assert all(record.fixed.tolist() == [True, False, True, False] for record in records)


def test_a_plain_structure_keeps_the_id_of_earlier_journals():
    job = LabelJob.of(bulk("Cu", "fcc", a=3.6), "static", "Cu", "x")
    assert job.job_id == "a660126397362f4938bdc5be1d59c0fce52d34e12321b7c4c7fd8ff454cec3a6"


def test_the_journal_has_a_header_and_a_line_a_job(tmp_path, make_jobs):
    label(make_jobs(3, bad=1), EmtEngine, tmp_path / "j.jsonl", RELAX)
    header, *records = lines(tmp_path / "j.jsonl")
    assert header == {"engine": "emt", "journal": "label", "theory": "emt/ase", "version": 1}
    assert sorted(record["status"] for record in records) == ["done", "done", "done", "failed"]


def test_what_is_done_or_failed_is_not_done_again(tmp_path, make_jobs):
    jobs = make_jobs(3, bad=1)
    label(jobs, EmtEngine, tmp_path / "j.jsonl", RELAX)
    before = (tmp_path / "j.jsonl").read_bytes()
    heard = []
    summary = label(jobs, EmtEngine, tmp_path / "j.jsonl", RELAX, on_result=heard.append)
    assert (summary.reused, summary.done, summary.failed) == (4, 3, 1)
    assert heard == []
    assert (tmp_path / "j.jsonl").read_bytes() == before


def test_new_jobs_are_added_to_a_journal(tmp_path, make_jobs):
    label(make_jobs(2), EmtEngine, tmp_path / "j.jsonl", RELAX)
    summary = label(make_jobs(5), EmtEngine, tmp_path / "j.jsonl", RELAX)
    assert (summary.reused, summary.done) == (2, 5)
    assert len(lines(tmp_path / "j.jsonl")) == 6


def test_the_same_structure_twice_is_one_job(tmp_path, make_jobs):
    jobs = make_jobs(2)
    renamed = [job.model_copy(update={"group": "other", "config_type": "x"}) for job in jobs]
    summary = label([*jobs, *renamed], EmtEngine, tmp_path / "j.jsonl", RELAX)
    assert summary.n_jobs == summary.done == 2


def test_a_static_and_a_relaxation_are_two_jobs(make_jobs):
    (static,), (relaxed,) = make_jobs(1), make_jobs(1, kind="relax")
    assert static.job_id != relaxed.job_id


def test_failures_can_be_tried_again(tmp_path, make_jobs):
    path, jobs = tmp_path / "j.jsonl", make_jobs(2, bad=2)
    label(jobs, EmtEngine, path, RELAX)
    assert forget_failures(label_journal(path, "emt", "emt/ase"), [jobs[-1].job_id]) == 1
    summary = label(jobs, EmtEngine, path, RELAX)
    assert (summary.reused, summary.failed) == (3, 2)


def test_failures_of_a_damaged_journal_can_be_tried_again(tmp_path, make_jobs):
    path, jobs = tmp_path / "j.jsonl", make_jobs(2, bad=1)
    label(jobs, EmtEngine, path, RELAX)
    header, first, *rest = path.read_text().splitlines(keepends=True)
    path.write_text("".join([header, first[:50] + "\n", *rest]))
    assert forget_failures(label_journal(path, "emt", "emt/ase"), [jobs[-1].job_id]) == 1


def test_a_journal_of_another_theory_is_refused(tmp_path, make_jobs):
    label(make_jobs(1), EmtEngine, tmp_path / "j.jsonl", RELAX)

    class Other(EmtEngine):
        theory = "emt/other"

    with pytest.raises(InputError, match="holds records of other work"):
        label(make_jobs(1), Other, tmp_path / "j.jsonl", RELAX)


def test_two_processes_do_not_write_one_journal(tmp_path, make_jobs):
    started, go_on = threading.Event(), threading.Event()

    class Waiting(EmtEngine):
        def run(self, *args):
            started.set()
            go_on.wait(10)
            return super().run(*args)

    first = threading.Thread(target=label, args=(make_jobs(1), Waiting, tmp_path / "j.jsonl", RELAX))
    first.start()
    assert started.wait(10)
    with pytest.raises(SluiceError, match="in use by another process"):
        label(make_jobs(2), EmtEngine, tmp_path / "j.jsonl", RELAX)
    go_on.set()
    first.join(10)
    assert len(lines(tmp_path / "j.jsonl")) == 2


def test_workers_run_beside_each_other_with_an_engine_each(tmp_path, make_jobs):
    together = threading.Barrier(3, timeout=10)
    closed = []

    class Meeting(EmtEngine):
        def run(self, *args):
            together.wait()
            return super().run(*args)

        def close(self):
            closed.append(id(self))

    summary = label(make_jobs(6), Meeting, tmp_path / "j.jsonl", RELAX, workers=3)
    assert summary.done == 6
    assert len(set(closed)) == 3


def test_an_error_that_is_no_label_error_stops_the_run_and_closes_the_engines(tmp_path, make_jobs):
    closed = []

    class Broken(EmtEngine):
        def run(self, *args):
            raise RuntimeError("a fault of the program")

        def close(self):
            closed.append(1)

    with pytest.raises(RuntimeError, match="fault of the program"):
        label(make_jobs(3), Broken, tmp_path / "j.jsonl", RELAX)
    assert closed == [1]


@pytest.fixture
def blocking():
    """An engine whose first label is given at once; each other takes until it is closed."""
    begun, counter = [], itertools.count()

    class Blocking(EmtEngine):
        def __init__(self):
            self.closed = threading.Event()

        def run(self, atoms, kind, relax):
            begun.append(atoms)
            if next(counter) and not self.closed.wait(30):
                raise RuntimeError("was never closed")
            return super().run(atoms, kind, relax)

        def close(self):
            self.closed.set()

    Blocking.begun = begun
    return Blocking


def test_an_interrupt_does_not_wait_for_a_label_in_flight(tmp_path, make_jobs, blocking):
    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    begin = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            label(make_jobs(4), blocking, tmp_path / "j.jsonl", RELAX)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - begin < 10
    assert len(lines(tmp_path / "j.jsonl")) == 2
    assert len(blocking.begun) == 2


def test_an_interrupt_while_a_result_is_told_begins_no_other_job(tmp_path, make_jobs, blocking):
    def interrupt(_):
        raise KeyboardInterrupt

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        label(make_jobs(6), blocking, tmp_path / "j.jsonl", RELAX, workers=2, on_result=interrupt)
    assert time.monotonic() - begin < 10
    assert len(lines(tmp_path / "j.jsonl")) == 2
    assert len(blocking.begun) <= 3


def test_labels_that_are_no_numbers_cost_their_job_only(tmp_path, make_jobs):
    class Diverging(EmtEngine):
        def run(self, atoms, kind, relax):
            found = super().run(atoms, kind, relax)
            if len(atoms) > 1:
                return found
            frames = [replace(frame, energy=float("nan")) for frame in found.frames]
            return replace(found, frames=frames)

    jobs = [*make_jobs(2), LabelJob.of(bulk("Al", cubic=True), "static", "good", "test")]
    assert {len(job.numbers) for job in jobs} == {1, 4}
    summary = label(jobs, Diverging, tmp_path / "j.jsonl", RELAX)
    assert (summary.done, summary.failed) == (1, 2)
    assert summary.reasons == {"labels that are not finite": 2}
    assert label(jobs, Diverging, tmp_path / "j.jsonl", RELAX).reused == 3


def test_a_label_error_costs_its_job_only(tmp_path, make_jobs):
    class Moody(EmtEngine):
        def run(self, atoms, kind, relax):
            if atoms.get_volume() < 10.8:
                raise LabelError("too dense")
            return super().run(atoms, kind, relax)

    summary = label(make_jobs(5), Moody, tmp_path / "j.jsonl", RELAX)
    assert summary.reasons == {"too dense": 1}
    assert summary.done == 4


@pytest.mark.slow
def test_kill_9_midway_repeats_no_finished_job(tmp_path):
    program, journal, log = tmp_path / "slow.py", tmp_path / "j.jsonl", tmp_path / "runs.log"
    program.write_text(SLOW_PROGRAM)
    command = [sys.executable, str(program), str(journal), str(log)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not (journal.exists() and len(journal.read_bytes().splitlines()) >= 5):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with journal.open("a") as stream:
        stream.write('{"job_id": "torn')
    finished = len(journal.read_bytes().splitlines()) - 2
    runs_before = len(log.read_text().splitlines())
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, timeout=60)
    summary = json.loads(done.stdout.splitlines()[-1])
    assert 4 <= finished < 12
    assert (summary["done"], summary["reused"]) == (12, finished)
    assert len(log.read_text().splitlines()) - runs_before == 12 - finished
    records = lines(journal)[1:]
    assert len(records) == len({record["job_id"] for record in records}) == 12


def test_records_of_a_static(tmp_path, make_jobs):
    jobs = make_jobs(2, bad=1)
    label(jobs, EmtEngine, tmp_path / "j.jsonl", RELAX)
    records = journal_records(label_journal(tmp_path / "j.jsonl", "emt", "emt/ase"), "mine")
    assert [record.dataset for record in records] == ["mine", "mine"]
    assert {record.theory for record in records} == {"emt/ase"}
    assert {record.config_type for record in records} == {"test"}
    assert {record.source.sha256 for record in records} == {job.job_id for job in jobs[:2]}
    assert all(record.stress.shape == (6,) and record.free_energy is not None for record in records)


def test_records_of_a_relaxation_tell_its_last_step(tmp_path):
    job = LabelJob.of(bulk("Al", a=4.2), "relax", "Al", "compound")
    label([job], EmtEngine, tmp_path / "j.jsonl", RELAX)
    records = journal_records(label_journal(tmp_path / "j.jsonl", "emt", "emt/ase"), "mine")
    types = [record.config_type for record in records]
    assert types[-1] == "compound-relaxed"
    assert set(types[:-1]) == {"compound-relaxing"}
    assert len({record.structure_id for record in records}) == len(records)


def test_a_relaxation_that_did_not_converge_has_no_relaxed_record(tmp_path):
    job = LabelJob.of(bulk("Al", a=4.4), "relax", "Al", "compound")
    label([job], EmtEngine, tmp_path / "j.jsonl", RelaxSettings(fmax=1e-9, max_steps=2))
    records = journal_records(label_journal(tmp_path / "j.jsonl", "emt", "emt/ase"), "mine")
    assert {record.config_type for record in records} == {"compound-relaxing"}


def test_a_job_keeps_its_structure(aluminium):
    again = LabelJob.of(aluminium, "static", None, None).atoms()
    np.testing.assert_allclose(again.positions, aluminium.positions, atol=1e-8)
    np.testing.assert_allclose(again.cell[:], aluminium.cell[:], atol=1e-8)


def test_noise_below_a_millionth_of_an_angstrom_is_the_same_job(aluminium):
    moved = aluminium.copy()
    moved.positions += 1e-9
    assert LabelJob.of(moved, "static", None, None).job_id == LabelJob.of(aluminium, "static", None, None).job_id
