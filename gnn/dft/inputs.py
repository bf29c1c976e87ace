"""Input sets for codes that run elsewhere: VASP, Quantum ESPRESSO, and a GPAW script; one folder a candidate."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from ase import Atoms
from ase import units as ase_units
from pydantic import BaseModel, ConfigDict, ValidationError

from gnn.dft.gpaw import SMEARING_KEYS, GpawSettings
from gnn.dft.templates import GPAW_SCRIPT, README_OF
from gnn.errors import InputError, told
from gnn.files import write_text
from gnn.structures.record import reduced_formula

Format = Literal["vasp", "qe", "gpaw"]
FORMATS: tuple[Format, ...] = get_args(Format)
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
MANIFEST = "inputs.json"

QE_CUTOFF_RY = 60.0
"""Wavefunction cutoff that most SSSP Efficiency pseudopotentials ask for at most; the density gets eight times that."""
QE_K_SPACING = 0.04
"""Å⁻¹ without the factor 2π, as ASE's `kspacing` has it; used where no theory key tells."""
QE_SMEARING_RY = 0.02
MAGNETIC = frozenset({*range(23, 29), *range(58, 71), *range(92, 97)})
"""Atomic numbers of what is magnetic in many of its crystals: V to Ni, Ce to Yb, U to Cm."""
QE_MAGNETIZATION = 0.4
"""Share of their valence electrons that the magnetic atoms start with unpaired, all in one direction."""


class InputEntry(BaseModel):
    """What was written for one structure: format -> files relative to the folder, or format -> why there are none."""

    model_config = ConfigDict(frozen=True)

    name: str
    formula: str
    n_atoms: int
    files: dict[str, list[str]]
    failed: dict[str, str]


class InputManifest(BaseModel):
    """Every structure that was handed over, once, in the order given."""

    model_config = ConfigDict(frozen=True)

    schema_version: int = 1
    theory: str | None
    formats: list[str]
    notes: list[str]
    structures: list[InputEntry]


def write_inputs(
    structures: Sequence[tuple[str, Atoms]],
    folder: Path,
    formats: Sequence[str] = FORMATS,
    theory: str | None = None,
) -> InputManifest:
    """Write input sets of named, fully periodic structures to folder/FORMAT/NAME/, and `folder`/inputs.json.

    `theory`: the key whose settings the GPAW script takes exactly, and whose k-points and smearing Quantum ESPRESSO
    follows; a key that does not tell them leaves the defaults and says so in the notes. VASP always gets the MatPES PBE
    static set, which is spin-polarised; so is Quantum ESPRESSO's of crystals with magnetic elements, while GPAW's keys
    are of paired spins. A structure that a format cannot take is counted in the manifest with the reason.

    Raises:
        InputError: an unknown format, a name that cannot be a folder's, or a name given twice.
    """
    _check_names([name for name, _ in structures])
    writers = {name: _writer(name, theory) for name in _known(formats)}
    _remove_stale(folder, {name for name, _ in structures})
    entries = [_write_one(name, atoms, folder, writers) for name, atoms in structures]
    for name in writers:
        write_text(folder / name / "README.md", README_OF[name])
    manifest = InputManifest(
        theory=theory, formats=list(writers), notes=_notes(structures, writers, theory), structures=entries
    )
    write_text(folder / MANIFEST, manifest.model_dump_json(indent=1) + "\n")
    return manifest


def input_name(rank: int, formula: str) -> str:
    """The folder of a ranked candidate, as `007-Li2MgSi`."""
    return f"{rank:03d}-{re.sub(r'[^A-Za-z0-9._+-]', '_', formula)}"


def _known(formats: Sequence[str]) -> list[Format]:
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise InputError(f"unknown input format {', '.join(map(repr, unknown))}; known: {', '.join(FORMATS)}")
    return [name for name in FORMATS if name in formats]


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if not SAFE_NAME.fullmatch(name):
            raise InputError(f"{name!r} cannot name a folder of inputs; use letters, digits, '.', '_', '+', '-'")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"structures to write inputs for share the name {twice[0]!r}; give each its own")


Writer = Callable[[str, Atoms, Path], list[str]]
"""Writes one structure's inputs into a folder and names the files."""


def _periodic(atoms: Atoms) -> Atoms:
    if not atoms.pbc.all() or abs(atoms.cell.volume) == 0:
        raise InputError("not periodic in three directions")
    return atoms


def _remove_stale(folder: Path, kept: set[str]) -> None:
    """Remove the inputs of an earlier shortlist that are not wanted now; folders that hold results stay.

    A manifest that is damaged names nothing to remove.
    """
    if not (folder / MANIFEST).is_file():
        return
    try:
        earlier = read_manifest(folder).structures
    except ValidationError:
        return
    for entry in earlier:
        for file in (file for files in entry.files.values() for file in files if entry.name not in kept):
            (folder / file).unlink(missing_ok=True)
            parent = (folder / file).parent
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()


def _write_one(name: str, atoms: Atoms, folder: Path, writers: Mapping[Format, Writer]) -> InputEntry:
    files: dict[str, list[str]] = {}
    failed: dict[str, str] = {}
    for kind, write in writers.items():
        target = folder / kind / name
        try:
            target.mkdir(parents=True, exist_ok=True)
            written = write(name, _periodic(atoms), target)
        except Exception as error:  # noqa: BLE001 (an input set that cannot be made costs itself; its reason is kept)
            failed[kind] = told(error)
        else:
            files[kind] = [f"{kind}/{name}/{file}" for file in written]
    return InputEntry(name=name, formula=reduced_formula(atoms.numbers), n_atoms=len(atoms), files=files, failed=failed)


