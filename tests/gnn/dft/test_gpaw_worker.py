"""How the worker answers, with a calculator of ours in GPAW's place, and how the engine takes a worker's end."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from gnn.dft import gpaw_worker
from gnn.dft.engine import LabelError, RelaxSettings
from gnn.dft.gpaw import GpawEngine, GpawSettings

RELAX = RelaxSettings()


def job(atoms, kind="static", fixed=()) -> str:
    return json.dumps(
        {
            "numbers": atoms.numbers.tolist(), "positions": atoms.positions.tolist(), "cell": atoms.cell[:].tolist(),
            "pbc": atoms.pbc.tolist(), "fixed": list(fixed), "kind": kind, "fmax": 0.05, "max_steps": 20,
            "settings": GpawSettings().model_dump(),
        }
    )  # fmt: skip


@pytest.fixture
def emt_inside(monkeypatch):
    monkeypatch.setattr(gpaw_worker, "calculator", lambda *_: EMT())


def test_an_answer_holds_the_frames(emt_inside):
    answer = gpaw_worker.answer(job(bulk("Cu")))
    assert answer["converged"]
    assert len(answer["frames"]) == 1
    json.dumps(answer)


def test_a_relaxation_moves_the_cell(emt_inside):
    frames = gpaw_worker.answer(job(bulk("Cu", a=3.75), "relax"))["frames"]
    assert abs(np.linalg.det(frames[-1]["cell"])) < abs(np.linalg.det(frames[0]["cell"])) - 0.5
    assert np.abs(frames[-1]["stress"]).max() < 0.01


def test_fixed_atoms_hold_the_cell(emt_inside):
    crystal = bulk("Cu", a=3.75, cubic=True)
    crystal.positions[1] += 0.1
    frames = gpaw_worker.answer(job(crystal, "relax", fixed=[0]))["frames"]
    assert len(frames) > 1
    assert frames[-1]["cell"] == frames[0]["cell"]
    assert frames[-1]["positions"][0] == frames[0]["positions"][0]


def test_an_error_is_an_answer_too(emt_inside):
    answer = gpaw_worker.answer(job(bulk("Si")))
    assert list(answer) == ["error"]
    assert "Si" in answer["error"]
    assert "\n" not in answer["error"]


def test_a_line_that_is_no_job_is_an_error():
    assert "JSONDecodeError" in gpaw_worker.answer("{")["error"]


def test_a_cell_whose_symmetry_fails_is_done_without(monkeypatch):
    asked = []

    class Asymmetric(EMT):
        def calculate(self, *arguments):
            raise RuntimeError("Broken symmetry!")

    def calculator(settings, periodic, point_group):
        asked.append(point_group)
        return Asymmetric() if point_group else EMT()

    monkeypatch.setattr(gpaw_worker, "calculator", calculator)
    assert gpaw_worker.answer(job(bulk("Cu")))["converged"]
    assert asked == [True, False]


def test_other_errors_are_not_tried_twice(monkeypatch):
    asked = []

    def calculator(*arguments):
        asked.append(arguments)
        raise RuntimeError("no convergence")

    monkeypatch.setattr(gpaw_worker, "calculator", calculator)
    assert gpaw_worker.answer(job(bulk("Cu"))) == {"error": "RuntimeError: no convergence"}
    assert len(asked) == 1


def test_one_answer_a_line_and_nothing_else_on_stdout(emt_inside, monkeypatch, capfd):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdin", io.StringIO(job(bulk("Cu")) + "\n" + job(bulk("Si")) + "\n"))
    monkeypatch.setattr(sys, "stdout", out)
    gpaw_worker.main()
    answers = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [next(iter(answer)) for answer in answers] == ["frames", "error"]


@pytest.fixture
def engine_of(monkeypatch):
    """An engine whose worker is a Python program of ours."""
    engines = []

    def make(program: str, timeout_s: float = 20) -> GpawEngine:
        monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
        engine = GpawEngine(timeout_s=timeout_s)
        engine._running_worker = lambda: _start(engine, program)
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.close()


def _start(engine, program):
    if engine._worker is None or engine._worker.poll() is not None:
        command = [sys.executable, "-c", program]
        engine._worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return engine._worker


def test_a_worker_that_ends_is_a_label_error(engine_of):
    with pytest.raises(LabelError, match=r"process died \(exit status 3\)"):
        engine_of("import sys; sys.stdin.readline(); sys.exit(3)").run(bulk("Cu"), "static", RELAX)


def test_a_worker_that_ended_before_it_was_asked_is_a_label_error(engine_of):
    engine = engine_of("import sys; sys.exit(4)")
    worker = _start(engine, "import sys; sys.exit(4)")
    worker.wait()
    engine._running_worker = lambda: worker
    with pytest.raises(LabelError, match=r"process died \(exit status 4\)"):
        engine.run(bulk("Cu"), "static", RELAX)


def test_a_silent_worker_is_stopped_in_time(engine_of):
    engine = engine_of("import time; time.sleep(60)", timeout_s=0.2)
    with pytest.raises(LabelError, match=r"within 0\.2 s"):
        engine.run(bulk("Cu"), "static", RELAX)
    assert engine._worker is None


def test_the_reason_of_an_error_is_kept(engine_of):
    engine = engine_of('input(); print(\'{"error": "KohnShamConvergenceError: no"}\', flush=True)')
    with pytest.raises(LabelError, match="KohnShamConvergenceError: no"):
        engine.run(bulk("Cu"), "static", RELAX)


BUSY_WORKER = """
import time
from gnn.dft.gpaw_worker import end_with_parent
end_with_parent(0.1)
print("watching", flush=True)
time.sleep(60)
"""
ASKER = f"""
import subprocess, sys
worker = subprocess.Popen([sys.executable, "-c", {BUSY_WORKER!r}], stdout=subprocess.PIPE)
worker.stdout.readline()
print(worker.pid, flush=True)
worker.wait()
"""


def is_alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_busy_worker_ends_when_its_asker_is_killed():
    asker = subprocess.Popen([sys.executable, "-c", ASKER], stdout=subprocess.PIPE, text=True)
    worker = int(asker.stdout.readline())
    assert is_alive(worker)
    asker.kill()
    asker.wait()
    deadline = time.monotonic() + 20
    while is_alive(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_alive(worker)
