"""The conversation of a worker: JSON lines in, JSON lines out; a model is built once and measured when asked."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from .fitting import Recipe, fit
from .frames import Frame, Targets, load_frames, targets_of

WARM_UPS = 2
"""Passes over every batch before anything is timed; TorchScript rewrites itself in the first two."""


class Adapter(Protocol):
    """What a worker knows of its package."""

    version: str

    def build(self, model: str, frames: Sequence[Frame], cutoff: float, seed: int) -> Any:
        """A fresh module for the elements and neighbours of `frames`, float32."""
        ...

    def prepared(self, frame: Frame) -> Any:
        """One structure as the package stores it, graph included where the package wants it beforehand."""
        ...

    def collate(self, prepared: Sequence[Any]) -> Any:
        """Prepared structures as one batch."""
        ...

    def forward(self, module: Any, batch: Any, training: bool) -> tuple[Any, Any]:
        """Energies (B,) in eV and forces (N, 3) in eV/Å; `training` keeps the graph."""
        ...


@runtime_checkable
class Trainable(Adapter, Protocol):
    """An adapter whose package can be trained by the loop in `fitting`."""

    def recipe(self, module: Any, frames: Sequence[Frame]) -> Recipe:
        """How the package's authors train it."""
        ...


@dataclass
class Bench:
    """An opened model with its batches on a device; `steps` counts what was run of each kind."""

    adapter: Adapter
    module: Any
    batches: dict[str, list[tuple[Any, Targets]]]
    optimiser: Any
    steps: dict[str, int]
    device: str = "cpu"

    def finish(self) -> None:
        """Wait until a GPU has done what it was given."""
        if self.device != "cpu":
            import torch

            torch.cuda.synchronize(self.device)

    def step(self, task: str) -> None:
        """One training step (forward, forces, loss, backward, update) or one inference (energies and forces)."""
        batches = self.batches[task]
        batch, targets = batches[self.steps[task] % len(batches)]
        self.steps[task] += 1
        self.module.train(task == "train")
        freeze(self.module, task != "train")
        if task != "train":
            self.adapter.forward(self.module, batch, False)
            return
        self.optimiser.zero_grad(set_to_none=True)
        energy, forces = self.adapter.forward(self.module, batch, True)
        error = (energy.reshape(-1).float() - targets.energy) / targets.n_atoms
        loss = error.square().mean() + (forces - targets.forces).square().mean()
        loss.backward()
        self.optimiser.step()


def opened(adapter: Adapter, request: dict[str, Any]) -> Bench:
    """Build the model and the batches that a request names."""
    import torch

    frames = load_frames(Path(request["frames"]))
    device = request.get("device", "cpu")
    module = moved(adapter.build(request["model"], frames, request["cutoff"], request["seed"]), device)
    batches = {
        task: [
            (
                moved(adapter.collate([adapter.prepared(frames[k]) for k in chosen]), device),
                targets_of([frames[k] for k in chosen]).to(device),
            )
            for chosen in request[task]
        ]
        for task in ("train", "infer")
    }
    optimiser = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=1e-5)
    return Bench(adapter, module, batches, optimiser, {"train": 0, "infer": 0}, device)


def moved(value: Any, device: str) -> Any:
    """A module or a package's batch on `device`; what holds no tensors stays as it is."""
    if isinstance(value, dict):
        return {name: moved(item, device) for name, item in value.items()}
    return value.to(device) if hasattr(value, "to") else value


def timed(bench: Bench, task: str, seconds: float, least: int) -> dict[str, list[float]]:
    """CPU and wall seconds of single steps, each waited for, for at least `seconds` of CPU and `least` steps."""
    cpu: list[float] = []
    wall: list[float] = []
    while len(cpu) < least or sum(cpu) < seconds:
        started, began = time.process_time(), time.perf_counter()
        bench.step(task)
        bench.finish()
        cpu.append(time.process_time() - started)
        wall.append(time.perf_counter() - began)
    return {"cpu_s": cpu, "wall_s": wall}