def _writer(kind: Format, theory: str | None) -> Writer:
    settings = gpaw_settings(theory)
    if kind == "vasp":
        return _write_vasp
    if kind == "qe":
        return lambda name, atoms, folder: _write_qe(name, atoms, folder, settings)
    return lambda name, atoms, folder: _write_gpaw(name, atoms, folder, settings or GpawSettings())


def gpaw_settings(theory: str | None) -> GpawSettings | None:
    """The GPAW settings that a theory key means, None where it does not tell them, as another code's."""
    try:
        return None if theory is None else GpawSettings.from_theory(theory)
    except InputError:
        return None


def _notes(structures: Sequence[tuple[str, Atoms]], formats: Mapping[Format, Writer], theory: str | None) -> list[str]:
    notes = []
    magnetic = [name for name, atoms in structures if is_magnetic(atoms)]
    if "vasp" in formats:
        notes.append("vasp: MatPES PBE static set; POTCAR.spec names the potentials, the POTCARs are yours to add")
    if "qe" in formats:
        notes.append("qe: pseudopotentials are named ELEMENT.upf and are yours to add; check ecutwfc against their own")
    if "gpaw" in formats and gpaw_settings(theory) is None:
        used = GpawSettings().theory
        notes.append(f"gpaw: theory {theory or 'unknown'} does not tell GPAW's settings, so {used} is used")
    if magnetic and "qe" in formats:
        notes.append(f"qe: spin-polarised, from ferromagnetic moments, for {', '.join(magnetic)}")
    if magnetic and "gpaw" in formats:
        notes.append(f"gpaw: computes with paired spins, which {', '.join(magnetic)} may not have")
    return notes


def is_magnetic(atoms: Atoms) -> bool:
    """Whether a crystal holds elements that are magnetic in many of theirs."""
    return not MAGNETIC.isdisjoint(atoms.numbers.tolist())


def _write_vasp(name: str, atoms: Atoms, folder: Path) -> list[str]:
    from pymatgen.core import Lattice, Structure
    from pymatgen.io.vasp.sets import MatPESStaticSet

    lattice = Lattice(atoms.cell[:])
    structure = Structure(lattice, atoms.numbers.tolist(), atoms.positions, coords_are_cartesian=True)
    structure.properties["name"] = name
    # ISIF 2 states that the stress is wanted; 12 digits keep the positions
    inputs = MatPESStaticSet(structure, user_incar_settings={"ISIF": 2})
    inputs.write_input(folder, potcar_spec=True)
    inputs.poscar.write_file(folder / "POSCAR", significant_figures=12)
    return ["INCAR", "POSCAR", "POTCAR.spec"]


def qe_input(settings: GpawSettings | None) -> dict[str, dict[str, Any]]:
    """Namelists of a static calculation with forces and stress; cutoffs in Ry, smearing as the theory key has it."""
    smearing = "mv" if settings is None else SMEARING_KEYS[settings.smearing]
    width = QE_SMEARING_RY if settings is None else settings.smearing_ev / ase_units.Rydberg
    cutoff = QE_CUTOFF_RY if settings is None else max(QE_CUTOFF_RY, settings.cutoff_ev / ase_units.Rydberg)
    return {
        "control": {
            "calculation": "scf", "tprnfor": True, "tstress": True, "pseudo_dir": "./pseudo", "outdir": "./out",
        },
        "system": {
            "ecutwfc": cutoff, "ecutrho": 8 * cutoff, "occupations": "smearing", "smearing": smearing,
            "degauss": round(width, 6),
        },
        "electrons": {"conv_thr": 1e-8, "mixing_beta": 0.4},
    }  # fmt: skip


def qe_k_spacing(settings: GpawSettings | None) -> float:
    """Distance of k-points (Å⁻¹, without 2π) of the same density as GPAW's `density` (points per 2π Å⁻¹)."""
    return QE_K_SPACING if settings is None else 1 / (2 * np.pi * settings.k_density)


def _write_qe(name: str, atoms: Atoms, folder: Path, settings: GpawSettings | None) -> list[str]:
    from ase.io import write

    pseudopotentials = {symbol: f"{symbol}.upf" for symbol in sorted(set(atoms.get_chemical_symbols()))}
    control = qe_input(settings)
    control["control"]["prefix"] = name
    started = atoms.copy()
    started.set_initial_magnetic_moments([QE_MAGNETIZATION * (z in MAGNETIC) for z in atoms.numbers.tolist()])
    write(
        folder / f"{name}.pwi", started, format="espresso-in", input_data=control, pseudopotentials=pseudopotentials,
        kspacing=qe_k_spacing(settings),
    )  # fmt: skip
    return [f"{name}.pwi"]


def _write_gpaw(name: str, atoms: Atoms, folder: Path, settings: GpawSettings) -> list[str]:
    from ase.io import write

    bare = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    write(folder / "structure.json", bare, format="json")
    values = {key: repr(value) for key, value in settings.model_dump().items()}
    script = GPAW_SCRIPT.format(name=name, theory=settings.theory, **values)
    write_text(folder / "run.py", script)
    return ["run.py", "structure.json"]


def read_manifest(folder: Path) -> InputManifest:
    """The manifest that `write_inputs` left in `folder`.

    Raises:
        pydantic.ValidationError: it is damaged.
    """
    return InputManifest.model_validate_json((folder / MANIFEST).read_bytes())
