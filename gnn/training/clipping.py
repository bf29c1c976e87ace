"""Clipping of gradients against their own running norm."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor, nn

from gnn.training.ema import decay_at

MEMORY = 0.99
"""Decay of the running norm: it looks back some hundred steps."""


def clip_gradients(parameters: Iterable[Tensor], running: float | None, largest: float) -> float:
    """Scale the gradients so that their joint norm is at most `largest` times the running one; the norm before.

    After AutoClip (Seetharaman et al., arXiv:2007.14469). Norms differ by orders of magnitude between data sets, and
    fall in a training: a fixed limit that suits one is none for another, and a batch whose loss is a thousand times the
    usual one (a cell squeezed to half of its volume) then steers the momentum for the next fifty steps.

    Args:
        parameters: the weights whose gradients are scaled in place.
        largest: longest gradient, in running norms.
        running: mean norm of the steps before; None or 0: nothing is known of it, and nothing is clipped.
    """
    limit = largest * running if running else math.inf
    return float(nn.utils.clip_grad_norm_(parameters, limit))


def running_norm(running: float | None, norm: float, largest: float, step: int) -> float:
    """The running norm with that of `step` (0, 1, …), clipped, in it; its memory grows to that of a hundred steps."""
    if not running:
        return norm
    decay = decay_at(step, MEMORY)
    return decay * running + (1 - decay) * min(norm, largest * running)
