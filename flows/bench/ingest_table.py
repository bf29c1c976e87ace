"""Ingest every real data set twice and hold what comes out against what its card says.

`sluice bench ingest --data DIR`, a folder that holds one folder a set, named like its card.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from flows.bench.table import BenchTable, Cell, Column, Part, bench_table
from flows.settings import Home
from gnn.errors import InputError
from gnn.lake import Lake
from gnn.structures.record import row_to_record

GPA = 160.21766208


@dataclass
class Figures:
    """What one pass over a table gives. energies are eV/atom of all but isolated atoms; forces in eV/Å."""

    lake: Lake
    energies: list[float]
    force_squares: float = 0.0
    force_components: int = 0
    force_max: float = 0.0
    net_force_max: float = 0.0
    atoms: int = 0

    @property
    def force_rms(self) -> float | None:
        """Root mean square of the force components."""
        return (self.force_squares / self.force_components) ** 0.5 if self.force_components else None


def figures(lake: Lake, dataset: str) -> Figures:
    """One streaming pass over a table."""
    result = Figures(lake, [])
    columns = ["numbers", "pbc", "n_atoms", "energy", "forces"]
    for batch in lake.record_batches(dataset, columns=columns):
        for row in batch.to_pylist():
            _count(result, row)
    return result


def _count(result: Figures, row: dict[str, object]) -> None:
    n = row["n_atoms"]
    assert isinstance(n, int)
    result.atoms += n
    isolated = n == 1 and not any(row["pbc"])  # type: ignore[arg-type]
    if isinstance(row["energy"], float) and not isolated:
        result.energies.append(row["energy"] / n)
    if row["forces"] is not None:
        forces = np.reshape(np.asarray(row["forces"], dtype=float), (n, 3))
        result.force_squares += float((forces**2).sum())
        result.force_components += forces.size
        result.force_max = max(result.force_max, float(np.linalg.norm(forces, axis=1).max()))
        result.net_force_max = max(result.net_force_max, float(np.linalg.norm(forces.sum(axis=0))))


def property_values(lake: Lake, dataset: str, name: str) -> np.ndarray:
    """All values of a structure's property."""
    column = lake.read(dataset, columns=["properties"])["properties"].to_pylist()
    return np.array([dict(row)[name][0] for row in column if name in dict(row)])


def spread(values: np.ndarray) -> float:
    """Mean absolute deviation: the score of a constant."""
    return float(np.abs(values - values.mean()).mean())


Claim = tuple[str, Callable[[Figures], str]]
"""What a set's card says, and how the same is measured on the table."""


def _flagged(lake: Lake, dataset: str, flag: str) -> tuple[int, int]:
    """Rows that carry a flag, and files that they come from."""
    table = lake.read(dataset, columns=["flags", "source_file"])
    files = [
        file
        for flags, file in zip(table["flags"].to_pylist(), table["source_file"].to_pylist(), strict=True)
        if flag in flags
    ]
    return len(files), len(set(files))


def _energy(found: Figures) -> str:
    return f"mean {np.mean(found.energies):.2f} eV/atom"


def _spread_of(dataset: str, name: str, unit: str) -> Callable[[Figures], str]:
    def measure(found: Figures) -> str:
        values = property_values(found.lake, dataset, name)
        return f"mean {values.mean():.3f}, MAD {spread(values):.3f}, max {values.max():.2f} {unit}"

    return measure


def _oc20(found: Figures) -> str:
    rows, files = _flagged(found.lake, "oc20_relax", "large-force")
    return f"{found.atoms} atoms kept, max {found.force_max:.0f} eV/Å, {rows} frames of {files} runs flagged"


def _water(found: Figures) -> str:
    total = np.mean(found.energies) * 192
    return f"mean {total:.1f} eV a frame, net force up to {found.net_force_max:.3f} eV/Å"


def equation_of_state(lake: Lake) -> Iterator[tuple[float, float, float]]:
    """Volume (Å³), energy (eV) and pressure from the stress (GPa) along TiO2 rutile PBE."""
    rows = lake.read("bo2_oxides").filter(pa.compute.field("group") == "TiO2 rutile")
    for row in rows.to_pylist():
        if row["theory"].startswith("pbe/") and row["config_type"] == "EOS":
            record = row_to_record(row)
            assert record.energy is not None and record.stress is not None
            yield abs(float(np.linalg.det(record.cell))), record.energy, -float(record.stress[:3].mean()) * GPA


def _bo2(found: Figures) -> str:
    points = np.array(sorted(equation_of_state(found.lake)))
    slope = -np.gradient(points[:, 1], points[:, 0]) * GPA
    return (
        f"TiO2 rutile PBE: -dE/dV {slope[0]:.1f} to {slope[-1]:.1f} GPa, from the stress {points[0, 2]:.1f} to "
        f"{points[-1, 2]:.1f} GPa"
    )


