"""`sluice evaluate`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.output import JsonOption, show, speaks_plainly, table
from flows.cli.results import EvaluateResult


@speaks_plainly
def evaluate(
    model: Annotated[str, typer.Argument(help="Checkpoint folder, models:/NAME@ALIAS, models:/NAME/VERSION or NAME.")],
    data: Annotated[
        str, typer.Argument(metavar="DATASET|FILE", help="Data set of the lake, or a file or folder (./NAME if both).")
    ],
    split: Annotated[
        str, typer.Option(help="train, valid, test or all; of the model's own split of a set it was trained on.")
    ] = "test",
    card: Annotated[str | None, typer.Option(help="Card that says how the file is read.")] = None,
    theory: Annotated[
        str | None, typer.Option(help="Level of theory of the file's labels, where neither file nor card tells.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Energy, force, stress and property errors of a model, by theory and element."""
    from flows.evaluate import evaluate as run
    from flows.evaluate import part
    from flows.settings import find_home

    show(run(model, data, find_home(), part(split), card, theory, device), as_json, describe)


def describe(result: EvaluateResult) -> None:
    """The errors as tables."""
    from flows.cli.train import error_rows, rounded

    values = result.model_dump()
    table(f"{result.model} on {result.data}", ["", "errors"], error_rows({"errors": values}))
    columns = {
        "structures": "n_structures",
        "E MAE meV/atom": "energy_mae_mev_per_atom",
        "F MAE meV/Å": "force_mae_mev_per_angstrom",
        "F RMSE meV/Å": "force_rmse_mev_per_angstrom",
        "stress MAE GPa": "stress_mae_gpa",
    }
    for title, groups in (("By theory", values["by_theory"]), ("By element", values["by_element"])):
        rows = [[name, *(rounded(errors[key]) for key in columns.values())] for name, errors in groups.items()]
        table(title, ["", *columns], rows)
    if result.skipped:
        table("Not evaluated", ["reason", "structures"], [[reason, n] for reason, n in result.skipped.items()])