def freeze(module: Any, frozen: bool) -> None:
    """Let no weight ask for a gradient, as the packages' calculators have them, or all of them."""
    if next(module.parameters()).requires_grad == frozen:
        module.requires_grad_(not frozen)


def n_weights(module: Any) -> int:
    """Trainable numbers of a module."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def peak_mb(device: str = "cpu") -> float:
    """Largest memory so far, MB: of a GPU what tensors took, else of this process what was resident."""
    if device != "cpu":
        import torch

        return torch.cuda.max_memory_allocated(device) / 1e6
    return resident_mb()


def resident_mb() -> float:
    """Largest resident memory of this process; getrusage's would start from the parent's on Linux."""
    status = Path("/proc/self/status")
    if status.is_file():
        lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return float(lines[0].split()[1]) * 1024 / 1e6
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (1e6 if sys.platform == "darwin" else 1e3)


class Session:
    """Answers requests: `open`, `time`, `fit`, and whatever `more` adds."""

    def __init__(self, make: Callable[[], Adapter], more: dict[str, Callable[..., Any]] | None = None) -> None:
        self.make = make
        self.more = more or {}
        self.bench: Bench | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """One request's answer."""
        kind = request["do"]
        if kind == "open":
            return self.open(request)
        if kind == "fit":
            return self.fit(request)
        if self.bench is None:
            raise RuntimeError(f"{kind} was asked before open")
        if kind == "time":
            found = timed(self.bench, request["task"], request["seconds"], request["least"])
            return {**found, "peak_mb": peak_mb(self.bench.device)}
        answer: dict[str, Any] = self.more[kind](self.bench, request)
        return answer

    def open(self, request: dict[str, Any]) -> dict[str, Any]:
        """Build a model, warm it up, and say what it is."""
        settle(request.get("core"), request["seed"])
        started = time.process_time()
        adapter = self.make()
        imported = peak_mb()
        self.bench = opened(adapter, request)
        parameters = n_weights(self.bench.module)
        for task, batches in self.bench.batches.items():
            for _ in range(WARM_UPS * len(batches) if request.get("warm", True) else 0):
                self.bench.step(task)
        return {
            "version": adapter.version,
            "parameters": parameters,
            "import_mb": imported,
            "open_cpu_s": time.process_time() - started,
        }

    def fit(self, request: dict[str, Any]) -> dict[str, Any]:
        """Train a fresh model for a budget and test it."""
        settle(request.get("core"), request["seed"])
        adapter = self.make()
        if not isinstance(adapter, Trainable):
            raise TypeError(f"{adapter.version} is not trained by a worker")
        fitted, tested = (load_frames(Path(request[name])) for name in ("frames", "test"))
        started = time.process_time()
        module = adapter.build(request["model"], fitted, request["cutoff"], request["seed"])
        result = fit(adapter, module, fitted, tested, request["cpu_s"], request["seed"], started)
        return {
            "version": adapter.version,
            "parameters": n_weights(module),
            "peak_mb": peak_mb(),
            **asdict(result),
        }


def settle(core: int | None, seed: int) -> None:
    """One thread, one core where one is named, one seed; torch's slow imports done before anything is timed."""
    import torch

    torch.optim.Adam([torch.zeros(1)])

    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    torch.manual_seed(seed)


@contextmanager
def own_stdout() -> Iterator[Any]:
    """Keep stdout for answers: what libraries print goes to stderr instead."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        yield answers


def converse(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer requests until stdin ends."""
    with own_stdout() as answers:
        for line in sys.stdin:
            answers.write(json.dumps(answer(json.loads(line))) + "\n")
            answers.flush()


def serve(make: Callable[[], Adapter], more: dict[str, Callable[..., Any]] | None = None) -> None:
    """Be the worker of an adapter."""
    converse(Session(make, more).answer)
