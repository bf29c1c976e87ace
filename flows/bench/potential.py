"""Our networks beside other packages on the same structures in one run: training step, inference, memory, floor.

Every model is a process of its own with one thread on one core, all with the same allocator settings. They are measured
in turn, A B C, A B C, …; figures are medians over rounds of CPU seconds (user + system), ratios are those of a round.
On a GPU every step is waited for and wall seconds count.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from flows.bench.frames import frames_of, read_graphs, set_file, spread_batches
from flows.bench.peers.client import OWN, Worker, command_of, worker
from flows.bench.peers.environments import PEERS, peer_named
from flows.bench.peers.workers.frames import Frame, save_frames
from flows.bench.rounds import in_turn
from flows.cli.output import say
from gnn.errors import InputError, SluiceError, one_line

TASKS = ("train", "infer")
SIZES: dict[str, tuple[int, int]] = {"3bpa": (8, 32), "si": (4, 8)}
"""Structures a training batch and an inference batch, by set."""
GPU_SIZES: dict[str, tuple[int, int]] = {"3bpa": (32, 128), "si": (16, 64)}
"""The same on a GPU, which smaller ones would not fill."""
TRAIN_BATCHES = 3
TABULATED = "-tabulated"
"""Ending of a model of ours whose radial functions are tables: work that is avoided, listed apart."""
COMPILED = "-compiled"
"""Ending of a model of ours or NequIP's whose energies and slopes are one compiled program."""
OWN_MODELS = ("ace_64_L0", "ace_64_L1")
TENSOR = "tensor_64"


@dataclass(frozen=True)
class Contender:
    """A package (`sluice` or a peer's name) and one of its models."""

    package: str
    model: str

    @property
    def name(self) -> str:
        """`PACKAGE MODEL`."""
        return f"{self.package} {self.model}"

    @property
    def tasks(self) -> tuple[str, ...]:
        """What it can do: a network with tabulated radial functions only predicts."""
        return ("infer",) if self.model.endswith(TABULATED) else TASKS


@dataclass(frozen=True)
class Settings:
    """What is measured, where, and for how long. `core`: the core that all run on; None leaves it to the system."""

    data: Path
    peers_home: Path
    sets: tuple[str, ...] = ("3bpa", "si")
    contenders: tuple[Contender, ...] = ()
    rounds: int = 4
    seconds: float = 1.0
    cutoff: float = 5.0
    seed: int = 0
    core: int | None = None
    device: str = "cpu"

    @property
    def clock(self) -> str:
        """Which seconds of a worker count."""
        return "cpu_s" if self.device == "cpu" else "wall_s"


@dataclass
class Measured:
    """What one contender gave on one set: seconds of a step by task, one entry a round, and its memory in MB."""

    version: str
    parameters: int
    import_mb: float
    peak_mb: float = 0.0
    seconds: dict[str, list[float]] = field(default_factory=lambda: {task: [] for task in TASKS})
    floors: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class SetResult:
    """All contenders on one set; atoms of a training batch (mean) and of the inference batch."""

    name: str
    atoms: dict[str, float]
    measured: dict[str, Measured]


def default_contenders(compiled: bool = False, device: str = "cpu") -> tuple[Contender, ...]:
    """Our families that there are, then every peer's models; `compiled` adds those that are compiled first.

    On a GPU the peers' models for GPUs come too.
    """
    from gnn.models.network import FAMILIES

    own = [*OWN_MODELS, *([TENSOR] if "tensor" in FAMILIES else [])]
    own += [f"{model}{ending}" for ending in (TABULATED, *([COMPILED] if compiled else [])) for model in own]
    on_gpu = device != "cpu"
    peers = [Contender(p.name, model) for p in PEERS.values() for model in (*p.speed, *(p.on_gpu if on_gpu else ()))]
    extra = [Contender("nequip", f"S{COMPILED}")] if compiled else []
    return (*(Contender(OWN, model) for model in own), *peers, *extra)


def parse_contender(text: str) -> Contender:
    """`PACKAGE:MODEL`, as `mace:64_L0`.

    Raises:
        InputError: it is not of that form, or the package is unknown.
    """
    package, separator, model = text.partition(":")
    if not separator or not model:
        raise InputError(f"--model {text!r} is not of the form PACKAGE:MODEL, as mace:64_L0 or {OWN}:ace_64_L0")
    if package != OWN:
        peer_named(package)
    return Contender(package, model)


