"""A campaign without any server: one shard at a time, begun and cut where that is not done yet, and put together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.campaigns import CampaignFolder, folder_of, refuse_another_spec, result_of
from flows.cli.results import CampaignResult, ShardResult
from flows.settings import Home
from gnn.errors import InputError
from gnn.files import locked
from gnn.screening.preparation import PLAN_NAME, number_planned
from gnn.screening.prepare import prepared, refuse_unusable_files
from gnn.screening.shard import shard_name

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
    from flows.screen import announce, begin, specification

    spec, text = specification(path, None)
    refuse_another_spec(folder, spec)
    if folder.exists() and number_planned(folder.shards):
        return
    refuse_unusable_files(spec)
    with locked(folder.root / "prepare.lock", f"the preparation of {folder.name}", PREPARE_TIMEOUT_S):
        refuse_another_spec(folder, spec)
        if not number_planned(folder.shards):
            with _undone_if_refused(folder):
                running = begin(folder, spec, text)
                announce(running, prepared(spec, running.inputs, folder.shards, DEFAULT_WORKERS, n_shards))


@contextmanager
def _undone_if_refused(folder: CampaignFolder) -> Iterator[None]:
    """Leave nothing of a campaign that cannot be cut: no job computes for it, and its file may be mended."""
    try:
        yield
    except InputError:
        (folder.shards / PLAN_NAME).unlink(missing_ok=True)
        if not (any(folder.shards.glob("shard-*")) or folder.is_running()):
            folder.clear()
        raise
