"""What a training needs of its data; `gnn.graphs.loader.GraphData` is one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from gnn.graphs.batch import Batch
from gnn.graphs.graph_set import GraphSet, Split


class TrainingData(Protocol):
    """A graph set whose structures come in batches."""

    @property
    def graph_set(self) -> GraphSet:
        """The manifest."""
        ...

    def batches(
        self,
        split: Split,
        max_atoms: int,
        max_edges: int | None = None,
        seed: int = 0,
        epoch: int = 0,
        shuffle: bool = True,
        start: int = 0,
        stride: int = 1,
        helpers: bool = True,
    ) -> Iterator[Batch]:
        """One pass over a split, packed by size: batches start, start + stride, …; equal for equal (seed, epoch).

        `helpers`: whether a shuffled pass over the training split shows them; it is about as long without.
        """
        ...
