"""Relaxation of a file's structures: read, relax in batches, write."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import ase.io
from ase import Atoms

from flows.cli.results import RelaxResult
from flows.settings import Home
from flows.structure_bar import structure_bar
from gnn.errors import InputError
from gnn.files import write_atomically
from gnn.simulation.relax import Relaxed, RelaxSettings, relax_many

if TYPE_CHECKING:
    from gnn.potentials.potential import Potential

FOREIGN = "foreign:"
SUFFIXES = (".extxyz", ".xyz")


def open_potential(
    model: str, home: Home, theory: str | None = None, device: str = "cpu", dtype: str = "float32"
) -> Potential:
    """A potential by what people write: a checkpoint folder, a registered model, `foreign:NAME[:MODEL]`.

    Raises:
        InputError: there is no such model, theory or device; the message lists what there is.
    """
    from gnn.potentials.load import load, precision_of

    if model.startswith(FOREIGN):
        from gnn.potentials.foreign import foreign

        precision_of(dtype)  # a foreign model computes in its own, which is no reason to let a mistake pass
        found = foreign(model.removeprefix(FOREIGN))
        if theory not in (None, found.theory):
            raise InputError(f"{model} gives energies of {found.theory}, not of {theory}")
        return found
    from flows.registry import resolve

    return load(resolve(model, home), theory=theory, device=device, dtype=dtype)


def relax_file(
    model: str,
    file: Path,
    output: Path,
    home: Home,
    settings: RelaxSettings,
    theory: str | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    max_atoms: int | None = None,
) -> RelaxResult:
    """Relax every structure of `file` with `model` and write all of them to `output`, in their order.

    Raises:
        InputError: the file cannot be read, the output cannot be written as extended XYZ, or the model cannot relax.
    """
    started = time.monotonic()
    refuse_output(output, file)
    structures = read_structures(file)
    potential = open_potential(model, home, theory, device, dtype)
    with structure_bar("relaxing", len(structures), "not converged") as advance:
        results = relax_many(
            structures,
            potential,
            settings,
            max_atoms,
            on_result=lambda _, result: advance(result.converged),
            final=potential if "uncertainty" in potential.provides else None,
        )
    frames = [frame(result) for result in results]
    write_atomically(output, lambda path: ase.io.write(path, frames, format="extxyz"))
    return RelaxResult(
        model=model,
        n_structures=len(results),
        converged=sum(result.converged for result in results),
        failed=sum(result.failed for result in results),
        reasons=dict(Counter(result.outcome for result in results if not result.converged)),
        output=str(output),
        wall_s=round(time.monotonic() - started, 3),
    )


def refuse_output(output: Path, file: Path) -> None:
    """Do nothing if `output` would be extended XYZ and does not take the place of `file`, which is read.

    Raises:
        InputError: its name says another format, or it is the input.
    """
    if output.resolve() == file.resolve():
        raise InputError(f"{output} is the input; choose another name for the output")
    if output.suffix not in SUFFIXES:
        raise InputError(f"{output} would not be extended XYZ; choose a name that ends in {' or '.join(SUFFIXES)}")


def read_structures(file: Path) -> list[Atoms]:
    """Every structure of a file that ASE or the readers of `sluice ingest` can read; ASE keeps more of its own formats.

    Raises:
        InputError: there is no such file, neither can read it, or it holds no structure.
    """
    from gnn.structures.readers import known_to_ase

    if not file.exists():
        raise InputError(f"there is no file {file}")
    structures = read_by_ase(file) if known_to_ase(file) else read_by_readers(file)
    if not structures:
        raise InputError(f"{file} holds no structure")
    return structures


def read_by_ase(file: Path) -> list[Atoms]:
    """The structures of a file that ASE reads, with what ASE knows of them."""
    from gnn.structures.readers.opening import plain_file

    try:
        with plain_file(file) as plain:
            return list(ase.io.read(plain, index=":", do_not_split_by_at_sign=True))
    except Exception as error:  # noqa: BLE001 - ASE's readers raise whatever their format brings up
        raise InputError(f"ASE cannot read {file}: {type(error).__name__}: {error}") from None


def read_by_readers(file: Path) -> list[Atoms]:
    """The structures of a file in a format that ASE does not know; rows without one are an error."""
    from gnn.structures.atoms import record_to_atoms
    from gnn.structures.cards import structures_card
    from gnn.structures.readers import Rejected, read_records

    structures = []
    for row, record in enumerate(read_records(file, structures_card("structures"))):
        if isinstance(record, Rejected):
            raise InputError(f"{file}, structure {row} cannot be read: {record.reason}; leave it out")
        atoms = record_to_atoms(record)
        atoms.calc, atoms.info = None, {"source_row": row}
        structures.append(atoms)
    return structures


def frame(result: Relaxed) -> Atoms:
    """A relaxed structure with how it went in `info`: converged, steps, outcome, fmax (eV/Å), reason.

    Where the model is a committee, `uncertainty` (eV/atom) too.
    """
    atoms = result.atoms
    atoms.info |= {"converged": result.converged, "steps": result.steps, "outcome": result.outcome}
    uncertainty = None if result.final is None else result.final.uncertainty
    optional = {"fmax": result.fmax, "reason": result.reason, "uncertainty": uncertainty}
    atoms.info |= {name: value for name, value in optional.items() if value is not None}
    return atoms
