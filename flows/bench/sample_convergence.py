"""The convergence table behind the sample set's level of theory: `python -m flows.bench.sample_convergence`."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from ase import Atoms
from ase.build import bulk

from gnn.dft.engine import Engine, RelaxSettings
from gnn.dft.gpaw import GpawEngine, GpawSettings

CUTOFFS = (400.0, 500.0, 600.0, 800.0)
DENSITIES = (2.0, 2.8, 3.6)
SMEARINGS = (0.2, 0.5)
GPA = 160.21766


def crystals() -> dict[str, Atoms]:
    """Crystals whose energies must agree between cells, and the hardest elements and compounds of the set."""
    return {
        "Li bcc, 1 atom": bulk("Li", "bcc", 3.44),
        "Li bcc, 2 atoms": bulk("Li", "bcc", 3.44, cubic=True),
        "Mg hcp": bulk("Mg", "hcp", 3.2, c=5.2),
        "Al fcc, 1 atom": bulk("Al", "fcc", 4.04),
        "Al fcc, 4 atoms": bulk("Al", "fcc", 4.04, cubic=True),
        "Si diamond": bulk("Si", "diamond", 5.47),
        "Mg2Si": bulk("SiMg2", "fluorite", 6.36),
    }


def settings() -> Iterator[tuple[str, GpawSettings]]:
    """One setting varied at a time around the chosen ones."""
    chosen = GpawSettings()
    for cutoff in CUTOFFS:
        yield f"{cutoff:g} eV", chosen.model_copy(update={"cutoff_ev": cutoff, "k_density": 2.0})
    for density in DENSITIES:
        for width in SMEARINGS:
            yield f"k {density:g}, {width:g} eV", chosen.model_copy(update={"k_density": density, "smearing_ev": width})


def row(engine: Engine, atoms: Atoms) -> str:
    """Energy (eV/atom) and mean stress (GPa) of one crystal at one setting."""
    labelled = engine.run(atoms, "static", RelaxSettings())
    frame = labelled.frames[0]
    pressure = "" if frame.stress is None else f"{frame.stress[:3].mean() * GPA:.2f}"
    return f"{frame.energy / len(atoms):.4f} | {pressure} | {labelled.cpu_s:.1f}"


def main() -> None:
    """Print the table as Markdown, row by row."""
    sys.stdout.write("| crystal | setting | eV/atom | stress, GPa | CPU s |\n|---|---|---|---|---|\n")
    for label, setting in settings():
        engine = GpawEngine(setting)
        try:
            for name, atoms in crystals().items():
                sys.stdout.write(f"| {name} | {label} | {row(engine, atoms)} |\n")
                sys.stdout.flush()
        finally:
            engine.close()


if __name__ == "__main__":
    main()