def run(settings: Settings) -> list[SetResult]:
    """Measure every set.

    Raises:
        InputError: data or a peer is missing.
        SluiceError: a worker failed.
    """
    contenders = settings.contenders or default_contenders()
    return [measure_set(settings, name, contenders) for name in settings.sets]


def check(settings: Settings) -> None:
    """Find what is missing before anything is measured.

    Raises:
        InputError: a set is unknown, its file is not there, or a peer is not installed.
    """
    for name in settings.sets:
        set_file(settings.data, name)
    for contender in settings.contenders:
        command_of(contender.package, settings.peers_home)


def measure_set(settings: Settings, name: str, contenders: Sequence[Contender]) -> SetResult:
    """All contenders on one set, in turn."""
    frames = frames_of(read_graphs(settings.data, name, settings.cutoff))
    batches = batches_of(name, len(frames), settings.device)
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as scratch, ExitStack() as stack:
        path = save_frames(Path(scratch) / "frames.npz", frames)
        request = {name: getattr(settings, name) for name in ("cutoff", "seed", "core", "device")}
        request["frames"] = str(path)
        workers = {c.name: stack.enter_context(worker(c.package, settings.peers_home)) for c in contenders}
        measured = opened_together(workers, contenders, request | batches)
        time_in_turn(contenders, workers, measured, settings)
        for c in contenders:
            if c.package == OWN and not c.model.endswith(COMPILED) and settings.device == "cpu":
                measured[c.name].floors = floors_of(workers[c.name], c)
    return SetResult(name, {task: mean_atoms(frames, batches[task]) for task in TASKS}, measured)


def floors_of(own: Worker, contender: Contender) -> dict[str, dict[str, float]]:
    """The floor of every task; one that cannot be found is told and costs nothing else."""
    try:
        return {task: own.ask(do="floor", task=task) for task in contender.tasks}
    except SluiceError as error:
        say(f"no floor: {one_line(error)}")
        return {}


def batches_of(name: str, n_frames: int, device: str = "cpu") -> dict[str, list[list[int]]]:
    """Indices of the training batches and of the inference batch of a set."""
    train, infer = (SIZES if device == "cpu" else GPU_SIZES)[name]
    return {"train": spread_batches(n_frames, train, TRAIN_BATCHES), "infer": spread_batches(n_frames, infer, 1)}


def mean_atoms(frames: Sequence[Frame], batches: Sequence[Sequence[int]]) -> float:
    """Atoms a batch."""
    return sum(frames[k].n_atoms for batch in batches for k in batch) / len(batches)


def opened_together(
    workers: dict[str, Worker], contenders: Sequence[Contender], request: dict[str, Any]
) -> dict[str, Measured]:
    """Build and warm up all models, as many at a time as there are cores: compiling takes minutes."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        found = pool.map(lambda c: opened(workers[c.name], c, request), contenders)
        return {c.name: measured for c, measured in zip(contenders, found, strict=True)}


def opened(own: Worker, contender: Contender, request: dict[str, Any]) -> Measured:
    """Build and warm up one contender's model."""
    batches = {task: request[task] if task in contender.tasks else [] for task in TASKS}
    found = own.ask(do="open", model=contender.model, **(request | batches))
    say(f"{contender.name}: {found['version']}, {found['parameters']} weights")
    return Measured(found["version"], found["parameters"], found["import_mb"])


def time_in_turn(
    contenders: Sequence[Contender], workers: dict[str, Worker], measured: dict[str, Measured], settings: Settings
) -> None:
    """Rounds of training steps and inferences."""

    def one(contender: Contender) -> None:
        own = measured[contender.name]
        for task in contender.tasks:
            found = workers[contender.name].ask(do="time", task=task, seconds=settings.seconds, least=2)
            own.seconds[task].append(median(found[settings.clock]))
            own.peak_mb = found["peak_mb"]

    in_turn(contenders, settings.rounds, one)


def last_core() -> int | None:
    """The last core that this process may use; None where the system does not say."""
    return max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
