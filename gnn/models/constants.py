"""Modules whose constants stay exact when the weights change their precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn


class ExactConstants(nn.Module):
    """A module whose floating-point buffers keep float64 under `.float()` and `.half()`; they move between devices.

    Without this `model.float().double()` would leave constants rounded to float32.
    """

    def constant(self, name: str, values: Any) -> None:
        """Register an exact, unsaved buffer; floating-point values become float64."""
        tensor = torch.as_tensor(values)
        self.register_buffer(name, tensor.double() if tensor.is_floating_point() else tensor, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        exact = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        super()._apply(fn, recurse)
        for name, buffer in exact.items():
            moved = self._buffers[name]
            if moved is not None and buffer.is_floating_point():
                self._buffers[name] = buffer.to(moved.device)
        return self
