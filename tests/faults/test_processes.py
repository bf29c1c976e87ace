"""kill -9 of every process that takes part in a campaign."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = [pytest.mark.faults, pytest.mark.server]

PAUSE_S = 0.2
Judge = Callable[..., dict[str, int]]


def test_kill_9_of_the_flow(campaign: Any, judge: Judge, standing_server: str) -> None:
    """Flow killed, with its local workers."""
    campaign.launch("local", pause_s=PAUSE_S, PREFECT_API_URL=standing_server)
    campaign.wait_for_records(4)
    campaign.room.kill("flow", whole_group=True)
    before = campaign.records()
    result = campaign.run(PREFECT_API_URL=standing_server)
    assert result["reused"] == len(before)
    judge(campaign, before, "the same command goes on")


def test_kill_9_of_the_flow_while_its_workers_live_on(
    campaign: Any, judge: Judge, standing_server: str, dask: tuple[int, str]
) -> None:
    """Flow killed, workers of a standing cluster left computing."""
    _, address = dask
    campaign.launch(address, PREFECT_API_URL=standing_server)
    campaign.wait_for_records(4)
    campaign.room.kill("flow")
    before = campaign.records()
    campaign.run(address, PREFECT_API_URL=standing_server)
    judge(campaign, before, "the same command goes on, after shards that orphans still hold")


@pytest.fixture
def dask(campaign: Any, free_port: Callable[[], int]) -> tuple[int, str]:
    """A standing scheduler with two workers that take their time; its port and address."""
    port = free_port()
    address = campaign.room.scheduler(port)
    campaign.room.workers(address, PAUSE_S=str(PAUSE_S))
    return port, address


def busy_workers(room: Any) -> list[psutil.Process]:
    """The processes in which shards are computed: those that nannies started."""
    return [child for child in room.descendants("workers") if "resource_tracker" not in " ".join(child.cmdline())]


def test_kill_9_of_a_dask_worker(campaign: Any, judge: Judge, standing_server: str, dask: tuple[int, str]) -> None:
    """Dask worker killed while it computes."""
    campaign.launch(dask[1], PREFECT_API_URL=standing_server)
    campaign.wait_for_records(4)
    victims = busy_workers(campaign.room)
    assert victims
    before = campaign.records()
    victims[0].kill()
    assert campaign.room.wait("flow") == 0, campaign.room.log("flow")
    judge(campaign, before, "goes on by itself: another worker takes the shard up where its journal ends")


def test_kill_9_of_the_scheduler(campaign: Any, judge: Judge, standing_server: str, dask: tuple[int, str]) -> None:
    """Dask scheduler killed, and started again with its workers."""
    port, address = dask
    campaign.launch(address, PREFECT_API_URL=standing_server)
    campaign.wait_for_records(4)
    campaign.room.kill("scheduler")
    campaign.room.kill("workers", whole_group=True)
    before = campaign.records()
    campaign.room.scheduler(port)
    campaign.room.workers(address)
    code = campaign.room.wait("flow")
    how = "goes on by itself"
    if code != 0:
        how = "ends FAILED; the same command goes on"
        campaign.run(address, PREFECT_API_URL=standing_server)
    judge(campaign, before, how)


def test_kill_9_of_the_prefect_server(campaign: Any, judge: Judge, free_port: Callable[[], int]) -> None:
    """Prefect server killed (SQLite), and started again."""
    port = free_port()
    api = campaign.room.prefect_server("own", port)
    campaign.launch(pause_s=PAUSE_S, PREFECT_API_URL=api)
    campaign.wait_for_records(4)
    campaign.room.kill("own", whole_group=True)
    before = campaign.records()
    campaign.room.prefect_server("own", port)
    how = "goes on by itself"
    if campaign.room.wait("flow") != 0:
        how = "ends FAILED; the same command goes on"
        campaign.run(PREFECT_API_URL=api)
    judge(campaign, before, how)


POSTGRES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


@pytest.fixture
def postgres(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[tuple[str, Callable[[], None]]]:
    """A PostgreSQL of its own: the address of its database, and what kills and restarts it."""
    if POSTGRES is None or shutil.which("runuser") is None or os.geteuid() != 0:
        pytest.skip("needs Debian's postgresql and root, who becomes its user")
    port, folder = free_port(), Path("/tmp") / f"sluice-postgres-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    shutil.chown(folder, "postgres", "postgres")
    data = folder / "data"

    def as_postgres(*command: str) -> None:
        subprocess.run(["runuser", "-u", "postgres", "--", *command], check=True, capture_output=True)

    def start() -> None:
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
        log = str(folder / "log")
        as_postgres(f"{POSTGRES}/pg_ctl", "-D", str(data), "-l", log, "-o", options, "-w", "start")

    def restart() -> None:
        postmaster = int((data / "postmaster.pid").read_text().splitlines()[0])
        family = psutil.Process(postmaster).children()
        for process in (psutil.Process(postmaster), *family):
            process.kill()
        psutil.wait_procs(family, timeout=10)
        start()

    as_postgres(f"{POSTGRES}/initdb", "-D", str(data), "-A", "trust", "-U", "sluice")
    start()
    as_postgres(f"{POSTGRES}/createdb", "-h", str(folder), "-p", str(port), "-U", "sluice", "prefect")
    yield f"postgresql+asyncpg://sluice@127.0.0.1:{port}/prefect", restart
    as_postgres(f"{POSTGRES}/pg_ctl", "-D", str(data), "-m", "immediate", "stop")
    shutil.rmtree(folder, ignore_errors=True)


def test_kill_9_of_postgresql(campaign: Any, judge: Judge, postgres: tuple[str, Callable[[], None]]) -> None:
    """PostgreSQL behind the Prefect server killed, and started again."""
    url, restart = postgres
    api = campaign.room.prefect_server("own", PREFECT_SERVER_DATABASE_CONNECTION_URL=url)
    campaign.launch(pause_s=PAUSE_S, PREFECT_API_URL=api)
    campaign.wait_for_records(4)
    before = campaign.records()
    restart()
    how = "goes on by itself"
    if campaign.room.wait("flow") != 0:
        how = "ends FAILED; the same command goes on"
        campaign.run(PREFECT_API_URL=api)
    judge(campaign, before, how)


def test_two_launches_at_once(campaign: Any, judge: Judge, standing_server: str) -> None:
    """One campaign launched twice at the same moment."""
    for name in ("flow", "twin"):
        campaign.launch(pause_s=PAUSE_S / 2, name=name, PREFECT_API_URL=standing_server)
    codes = {name: campaign.room.wait(name) for name in ("flow", "twin")}
    assert sorted(codes.values()) == [0, 1], (campaign.room.log("flow"), campaign.room.log("twin"))
    refused = next(name for name, code in codes.items() if code == 1)
    assert "in use by another process" in campaign.room.log(refused)
    judge(campaign, [], "one runs, the other is refused in one line (exit code 1)")


def test_a_flow_stopped_politely_leaves_no_process(campaign: Any, judge: Judge, standing_server: str) -> None:
    """Flow stopped by SIGTERM, as a batch system does."""
    campaign.launch("local", pause_s=PAUSE_S, PREFECT_API_URL=standing_server)
    campaign.wait_for_records(4)
    children = campaign.room.descendants("flow")
    campaign.room.processes["flow"].send_signal(signal.SIGTERM)
    assert campaign.room.wait("flow") == 130, campaign.room.log("flow")
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []
    before = campaign.records()
    campaign.run(PREFECT_API_URL=standing_server)
    judge(campaign, before, "ends CANCELLED; the same command goes on")
