"""DeePMD systems written from labelled structures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms


def write_system(folder: Path, frames: Sequence[Atoms], kind: str, type_map: bool = True, virial: bool = True) -> Path:
    """`frames` of one element, Si, as a system of `kind` npy or raw in `folder`; returns it."""
    folder.mkdir(parents=True)
    (folder / "type.raw").write_text("\n".join("0" for _ in frames[0]))
    if type_map:
        (folder / "type_map.raw").write_text("Si\n")
    volume = frames[0].get_volume()
    arrays = {
        "coord": [atoms.positions.ravel() for atoms in frames],
        "box": [atoms.cell[:].ravel() for atoms in frames],
        "energy": [[atoms.calc.results["energy"]] for atoms in frames],
        "force": [atoms.calc.results["forces"].ravel() for atoms in frames],
    }
    if virial:
        stresses = [atoms.calc.results["stress"][[0, 5, 4, 5, 1, 3, 4, 3, 2]] for atoms in frames]
        arrays["virial"] = [-stress * volume for stress in stresses]
    target = folder / "set.000" if kind == "npy" else folder
    target.mkdir(exist_ok=True)
    for name, rows in arrays.items():
        if kind == "npy":
            np.save(target / f"{name}.npy", np.array(rows).squeeze())
        else:
            np.savetxt(target / f"{name}.raw", np.array(rows))
    return folder
