"""Relaxation of a file's structures: read, relax in batches, write."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ase import Atoms

from flows.cli.results import RelaxResult
from flows.settings import Home
from flows.structure_bar import structure_bar
from flows.structure_files import read_structures, refuse_output
from flows.structure_journal import StructureJournal, work_of
from gnn.errors import InputError
from gnn.simulation.relax import Relaxed, RelaxSettings, relax_many

if TYPE_CHECKING:
    from gnn.potentials.potential import Potential

FOREIGN = "foreign:"


def open_potential(
    model: str, home: Home, theory: str | None = None, device: str = "cpu", dtype: str = "float32"
) -> Potential:
    """A potential by what people write: a checkpoint folder, a registered model, `foreign:NAME[:MODEL]`.

    Raises:
        InputError: there is no such model, theory or device; the message lists what there is.
    """
    from gnn.potentials.load import load, precision_of

    if model.startswith(FOREIGN):
        from gnn.potentials.foreign import opened

        precision_of(dtype)  # a foreign model computes in its own, which is no reason to let a mistake pass
        found = opened(model.removeprefix(FOREIGN), device)
        if theory not in (None, found.theory):
            raise InputError(f"{model} gives energies of {found.theory}, not of {theory}")
        return found
    from flows.registry import resolve

    return load(resolve(model, home), theory=theory, device=device, dtype=dtype)


def model_digest(model: str, potential: Potential, home: Home) -> str:
    """What tells the opened model from what its name may mean tomorrow."""
    if model.startswith(FOREIGN):
        from gnn.potentials.foreign import foreign_digest

        return foreign_digest(model.removeprefix(FOREIGN), potential)
    from flows.registry import resolve
    from gnn.training.checkpoint import read_manifest

    return read_manifest(resolve(model, home)).sha256


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

    The same call goes on from what was finished when it was stopped.

    Raises:
        InputError: the file cannot be read, the output cannot be written as extended XYZ, the model cannot relax, or
            what is finished belongs to other work.
        SluiceError: the file system refuses.
    """
    started = time.monotonic()
    refuse_output(output, file)
    structures = read_structures(file)
    potential = open_potential(model, home, theory, device, dtype)
    sha256 = model_digest(model, potential, home)
    journal = StructureJournal(output, work_of("relax", file, sha256, potential.theory, dtype, asdict(settings)))
    left = sorted(set(range(len(structures))) - journal.finished())
    with structure_bar("relaxing", len(left), "not converged") as advance, journal.keeping() as keep:

        def finished(k: int, result: Relaxed) -> None:
            keep(left[k], [frame(result)], {"outcome": result.outcome, "failed": result.failed})
            advance(result.converged)

        final = potential if "uncertainty" in potential.provides else None
        relax_many([structures[k] for k in left], potential, settings, max_atoms, finished, final)
    results = journal.write()
    outcomes = Counter(result["outcome"] for result in results)
    return RelaxResult(
        model=model,
        n_structures=len(results),
        converged=outcomes.pop("converged", 0),
        failed=sum(result["failed"] for result in results),
        reasons=dict(outcomes),
        output=str(output),
        wall_s=round(time.monotonic() - started, 3),
    )


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
