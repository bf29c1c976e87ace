"""Folders that VASP ran in: one result, said several times over."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from gnn.structures.readers.opening import bare_name

RESULT = re.compile(r"(?P<kind>vasprun|outcar)(?P<run>.*)")
BESIDE = {
    "INCAR", "KPOINTS", "POSCAR", "POTCAR", "CONTCAR", "XDATCAR", "OSZICAR", "DOSCAR", "EIGENVAL", "IBZKPT", "CHG",
    "CHGCAR", "WAVECAR", "WAVEDER", "PROCAR", "PCDAT", "REPORT", "LOCPOT", "ELFCAR", "AECCAR0", "AECCAR1",
    "AECCAR2", "ICONST", "STOPCAR", "VASPOUT", "CUSTODIAN", "TRANSFORMATIONS",
}  # fmt: skip
"""What stands beside the results: inputs, geometries without labels, densities; names without what follows the dot."""


def without_copies(paths: Sequence[Path]) -> list[Path]:
    """`paths` without what repeats a VASP result in the same folder.

    Where a vasprun.xml or an OUTCAR is among them, VASP's other files are left out; an OUTCAR is, where the vasprun.xml
    of the same run (the same text after the name, as `.relax1`) is there. The order is kept.
    """
    runs = {(path.parent, *named) for path in paths if (named := result_name(path)) is not None}
    folders = {folder for folder, _, _ in runs}
    return [path for path in paths if not (path.parent in folders and _is_copy(path, runs))]


def _is_copy(path: Path, runs: set[tuple[Path, str, str]]) -> bool:
    named = result_name(path)
    if named is None:
        return bare_name(path).partition(".")[0].upper() in BESIDE
    return named[0] == "outcar" and (path.parent, "vasprun", named[1]) in runs


def result_name(path: Path) -> tuple[str, str] | None:
    """Kind and run of a VASP result by its name, as (outcar, .relax1); None of any other file."""
    found = RESULT.fullmatch(bare_name(path).lower())
    return None if found is None else (found["kind"], found["run"].replace(".xml", ""))
