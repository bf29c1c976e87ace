"""What a campaign costs: by stage, in all, and over all runs of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gnn.cost import Meter
from gnn.screening.preparation import Prepared
from gnn.screening.shard import read_manifest

if TYPE_CHECKING:
    from flows.screen import Campaign


@dataclass
class Clock:
    """What each stage costs the flow's own process: wall and CPU seconds, and the peak of memory."""

    seconds: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure what is inside."""
        meter = Meter()
        try:
            with meter:
                yield
        finally:
            self.seconds[f"wall_s_{name}"] = round(meter.wall_s, 3)
            self.seconds[f"cpu_s_{name}"] = round(meter.cpu_s, 3)
            self.peaks[f"peak_memory_mb_{name}"] = round(meter.peak_memory_mb, 1)


def earlier_cost(campaign: Campaign) -> dict[str, float]:
    """Seconds that earlier runs of this campaign took."""
    known = campaign.folder.manifest()
    return {} if known is None else dict(known.cost)


def total_cost(campaign: Campaign, ready: Prepared, before: dict[str, float]) -> dict[str, float]:
    """CPU and GPU seconds of all shards, wall seconds of all runs, the peak of memory; in all and by stage.

    cpu_s is that of the structures; cpu_s_STAGE what the flow's own process spent beside.
    """
    clock = campaign.clock
    seconds = {name: round(before.get(name, 0.0) + spent, 3) for name, spent in clock.seconds.items()}
    peaks = {name: max(before.get(name, 0.0), peak) for name, peak in clock.peaks.items()}
    sealed = [read_manifest(campaign.folder.shards, index) for index in ready.plan]
    shards = [manifest for manifest in sealed if manifest is not None]
    return {
        "cpu_s": round(sum(shard.cpu_s for shard in shards), 3),
        "gpu_s": round(sum(shard.gpu_s for shard in shards), 3),
        "wall_s": round(sum(spent for name, spent in seconds.items() if name.startswith("wall_s_")), 3),
        "peak_memory_mb": round(max((shard.peak_memory_mb for shard in shards), default=0.0), 1),
        **seconds,
        **peaks,
    }