def _mlearn(found: Figures) -> str:
    formulas = found.lake.read("mlearn", columns=["formula"])["formula"].value_counts().to_pylist()
    return ", ".join(f"{entry['values']} {entry['counts']}" for entry in sorted(formulas, key=lambda e: e["values"]))


def _vasp(found: Figures) -> str:
    theories = found.lake.read("vasp_raw", columns=["theory"])["theory"].value_counts().to_pylist()
    counts = ", ".join(f"{entry['counts']} {entry['values']}" for entry in theories)
    return f"{counts}; net force up to {found.net_force_max:.1e} eV/Å"


def _flags_of_mpts(found: Figures) -> str:
    measured = _spread_of("mpts52", "formation_energy_per_atom", "eV/atom")(found)
    return (
        f"{measured}; {_flagged(found.lake, 'mpts52', 'implausible:formation_energy_per_atom')[0]} flagged implausible"
    )


def _mp20(found: Figures) -> str:
    table = found.lake.read("mp20", columns=["properties", "source_file"]).to_pylist()
    key = "formation_energy_per_atom"
    values = np.array([dict(row["properties"])[key][0] for row in table if "biternary" in row["source_file"]])
    return f"{_spread_of('mp20', key, 'eV/atom')(found)}; MAD {spread(values):.3f} of the {len(values)} biternary rows"


CLAIMS: dict[str, Claim] = {
    "3bpa": ("500 frames and 4 atoms, about -654 eV/atom", _energy),
    "ethanol": ("2000 frames and 4 atoms", _energy),
    "mlearn": ("Cu 262+31, Li 241+29, Mo 194, Ni 263+31, Si 214", _mlearn),
    "mp20": ("14675 different materials, MAD 0.73 eV/atom", _mp20),
    "mpts52": ("a few formation energies up to 5.1 eV/atom", _flags_of_mpts),
    "perov5": ("MAD of heat_all 0.56 eV a cell", _spread_of("perov5", "heat_all", "eV")),
    "wbm": ("9423 rows, rounded to 1 meV", _spread_of("wbm", "formation_energy_per_atom", "eV/atom")),
    "carbon24": ("about -154.25, MAD 0.113 eV/atom", _spread_of("carbon24", "energy_per_atom", "eV/atom")),
    "oc20_relax": ("4453 frames, 335192 atoms; wild steps up to 351 eV/Å in 7 runs", _oc20),
    "bo2_oxides": ("1298 calculations, 2 unavailable; TiO2 rutile PBE 48.6 to -15.3 GPa, not 498 to -165", _bo2),
    "water_deepmd": ("near -29943 eV a frame, net force about 0.13 eV/Å", _water),
    "gete_deepmd": ("4219 frames, near -164 eV/atom", _energy),
    "vasp_raw": ("13 calculations; LiCl, Si PBEsol 700 eV, HfO2 PBE; net force below 1e-5 eV/Å", _vasp),
}


def table_row(folder: Path, home: Home) -> list[Cell]:
    """Ingest one set twice; one row of the table."""
    from flows.ingest import ingest

    name = folder.name
    first = ingest([str(folder)], name, home)
    second = ingest([str(folder)], name, home)
    found = figures(Lake(home.lake), name)
    claim, measure = CLAIMS[name]
    reasons = ", ".join(f"{count} {reason}" for reason, count in first.reasons.items())
    return [
        name,
        first.files,
        first.files_failed,
        first.rows_in,
        first.kept,
        first.duplicates,
        f"{first.quarantined}" + (f" ({reasons})" if reasons else ""),
        second.kept,
        f"{min(found.energies):.3f} … {max(found.energies):.3f}" if found.energies else None,
        found.force_rms,
        claim,
        "; ".join([measure(found), *first.warnings]),
    ]


COLUMNS = [
    Column(name="set"),
    Column(name="files"),
    Column(name="failed"),
    Column(name="rows in"),
    Column(name="kept"),
    Column(name="duplicates"),
    Column(name="quarantined"),
    Column(name="kept again"),
    Column(name="energy, eV/atom"),
    Column(name="force RMS, eV/Å", digits=3),
    Column(name="its card says"),
    Column(name="measured"),
]


def run(data: Path) -> BenchTable:
    """Ingest every known set under `data` into a lake that is thrown away.

    Raises:
        InputError: there is none.
    """
    folders = sorted(path for path in data.glob("*") if path.is_dir() and path.name in CLAIMS)
    if not folders:
        raise InputError(f"{data} holds none of {', '.join(CLAIMS)}")
    with tempfile.TemporaryDirectory(prefix="sluice-ingest-") as scratch:
        rows = [table_row(folder, Home(Path(scratch))) for folder in folders]
    part = Part(title="Every set, ingested twice", columns=COLUMNS, rows=rows)
    return bench_table("ingest", "Real data sets into the lake", "sluice bench ingest --data DATA", [part])
