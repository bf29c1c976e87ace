"""GPUs of this machine, found without importing torch, and of a cluster's workers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from flows.batch_cluster import GPU, coming

if TYPE_CHECKING:
    from distributed import Client

VISIBLE = "CUDA_VISIBLE_DEVICES"
DRIVER = Path("/proc/driver/nvidia/gpus")


def local_gpus() -> list[str]:
    """The devices this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if (visible := os.environ.get(VISIBLE)) is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1", "NoDevFiles")]
    return [str(number) for number, _ in enumerate(sorted(DRIVER.iterdir()))] if DRIVER.is_dir() else []


def gpu_slots(client: Client) -> int:
    """How many of the cluster's workers have a GPU to themselves, those that a batch system would start included."""
    expected = coming(client.cluster)
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return max(expected.workers * expected.gpus, sum(int(worker["resources"].get(GPU, 0)) for worker in workers))
