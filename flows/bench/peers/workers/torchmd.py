"""TensorNet (torchmd-net). Models: tnLAYERS_CHANNELS, as `tn2_64`.

The package builds neighbour lists of molecules itself; it refuses cells narrower than two cutoffs, so crystals get
their edges beforehand, at no cost in the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from .fitting import Recipe, last_part
from .frames import Frame, joined_edges
from .session import serve

WARM_UP_STEPS = 500
LEARNING_RATE = 1e-3


def settings(model: str, cutoff: float) -> dict[str, Any]:
    """The package's example configuration of TensorNet with this many layers and channels."""
    layers, channels = model.removeprefix("tn").split("_")
    return {
        "model": "tensornet",
        "num_layers": int(layers),
        "embedding_dimension": int(channels),
        "cutoff_lower": 0.0,
        "cutoff_upper": cutoff,
        "num_rbf": 32,
        "rbf_type": "expnorm",
        "trainable_rbf": False,
        "activation": "silu",
        "max_z": 100,
        "max_num_neighbors": 64,
        "equivariance_invariance_group": "O(3)",
        "output_model": "Scalar",
        "reduce_op": "sum",
        "derivative": True,
        "precision": 32,
        "prior_model": None,
        "atom_filter": -1,
    }


class Torchmd:
    """The adapter."""

    def __init__(self) -> None:
        import torch

        torch.set_default_dtype(torch.float32)
        self.version = f"torchmd-net {version('torchmd-net')}"

    def build(self, model: str, frames: Sequence[Frame], cutoff: float, seed: int) -> Any:
        """The package's model; energies scaled by their standard deviation."""
        import torch
        from torchmdnet.models.model import create_model

        torch.manual_seed(seed)
        scale = float(np.std([frame.energy for frame in frames]))
        module = create_model(settings(model, cutoff), mean=torch.tensor(0.0), std=torch.tensor(max(scale, 1e-3)))
        self.given = None
        if any(frame.pbc.any() for frame in frames):
            self.given = given_edges()
            module.representation_model.distance = self.given
        return module

    def prepared(self, frame: Frame) -> Any:
        """Nothing is prepared."""
        return frame

    def collate(self, prepared: Sequence[Any]) -> Any:
        """Flat tensors."""
        import torch

        counts = torch.tensor([frame.n_atoms for frame in prepared])
        senders, receivers, shifts = joined_edges(prepared)
        return {
            "z": torch.from_numpy(np.concatenate([frame.numbers for frame in prepared])),
            "pos": torch.tensor(np.concatenate([frame.positions for frame in prepared]), dtype=torch.float32),
            "batch": torch.repeat_interleave(torch.arange(len(prepared)), counts),
            "edges": torch.from_numpy(np.stack([senders, receivers])),
            "shifts": torch.tensor(shifts, dtype=torch.float32),
        }

    def forward(self, module: Any, batch: Any, training: bool) -> tuple[Any, Any]:
        """Energies and forces."""
        del training  # the module's mode decides
        if self.given is not None:
            self.given.edges, self.given.shifts = batch["edges"], batch["shifts"]
        energy, forces = module(batch["z"], batch["pos"], batch=batch["batch"])
        return energy.reshape(-1), forces

    def recipe(self, module: Any, frames: Sequence[Frame]) -> Recipe:
        """AdamW at 0.001 after 500 steps of warm-up, batches of 8, total energy : forces 0.05 : 0.95, clipped."""
        import torch

        del frames
        return Recipe(
            optimiser=torch.optim.AdamW(module.parameters(), lr=LEARNING_RATE, weight_decay=0.0),
            batch=8,
            lr=lambda step, progress: (
                LEARNING_RATE * min(1.0, (step + 1) / WARM_UP_STEPS) * (1.0 - last_part(progress))
            ),
            weights=lambda _: (0.05, 0.95),
            per_atom=False,
            clip=40.0,
            ema=0.995,
        )


def given_edges() -> Any:
    """A module in the place of the package's neighbour list: edges, lengths and vectors of a list made before."""
    import torch

    class GivenEdges(torch.nn.Module):
        edges: torch.Tensor
        shifts: torch.Tensor

        def forward(self, pos: torch.Tensor, batch: Any = None, box: Any = None) -> tuple[torch.Tensor, ...]:
            del batch, box
            vectors = pos[self.edges[0]] - pos[self.edges[1]] + self.shifts
            return self.edges, vectors.norm(dim=1), vectors

    return GivenEdges()


if __name__ == "__main__":
    serve(Torchmd)
