"""A campaign without any server: one shard at a time, begun and cut where that is not done yet, and put together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flows.campaigns import CampaignFolder, folder_of, refuse_another_spec, result_of
from flows.cli.results import CampaignResult, ShardResult
from flows.settings import Home
from gnn.errors import InputError
from gnn.files import locked
from gnn.screening.preparation import PLAN_NAME, Prepared, number_planned
from gnn.screening.prepare import prepared
from gnn.screening.shard import shard_name

if TYPE_CHECKING:
    from flows.screen import Campaign

PREPARE_TIMEOUT_S = 600.0
DEFAULT_WORKERS = 2


def compute_shard(campaign: str, index: int, home: Home, n_shards: int | None = None) -> ShardResult:
    """Compute shard `index` of a campaign given by name or file, cut into `n_shards` where that is not done yet.

    Raises:
        InputError: no such campaign or shard, or the campaign exists with another specification.
        SluiceError: another process works on this shard.
    """
    from flows.screen import run_one

    folder = folder_of(campaign, home)
    if campaign.endswith(".toml"):
        _start(folder, Path(campaign), n_shards)
    folder.spec()
    manifest = run_one(folder, index)
    return ShardResult(
        campaign=folder.name,
        shard=index,
        structures=manifest.structures,
        computed=manifest.computed,
        reused=manifest.reused,
        failed=manifest.failed,
        path=home.relative(folder.shards / f"{shard_name(index)}.parquet"),
    )


def merge_shards(campaign: str, home: Home) -> CampaignResult:
    """Put the finished shards of a campaign together: tables, shortlist, report; nothing is computed, no server runs.

    Raises:
        InputError: no such campaign, or it was not cut into shards.
        SluiceError: another process runs the campaign, or shards are not finished; all that is finished is written.
    """
    from flows.rerun import left_alone
    from flows.screen import begin, finish, marked_if_broken, refuse_failures, uncancelled

    folder = folder_of(campaign, home)
    spec = folder.spec()
    if not number_planned(folder.shards):
        raise InputError(f"campaign {folder.name!r} was not cut into shards; compute one with `sluice shard` first")
    with locked(folder.lock, f"campaign {folder.name}"), uncancelled(folder):
        running = begin(folder, spec, None)
        with marked_if_broken(running):
            ready = prepared(spec, running.inputs, folder.shards, DEFAULT_WORKERS)
            outcomes = left_alone(folder, list(ready.plan), [])
            finish(running, ready, outcomes)
        refuse_failures(folder, outcomes)
        return result_of(folder)


def _start(folder: CampaignFolder, path: Path, n_shards: int | None) -> None:
    """Begin and cut the campaign of a file, one process at a time."""
    from flows.screen import begin, specification

    spec, text = specification(path, None)
    refuse_another_spec(folder, spec)
    if folder.exists() and number_planned(folder.shards):
        return
    with locked(folder.root / "prepare.lock", f"the preparation of {folder.name}", PREPARE_TIMEOUT_S):
        refuse_another_spec(folder, spec)
        if not number_planned(folder.shards):
            running = begin(folder, spec, text)
            ready = prepared(spec, running.inputs, folder.shards, DEFAULT_WORKERS, n_shards)
            _announce_or_undo(running, ready)


def _announce_or_undo(running: Campaign, ready: Prepared) -> None:
    """Say what hull and lake lack; a campaign that cannot have a hull is not cut, so that no job computes for it."""
    from flows.screen import announce

    try:
        announce(running, ready)
    except InputError:
        (running.folder.shards / PLAN_NAME).unlink()
        raise
