"""The flows as deployments run them: plain parameters that the Prefect UI can ask for, paths relative to the home.

Each is a thin shell around the flow of the same name, whose body it runs, so that shards are tasks of this very run and
a retry of it repeats only what failed. The worker's `SLUICE_HOME` says which home is meant.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any, Literal

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.settings import CLUSTER_VARIABLE, Home, find_home
from gnn.errors import InputError
from gnn.overlay import merged

DEFAULT_CUTOFF = 5.0


@contextmanager
def at_home() -> Iterator[Home]:
    """The home, as the current folder, so that relative paths mean what they mean on the command line there."""
    home = Home(find_home().root.resolve())
    with chdir(home.root):
        yield home


def cluster_of(asked: str) -> str:
    """Where shards are computed: as asked, else the worker's SLUICE_CLUSTER, else on the worker's machine."""
    return asked or os.environ.get(CLUSTER_VARIABLE) or "local"


def ended(text: str) -> State[None]:
    """A completed state that says what came of the run."""
    get_run_logger().info(text)
    return Completed(message=text)


@flow(name="ingest", flow_run_name="ingest {dataset}", persist_result=False)
def ingest(files: list[str], dataset: str, card: str = "", theory: str = "") -> State[None]:
    """Read DFT files into the lake; what is there already is not added again.

    Args:
        files: Files, folders or globs, compressed and archived ones too; relative to the home.
        dataset: Name of the data set in the lake.
        card: Card that says how the files are read: a name, a .toml file, or auto. Empty: that of the data set.
        theory: Level of theory, where neither file nor card names one, as pbe/vasp-pw520.
    """
    from flows.ingest import ingest as body

    with at_home() as home:
        found = body.fn(files, dataset, home, card or None, theory or None)
    return ended(
        f"{found.dataset}@{found.version}: {found.rows_in} rows in = {found.kept} kept + {found.duplicates} duplicates"
        f" + {found.quarantined} quarantined; {found.files_failed} of {found.files} files failed"
    )


@flow(name="preprocess", flow_run_name="preprocess {datasets}", persist_result=False)
def preprocess(
    datasets: list[str],
    cutoff: float = DEFAULT_CUTOFF,
    split: dict[Literal["train", "valid", "test"], float] | None = None,
    split_by: Literal["group", "structure"] = "group",
    seed: int = 0,
    cluster: str = "",
) -> State[None]:
    """Turn data sets of the lake into graphs; shards that exist are reused.

    Args:
        datasets: Data sets of the lake, NAME or NAME@VERSION.
        cutoff: Edges are drawn up to here, in Å.
        split: Shares of train, valid and test: fractions or counts. Empty: 0.8, 0.1, 0.1.
        split_by: What a split keeps together.
        seed: Seed of the split.
        cluster: local, threads, slurm, kubernetes or a Dask scheduler's address. Empty: the worker's own choice.
    """
    from flows.preprocess import preprocess as body

    with at_home() as home:
        found = body.fn(datasets, home, cutoff, split, split_by, seed, cluster=cluster_of(cluster), show=False)
    return ended(
        f"{found.structures} structures in {found.shards} shards ({found.shards_built} built) at {found.graph_set}"
    )


@flow(name="train", flow_run_name="train {register_as}", persist_result=False)
def train(
    datasets: list[str],
    register_as: str,
    preset: Literal["small", "default", "accurate"] | None = None,
    minutes: float | None = None,
    epochs: int | None = None,
    committee: int | None = None,
    init: str = "",
    seed: int | None = None,
    device: str = "",
    cluster: str = "",
    config: str = "",
    changes: dict[str, Any] = {},  # noqa: B006 (only read)
    even_if_unchanged: bool = False,
) -> State[None]:
    """Train a network, register it, and let it challenge the champion of its name.

    Nothing is done where the data sets' content and the configuration are those of the newest version of `register_as`.
    One training at a time runs on each accelerator; the others wait for it. A committee, or one in several processes,
    takes all that there are.

    Args:
        datasets: Data sets of the lake, NAME or NAME@VERSION.
        register_as: Name in the model registry.
        preset: Size of the network. Empty: the file's, else default.
        minutes: Budget in minutes of wall time.
        epochs: Budget in passes over the data, instead of minutes.
        committee: Networks trained with different seeds; their spread is the uncertainty. Empty: the file's, else 1.
        init: Model whose weights to start from, as models:/NAME@champion.
        seed: Seed of weights and batch order. Empty: the file's, else 0.
        device: auto, cpu, cuda or cuda:N. Empty: the file's, else auto.
        cluster: local, threads, slurm, kubernetes or a Dask scheduler's address. Empty: the worker's own choice.
        config: TOML file with a training configuration, relative to the home; the values above win over it.
        changes: Any other value of the configuration, as nested tables.
        even_if_unchanged: Train even if nothing has changed.
    """
    from flows.slots import on_free_device
    from flows.train import refuse_early
    from flows.train import train as body
    from flows.unchanged import nothing_new

    budget = {"epochs": epochs} if epochs else {"minutes": minutes}
    values = {"data": {"datasets": datasets}, "register_as": register_as, "preset": preset, **budget,
              "committee": committee, "init": init, "seed": seed, "device": device}  # fmt: skip
    with at_home() as home, on_free_device(training_config(config, values, changes)) as checked:
        refuse_early(checked, home)
        if not even_if_unchanged and (reason := nothing_new(checked, home)) is not None:
            return ended(reason)
        found = body.fn(checked, home, cluster_of(cluster), show=False)
    return ended(f"models:/{found.model}/{found.model_version}: {found.epochs} epochs, {found.cpu_s:.0f} CPU s")


def training_config(path: str, values: dict[str, Any], changes: dict[str, Any]) -> Any:
    """The file's configuration, the values that were given laid over it, then the changes.

    Raises:
        InputError: a value is wrong, or no budget is given.
    """
    from flows.cli.train import configuration

    return configuration(Path(path) if path else None, said(values), changes)


def said(values: dict[str, Any]) -> dict[str, Any]:
    """What a form was filled with: nested tables without what is empty."""
    kept = {name: said(value) if isinstance(value, dict) else value for name, value in values.items()}
    return {name: value for name, value in kept.items() if value is not None and value not in ("", [], {})}


@flow(name="screen", flow_run_name="screen {campaign}", persist_result=False)
def screen(
    campaign: str,
    name: str = "",
    model: str = "",
    elements: list[str] = [],  # noqa: B006 (only read)
    budget: int | None = None,
    max_hull_distance: float | None = None,
    changes: dict[str, Any] = {},  # noqa: B006 (only read)
    one_per_version: bool = False,
    fresh: bool = False,
    cluster: str = "",
    workers: int | None = None,
) -> State[None]:
    """Run a screening campaign to its shortlist; the same parameters continue what was interrupted.

    Args:
        campaign: The campaign's TOML file, relative to the home; the parameters below are laid over it.
        name: Name of the campaign; needed where other parameters make it another one than the file's.
        model: Model that screens: models:/NAME@champion, models:/NAME/3, or foreign:NAME.
        elements: Elements to decorate prototypes and derivatives with.
        budget: Candidates on the shortlist.
        max_hull_distance: Drop candidates further above the hull than this, in eV/atom.
        changes: Any other value of the file, as nested tables.
        one_per_version: Add the model's version to the name, so that each new champion gets a campaign of its own.
        fresh: Discard what an earlier run of this campaign left; a retry of this run never does.
        cluster: local, threads, slurm, kubernetes or a Dask scheduler's address. Empty: the worker's own choice.
        workers: Worker processes of a local cluster. Empty: one a core.
    """
    from flows.screen import screen as body

    values = {"name": name, "model": model, "candidates": {"elements": elements}, "selection": {"budget": budget},
              "filters": {"max_hull_distance": max_hull_distance}}  # fmt: skip
    with at_home() as home:
        overlay = campaign_changes(Path(campaign), values, changes, one_per_version, home)
        anew = fresh and flow_run.get_run_count() in (None, 0, 1)
        found = body.fn(Path(campaign), home, cluster_of(cluster), workers, anew, show=False, changes=overlay)
    return ended(
        f"campaign {found.campaign}: {found.n_candidates} candidates, {found.n_shortlist} on the shortlist, by"
        f" {found.model}{'' if found.model_version is None else f' version {found.model_version}'}"
    )


def campaign_changes(
    path: Path, values: dict[str, Any], changes: dict[str, Any], one_per_version: bool, home: Home
) -> dict[str, Any]:
    """What is laid over a campaign's file; with `one_per_version` its model's version is pinned and named.

    Raises:
        InputError: the campaign cannot be read, or its model is no registered one where it must be.
    """
    overlay = merged(said(values), changes)
    if not one_per_version:
        return overlay
    from flows.registry import SCHEME, find
    from gnn.screening.campaign import read_campaign

    spec = read_campaign(path, overlay)
    found = find(spec.model, home)
    if found.version is None:
        raise InputError(f"campaign {spec.name!r}: {spec.model} is no registered model, so it has no version to follow")
    pinned = {"name": f"{spec.name}-v{found.version}", "model": f"{SCHEME}{found.name}/{found.version}"}
    return merged(overlay, pinned)


@flow(name="label", flow_run_name="label {source}", persist_result=False)
def label(
    source: str,
    engine: str = "gpaw",
    dataset: str = "",
    relax: bool = False,
    limit: int | None = None,
    workers: int = 1,
    settings: dict[str, Any] = {},  # noqa: B006 (only read)
    retry_failed: bool = False,
) -> State[None]:
    """Label structures by DFT and put the results into the lake; what is labelled already is not computed again.

    Args:
        source: A campaign's name, or a file of structures relative to the home.
        engine: Name of the engine that computes the labels: gpaw or emt.
        dataset: Data set of the lake that takes the labels. Empty: labels-ENGINE.
        relax: Relax with the engine, or label the structures as they are.
        limit: At most so many structures, the best first.
        workers: Structures at a time, one core each.
        settings: Settings of the engine.
        retry_failed: Try recorded failures again.
    """
    from flows.label import LabelRequest
    from flows.label import label as body
    from gnn.errors import SluiceError

    request = LabelRequest(
        source=source, engine=engine, dataset=dataset or None, kind="relax" if relax else "static", limit=limit,
        workers=workers, settings=settings, retry_failed=retry_failed,
    )  # fmt: skip
    with at_home() as home:
        found = body.fn(request, home)
    summary = f"{found.done} of {found.jobs} structures labelled at {found.theory}, {found.failed} failed"
    if found.failed and not found.done:
        raise SluiceError(summary)
    return ended(summary)
