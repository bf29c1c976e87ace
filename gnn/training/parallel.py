"""Processes that train one network together: each takes its part of every batch, gradients are added up."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, distributed

from gnn.models.device import device_of


class Replicas(Protocol):
    """The processes of a training; `rank` is this one's place among `size`."""

    rank: int
    size: int

    @property
    def leads(self) -> bool:
        """Whether this process writes files and reports."""
        ...

    def summed(self, values: Sequence[float]) -> list[float]:
        """Numbers added up over all processes, in float64."""
        ...

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes; every process gives the same shapes."""
        ...


class Alone:
    """One process."""

    rank, size, leads = 0, 1, True

    def summed(self, values: Sequence[float]) -> list[float]:
        """The numbers themselves."""
        return list(values)

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Nothing to do."""


class Group:
    """Processes connected by torch.distributed, whose default group is open; `device` is where this one computes."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()

    @property
    def leads(self) -> bool:
        """Whether this is the first process."""
        return self.rank == 0

    def summed(self, values: Sequence[float]) -> list[float]:
        """Numbers added up over all processes, in float64."""
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return [float(value) for value in total.tolist()]

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, in one message."""
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        distributed.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))


@contextmanager
def replicas(device: str) -> Iterator[tuple[Replicas, torch.device]]:
    """The processes that `torchrun` started, and this one's device; one process alone where it started none.

    A default group of torch.distributed that is open already is used and left open.

    Raises:
        InputError: there is no such device here.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield Alone(), device_of(device)
        return
    place = own_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    opened = not distributed.is_initialized()
    if opened:
        distributed.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield Group(place), place
    finally:
        if opened:
            distributed.destroy_process_group()


def own_device(device: str, local_rank: int) -> torch.device:
    """The GPU of this process among those of its machine; the CPU where that is the device."""
    kind = device_of(device)
    place = kind if kind.type == "cpu" else device_of(f"{kind.type}:{local_rank}")
    if place.type == "cuda":
        torch.cuda.set_device(place)
    return place


def add_up_gradients(processes: Replicas, parameters: Sequence[Tensor], others: Sequence[Tensor]) -> None:
    """Replace gradients and `others` by their sums over all processes, in one message.

    A parameter that no process has a gradient for keeps none: zeros would let the optimiser's momentum move it.
    """
    known = others[0].new_tensor([parameter.grad is not None for parameter in parameters])
    processes.add_up([*gradients(parameters), known, *others])
    for parameter, n_processes in zip(parameters, known.tolist(), strict=True):
        if n_processes == 0:
            parameter.grad = None


def gradients(parameters: Iterable[Tensor]) -> list[Tensor]:
    """The gradient of every parameter, zeros where it has none yet."""
    found = []
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        found.append(parameter.grad)
    return found
