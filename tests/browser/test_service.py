"""Schedules, launches, reruns and the registry as people see them: real services, a real browser, EMT as the engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ase.io import write
from emt_cells import labelled_cells
from metals import metals_campaign
from tiny_network import TINY_MODEL

pytestmark = [pytest.mark.browser, pytest.mark.server, pytest.mark.timeout(1500)]

CAMPAIGN = metals_campaign(
    relaxation=("max_steps = 20",), filters=("max_hull_distance = 5.0", "require_convergence = false")
)
FOLLOWING = (
    CAMPAIGN.replace('"metals"', '"following"').replace("foreign:emt", "models:/copper@champion").replace(', "Ni"', "")
)
TRAINING = f"""
[data]
cutoff = 4.0
split_by = "structure"
{TINY_MODEL}"""
DEPLOYMENTS = """
[deployments.nightly]
[deployments.nightly.parameters]
datasets = ["cells"]
register_as = "copper"
config = "training.toml"
epochs = 3
device = "cpu"
[deployments.follow]
flow = "screen"
on_new_champion = "copper"
[deployments.follow.parameters]
campaign = "following.toml"
one_per_version = true
"""
PROPERTY = (
    "[...document.querySelectorAll('.schema-form-property')].find((node) =>"
    " node.querySelector('.schema-form-property__label')?.textContent.trim().split(' ')[0] === '{name}')"
)
LONG = ("--set", "name=killed", "--set", 'candidates.prototypes=["all"]', "--set", "relaxation.max_steps=5000")
"""What makes the campaign last some minutes."""
PLOTS = 'img[src*="get-artifact"]'
SHARDS = {"sort": "EXPECTED_START_TIME_ASC", "limit": 200}


@pytest.fixture(scope="module")
def deployed(served: Any) -> Any:
    """The services with every deployment, a campaign's file and a training's."""
    files = {"metals": CAMPAIGN, "following": FOLLOWING, "training": TRAINING, "sluice": DEPLOYMENTS}
    for name, text in files.items():
        (served.home / f"{name}.toml").write_text(text, encoding="utf-8")
    served.sluice("deploy")
    return served


def body(page: Any) -> str:
    """The page's words; its no-break spaces as spaces."""
    return str(page.execute_script("return document.body.innerText")).replace("\xa0", " ")


def press(page: Any, text: str, within: str = "document") -> bool:
    """Click the last button of this text inside an element; whether there was one."""
    script = f"""const found = [...({within}).querySelectorAll('button')].filter((b) =>
        b.innerText.trim() === '{text}' && !b.disabled && b.getClientRects().length);
        if (found.length) found[found.length - 1].click(); return found.length > 0;"""
    return bool(page.execute_script(script))


def fill(page: Any, until: Any, name: str, value: str, kind: str | None = None) -> None:
    """Type a value into a field of a form of parameters; `kind` is chosen first where there are several."""
    box = PROPERTY.replace("{name}", name)
    if kind is not None:
        until(lambda: press(page, kind, box))
    field = until(lambda: page.execute_script(f"return ({box})?.querySelector('textarea, input')"), 60)
    field.clear()
    field.send_keys(value)


def open_form(page: Any, until: Any, served: Any, deployment: str) -> None:
    page.get(f"{served.prefect}/deployments/deployment/{served.deployment(deployment)}/run")
    until(lambda: "max_hull_distance" in body(page))


def ended(served: Any, name: str) -> dict[str, Any] | None:
    """The manifest of a campaign that ran to an end."""
    path = Path(served.home / "datasets" / "campaigns" / name / "manifest.json")
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"state": "RUNNING"}
    return content if content["state"] != "RUNNING" else None


def shards_of(served: Any, run_id: str) -> list[tuple[str, str]]:
    """Name and state of every task run of a run, in the order they began."""
    found = served.api("/task_runs/filter", {**SHARDS, "flow_runs": {"id": {"any_": [run_id]}}})
    return [(task["name"], task["state_name"]) for task in found]


def test_a_schedule_is_visible(chromium, deployed, until, picture) -> None:
    chromium.set_window_size(1360, 900)
    chromium.get(f"{deployed.prefect}/deployments")
    until(lambda: "At 02:00 AM every day" in body(chromium))
    row = chromium.execute_script(
        "return [...document.querySelectorAll('tr')].find((r) => r.innerText.includes('nightly')).innerText"
    )
    assert "At 02:00 AM every day" in row
    for name in ("ingest", "preprocess", "train", "screen", "label"):
        assert name in body(chromium)
    picture(chromium, "deployments")


def test_the_server_plans_the_nights(deployed, until) -> None:
    """A visible schedule is not enough: a server that fails to plan says so in its log alone."""
    planned = until(lambda: deployed.all_runs("train/nightly"), 150)
    assert {run["auto_scheduled"] for run in planned} == {True}
    assert all("T02:00:00" in run["expected_start_time"] for run in planned)


def test_a_campaign_is_launched_with_changed_parameters(chromium, deployed, until, picture) -> None:
    open_form(chromium, until, deployed, "screen/screen")
    fill(chromium, until, "campaign", "metals.toml")
    fill(chromium, until, "name", "three-metals")
    fill(chromium, until, "budget", "3", kind="int")
    picture(chromium, "launch")
    assert press(chromium, "Submit")
    manifest = until(lambda: ended(deployed, "three-metals"))
    assert (manifest["state"], manifest["n_shortlist"]) == ("COMPLETED", 3)
    run = until(lambda: [r for r in deployed.runs("screen/screen") if r["state_type"] == "COMPLETED"])[0]
    assert run["parameters"]["budget"] == 3
    assert run["state"]["message"].startswith("campaign three-metals: 18 candidates, 3 on the shortlist")
    chromium.get(f"{deployed.prefect}/runs/flow-run/{run['id']}")
    until(lambda: "shard-0001" in body(chromium))
    picture(chromium, "run")


