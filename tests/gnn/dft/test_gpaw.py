"""GPAW in its worker process; tiny cutoffs: numbers are checked for being consistent, not for being converged."""

from __future__ import annotations

import json
import threading
import time

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from gnn.dft.engine import LabelError, RelaxSettings
from gnn.dft.gpaw import GpawEngine, GpawSettings
from gnn.dft.label import LabelJob, label

pytest.importorskip("gpaw")
pytestmark = pytest.mark.dft

TINY = GpawSettings(cutoff_ev=150, k_density=1.0, smearing="fermi-dirac", smearing_ev=0.2)
RELAX = RelaxSettings(fmax=0.3, max_steps=3)


@pytest.fixture
def engine():
    engine = GpawEngine(TINY, timeout_s=300)
    yield engine
    engine.close()


def test_a_label_has_energy_forces_and_stress(engine):
    labelled = engine.run(bulk("Li", "bcc", a=3.4), "static", RELAX)
    (frame,) = labelled.frames
    assert np.isfinite([frame.energy, frame.free_energy]).all()
    assert frame.free_energy <= frame.energy
    assert frame.forces.shape == (1, 3)
    assert frame.stress.shape == (6,)
    assert labelled.cpu_s > 0


def test_one_worker_serves_many_structures(engine):
    first = engine.run(bulk("Li", "bcc", a=3.4), "static", RELAX)
    worker = engine._worker.pid
    second = engine.run(bulk("Li", "bcc", a=3.4), "static", RELAX)
    assert engine._worker.pid == worker
    assert first.frames[0].energy == pytest.approx(second.frames[0].energy, abs=1e-4)


def test_a_relaxation_gives_frames_with_cells_of_their_own(engine):
    frames = engine.run(bulk("Li", "bcc", a=3.1), "relax", RELAX).frames
    assert len({frame.cell.tobytes() for frame in frames}) == len(frames) >= 2


def test_what_gpaw_cannot_do_costs_the_structure_and_says_why(engine):
    with pytest.raises(LabelError, match="Tc"):
        engine.run(Atoms("Tc", cell=[3, 3, 3], pbc=True), "static", RELAX)
    assert engine.run(bulk("Li", "bcc", a=3.4), "static", RELAX).converged


def test_a_worker_that_dies_costs_its_structure_and_is_replaced(engine):
    def kill_when_started():
        while engine._worker is None:
            time.sleep(0.01)
        engine._worker.kill()

    killer = threading.Thread(target=kill_when_started)
    killer.start()
    with pytest.raises(LabelError, match=r"process died \(exit status -9\)"):
        engine.run(bulk("Li", "bcc", a=3.4), "static", RELAX)
    killer.join()
    assert engine.run(bulk("Li", "bcc", a=3.4), "static", RELAX).converged


def test_a_worker_that_answers_too_late_is_stopped():
    engine = GpawEngine(TINY, timeout_s=0.05)
    with pytest.raises(LabelError, match=r"no answer from GPAW within 0\.05 s"):
        engine.run(bulk("Li", "bcc", a=3.4), "static", RELAX)
    assert engine._worker is None


def test_labelling_with_gpaw_is_recorded_and_resumed(tmp_path):
    jobs = [LabelJob.of(atoms, "static", "g", "t") for atoms in (bulk("Li", "bcc", a=3.4), bulk("Li", "bcc", a=3.5))]
    summary = label(jobs, lambda: GpawEngine(TINY), tmp_path / "j.jsonl", RELAX)
    assert (summary.done, summary.failed, summary.theory) == (2, 0, "pbe/gpaw-pw150-k1-fd0.2")
    assert json.loads((tmp_path / "j.jsonl").read_text().splitlines()[0])["engine"] == "gpaw"
    again = label(jobs, lambda: GpawEngine(TINY), tmp_path / "j.jsonl", RELAX)
    assert (again.reused, again.cpu_s) == (2, summary.cpu_s)
