"""Tight binding (GFN-xTB by tblite): not DFT, but of most molecules' shapes it knows enough to teach a network.

Grimme's GFN2-xTB (Bannwarth et al., J. Chem. Theory Comput. 15, 1652 (2019)) takes 0.02 CPU s for 27 atoms. Crystals
often do not converge.
"""

from __future__ import annotations

import importlib.util
from typing import Any, Literal

from ase import Atoms
from ase.calculators.calculator import all_changes
from pydantic import BaseModel, ConfigDict, Field

from gnn.dft.engine import JobKind, LabelError, Labelled, RelaxSettings, check_electrons
from gnn.dft.relaxation import run_job
from gnn.errors import InputError, one_line

Method = Literal["GFN2-xTB", "GFN1-xTB"]


class XtbSettings(BaseModel):
    """Settings that make one level of theory."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Method = Field(default="GFN2-xTB", description="parametrisation")
    charge: int = Field(default=0, description="of the whole structure, e")
    multiplicity: int | None = Field(
        default=None, ge=1, description="2 S + 1; None: as few unpaired electrons as there can be"
    )

    @property
    def multiplicities(self) -> tuple[int, ...]:
        """Those that are computed: the lowest is 1 or 2, by the number of electrons."""
        return (1, 2) if self.multiplicity is None else (self.multiplicity,)

    @property
    def theory(self) -> str:
        """The theory key that these settings mean."""
        charge = f"-q{self.charge}" if self.charge else ""
        spin = f"-m{self.multiplicity}" if self.multiplicity else ""
        return f"{self.method.lower()}/tblite{charge}{spin}"


class XtbEngine:
    """Labels with tblite inside this process."""

    name = "xtb"

    def __init__(self, settings: XtbSettings | None = None) -> None:
        if importlib.util.find_spec("tblite") is None:
            raise InputError("engine 'xtb' is not installed here; pip install 'sluice-materials[xtb]'")
        self.settings = settings or XtbSettings()
        self.theory = self.settings.theory

    def run(self, atoms: Atoms, kind: JobKind, relax: RelaxSettings) -> Labelled:
        """Label `atoms`; see `Engine.run`. What tblite cannot converge or has no parameters for costs itself."""
        check_electrons(atoms, self.settings.charge, self.settings.multiplicities)
        work = atoms.copy()
        work.calc = _calculator(self.settings)
        try:
            return run_job(work, kind, relax)
        except Exception as error:  # noqa: BLE001 - tblite and ASE raise several kinds, all about this structure
            raise LabelError(f"tblite: {one_line(error)}") from None

    def close(self) -> None:
        """Nothing to release."""


def _calculator(settings: XtbSettings) -> Any:
    from tblite.ase import TBLite

    class FreeEnergyCalculator(TBLite):
        """Its energy belongs to its forces: it is the free energy of electrons at 300 K, which ASE asks for as well."""

        implemented_properties = [*TBLite.implemented_properties, "free_energy"]  # noqa: RUF012

        def calculate(
            self,
            atoms: Atoms | None = None,
            properties: list[str] | None = None,
            system_changes: list[str] | None = None,
        ) -> None:
            super().calculate(atoms, properties, system_changes or all_changes)
            self.results["free_energy"] = self.results["energy"]

    return FreeEnergyCalculator(verbosity=0, **settings.model_dump())
