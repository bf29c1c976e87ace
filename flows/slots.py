"""One training at a time on each accelerator, over all workers that share a Prefect server."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows.events import server_address
from gnn.errors import InputError

if TYPE_CHECKING:
    from gnn.training.config import TrainConfig

TRY_S, WAIT_S = 15.0, 10.0
"""How long one of several accelerators is asked for before the next, and the pause after the last."""
LEASE_S = 120.0
"""How long the slot of a process that died stays taken."""


@dataclass(frozen=True)
class Accelerator:
    """A device by torch's name, and a name for it that no other machine or process uses for another device."""

    device: str
    limit: str


def accelerators(device: str) -> list[Accelerator]:
    """What a training on `device` may run on: every GPU that this process sees for "auto" and "cuda", else one.

    Raises:
        InputError: there is no such device here.
    """
    import torch

    from gnn.models.device import device_of

    found = device_of(device)
    if found.type != "cuda":
        return [Accelerator(str(found), f"sluice-{found.type}-{platform.node()}")]
    indices = range(torch.cuda.device_count()) if found.index is None else [found.index]
    return [Accelerator(f"cuda:{i}", f"sluice-gpu-{torch.cuda.get_device_properties(i).uuid}") for i in indices]


@contextmanager
def training_slot(choices: Sequence[Accelerator], wait_s: float = WAIT_S) -> Iterator[str]:
    """Hold the first accelerator that is free, waiting until one is; the device's name for torch.

    The slot is a global concurrency limit of the Prefect server, one a device, made when it is first needed. Without a
    standing server nothing is held: whoever starts trainings by hand sees to it that they do not meet.

    Raises:
        InputError: there is no device to choose from.
    """
    if not choices:
        raise InputError("no device to train on")
    if server_address() is None:
        yield choices[0].device
        return
    for choice in choices:
        _make_limit(choice.limit)
    patience = None if len(choices) == 1 else TRY_S
    while True:
        for choice in choices:
            with _held(choice.limit, patience) as got:
                if got:
                    yield choice.device
                    return
        time.sleep(wait_s)


@contextmanager
def every_slot(choices: Sequence[Accelerator]) -> Iterator[None]:
    """Hold all of the accelerators, for a training that is spread over them.

    They are taken in one order, and nobody else waits for one while holding another, so that two never wait for each
    other.
    """
    if server_address() is None:
        yield
        return
    with ExitStack() as stack:
        for limit in sorted(choice.limit for choice in choices):
            _make_limit(limit)
            while not stack.enter_context(_held(limit, None)):
                time.sleep(WAIT_S)
        yield


@contextmanager
def on_free_device(config: TrainConfig) -> Iterator[TrainConfig]:
    """Hold what a training runs on: the first device that is free, or all where it takes more; the configuration so.

    Raises:
        InputError: there is no such device here.
    """
    choices = accelerators(config.device)
    if config.in_processes:
        with every_slot(choices):
            yield config
    else:
        with training_slot(choices) as device:
            yield config.model_copy(update={"device": device})


def _make_limit(name: str) -> None:
    """Have a limit of one slot of this name."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            try:
                client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))
            except ObjectAlreadyExists:
                return  # another training made it between the two calls


@contextmanager
def _held(limit: str, patience: float | None) -> Iterator[bool]:
    """Hold the slot of a limit, waiting for it so many seconds (None: as long as it takes); whether it is held."""
    from prefect.concurrency.sync import concurrency

    with ExitStack() as stack:
        try:
            with _quiet():
                stack.enter_context(
                    concurrency(limit, timeout_seconds=patience, lease_duration=LEASE_S, strict=True,
                                raise_on_lease_renewal_failure=False)
                )  # fmt: skip
        except TimeoutError:
            yield False
            return
        yield True


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Prefect from logging as an error that a slot is taken."""
    logger = logging.getLogger("prefect._internal.concurrency")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
