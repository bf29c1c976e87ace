"""The program that `GpawEngine` talks to: one JSON job a line on stdin, one JSON answer a line on stdout."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any

from ase import Atoms
from ase.constraints import FixAtoms

from gnn.dft.engine import Labelled, RelaxSettings
from gnn.dft.gpaw import GpawSettings
from gnn.dft.relaxation import run_job
from gnn.errors import told

WATCH_S = 2.0
"""Seconds between two looks at whether the process that asked is still there."""


def calculator(settings: GpawSettings, periodic: bool, point_group: bool) -> Any:
    """A GPAW calculator; isolated systems get the Γ point alone."""
    from gpaw import GPAW, PW

    return GPAW(
        mode=PW(settings.cutoff_ev),
        xc=settings.xc,
        kpts={"density": settings.k_density, "even": True} if periodic else (1, 1, 1),
        occupations={"name": settings.smearing, "width": settings.smearing_ev},
        symmetry={"point_group": point_group},
        nbands="130%",  # more empty bands than the default converge in fewer iterations
        txt=None,
    )


def label(job: dict[str, Any]) -> Labelled:
    """Run one job; a cell whose symmetry analysis fails is computed without symmetry."""
    settings = GpawSettings(**job["settings"])
    relax = RelaxSettings(fmax=job["fmax"], max_steps=job["max_steps"])
    for point_group in (True, False):
        atoms = Atoms(numbers=job["numbers"], positions=job["positions"], cell=job["cell"], pbc=job["pbc"])
        atoms.set_constraint(FixAtoms(job["fixed"]) if job["fixed"] else None)
        atoms.calc = calculator(settings, bool(atoms.pbc.any()), point_group)
        try:
            return run_job(atoms, job["kind"], relax)
        except Exception as error:
            if not point_group or "symmetr" not in f"{type(error).__name__} {error}".lower():
                raise
    raise AssertionError("unreachable")


def answer(line: str) -> dict[str, Any]:
    """The answer to one job line: frames, or the reason there are none."""
    try:
        labelled = label(json.loads(line))
    except Exception as error:  # noqa: BLE001 (whatever the engine raises costs this structure, and its reason is kept)
        return {"error": told(error)[:500]}
    frames = [frame.to_json() for frame in labelled.frames]
    return {"frames": frames, "converged": labelled.converged, "cpu_s": labelled.cpu_s}


def end_with_parent(watch_s: float = WATCH_S) -> None:
    """End soon after the process that started this one: a label that nobody waits for would hold a core for hours."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(watch_s)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Answer jobs until stdin closes; whatever GPAW prints goes to stderr."""
    end_with_parent()
    out, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        out.write(json.dumps(answer(line)) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
