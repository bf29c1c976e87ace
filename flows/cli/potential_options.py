"""Arguments and options of the verbs that move a file's structures with a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ModelArgument = Annotated[
    str, typer.Argument(help="Checkpoint folder, models:/NAME@ALIAS, models:/NAME/VERSION, NAME, or foreign:NAME.")
]
StructuresArgument = Annotated[
    Path, typer.Argument(help="Structures, in any format that ASE or `sluice ingest` reads.")
]
ExtxyzOption = Annotated[Path, typer.Option("-o", "--output", help="Extended XYZ file to write.")]
TheoryOption = Annotated[str | None, typer.Option(help="Level of theory, where the model knows several.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
DtypeOption = Annotated[str, typer.Option(help="float32 or float64.")]
MaxAtomsOption = Annotated[int | None, typer.Option(help="Atoms evaluated at one time.", min=1)]
