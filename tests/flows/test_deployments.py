"""Deployments: what is planned, what is refused, and what a Prefect server makes of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from flows import automations, deployed
from flows.cli.main import app
from flows.deployments import (
    DEFAULTS,
    apply,
    check_parameters,
    flow_of,
    lacking,
    make_deployment,
    planned,
    runner_deployment,
)
from flows.settings import MARKER, WORK_POOL, Home
from gnn.errors import InputError

NIGHTLY = {"parameters": {"datasets": ["copper"], "register_as": "copper", "minutes": 1.0}}
FOLLOWER = {
    "flow": "screen",
    "on_new_champion": "copper",
    "parameters": {"campaign": "metals.toml", "one_per_version": True},
}


def by_name(home: Home, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    return {deployment.name: deployment for deployment in planned(home, changes)}


def test_every_flow_has_a_deployment(home: Home) -> None:
    found = by_name(home)
    assert {each.flow for each in found.values()} == {"ingest", "preprocess", "train", "screen", "label"}
    assert all(each.all_tags[:2] == ["sluice", each.flow] for each in found.values())


def test_entrypoints_are_module_paths_without_any_folder(home: Home) -> None:
    for deployment in planned(home):
        made = runner_deployment(deployment, home)
        assert made.entrypoint == deployment.entrypoint == f"flows.deployed.{deployment.flow}"
        assert made._path is None
        assert made.work_pool_name == WORK_POOL


def test_nightly_training_rests_until_it_is_told_what_to_train(home: Home) -> None:
    resting = by_name(home)["nightly"]
    assert lacking(resting) == ["datasets", "register_as"]
    assert [schedule.active for schedule in runner_deployment(resting, home).schedules or []] == [False]
    told = by_name(home, {"nightly": NIGHTLY})["nightly"]
    assert lacking(told) == []
    schedule = (runner_deployment(told, home).schedules or [])[0]
    assert (schedule.active, schedule.schedule.cron) == (True, "0 2 * * *")


def test_the_homes_file_is_laid_over_the_defaults(home: Home) -> None:
    (home.root / MARKER).write_text(
        '[deployments.nightly]\ncron = "30 1 * * 1-5"\ntimezone = "Europe/Berlin"\n'
        '[deployments.nightly.parameters]\ndatasets = ["a", "b@3"]\nregister_as = "ab"\n'
        '[deployments.follow]\nflow = "screen"\non_new_champion = "ab"\nparameters = {campaign = "c.toml"}\n'
    )
    found = by_name(home)
    assert found["nightly"].cron == "30 1 * * 1-5"
    assert found["nightly"].parameters["minutes"] == 240.0
    assert found["nightly"].datasets == ["a", "b"]
    assert found["follow"].on_new_champion == "ab"
    assert list(found)[:6] == list(DEFAULTS)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"flow": "sleep"}, "flow: Input should be"),
        ({"flow": "train", "cron": "0 2 * * *", "speed": 3}, "speed: Extra inputs"),
        ({"flow": "screen", "on_new_data": True}, "screen does not read data sets"),
        ({"flow": "train", "on_new_champion": "a"}, "train does not use a model"),
        ({"flow": "train", "cron": "at night"}, "cron 'at night' in 'UTC'"),
        ({"flow": "train", "cron": "0 2 * * *", "timezone": "Mars/Base"}, "in 'Mars/Base'"),
        ("train", "no table of a deployment"),
    ],
)
def test_what_no_deployment_can_be(table: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_deployment("mine", table)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"colour": 1}, "no 'colour'; train takes datasets, register_as"),
        ({"datasets": "copper"}, r"parameters\.datasets: 'copper' is not of type 'array'"),
        ({"preset": "huge"}, r"parameters\.preset: 'huge' is not one of"),
    ],
)
def test_parameters_that_no_flow_takes(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_parameters(make_deployment("mine", {"flow": "train", "parameters": parameters}))


@pytest.mark.parametrize(("text", "message"), [("[deployments", "is not TOML"), ("deployments = 3", "is no table")])
def test_a_broken_file_is_named(home: Home, text: str, message: str) -> None:
    (home.root / MARKER).write_text(text)
    with pytest.raises(InputError, match=message):
        planned(home)


def test_every_parameter_is_documented_and_plain() -> None:
    from prefect.utilities.callables import parameter_schema

    for name in ("ingest", "preprocess", "train", "screen", "label"):
        flow = getattr(deployed, name)
        fields = parameter_schema(flow).model_dump_for_openapi()["properties"]
        assert list(fields) == list(signature(flow.fn).parameters)
        assert all(field.get("description") for field in fields.values()), name
        assert parameter_schema(flow).definitions == {}


def test_the_file_of_infra_says_the_same(repository: Path, home: Home) -> None:
    content = yaml.safe_load((repository / "infra" / "prefect.yaml").read_text(encoding="utf-8"))
    assert content["pull"] == []
    assert [entry["name"] for entry in content["deployments"]] == list(DEFAULTS)
    for entry, ours in zip(content["deployments"], planned(home), strict=True):
        assert entry["entrypoint"] == ours.entrypoint
        assert entry["tags"] == ours.all_tags
        assert entry["work_pool"]["name"] == WORK_POOL
        assert entry.get("parameters", {}) == ours.parameters
        assert entry.get("concurrency_limit") == ours.concurrency
        assert [schedule["cron"] for schedule in entry.get("schedules", [])] == ([ours.cron] if ours.cron else [])
        assert not any(schedule["active"] for schedule in entry.get("schedules", []))


def test_a_dry_run_needs_no_server(home: Home) -> None:
    done = CliRunner().invoke(app, ["deploy", "--dry-run"])
    assert done.exit_code == 0
    assert "train/nightly" in done.stdout
    assert "train/nightly rests: set parameters.datasets" in done.stderr


def test_without_a_server_the_way_to_one_is_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.events.server_address", lambda: None)
    done = CliRunner().invoke(app, ["deploy"])
    assert done.exit_code == 2
    assert "run `sluice up`" in done.stderr


def test_an_address_that_is_none_is_the_users_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.events.server_address", lambda: "prefect")
    done = CliRunner().invoke(app, ["deploy"])
    assert done.exit_code == 2
    assert "PREFECT_API_URL is 'prefect', which is no address" in done.stderr


# ---- on a server


@pytest.fixture
def client(prefect_server: str) -> Iterator[Any]:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as found:
        yield found


@pytest.mark.server
@pytest.mark.slow
def test_deploying_twice_makes_everything_once(home: Home, client: Any) -> None:
    plan = planned(home, {"nightly": NIGHTLY, "follow": FOLLOWER})
    first = apply(plan, home)
    names = automations.apply(automations.wanted(plan, first))
    assert apply(plan, home) == first
    assert automations.apply(automations.wanted(plan, first)) == names
    assert sorted(a.name for a in client.read_automations()) == sorted(names)
    assert names == [
        automations.ZOMBIES,
        "sluice: new data in copper runs train/nightly",
        "sluice: new champion of copper runs screen/follow",
    ]
    nightly = client.read_deployment(first["nightly"])
    assert [(s.schedule.cron, s.active) for s in nightly.schedules] == [("0 2 * * *", True)]
    assert nightly.concurrency_options is None or nightly.global_concurrency_limit.limit == 1
    assert nightly.pull_steps in (None, [])
    assert nightly.path is None
    assert nightly.parameter_openapi_schema["properties"]["register_as"]["description"] == "Name in the model registry."
    assert client.read_work_pool(WORK_POOL).type == "process"


@pytest.mark.server
@pytest.mark.slow
def test_automations_of_deployments_that_are_gone_go_too(home: Home, client: Any) -> None:
    plan = planned(home, {"follow": FOLLOWER})
    ids = apply(plan, home)
    assert len(automations.apply(automations.wanted(plan, ids))) == 2
    less = planned(home)
    assert automations.apply(automations.wanted(less, ids)) == [automations.ZOMBIES]
    assert [a.name for a in client.read_automations()] == [automations.ZOMBIES]


@pytest.mark.server
@pytest.mark.slow
def test_prefects_own_command_reads_the_file(repository: Path, home: Home, client: Any, prefect_server: str) -> None:
    apply([], home)
    prefect = Path(sys.executable).with_name("prefect")
    command = [str(prefect), "--no-prompt", "deploy", "--all", "--prefect-file", "infra/prefect.yaml"]
    environment = {**os.environ, "PREFECT_API_URL": prefect_server, "SLUICE_HOME": str(home.root)}
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    for name, table in DEFAULTS.items():
        found = client.read_deployment_by_name(f"{table['flow']}/{name}")
        assert found.pull_steps in (None, [])
        assert found.entrypoint == f"flows.deployed.{table['flow']}"
        assert found.job_variables == {"env": {"SLUICE_HOME": str(home.root)}}


def test_every_flow_can_be_imported_by_its_entrypoint(home: Home) -> None:
    from prefect.flows import load_flow_from_entrypoint

    for deployment in planned(home):
        assert load_flow_from_entrypoint(deployment.entrypoint) is flow_of(deployment)
