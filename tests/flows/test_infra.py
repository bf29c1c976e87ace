"""What a team deploys, as far as this machine can tell: files parse, references resolve, scripts are scripts."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

COMMANDS = {"prefect", "mlflow", "dask", "sluice"}


@pytest.fixture(scope="module")
def infra(repository: Path) -> Path:
    return repository / "infra"


@pytest.fixture(scope="module")
def compose(infra: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((infra / "compose" / "compose.yaml").read_text())
    return found


# ---- compose


def test_the_services_a_team_needs(compose: dict[str, Any]) -> None:
    services = set(compose["services"])
    assert services >= {"postgres", "prefect", "mlflow", "minio", "scheduler", "dask-worker", "gpu-worker", "worker"}


def test_services_name_only_what_is_there(compose: dict[str, Any], infra: Path) -> None:
    for name, service in compose["services"].items():
        assert "image" in service, name
        assert set(service.get("depends_on", ())) <= set(compose["services"]), name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            known = (
                source in compose["volumes"] if not source.startswith(".") else (infra / "compose" / source).is_file()
            )
            assert known, (name, volume)


def test_conditions_can_be_met(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        wanted = service.get("depends_on", {})
        for other, how in wanted.items() if isinstance(wanted, dict) else ():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in compose["services"][other], (name, other)


def test_ports_are_on_loopback(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_one_process_a_gpu(compose: dict[str, Any]) -> None:
    worker = compose["services"]["gpu-worker"]
    assert "GPU=1" in worker["command"]
    assert worker["command"][worker["command"].index("--nworkers") + 1] == "1"
    assert worker["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert compose["services"]["dask-worker"]["environment"]["CUDA_VISIBLE_DEVICES"] == ""


def test_every_variable_is_in_the_example_and_no_secret_is(infra: Path) -> None:
    text = (infra / "compose" / "compose.yaml").read_text()
    needed = {name for name, rest in re.findall(r"\$\{(\w+)([^}]*)\}", text) if not rest.startswith(":-")}
    lines = [line for line in (infra / "compose" / ".env.example").read_text().splitlines() if line and line[0] != "#"]
    given = dict(line.split("=", 1) for line in lines)
    assert needed <= set(given)
    assert all(given[name] == "" for name in given if "PASSWORD" in name or "SECRET" in name)


def test_commands_are_programs_that_are_installed(compose: dict[str, Any]) -> None:
    import sys

    for name, service in compose["services"].items():
        if "sluice" in service["image"]:
            program = service["command"][0]
            assert program in COMMANDS, name
            assert Path(sys.executable).with_name(program).exists()


def test_accounts_of_mlflow(infra: Path) -> None:
    for folder in ("compose", "kubernetes"):
        accounts = configparser.ConfigParser()
        accounts.read(infra / folder / "mlflow-auth.ini")
        assert set(accounts["mlflow"]) == {"default_permission", "database_uri"}


def test_compose_by_its_own_schema(infra: Path) -> None:
    if shutil.which("docker") is None or subprocess.run(["docker", "compose", "version"], check=False).returncode:
        pytest.skip("docker compose is not here")
    command = ["docker", "compose", "--env-file", ".env.example", "config", "--quiet"]
    environment = {"PATH": "/usr/bin:/usr/local/bin"}
    values = dict.fromkeys(re.findall(r"\$\{(\w+)", (infra / "compose" / "compose.yaml").read_text()), "x")
    subprocess.run(command, cwd=infra / "compose", check=True, env=environment | values)


# ---- image


def test_the_image_copies_only_what_exists(infra: Path, repository: Path) -> None:
    text = (infra / "Dockerfile").read_text()
    allowed = (infra / "Dockerfile.dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE):
        *sources, _ = line.split()
        for source in sources:
            assert (repository / source).exists(), source
            assert f"!{source}" in allowed, source
    extras = re.search(r"ARG EXTRAS=(\S+)", text)
    assert extras is not None
    project = (repository / "pyproject.toml").read_text()
    assert all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in extras[1].split(","))
    assert "USER sluice" in text


# ---- kubernetes


@pytest.fixture(scope="module")
def manifests(infra: Path) -> list[dict[str, Any]]:
    folder = infra / "kubernetes"
    names = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    return [item for name in names for item in yaml.safe_load_all((folder / name).read_text())]


def pods(manifests: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for item in manifests:
        if item["kind"] in ("Deployment", "StatefulSet"):
            yield item["metadata"]["name"], item["spec"]["template"]


def of_kind(manifests: list[dict[str, Any]], kind: str) -> set[str]:
    return {item["metadata"]["name"] for item in manifests if item["kind"] == kind}


def test_manifests_are_whole(manifests: list[dict[str, Any]]) -> None:
    for item in manifests:
        assert {"apiVersion", "kind", "metadata"} <= set(item)
        if item["kind"] in ("Deployment", "StatefulSet"):
            labels = item["spec"]["template"]["metadata"]["labels"]
            assert item["spec"]["selector"]["matchLabels"].items() <= labels.items()
    names = [(item["kind"], item["metadata"]["name"]) for item in manifests]
    assert len(set(names)) == len(names)


def test_services_find_their_pods(manifests: list[dict[str, Any]]) -> None:
    templates = dict(pods(manifests))
    for item in manifests:
        if item["kind"] == "Service":
            app = item["spec"]["selector"]["app"]
            ports = {port["containerPort"] for c in templates[app]["spec"]["containers"] for port in c["ports"]}
            assert {port["port"] for port in item["spec"]["ports"]} <= ports


def test_pods_mount_what_is_there(manifests: list[dict[str, Any]], infra: Path) -> None:
    kustomization = yaml.safe_load((infra / "kubernetes" / "kustomization.yaml").read_text())
    claims = of_kind(manifests, "PersistentVolumeClaim")
    maps = of_kind(manifests, "ConfigMap") | {item["name"] for item in kustomization["configMapGenerator"]}
    for name, template in pods(manifests):
        volumes = {volume["name"]: volume for volume in template["spec"].get("volumes", ())}
        for volume in volumes.values():
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims, name
            if "configMap" in volume:
                assert volume["configMap"]["name"] in maps, name
        for container in template["spec"]["containers"]:
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted <= set(volumes) | {"data"}, name
            for reference in container.get("envFrom", ()):
                assert reference.get("configMapRef", {"name": "sluice"})["name"] in maps


def test_secrets_have_the_keys_that_are_asked_for(manifests: list[dict[str, Any]], infra: Path) -> None:
    lines = (infra / "kubernetes" / "secret.example.env").read_text().splitlines()
    keys = {line.split("=")[0] for line in lines}
    text = "".join(path.read_text() for path in (infra / "kubernetes").glob("*.yaml"))
    asked = re.findall(r"secretKeyRef: \{name: sluice, key: (\w+)\}", text)
    assert asked
    assert set(asked) <= keys
    assert not (infra / "kubernetes" / "secret.env").exists()


def test_sluices_own_pods_run_as_a_user(manifests: list[dict[str, Any]]) -> None:
    for name, template in pods(manifests):
        if template["spec"]["containers"][0]["image"].startswith("sluice"):
            assert template["spec"]["securityContext"]["runAsNonRoot"], name
            assert template["spec"]["containers"][0]["command"][0] in COMMANDS


def test_manifests_by_their_own_tool(infra: Path, tmp_path: Path) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not here")
    folder = tmp_path / "kubernetes"
    shutil.copytree(infra / "kubernetes", folder)
    shutil.copy(folder / "secret.example.env", folder / "secret.env")
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True)
    built = list(yaml.safe_load_all(done.stdout))
    assert {item["metadata"].get("namespace") for item in built if item["kind"] != "Namespace"} == {"sluice"}
    secret = next(item for item in built if item["kind"] == "Secret")["metadata"]["name"]
    assert done.stdout.count(secret) > 3


# ---- scripts


def test_scripts_are_scripts(infra: Path) -> None:
    scripts = sorted((infra / "slurm").iterdir())
    assert len(scripts) == 3
    for script in scripts:
        subprocess.run(["bash", "-n", str(script)], check=True)


FAKE = """#!/bin/bash
echo "$@" >> calls
case "$(wc -l < calls)" in
  1|2) kill -SEGV $$ ;;
  *) exit ${LAST:-0} ;;
esac
"""


@pytest.mark.parametrize(("last", "calls"), [("0", 3), ("1", 3), ("2", 3)])
def test_an_array_task_goes_on_after_deaths_and_stops_at_errors(
    infra: Path, tmp_path: Path, last: str, calls: int
) -> None:
    fake = tmp_path / "sluice"
    fake.write_text(FAKE)
    fake.chmod(0o755)
    environment = {
        "PATH": "/usr/bin:/bin", "SLUICE": str(fake), "CAMPAIGN": "alloys.toml", "SHARDS": "4", "LAST": last,
        "SLURM_ARRAY_TASK_ID": "2", "SLURM_SUBMIT_DIR": str(tmp_path),
    }  # fmt: skip
    done = subprocess.run(
        ["bash", str(infra / "slurm" / "campaign.sbatch")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        check=False,
    )
    assert done.returncode == int(last)
    lines = (tmp_path / "calls").read_text().splitlines()
    assert lines == ["shard alloys.toml 2 --shards 4 --json"] * calls
