"""Two hosts, as network namespaces with a cable between them, and the cable cut."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytestmark = [pytest.mark.faults, pytest.mark.server]

HERE, THERE = "10.213.7.1", "10.213.7.2"
CUT_S = 20.0


def ip(*arguments: str, check: bool = True) -> int:
    return subprocess.run(["ip", *arguments], check=check, capture_output=True).returncode


@pytest.fixture
def cable() -> Iterator[tuple[str, Callable[[str], None]]]:
    """The name of the other host, and what sets the cable up or down."""
    name = f"sluice{os.getpid() % 10000}"
    near, far = f"{name}a", f"{name}b"
    if os.geteuid() != 0 or ip("netns", "add", name, check=False) != 0:
        pytest.skip("needs the right to make network namespaces")
    try:
        ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
        ip("addr", "add", f"{HERE}/24", "dev", near)
        ip("link", "set", near, "up")
        ip("-n", name, "addr", "add", f"{THERE}/24", "dev", far)
        ip("-n", name, "link", "set", far, "up")
        ip("-n", name, "link", "set", "lo", "up")
        yield name, lambda state: ip("link", "set", near, state)
    finally:
        ip("link", "del", near, check=False)
        ip("netns", "del", name, check=False)


def test_network_cut_between_hosts(
    campaign: Any, judge: Callable[..., Any], standing_server: str, cable: Any, free_port: Callable[[], int]
) -> None:
    """Network cut between scheduler and the host of the workers for 20 s, longer than workers are waited for."""
    host, set_cable = cable
    patience = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "8s"}
    address = campaign.room.scheduler(free_port(), HERE, **patience)
    there = {"prefix": ("ip", "netns", "exec", host), "options": ("--host", THERE)}
    campaign.room.workers(address, **there, PAUSE_S="0.4")
    campaign.launch(address, PREFECT_API_URL=standing_server)
    campaign.wait_for_records(4)
    set_cable("down")
    before = campaign.records()
    time.sleep(CUT_S)
    set_cable("up")
    # workers that were given up end with their nannies; what supervises them on a real host starts them again
    campaign.room.workers(address, name="later", **there)
    how = "goes on by itself, once there are workers again"
    if campaign.room.wait("flow") != 0:
        how = "ends FAILED; the same command goes on"
        campaign.run(address, PREFECT_API_URL=standing_server)
    judge(campaign, before, how)
