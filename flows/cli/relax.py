"""`sluice relax`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.output import JsonOption, goes_on, say, show
from flows.cli.potential_options import (
    DeviceOption,
    DtypeOption,
    ExtxyzOption,
    MaxAtomsOption,
    ModelArgument,
    StructuresArgument,
    TheoryOption,
)
from flows.cli.results import RelaxResult


@goes_on
def relax(
    model: ModelArgument,
    file: StructuresArgument,
    output: ExtxyzOption,
    cell: Annotated[bool, typer.Option("--cell/--no-cell", help="Relax the cells of periodic structures too.")] = True,
    fmax: Annotated[
        float, typer.Option(help="Largest force when converged, eV/Å; the cell's counts as ASE's does.")
    ] = 0.05,
    max_steps: Annotated[int, typer.Option(help="Moves after which a structure is given up.")] = 300,
    theory: TheoryOption = None,
    optimiser: Annotated[str, typer.Option(help="lbfgs (fewest force calls) or fire (as ASE's).")] = "lbfgs",
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    max_atoms: MaxAtomsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Relax every structure of a file; all of them are written, in their order.

    The same command goes on from the structures that were finished when it was stopped.
    """
    from flows.relax import relax_file
    from flows.settings import find_home
    from gnn.simulation.relax import RelaxSettings

    settings = RelaxSettings(fmax=fmax, max_steps=max_steps, cell=cell, optimiser=optimiser)  # type: ignore[arg-type]
    result = relax_file(model, file, output, find_home(), settings, theory, device, dtype, max_atoms)
    show(result, as_json, describe)
    if result.failed == result.n_structures:
        say(f"failed: no structure could be relaxed; the reasons are in {output}")
        raise typer.Exit(1)


def describe(result: RelaxResult) -> None:
    """A short summary."""
    reasons = "".join(f", {count} {outcome}" for outcome, count in result.reasons.items())
    typer.echo(
        f"{result.converged} of {result.n_structures} converged{reasons} in {result.wall_s:.1f} s: {result.output}"
    )
