"""`sluice train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.cluster_options import ClusterOption
from flows.cli.output import DryRunOption, JsonOption, SetOption, goes_on, overrides, say, show, table
from flows.cli.results import TrainResult
from gnn.overlay import merged

if TYPE_CHECKING:
    from gnn.training.config import TrainConfig


@goes_on
def train(
    config: Annotated[Path | None, typer.Argument(help="A TOML file; options win over it.")] = None,
    dataset: Annotated[
        list[str] | None, typer.Option("--dataset", metavar="NAME[@VERSION]", help="Data set of the lake; repeatable.")
    ] = None,
    helper: Annotated[
        list[str] | None,
        typer.Option("--helper", metavar="NAME[@VERSION]", help="Data set that is only trained on; repeatable."),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Size of the network: small, default or accurate.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Budget in minutes of wall time.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Budget in passes over the data.")] = None,
    init: Annotated[str | None, typer.Option(metavar="MODEL", help="Start from this model's weights.")] = None,
    register: Annotated[str | None, typer.Option(metavar="NAME", help="Register the result under this name.")] = None,
    committee: Annotated[int | None, typer.Option(help="Members, trained with different seeds.")] = None,
    split: Annotated[
        str | None, typer.Option(metavar="train=N,valid=N,test=N", help="Fractions or counts of the splits.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights and batch order.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    devices: Annotated[
        int | None, typer.Option(metavar="N", help="Train in N processes that share every step, one a GPU.")
    ] = None,
    cluster: ClusterOption = "local",
    assignments: SetOption = None,
    as_json: JsonOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Train a network on data sets of the lake; the same command continues what was interrupted."""
    from gnn.graphs.splits import parse_shares

    options = {
        "data": {"datasets": dataset, "helpers": helper, "split": parse_shares(split) if split else None},
        "preset": preset,
        "minutes": minutes,
        "epochs": epochs,
        "init": init,
        "register_as": register,
        "committee": committee,
        "seed": seed,
        "device": device,
        "devices": devices,
    }
    checked = configuration(config, options, overrides(assignments))
    from flows.settings import find_home

    home = find_home()
    from flows.train import refuse_early

    refuse_early(checked, home)
    if dry_run:
        from flows.train import describe_plan

        show(describe_plan(checked, home), as_json, describe_dry_run)
        return
    from flows.cli.output import terminating_like_interrupt
    from flows.train import train as run

    with terminating_like_interrupt():
        show(run(checked, home, cluster), as_json, describe)


def configuration(path: Path | None, options: dict[str, Any], changes: dict[str, Any]) -> TrainConfig:
    """The TOML file, then the options that were given, then `--set`.

    Raises:
        InputError: a value is wrong, or no budget is given.
    """
    from gnn.errors import InputError
    from gnn.training.config import make_config, read_config

    options = given(options)
    values = merged(read_config(path) if path else {}, options)
    for budget, other in (("epochs", "minutes"), ("minutes", "epochs")):
        if budget in options and other not in options:
            values.pop(other, None)
    checked = make_config(merged(values, changes))
    if checked.minutes is None and checked.epochs is None:
        raise InputError("no budget: give --minutes M or --epochs N, or write one of them in the configuration")
    if not checked.data.datasets:
        raise InputError("no data: give --dataset NAME, or `datasets = [...]` under [data] in the configuration")
    return checked


def given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that are not None, tables included."""
    result = {}
    for name, value in options.items():
        kept = given(value) if isinstance(value, dict) else value
        if kept not in (None, {}):
            result[name] = kept
    return result


def describe(result: TrainResult) -> None:
    """A short summary and the table of errors."""
    name = f"models:/{result.model}/{result.model_version}" if result.model else "not registered"
    say(f"{result.epochs} epochs, {result.steps} steps, {result.wall_s:.0f} s; checkpoint {result.checkpoint} ({name})")
    if result.metrics:
        table("Errors", ["", *result.metrics], error_rows(result.metrics))
    else:
        say("no validation or test structures: nothing to measure errors on")
    if result.unlearnt:
        from gnn.training.card import HEADLINES

        names = ", ".join(HEADLINES.get(name, name) for name in result.unlearnt)
        say(
            f"not learnt: {names}: on the validation split no lower than reference energies, zero forces and means give"
        )


def error_rows(metrics: dict[str, dict[str, Any]]) -> list[list[object]]:
    """One row an error, one column a split."""
    from gnn.training.card import HEADLINES

    rows: list[list[object]] = []
    for key, label in {"n_structures": "structures", **HEADLINES}.items():
        values = [split.get(key) for split in metrics.values()]
        if any(value is not None for value in values):
            rows.append([label, *(rounded(value) for value in values)])
    for name in sorted({name for split in metrics.values() for name in split.get("properties", {})}):
        found = [split.get("properties", {}).get(name, {}) for split in metrics.values()]
        unit = next((item["unit"] for item in found if item), "")
        rows.append([f"{name} MAE, {unit}", *(rounded(item.get("mae")) for item in found)])
    return rows


def rounded(value: float | None) -> float | int | None:
    """Four significant digits."""
    return value if value is None or isinstance(value, int) else float(f"{value:.4g}")


def describe_dry_run(result: Any) -> None:
    """What would be done, in words."""
    for line in result.remarks:
        say(line)
