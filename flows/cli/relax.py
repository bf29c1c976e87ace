"""`sluice relax`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.output import JsonOption, say, show, speaks_plainly
from flows.cli.results import RelaxResult


@speaks_plainly
def relax(
    model: Annotated[
        str,
        typer.Argument(help="Checkpoint folder, models:/NAME@ALIAS, models:/NAME/VERSION, NAME, or foreign:NAME."),
    ],
    file: Annotated[Path, typer.Argument(help="Structures, in any format that ASE or `sluice ingest` reads.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Extended XYZ file to write.")],
    cell: Annotated[bool, typer.Option("--cell/--no-cell", help="Relax the cells of periodic structures too.")] = True,
    fmax: Annotated[
        float, typer.Option(help="Largest force when converged, eV/Å; the cell's counts as ASE's does.")
    ] = 0.05,
    max_steps: Annotated[int, typer.Option(help="Moves after which a structure is given up.")] = 300,
    theory: Annotated[str | None, typer.Option(help="Level of theory, where the model knows several.")] = None,
    optimiser: Annotated[str, typer.Option(help="lbfgs (fewest force calls) or fire (as ASE's).")] = "lbfgs",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    max_atoms: Annotated[int | None, typer.Option(help="Atoms evaluated at one time.", min=1)] = None,
    as_json: JsonOption = False,
) -> None:
    """Relax every structure of a file; all of them are written, in their order."""
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
