"""Crystals with a property as one file of plain arrays: every atom's nearest neighbours, as CGCNN takes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

RADIUS, NEIGHBOURS = 8.0, 12
"""Å and number: what CGCNN sees of an atom (Xie & Grossman, arXiv:1710.10324)."""


@dataclass(frozen=True)
class Crystals:
    """B crystals of N atoms in all, K neighbours an atom.

    numbers (N,); nearest (N, K), which atoms, counted over all crystals; distance (N, K) Å; first (B + 1,), where each
    crystal's atoms begin, and N; target (B,), the property in its unit.
    """

    numbers: NDArray[np.int64]
    nearest: NDArray[np.int64]
    distance: NDArray[np.float32]
    first: NDArray[np.int64]
    target: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.target)


def save_crystals(path: Path, crystals: Crystals) -> Path:
    """Write an .npz file."""
    np.savez(path, **{name: getattr(crystals, name) for name in Crystals.__dataclass_fields__})
    return path


def load_crystals(path: Path) -> Crystals:
    """Read what `save_crystals` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        return Crystals(**{name: stored[name] for name in stored.files})


def chosen_crystals(crystals: Crystals, chosen: Any) -> Crystals:
    """Some crystals, in the order of `chosen`, as a set of their own."""
    starts, ends = crystals.first[:-1][chosen], crystals.first[1:][chosen]
    rows = np.concatenate([np.arange(a, b) for a, b in zip(starts, ends, strict=True)])
    first = np.concatenate([[0], np.cumsum(ends - starts)])
    moved = np.repeat(first[:-1] - starts, ends - starts)
    return Crystals(
        numbers=crystals.numbers[rows],
        nearest=crystals.nearest[rows] + moved[:, None],
        distance=crystals.distance[rows],
        first=first,
        target=crystals.target[chosen],
    )
