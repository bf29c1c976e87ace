"""GPAW as the engine that really runs: one serial worker process a core, one structure at a time."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import selectors
import subprocess
import sys
from typing import Any, Literal, get_args

import numpy as np
from ase import Atoms
from pydantic import BaseModel, ConfigDict, Field

from gnn.dft.engine import Frame, JobKind, LabelError, Labelled, RelaxSettings, check_electrons
from gnn.errors import InputError
from gnn.structures.readers.ase_atoms import fixed_mask

Smearing = Literal["fermi-dirac", "marzari-vanderbilt"]
SMEARING_KEYS: dict[Smearing, str] = {"fermi-dirac": "fd", "marzari-vanderbilt": "mv"}
Functional = Literal["PBE", "LDA", "PBEsol", "RPBE", "revPBE"]
FUNCTIONALS: dict[str, Functional] = {xc.lower(): xc for xc in get_args(Functional)}
"""Names in theory keys and what GPAW calls them."""

THEORY_KEY = re.compile(
    r"(?P<xc>[a-z]+)/gpaw-pw(?P<cutoff>{n})-k(?P<density>{n})-(?P<smearing>fd|mv)(?P<width>{n})".replace(
        "{n}", r"(?=[\d.]*[1-9])\d+(?:\.\d+)?"
    )
)


class GpawSettings(BaseModel):
    """Settings that make one level of theory."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    xc: Functional = Field(default="PBE", description="exchange-correlation functional")
    cutoff_ev: float = Field(default=600.0, gt=0, description="plane-wave cutoff, eV")
    k_density: float = Field(
        default=3.6, gt=0, description="k-points per Å⁻¹, rounded up to even, Monkhorst-Pack (not Γ-centred)"
    )
    smearing: Smearing = Field(default="marzari-vanderbilt", description="occupation function")
    smearing_ev: float = Field(default=0.5, gt=0, description="width of the occupation function, eV")

    @property
    def theory(self) -> str:
        """The theory key that these settings mean."""
        cutoff, density, width = map(_plain, (self.cutoff_ev, self.k_density, self.smearing_ev))
        return f"{self.xc.lower()}/gpaw-pw{cutoff}-k{density}-{SMEARING_KEYS[self.smearing]}{width}"

    @classmethod
    def from_theory(cls, key: str) -> GpawSettings:
        """The settings that a theory key such as `pbe/gpaw-pw600-k3.6-mv0.5` means: the inverse of `theory`.

        Raises:
            InputError: the key is not one of GPAW's.
        """
        match = THEORY_KEY.fullmatch(key)
        if match is None or match["xc"] not in FUNCTIONALS:
            raise InputError(
                f"theory {key!r} is not a GPAW one; it must look like pbe/gpaw-pw600-k3.6-mv0.5 "
                f"with a functional of {', '.join(FUNCTIONALS)}"
            )
        smearing_of = {short: name for name, short in SMEARING_KEYS.items()}
        return cls(
            xc=FUNCTIONALS[match["xc"]],
            cutoff_ev=float(match["cutoff"]),
            k_density=float(match["density"]),
            smearing=smearing_of[match["smearing"]],
            smearing_ev=float(match["width"]),
        )


def _plain(value: float) -> str:
    """The shortest decimal that is this number, without an exponent: `600`, `3.6`, `0.00001`."""
    return np.format_float_positional(value, trim="-")


class GpawEngine:
    """Labels with GPAW in one worker process that is started when needed and replaced when it dies."""

    name = "gpaw"

    def __init__(self, settings: GpawSettings | None = None, timeout_s: float = 3600.0) -> None:
        if importlib.util.find_spec("gpaw") is None:
            raise InputError(
                "engine 'gpaw' is not installed here; on Debian: apt-get install libxc-dev libopenblas-dev, "
                "then CC=g++ pip install 'sluice-materials[dft]'"
            )
        self.settings = settings or GpawSettings()
        self.theory = self.settings.theory
        self.timeout_s = timeout_s
        self._worker: subprocess.Popen[str] | None = None

    def run(self, atoms: Atoms, kind: JobKind, relax: RelaxSettings) -> Labelled:
        """Label `atoms`; see `Engine.run`. A worker that dies or outlasts `timeout_s` costs its structure only."""
        check_electrons(atoms, charge=0, multiplicities=(1,))
        worker = self._running_worker()
        job = {
            "numbers": atoms.numbers.tolist(),
            "positions": atoms.positions.tolist(),
            "cell": atoms.cell[:].tolist(),
            "pbc": atoms.pbc.tolist(),
            "fixed": np.flatnonzero(fixed_mask(atoms)).tolist(),
            "kind": kind,
            "fmax": relax.fmax,
            "max_steps": relax.max_steps,
            "settings": self.settings.model_dump(),
        }
        self._ask(worker, job)
        answer = self._answer(worker)
        if "error" in answer:
            raise LabelError(answer["error"])
        frames = tuple(Frame.from_json(frame) for frame in answer["frames"])
        return Labelled(frames=frames, converged=answer["converged"], cpu_s=answer["cpu_s"])

    def _running_worker(self) -> subprocess.Popen[str]:
        if self._worker is None or self._worker.poll() is not None:
            self._worker = subprocess.Popen(
                [sys.executable, "-m", "gnn.dft.gpaw_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        return self._worker

    @staticmethod
    def _ask(worker: subprocess.Popen[str], job: dict[str, Any]) -> None:
        assert worker.stdin is not None
        try:
            worker.stdin.write(json.dumps(job) + "\n")
            worker.stdin.flush()
        except BrokenPipeError:
            raise LabelError(f"the GPAW process died (exit status {worker.wait()})") from None

    def _answer(self, worker: subprocess.Popen[str]) -> dict[str, Any]:
        assert worker.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(worker.stdout, selectors.EVENT_READ)
            if not selector.select(self.timeout_s):
                self.close()
                raise LabelError(f"no answer from GPAW within {self.timeout_s:g} s")
        line = worker.stdout.readline()
        if not line:
            code = worker.wait()
            raise LabelError(f"the GPAW process died (exit status {code})")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Stop the worker process."""
        if self._worker is not None:
            self._worker.kill()
            self._worker.wait()
            self._worker = None
