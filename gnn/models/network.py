"""What a network family is: structures and bond vectors in, invariant features of every atom out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn

from gnn.graphs.batch import Batch
from gnn.models.ace import AceNetwork
from gnn.models.config import ModelConfig
from gnn.models.tensor import TensorNetwork

Features = list[Tensor]
"""Invariant features of every atom, one tensor (N, channels) a layer."""


class Network(Protocol):
    """A family: `network(batch, vectors, elements) -> Features`.

    vectors (E, 3) Å are the only way in for the geometry, so that one derivative gives forces and stress;
    elements (N,) int64 are indices into `ModelConfig.elements`. Features depend smoothly on the vectors, vanish with
    them at the cutoff, and are invariant to rotation and reflection.
    """

    def __call__(self, batch: Batch, vectors: Tensor, elements: Tensor) -> Features:
        """Shapes: vectors (E, 3), elements (N,) -> (N, channels) a layer."""
        ...


FAMILIES: dict[str, Callable[[ModelConfig], nn.Module]] = {"ace": AceNetwork, "tensor": TensorNetwork}
"""Every family by its name in `ModelConfig.family`."""
