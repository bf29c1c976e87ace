"""Structured logs and what a run shows on its page."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from flows import run_artifacts
from flows.campaign_log import shard_log
from flows.campaigns import CampaignFolder
from flows.logs import logging_to
from flows.run_artifacts import Progress, key_of, show_table
from flows.settings import Home
from gnn.errors import SluiceError


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_has_all_ids(tmp_path: Path) -> None:
    path = tmp_path / "a" / "log.jsonl"
    with logging_to(path, campaign="metals", shard=3):
        logging.getLogger("gnn.screening").warning("set aside: %s", "why", extra={"structure": "ab12"})
        logging.getLogger("flows.screen").info("done", extra={"facts": {"cpu_s": 1.5}})
        logging.getLogger("other").warning("not ours")
    logging.getLogger("gnn").warning("too late")
    first, second = lines(path)
    assert (first["campaign"], first["shard"], first["structure"]) == ("metals", 3, "ab12")
    assert (first["level"], first["message"]) == ("WARNING", "set aside: why")
    assert second["cpu_s"] == 1.5
    assert second["at"].endswith("+00:00")


def test_shards_of_one_process_do_not_mix(tmp_path: Path) -> None:
    barrier = threading.Barrier(2)

    def work(shard: int) -> None:
        with logging_to(tmp_path / f"{shard}.jsonl", shard=shard):
            barrier.wait()
            for _ in range(20):
                logging.getLogger("gnn.screening").info("of %d", shard)
            barrier.wait()

    threads = [threading.Thread(target=work, args=(shard,)) for shard in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for shard in (0, 1):
        assert {line["message"] for line in lines(tmp_path / f"{shard}.jsonl")} == {f"of {shard}"}


def test_only_what_is_loud_enough_reaches_the_terminal(tmp_path: Path) -> None:
    terminal = logging.StreamHandler(StringIO())
    logging.getLogger().addHandler(terminal)
    try:
        with logging_to(tmp_path / "outer.jsonl"), logging_to(tmp_path / "inner.jsonl"):
            logging.getLogger("flows.screen").info("shard finished")
            logging.getLogger("gnn.screening").warning("set aside")
    finally:
        logging.getLogger().removeHandler(terminal)
    assert terminal.stream.getvalue() == "set aside\n"
    for name in ("outer", "inner"):
        assert [line["message"] for line in lines(tmp_path / f"{name}.jsonl")] == ["shard finished", "set aside"]


def test_an_error_that_its_command_tells_is_not_told_twice(tmp_path: Path) -> None:
    folder = CampaignFolder(Home(tmp_path), "metals")
    terminal = logging.StreamHandler(StringIO())
    logging.getLogger().addHandler(terminal)
    try:
        with pytest.raises(SluiceError), shard_log(folder, 0, 1):
            raise SluiceError("no model today")
    finally:
        logging.getLogger().removeHandler(terminal)
    assert terminal.stream.getvalue() == ""
    assert lines(folder.shards / "shard-0000.log.jsonl")[-1]["message"] == "shard failed: SluiceError: no model today"


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").mkdir()
    with logging_to(tmp_path / "log.jsonl"):
        logging.getLogger("gnn").warning("lost")


def test_a_campaign_is_logged_with_what_it_cost(
    run_here: Callable[..., Any], home: Home, campaign_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import flows.screen

    real = flows.screen.potential_of
    calls = []

    def failing_once(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise SluiceError("no model today")
        return real(*args)

    monkeypatch.setattr("flows.screen.potential_of", failing_once)
    with pytest.raises(SluiceError, match="no model today"):
        run_here(campaign_file)
    result = run_here(campaign_file)
    folder = CampaignFolder(home, "metals")
    per_shard = [lines(path) for path in sorted(folder.shards.glob("shard-*.log.jsonl"))]
    assert len(per_shard) == result.shards.total
    assert [line["message"] for line in per_shard[1]][:2] == [
        "shard begins",
        "shard failed: SluiceError: no model today",
    ]
    finished = [log[-1] for log in per_shard]
    assert all(line["message"] == "shard finished" and line["campaign"] == "metals" for line in finished)
    assert all(line["peak_memory_mb"] > 10 and line["gpu_s"] == 0 for line in finished)
    assert {"cpu_s", "gpu_s", "peak_memory_mb", "cpu_s_prepare", "wall_s_relax", "peak_memory_mb_conclude"} <= set(
        result.cost
    )
    walls = sum(value for name, value in result.cost.items() if name.startswith("wall_s_"))
    assert result.cost["wall_s"] == pytest.approx(walls, abs=0.01)


# ---- the page of a run


def test_outside_a_run_nothing_is_shown() -> None:
    progress = Progress("screen", "metals", 2)
    progress.advance()
    show_table("funnel", [{"a": 1}], "title")
    assert not run_artifacts.in_a_run()


def test_a_page_that_cannot_be_written_stops_nothing(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    def gone(*_: Any, **__: Any) -> None:
        raise ConnectionError("the server is gone")

    monkeypatch.setattr("flows.run_artifacts.in_a_run", lambda: True)
    monkeypatch.setattr("prefect.artifacts.create_table_artifact", gone)
    show_table("funnel", [{"a": 1}], "title")
    assert "no artifact: ConnectionError: the server is gone" in caplog.text


def test_progress_is_told_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    monkeypatch.setattr("flows.run_artifacts.in_a_run", lambda: True)
    monkeypatch.setattr("prefect.artifacts.create_progress_artifact", lambda **_: "id")
    monkeypatch.setattr("prefect.artifacts.update_progress_artifact", lambda _, progress: told.append(progress))
    progress = Progress("screen", "metals", 50)
    for _ in range(50):
        progress.advance()
    assert told[-1] == 100.0
    assert len(told) < 5


def test_keys_are_what_prefect_takes() -> None:
    assert key_of("screen", "Li.Al_Si 2") == "screen-li-al-si-2"


@pytest.mark.server
def test_a_real_run_shows_them(prefect_server: str, tmp_path: Path) -> None:
    from prefect import flow
    from prefect.client.orchestration import get_client

    @flow
    def shows() -> None:
        progress = Progress("screen", "shown", 1)
        progress.advance()
        show_table("funnel-shown", [{"stage": "read", "n_in": 3}], "Funnel")
        run_artifacts.show_link("report-shown", tmp_path / "report.html", "report of metals")

    shows()
    with get_client(sync_client=True) as client:
        found = {artifact.key: artifact for artifact in client.read_artifacts()}
    assert found["screen-shown"].data == 100.0
    assert json.loads(found["funnel-shown"].data) == [{"stage": "read", "n_in": 3}]
    assert "report of metals" in found["report-shown"].data
