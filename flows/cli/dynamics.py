"""`sluice md`."""

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
from flows.cli.results import DynamicsResult

MOST_TOLD = 5
"""Structures that were given up whose reason is said."""


@goes_on
def md(
    model: ModelArgument,
    file: StructuresArgument,
    output: ExtxyzOption,
    temperature: Annotated[float, typer.Option(help="K, of the bath and of the first velocities.")] = 300.0,
    steps: Annotated[int, typer.Option(help="Steps of every structure.")] = 1000,
    every: Annotated[int, typer.Option(help="Steps from one written frame to the next.")] = 100,
    timestep: Annotated[float, typer.Option(help="fs.")] = 1.0,
    friction: Annotated[float, typer.Option(help="Of Langevin's bath, 1/fs; 0 conserves the energy.")] = 0.02,
    seed: Annotated[int, typer.Option(help="Of velocities and noise.", min=0)] = 0,
    theory: TheoryOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    max_atoms: MaxAtomsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Molecular dynamics of every structure of a file, cells fixed; frames are written, path by path.

    The same command goes on from the paths that were finished when it was stopped.
    """
    from flows.dynamics import move_file
    from flows.settings import find_home
    from gnn.simulation.dynamics import DynamicsSettings

    settings = DynamicsSettings(temperature, steps, every, timestep, friction, seed)
    result = move_file(model, file, output, find_home(), settings, theory, device, dtype, max_atoms)
    show(result, as_json, describe)
    if result.failed:
        reasons = ", ".join(f"{count} {failure}" for failure, count in result.reasons.items())
        say(f"{result.failed} of {result.n_structures} structures were given up ({reasons})")
        for lost in result.lost[:MOST_TOLD]:
            say(f"  structure {lost.path}: {lost.reason}")
    if not result.n_frames:
        raise typer.Exit(1)


def describe(result: DynamicsResult) -> None:
    """A short summary."""
    typer.echo(
        f"{result.n_frames} frames of {result.n_structures} structures in {result.wall_s:.1f} s: {result.output}"
    )
