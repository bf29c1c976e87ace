"""Workers of batch systems and GPUs: settings, job scripts and pods, without either system."""

from __future__ import annotations

import inspect
import subprocess
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from flows import batch_cluster
from flows.batch_cluster import (
    COMING,
    ClusterSettings,
    Coming,
    coming,
    pod_spec,
    read_cluster_settings,
    slurm_options,
)
from flows.cluster import slots, worker_options
from flows.gpus import gpu_slots, local_gpus
from flows.settings import Home
from gnn.errors import InputError


def test_settings_come_from_the_home_and_the_environment(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_cluster_settings(home) == ClusterSettings()
    (home.root / "sluice.toml").write_text('[cluster]\nworkers = 8\nqueue = "short"\ndirectives = ["--exclusive"]\n')
    monkeypatch.setenv("SLUICE_CLUSTER_QUEUE", "long")
    found = read_cluster_settings(home)
    assert (found.workers, found.queue, found.directives) == (8, "long", ["--exclusive"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[cluster]\nworkers = 0\n", "cluster: workers: .*greater than or equal to 1.*got 0"),
        ("[cluster]\ngpus = 2\n", "cluster: gpus: "),
        ("[cluster]\nnodes = 2\n", "cluster: nodes: Extra inputs"),
        ("cluster = 3\n", "is no table"),
        ("[cluster\n", "is not TOML"),
    ],
)
def test_mistakes_are_named(home: Home, text: str, words: str) -> None:
    (home.root / "sluice.toml").write_text(text)
    with pytest.raises(InputError, match=words):
        read_cluster_settings(home)


def test_options_of_a_job_are_those_that_are_set() -> None:
    plain = slurm_options(ClusterSettings())
    assert plain["processes"] == 1
    assert "queue" not in plain
    assert "worker_extra_args" not in plain
    rich = slurm_options(
        ClusterSettings(gpus=1, queue="gpu", directives=["--exclusive"], prologue=["module load cuda"])
    )
    assert rich["job_extra_directives"] == ["--gres=gpu:1", "--exclusive"]
    assert rich["worker_extra_args"] == ["--resources", "GPU=1"]
    assert (rich["queue"], rich["job_script_prologue"]) == ("gpu", ["module load cuda"])


def test_the_job_script_of_a_gpu_worker(home: Home, tmp_path: Path) -> None:
    jobqueue = pytest.importorskip("dask_jobqueue.slurm")
    options = slurm_options(ClusterSettings(gpus=1, queue="gpu", memory="8GiB", walltime="01:00:00"))
    script = jobqueue.SLURMJob("tcp://127.0.0.1:8786", name="1", **options).job_script()
    for line in ("#SBATCH -p gpu", "#SBATCH --gres=gpu:1", "#SBATCH --mem=8G", "#SBATCH -t 01:00:00", "GPU=1"):
        assert line in script, script
    path = tmp_path / "job.sh"
    path.write_text(script)
    subprocess.run(["bash", "-n", str(path)], check=True)


def make_cluster_spec(**given: Any) -> dict[str, Any]:
    """What dask-kubernetes makes of these arguments, in outline."""
    container = {"name": "worker", "image": given["image"], "args": given["worker_command"], "env": given["env"],
                 "resources": given["resources"]}  # fmt: skip
    scheduler = {"name": "scheduler", "resources": given["resources"]}
    return {
        "kind": "DaskCluster",
        "metadata": {"name": given["name"]},
        "spec": {
            "worker": {"replicas": given["n_workers"], "spec": {"containers": [container]}},
            "scheduler": {"spec": {"containers": [scheduler]}},
        },
    }


@pytest.mark.parametrize("gpus", [0, 1])
def test_pods_have_the_home_and_the_gpu(home: Home, gpus: int) -> None:
    spec = pod_spec(ClusterSettings(gpus=gpus, image="sluice:1", home_claim="disk"), make_cluster_spec, home)
    pod = spec["spec"]["worker"]["spec"]
    container = pod["containers"][0]
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "disk"
    assert container["volumeMounts"][0]["mountPath"] == container["env"]["SLUICE_HOME"] == str(home.root.resolve())
    assert container["resources"]["limits"].get("nvidia.com/gpu", 0) == gpus
    assert ("GPU=1" in container["args"]) == bool(gpus)
    (scheduler,) = spec["spec"]["scheduler"]["spec"]["containers"]
    assert set(scheduler["resources"]["limits"]) == {"cpu", "memory"}


def test_pods_by_the_real_package(home: Home) -> None:
    operator = pytest.importorskip("dask_kubernetes.operator")
    spec = pod_spec(ClusterSettings(gpus=1), operator.make_cluster_spec, home)
    assert spec["kind"] == "DaskCluster"
    assert spec["metadata"]["name"] != pod_spec(ClusterSettings(), operator.make_cluster_spec, home)["metadata"]["name"]
    assert spec["spec"]["worker"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "nvidia.com/gpu" not in spec["spec"]["scheduler"]["spec"]["containers"][0]["resources"]["limits"]


def test_the_real_package_takes_our_arguments(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its constructor and `adapt` are asked by their signatures, since both want a Kubernetes."""
    operator = pytest.importorskip("dask_kubernetes.operator")
    asked = []

    class Cluster:
        def __init__(self, **given: Any) -> None:
            asked.append(inspect.signature(operator.KubeCluster).bind(**given).arguments)

        def adapt(self, **given: Any) -> None:
            asked.append(inspect.signature(operator.KubeCluster.adapt).bind(self, **given).arguments)

    real = SimpleNamespace(KubeCluster=Cluster, make_cluster_spec=operator.make_cluster_spec)
    monkeypatch.setattr(batch_cluster, "_required", lambda _: real)
    cluster = batch_cluster.batch_cluster("kubernetes", ClusterSettings(workers=8, gpus=1, namespace="lab"), workers=3)
    made, bounds = asked
    assert (made["namespace"], made["quiet"]) == ("lab", True)
    assert (bounds["minimum"], bounds["maximum"]) == (0, 3)
    assert coming(cluster) == Coming(workers=3, gpus=1)


@pytest.mark.parametrize("kind", ["slurm", "kubernetes"])
def test_a_missing_package_is_named(kind: Any, monkeypatch: pytest.MonkeyPatch, home: Home) -> None:
    monkeypatch.setitem(batch_cluster.EXTRAS, kind, "no_such_package")
    with pytest.raises(
        InputError, match=rf"--cluster {kind} needs no_such_package; `pip install 'sluice-mat.*\[{kind}\]"
    ):
        batch_cluster.batch_cluster(kind, ClusterSettings())


def test_workers_come_with_the_work(monkeypatch: pytest.MonkeyPatch, home: Home) -> None:
    asked = {}

    class Cluster:
        def __init__(self, **options: Any) -> None:
            asked.update(options)

        def adapt(self, **bounds: int) -> None:
            asked.update(bounds)

    module = ModuleType("jobs")
    module.SLURMCluster = Cluster  # type: ignore[attr-defined]
    monkeypatch.setattr(batch_cluster, "_required", lambda _: module)
    cluster = batch_cluster.batch_cluster("slurm", ClusterSettings(workers=8, at_least=1), workers=3)
    assert coming(cluster) == Coming(workers=3)
    assert (asked["minimum"], asked["maximum"]) == (1, 3)
    assert asked["security"] is True
    assert asked["scheduler_options"]["dashboard_address"].startswith("127.0.0.1:")


def client(workers: dict[str, dict[str, float]], **cluster: Any) -> Any:
    info = {"workers": {name: {"resources": resources} for name, resources in workers.items()}}
    return SimpleNamespace(
        cluster=SimpleNamespace(**cluster),
        scheduler_info=lambda n_workers=5: info,
        nthreads=lambda: dict.fromkeys(workers, 1),
    )


def test_gpus_of_a_cluster() -> None:
    assert gpu_slots(client({"a": {}, "b": {}})) == 0
    assert gpu_slots(client({"a": {"GPU": 1.0}, "b": {}})) == 1
    assert gpu_slots(client({}, **{COMING: Coming(workers=4, gpus=1)})) == 4
    assert gpu_slots(client({"a": {}}, **{COMING: Coming(workers=4, gpus=0)})) == 0


def test_workers_that_are_yet_to_come_count() -> None:
    assert slots(client({})) == 1
    assert slots(client({"a": {}}, **{COMING: Coming(workers=6)})) == 6


@pytest.mark.parametrize(("visible", "expected"), [("0,1", ["0", "1"]), ("", []), ("-1", []), ("GPU-3f", ["GPU-3f"])])
def test_gpus_of_this_machine(monkeypatch: pytest.MonkeyPatch, visible: str, expected: list[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert local_gpus() == expected


def test_gpus_the_driver_lists(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("flows.gpus.DRIVER", tmp_path / "none")
    assert local_gpus() == []
    for bus in ("0000:01:00.0", "0000:41:00.0"):
        (tmp_path / bus).mkdir()
    monkeypatch.setattr("flows.gpus.DRIVER", tmp_path)
    assert local_gpus() == ["0", "1"]


def test_each_gpu_has_one_process_and_the_others_see_none() -> None:
    options = [worker_options(["0", "1"], number) for number in range(3)]
    assert [one["resources"] for one in options] == [{"GPU": 1}, {"GPU": 1}, {}]
    assert [one["env"]["CUDA_VISIBLE_DEVICES"] for one in options] == ["0", "1", ""]


@pytest.mark.slow
def test_shards_that_need_a_gpu_go_where_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    from flows.cluster import dask_client

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with dask_client("local", workers=2) as found:
        assert gpu_slots(found) == 1
        futures = [found.submit(os.getenv, "CUDA_VISIBLE_DEVICES", pure=False, resources={"GPU": 1}) for _ in range(4)]
        assert [future.result() for future in futures] == ["7"] * 4