def test_only_the_failed_shard_runs_again(chromium, deployed, until, picture) -> None:
    obstacle = deployed.home / "datasets" / "campaigns" / "broken" / "shards" / "shard-0001.parquet"
    obstacle.mkdir(parents=True)
    (obstacle / "in-the-way").touch()
    run_id = deployed.api(
        f"/deployments/{deployed.deployment('screen/screen')}/create_flow_run",
        {"parameters": {"campaign": "metals.toml", "name": "broken"}, "state": {"type": "SCHEDULED"}},
    )["id"]
    state = lambda: deployed.api(f"/flow_runs/{run_id}")["state"]["type"]  # noqa: E731
    until(lambda: state() == "FAILED")
    before = shards_of(deployed, run_id)
    assert sorted(before) == [("shard-0000", "Completed"), ("shard-0001", "Failed"), ("shard-0002", "Completed")]
    assert ended(deployed, "broken")["shards"] == {"total": 3, "done": 2, "failed": 1}
    (obstacle / "in-the-way").unlink()
    obstacle.rmdir()
    chromium.get(f"{deployed.prefect}/runs/flow-run/{run_id}")
    until(lambda: "shard-0001" in body(chromium))
    picture(chromium, "failed")
    until(lambda: press(chromium, "Retry"))
    until(lambda: "retry flow run" in body(chromium), 120)
    assert press(chromium, "Retry")
    until(lambda: state() == "COMPLETED")
    after = shards_of(deployed, run_id)
    assert {name for name, now in after if now == "Completed"} == {"shard-0000", "shard-0001", "shard-0002"}
    assert [name for name, now in after if now == "Completed"].count("shard-0000") == 1
    assert [name for name, now in after if now == "Completed"].count("shard-0002") == 1
    manifest = ended(deployed, "broken")
    assert manifest["state"] == "COMPLETED"
    assert manifest["shards"] == {"total": 3, "done": 3, "failed": 0}
    chromium.refresh()
    until(lambda: "Completed" in body(chromium))
    picture(chromium, "retried")


def test_new_data_train_a_version_whose_page_tells_all(chromium, deployed, until, picture) -> None:
    write(deployed.home / "cells.xyz", labelled_cells(20), format="extxyz")
    deployed.sluice("ingest", "cells.xyz", "--dataset", "cells", "--theory", "emt/ase")
    runs = until(lambda: [r for r in deployed.runs("train/nightly") if r["state_type"] in ("COMPLETED", "FAILED")], 900)
    assert [run["state_type"] for run in runs] == ["COMPLETED"], runs[0]["state"]["message"]
    chromium.set_window_size(1700, 1000)
    chromium.get(f"{deployed.mlflow}/#/models/copper/versions/1")
    wanted = ("@ champion", "Gate: the first version of its name.", "Intended use", "element Al", "theory emt/ase",
              "cells@0", "cost.cpu_s", "suite.energy_mae_mev_per_atom")  # fmt: skip
    until(lambda: [text for text in wanted if text not in body(chromium)] == [], 200)
    widths = f"return [...document.querySelectorAll({PLOTS!r})].map((i) => i.naturalWidth)"
    until(lambda: (found := chromium.execute_script(widths)) and min(found) > 100, 120)
    picture(chromium, "version")
    chromium.execute_script(f"document.querySelector({PLOTS!r}).scrollIntoView()")
    picture(chromium, "version-plots")


def test_a_new_champion_runs_the_campaign_that_follows_it(deployed, until) -> None:
    manifest = until(lambda: ended(deployed, "following-v1"))
    assert manifest["state"] == "COMPLETED"
    assert (manifest["model"]["uri"], manifest["model"]["version"]) == ("models:/copper/1", "1")
    runs = deployed.runs("screen/follow")
    assert [run["created_by"]["type"] for run in runs] == ["AUTOMATION"]
    until(lambda: deployed.runs("screen/follow")[0]["state_type"] == "COMPLETED")


def test_a_second_night_without_news_does_nothing(deployed, until) -> None:
    made = deployed.api(f"/deployments/{deployed.deployment('train/nightly')}/create_flow_run", {"parameters": {}})
    run = until(lambda: (found := deployed.api(f"/flow_runs/{made['id']}"))["end_time"] and found)
    assert run["state_type"] == "COMPLETED"
    assert run["state"]["message"].startswith("nothing to do: the data are those of cells@0, which version 1")


def test_a_run_whose_process_was_killed_is_marked_crashed(deployed, until) -> None:
    running = deployed.start("screen", "metals.toml", *LONG, "--cluster", "threads")
    begun = {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}, "flows": {"name": {"any_": ["screen"]}}}
    run_id = until(lambda: deployed.api("/flow_runs/filter", begun))[0]["id"]
    heard = {
        "filter": {
            "event": {"name": ["prefect.flow-run.heartbeat"]},
            "resource": {"id": [f"prefect.flow-run.{run_id}"]},
        }
    }
    until(lambda: deployed.api("/events/filter", heard)["events"], 120)
    running.kill()
    running.communicate()
    state = lambda: deployed.api(f"/flow_runs/{run_id}")["state"]  # noqa: E731
    assert state()["type"] == "RUNNING"
    until(lambda: state()["type"] == "CRASHED", 600, every=5)
    assert "no sign of life for 120 s" in state()["message"]
