"""ASE's effective-medium theory: no DFT, but an engine that answers at once (Al, Cu, Ag, Au, Ni, Pd, Pt, gases)."""

from __future__ import annotations

from ase import Atoms
from ase.calculators.emt import EMT, parameters

from gnn.dft.engine import JobKind, LabelError, Labelled, RelaxSettings
from gnn.dft.relaxation import run_job


class EmtEngine:
    """Labels with ASE's EMT inside this process."""

    name = "emt"
    theory = "emt/ase"

    def run(self, atoms: Atoms, kind: JobKind, relax: RelaxSettings) -> Labelled:
        """Label `atoms`; see `Engine.run`."""
        unknown = sorted(set(atoms.get_chemical_symbols()) - set(parameters))
        if unknown:
            raise LabelError(f"EMT has no parameters for {', '.join(unknown)}")
        work = atoms.copy()
        work.calc = EMT()
        return run_job(work, kind, relax)

    def close(self) -> None:
        """Nothing to release."""
