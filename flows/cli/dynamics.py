"""`sluice md`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.output import JsonOption, say, show, speaks_plainly
from flows.cli.results import DynamicsResult


@speaks_plainly
def md(
    model: Annotated[
        str,
        typer.Argument(help="Checkpoint folder, models:/NAME@ALIAS, models:/NAME/VERSION, NAME, or foreign:NAME."),
    ],
    file: Annotated[Path, typer.Argument(help="Structures, in any format that ASE or `sluice ingest` reads.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Extended XYZ file to write.")],
    temperature: Annotated[float, typer.Option(help="K, of the bath and of the first velocities.")] = 300.0,
    steps: Annotated[int, typer.Option(help="Steps of every structure.")] = 1000,
    every: Annotated[int, typer.Option(help="Steps from one written frame to the next.")] = 100,
    timestep: Annotated[float, typer.Option(help="fs.")] = 1.0,
    friction: Annotated[float, typer.Option(help="Of Langevin's bath, 1/fs; 0 conserves the energy.")] = 0.02,
    seed: Annotated[int, typer.Option(help="Of velocities and noise.", min=0)] = 0,
    theory: Annotated[str | None, typer.Option(help="Level of theory, where the model knows several.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    max_atoms: Annotated[int | None, typer.Option(help="Atoms evaluated at one time.", min=1)] = None,
    as_json: JsonOption = False,
) -> None:
    """Molecular dynamics of every structure of a file, cells fixed; frames are written, path by path."""
    from flows.dynamics import move_file
    from flows.settings import find_home
    from gnn.simulation.dynamics import DynamicsSettings

    settings = DynamicsSettings(temperature, steps, every, timestep, friction, seed)
    result = move_file(model, file, output, find_home(), settings, theory, device, dtype, max_atoms)
    show(result, as_json, describe)
    if result.failed:
        reasons = ", ".join(f"{count} {failure}" for failure, count in result.reasons.items())
        say(f"{result.failed} of {result.n_structures} structures were given up ({reasons})")
    if not result.n_frames:
        raise typer.Exit(1)


def describe(result: DynamicsResult) -> None:
    """A short summary."""
    typer.echo(
        f"{result.n_frames} frames of {result.n_structures} structures in {result.wall_s:.1f} s: {result.output}"
    )
