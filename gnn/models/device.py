"""The device that a network runs on."""

from __future__ import annotations

import torch

from gnn.errors import InputError
from gnn.machine import processor


def device_of(name: str) -> torch.device:
    """The device called `name`.

    Raises:
        InputError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device {name!r} is not known; write cpu, cuda, cuda:1 or auto") from None
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device {name!r} is not known; write cpu, cuda, cuda:1 or auto")
    if device.type == "cuda" and not (device.index or 0) < torch.cuda.device_count():
        raise InputError(f"device {name!r} is not on this machine, which has {torch.cuda.device_count()} GPUs")
    return device


def device_name(device: torch.device) -> str:
    """The name of the GPU or of the processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
