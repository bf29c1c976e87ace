"""The log of a campaign: log.jsonl of the flow, and one file a shard beside its results."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flows.campaigns import CampaignFolder
from flows.logs import logging_to
from gnn.errors import SluiceError
from gnn.screening.shard import ShardManifest, shard_name

if TYPE_CHECKING:
    from flows.shards import ShardOutcome

logger = logging.getLogger(__name__)

LOG_NAME = "log.jsonl"
COSTS = ("structures", "computed", "reused", "failed", "set_aside", "cpu_s", "wall_s", "gpu_s", "peak_memory_mb")


@contextmanager
def shard_log(
    folder: CampaignFolder, index: int, n_structures: int
) -> Iterator[Callable[[ShardManifest], ShardManifest]]:
    """Log a shard's beginning, its end with what it cost, and what it logs itself; takes the manifest through."""
    path = folder.shards / f"{shard_name(index)}.log.jsonl"
    with logging_to(path, campaign=folder.name, shard=index):
        logger.info("shard begins", extra={"facts": {"structures": n_structures}})

        def done(manifest: ShardManifest) -> ShardManifest:
            logger.info("shard finished", extra={"facts": {name: getattr(manifest, name) for name in COSTS}})
            return manifest

        try:
            yield done
        except (SluiceError, OSError, MemoryError, RuntimeError) as error:
            # the caller has the trace, and says what happened
            logger.error("shard failed: %s: %s", type(error).__name__, error, extra={"is_told": True})  # noqa: TRY400
            raise


def tell(folder: CampaignFolder, notes: Iterable[str]) -> None:
    """Log remarks on a campaign."""
    with logging_to(folder.root / LOG_NAME, campaign=folder.name):
        for note in notes:
            logger.warning("%s", note)


class Outcomes:
    """Logs how each shard ended to the campaign's log and to Prefect's, and calls `then`."""

    def __init__(self, folder: CampaignFolder, then: Callable[[], None]) -> None:
        self.folder = folder
        self.then = then

    def __call__(self, outcome: ShardOutcome) -> None:
        """Take one outcome."""
        manifest = outcome.manifest or {}
        facts = {name: manifest[name] for name in COSTS if name in manifest}
        text = "shard found done" if outcome.cached else "shard finished"
        with logging_to(self.folder.root / LOG_NAME, campaign=self.folder.name, shard=outcome.index):
            if outcome.error is None:
                logger.info(text, extra={"facts": facts})
            else:
                logger.error("shard failed: %s", outcome.error)
        self._tell_prefect(outcome, text)
        self.then()

    def _tell_prefect(self, outcome: ShardOutcome, text: str) -> None:
        from prefect.exceptions import MissingContextError
        from prefect.logging import get_run_logger

        try:
            run_logger = get_run_logger()
        except MissingContextError:
            return
        ids = f"campaign={self.folder.name} shard={outcome.index}"
        if outcome.error is None:
            run_logger.info("%s: %s", ids, text)
        else:
            run_logger.error("%s: shard failed: %s", ids, outcome.error)
