"""ASE's effective-medium theory: no DFT, but an engine that answers at once (Al, Cu, Ag, Au, Ni, Pd, Pt, gases)."""

from __future__ import annotations

from ase import Atoms
from ase.calculators.emt import EMT, parameters

from gnn.dft.engine import JobKind, LabelError, Labelled, RelaxSettings, check_electrons
from gnn.dft.relaxation import run_job
from gnn.errors import told


class EmtEngine:
    """Labels with ASE's EMT inside this process."""

    name = "emt"
    theory = "emt/ase"

    def run(self, atoms: Atoms, kind: JobKind, relax: RelaxSettings) -> Labelled:
        """Label `atoms`; see `Engine.run`. What ASE cannot compute or relax costs itself."""
        check_electrons(atoms, charge=0, multiplicities=(1,))
        unknown = sorted(set(atoms.get_chemical_symbols()) - set(parameters))
        if unknown:
            raise LabelError(f"EMT has no parameters for {', '.join(unknown)}")
        work = atoms.copy()
        work.calc = EMT()
        try:
            return run_job(work, kind, relax)
        except Exception as error:  # noqa: BLE001 - ASE and its neighbour lists raise several kinds, all about this structure
            raise LabelError(f"EMT: {told(error)}") from None

    def close(self) -> None:
        """Nothing to release."""
