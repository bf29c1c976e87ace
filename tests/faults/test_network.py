"""Two hosts, as network namespaces with a cable between them, and the cable cut."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytestmark = [pytest.mark.faults, pytest.mark.server]

HERE, THERE = "10.213.7.1", "10.213.7.2"
CUT_S = 40.0
"""Longer than workers are waited for, and than a training's pause between two batches of points and its patience."""
SHORT_CUT_S = 20.0
"""Shorter than what is left of the campaign, so that shards begin and end in it."""
PATIENCE = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "30s"}
"""On a busy machine a worker that imports the potential is silent for more than ten seconds."""


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
        # at the far end: here the way stays known and packets vanish, as when a host is unplugged
        yield name, lambda state: ip("-n", name, "link", "set", far, state)
    finally:
        ip("link", "del", near, check=False)
        ip("netns", "del", name, check=False)


def test_network_cut_between_hosts(
    campaign: Any, judge: Callable[..., Any], standing_server: str, cable: Any, free_port: Callable[[], int]
) -> None:
    """Network cut between scheduler and the host of the workers for 40 s, longer than workers are waited for (30 s)."""
    host, set_cable = cable
    address = campaign.room.scheduler(free_port(), HERE, **PATIENCE)
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


def task_runs(api: str) -> list[tuple[str, str]]:
    """Name and state of all task runs that a Prefect server knows."""
    request = urllib.request.Request(f"{api}/task_runs/filter", b"{}", {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return sorted((run["name"], run["state"]["type"]) for run in json.load(response))


def test_network_cut_to_the_prefect_server(
    campaign: Any, judge: Callable[..., Any], cable: Any, free_port: Callable[[], int]
) -> None:
    """Network cut for 20 s between a campaign and the host of its Prefect server."""
    host, set_cable = cable
    api = campaign.room.prefect_server("far", free_port(), THERE, prefix=("ip", "netns", "exec", host))
    campaign.launch(pause_s=0.2, PREFECT_API_URL=api)
    campaign.wait_for_records(4)
    set_cable("down")
    before = campaign.records()
    time.sleep(SHORT_CUT_S)
    assert campaign.room.runs("flow"), campaign.room.log("flow")
    assert len(campaign.records()) > len(before)
    set_cable("up")
    how = "goes on by itself, and computes meanwhile"
    if campaign.room.wait("flow") != 0:
        how = "ends FAILED; the same command goes on"
        campaign.run(PREFECT_API_URL=api)
    judge(campaign, before, how)
    shards = sorted(path.stem for path in (campaign.folder / "shards").glob("shard-????.json"))
    assert [run for run in task_runs(api) if run[1] == "COMPLETED"] == [(name, "COMPLETED") for name in shards]


def test_network_cut_to_the_mlflow_server(
    room: Any, training: Any, cable: Any, free_port: Callable[[], int], noted: Callable[..., None]
) -> None:
    """Network cut for 40 s between a training and the host of its MLflow server."""
    host, set_cable = cable
    url = room.mlflow_server(free_port(), THERE, prefix=("ip", "netns", "exec", host))
    training.launch(url)
    training.wait_for_state()
    set_cable("down")
    before = training.curve()
    time.sleep(CUT_S)
    assert room.runs("flow"), room.log("flow")
    assert len(training.curve()) > len(before)
    set_cable("up")
    noted("the training goes on, its points wait until the network is back", **training.judge(url))
