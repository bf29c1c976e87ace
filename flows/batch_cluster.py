"""Dask workers that a batch system starts: SLURM jobs or Kubernetes pods, as many as there is work for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flows.settings import Home, find_home, home_table
from gnn.errors import InputError

if TYPE_CHECKING:
    from distributed.deploy import Cluster

Batch = Literal["slurm", "kubernetes"]
BATCH_SYSTEMS: tuple[Batch, ...] = ("slurm", "kubernetes")
LOOPBACK = "127.0.0.1"
TABLE = "cluster"
PREFIX = "SLUICE_CLUSTER_"
COMING = "workers_to_come"
GPU = "GPU"
"""The resource of a Dask worker that has a GPU to itself."""
EXTRAS = {"slurm": "dask_jobqueue", "kubernetes": "dask_kubernetes.operator"}


class ClusterSettings(BaseModel):
    """`[cluster]` in sluice.toml, or SLUICE_CLUSTER_... in the environment: what one worker is, and how many come.

    A worker is one process with one thread a core. What dask-jobqueue reads from its own configuration file stands
    behind what is not set here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: int = Field(default=4, ge=1, description="most workers at one time: jobs or pods")
    at_least: int = Field(default=0, ge=0, description="workers that stay while there is no work")
    cores: int = Field(default=1, ge=1, description="of one worker")
    memory: str = Field(default="4GiB", description="of one worker")
    gpus: Literal[0, 1] = Field(default=0, description="of one worker: one process a GPU")
    walltime: str = Field(default="04:00:00", description="of one SLURM job")
    queue: str | None = Field(default=None, description="SLURM partition")
    account: str | None = Field(default=None, description="SLURM account")
    directives: list[str] = Field(default=[], description="further #SBATCH options, as '--constraint=a100'")
    prologue: list[str] = Field(default=[], description="lines before the worker starts, as 'module load cuda'")
    interface: str | None = Field(default=None, description="network interface that nodes share, as ib0")
    python: str | None = Field(default=None, description="the Python on the nodes, where it is not this one")
    image: str = Field(default="sluice:latest", description="container image of the pods")
    namespace: str = Field(default="default", description="Kubernetes namespace")
    home_claim: str = Field(default="sluice-home", description="volume claim that holds the home, for the pods")


def read_cluster_settings(home: Home | None = None) -> ClusterSettings:
    """The settings of the home, laid over by the environment.

    Raises:
        InputError: an unknown name or an impossible value; the message says which.
    """
    home = home or find_home()
    names = {f"{PREFIX}{name.upper()}": name for name in ClusterSettings.model_fields}
    given = {field: os.environ[name] for name, field in names.items() if os.environ.get(name)}
    try:
        return ClusterSettings.model_validate({**home_table(home, TABLE), **given})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or TABLE
        raise InputError(f"{TABLE}: {where}: {first['msg']} (got {first['input']!r})") from None


def batch_cluster(kind: Batch, settings: ClusterSettings, workers: int | None = None) -> Cluster:
    """A cluster whose workers come with the work, up to `workers` (else the settings' number).

    Raises:
        InputError: the package for it is not installed.
    """
    cluster = _slurm(settings) if kind == "slurm" else _kubernetes(settings)
    most = workers or settings.workers
    # in Kubernetes the operator decides when a worker has been idle for long enough
    patience = {"wait_count": 10} if kind == "slurm" else {}
    cluster.adapt(minimum=min(settings.at_least, most), maximum=most, **patience)
    vars(cluster)[COMING] = Coming(most, settings.gpus)
    return cluster


@dataclass(frozen=True)
class Coming:
    """Workers that a batch system will start when there is work: how many, and GPUs of each."""

    workers: int = 0
    gpus: int = 0


def coming(cluster: Any) -> Coming:
    """The workers that are yet to come, none where no batch system stands behind the cluster."""
    found: Coming = getattr(cluster, COMING, Coming())
    return found


def worker_arguments(settings: ClusterSettings) -> list[str]:
    """What is added to the command of a worker."""
    return ["--resources", f"{GPU}=1"] if settings.gpus else []


def slurm_options(settings: ClusterSettings) -> dict[str, Any]:
    """Arguments of `dask_jobqueue.SLURMCluster`; only what is set."""
    directives = [*([f"--gres=gpu:{settings.gpus}"] if settings.gpus else []), *settings.directives]
    options: dict[str, Any] = {
        "cores": settings.cores,
        "processes": 1,
        "memory": settings.memory,
        "walltime": settings.walltime,
        "queue": settings.queue,
        "account": settings.account,
        "interface": settings.interface,
        "python": settings.python,
        "worker_extra_args": worker_arguments(settings) or None,
        "job_extra_directives": directives or None,
        "job_script_prologue": settings.prologue or None,
        "job_name": "sluice",
    }
    return {name: value for name, value in options.items() if value is not None}


def _slurm(settings: ClusterSettings) -> Cluster:
    module = _required("slurm")
    folder = find_home().root / ".sluice" / "slurm"
    folder.mkdir(parents=True, exist_ok=True)
    cluster: Cluster = module.SLURMCluster(
        **slurm_options(settings),
        log_directory=str(folder),
        shared_temp_directory=str(folder),
        security=True,  # nodes reach the scheduler over the network: TLS with keys of this cluster alone
        scheduler_options={"dashboard_address": f"{LOOPBACK}:0"},
    )
    return cluster


def pod_spec(settings: ClusterSettings, make_cluster_spec: Any, home: Home) -> dict[str, Any]:
    """The DaskCluster resource: the operator's own, with the home mounted where it is here, and GPUs for workers alone.

    Its name is new each time: two flows of one name would share a cluster, and the first to end would delete it.
    """
    limits: dict[str, Any] = {"cpu": str(settings.cores), "memory": settings.memory.replace("GiB", "Gi")}
    if settings.gpus:
        limits["nvidia.com/gpu"] = settings.gpus
    spec: dict[str, Any] = make_cluster_spec(
        name=f"sluice-{uuid4().hex[:8]}",
        image=settings.image,
        n_workers=settings.at_least,
        resources={"limits": limits, "requests": {key: limits[key] for key in ("cpu", "memory")}},
        env={"SLUICE_HOME": str(home.root.resolve()), "OMP_NUM_THREADS": str(settings.cores)},
        worker_command=["dask", "worker", "--nthreads", "1", *worker_arguments(settings)],
    )
    pod = spec["spec"]["worker"]["spec"]
    pod["volumes"] = [{"name": "home", "persistentVolumeClaim": {"claimName": settings.home_claim}}]
    pod["containers"][0]["volumeMounts"] = [{"name": "home", "mountPath": str(home.root.resolve())}]
    asked = {key: limits[key] for key in ("cpu", "memory")}
    spec["spec"]["scheduler"]["spec"]["containers"][0]["resources"] = {"limits": asked, "requests": asked}
    return spec


def _kubernetes(settings: ClusterSettings) -> Cluster:
    module = _required("kubernetes")
    spec = pod_spec(settings, module.make_cluster_spec, find_home())
    cluster: Cluster = module.KubeCluster(custom_cluster_spec=spec, namespace=settings.namespace, quiet=True)
    return cluster


def _required(kind: Batch) -> Any:
    from importlib import import_module

    try:
        return import_module(EXTRAS[kind])
    except ModuleNotFoundError as error:
        raise InputError(
            f"--cluster {kind} needs {error.name}; `pip install 'sluice-materials[{kind}]'` brings it"
        ) from None
