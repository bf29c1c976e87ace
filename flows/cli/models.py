"""`sluice models`: what is registered, and under which aliases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.output import JsonOption, say, show, speaks_plainly, table
from flows.cli.results import ModelRow, ModelsResult
from gnn.errors import InputError

if TYPE_CHECKING:
    from flows.registry import RegisteredModel

app = typer.Typer(help="Registered models.", no_args_is_help=True)
ModelArgument = Annotated[str, typer.Argument(help="NAME, NAME/VERSION, NAME@ALIAS, or the same after models:/")]


@app.command("ls")
@speaks_plainly
def list_all(as_json: JsonOption = False) -> None:
    """Every version of every registered model."""
    from flows.registry import list_models
    from flows.settings import find_home

    show(_result(list_models(find_home())), as_json, describe)


@app.command("show")
@speaks_plainly
def show_one(model: ModelArgument, as_json: JsonOption = False) -> None:
    """The versions of one model; its card where it is given with a version or an alias."""
    from flows.registry import list_models, lookup, parse_reference
    from flows.settings import find_home

    home = find_home()
    if model.count("/") + model.count("@") == model.count("models:/"):
        versions = list_models(home, parse_reference(model).name)
        if not versions:
            lookup(model, home)
        show(_result(versions), as_json, describe)
        return
    found, path = lookup(model, home)
    show(_result([found]), as_json, describe)
    if not as_json:
        typer.echo((path / "README.md").read_text(encoding="utf-8"))


@app.command("promote")
@speaks_plainly
def promote(
    model: ModelArgument,
    version: Annotated[str | None, typer.Argument(help="The version, where MODEL is only a name.")] = None,
    alias: Annotated[str, typer.Option(help="The alias that shall point at it.")] = "champion",
    force: Annotated[bool, typer.Option("--force", help="Promote whatever the suite says; needs --reason.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why it is forced; kept on the version's page.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a version champion if it beats the champion on the frozen suite; any other alias just moves."""
    from flows import gate, registry
    from flows.settings import find_home

    home = find_home()
    uri = model if version is None else f"{model}/{version}"
    if alias == registry.CHAMPION:
        say(gate.promote(uri, home, reason, force).reason)
        show(_result([registry.lookup(uri, home)[0]]), as_json, describe)
        return
    if force or reason is not None:
        raise InputError(f"--force and --reason are for the champion; alias {alias!r} just moves")
    show(_result([registry.promote(uri, home, alias)]), as_json, describe)


@app.command("import")
@speaks_plainly
def import_folder(
    folder: Annotated[Path, typer.Argument(help="A checkpoint folder.")],
    name: Annotated[str, typer.Option("--name", help="The name to register it under.")],
    as_json: JsonOption = False,
) -> None:
    """Register a checkpoint folder, every byte of it checked first."""
    from flows.registry import register
    from flows.settings import find_home

    show(_result([register(folder, name, find_home())]), as_json, describe)


@app.command("export")
@speaks_plainly
def export_folder(
    model: ModelArgument,
    target: Annotated[Path, typer.Argument(help="A folder that does not exist yet.")],
    as_json: JsonOption = False,
) -> None:
    """Copy a model's checkpoint folder."""
    from flows.registry import export, lookup
    from flows.settings import find_home

    home = find_home()
    export(model, target, home)
    say(f"written to {target}")
    show(_result([lookup(model, home)[0]]), as_json, describe)


def _result(models: list[RegisteredModel]) -> ModelsResult:
    rows = [
        ModelRow(
            name=model.name,
            version=model.version,
            aliases=list(model.aliases),
            sha256=model.sha256,
            judged_on=model.judged_on,
            metrics=model.metrics,
            created=model.created,
        )
        for model in models
    ]
    return ModelsResult(models=rows)


def describe(result: ModelsResult) -> None:
    """One row a version."""
    if not result.models:
        say("no model is registered yet; `sluice train --register NAME` makes one")
        return
    columns = {"E MAE meV/atom": "energy_mae_mev_per_atom", "F MAE meV/Å": "force_mae_mev_per_angstrom"}
    rows: list[list[object]] = [
        [m.name, m.version, ", ".join(m.aliases), m.judged_on or "", *(_short(m.metrics.get(key)) for key in
         columns.values()), m.created, (m.sha256 or "")[:12]]
        for m in result.models
    ]  # fmt: skip
    table("Models", ["model", "version", "aliases", "errors on", *columns, "created", "sha256"], rows)


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
