"""PaiNN (SchNetPack). Models: painn_FEATURES, three interactions, 20 Gaussians, as `painn_64`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, TypeVar

import numpy as np

from .fitting import Recipe, last_part
from .frames import Frame, joined_edges
from .session import serve

LEARNING_RATE = 5e-4


class SchNetPack:
    """The adapter."""

    def __init__(self) -> None:
        from torch.utils.data import dataloader

        if not hasattr(dataloader, "T_co"):  # version 2.0.4 imports a name that torch no longer has
            dataloader.T_co = TypeVar("T_co", covariant=True)  # type: ignore[attr-defined]
        self.version = f"schnetpack {version('schnetpack')}"

    def build(self, model: str, frames: Sequence[Frame], cutoff: float, seed: int) -> Any:
        """The package's potential with pair distances, energies and forces."""
        import schnetpack as spk
        import torch

        torch.manual_seed(seed)
        del frames
        width = int(model.removeprefix("painn_"))
        representation = spk.representation.PaiNN(
            n_atom_basis=width,
            n_interactions=3,
            radial_basis=spk.nn.GaussianRBF(n_rbf=20, cutoff=cutoff),
            cutoff_fn=spk.nn.CosineCutoff(cutoff),
        )
        return spk.model.NeuralNetworkPotential(
            representation=representation,
            input_modules=[spk.atomistic.PairwiseDistances()],
            output_modules=[
                spk.atomistic.Atomwise(n_in=width, output_key="energy"),
                spk.atomistic.Forces(energy_key="energy", force_key="forces"),
            ],
        )

    def prepared(self, frame: Frame) -> Any:
        """Nothing is prepared."""
        return frame

    def collate(self, prepared: Sequence[Any]) -> Any:
        """The package's dictionary of tensors."""
        import torch
        from schnetpack import properties as keys

        counts = torch.tensor([frame.n_atoms for frame in prepared])
        senders, receivers, shifts = joined_edges(prepared)
        return {
            keys.Z: torch.from_numpy(np.concatenate([frame.numbers for frame in prepared])),
            keys.R: torch.tensor(np.concatenate([frame.positions for frame in prepared]), dtype=torch.float32),
            keys.cell: torch.tensor(np.stack([frame.cell for frame in prepared]), dtype=torch.float32),
            keys.idx: torch.arange(len(prepared)),
            keys.idx_m: torch.repeat_interleave(torch.arange(len(prepared)), counts),
            keys.n_atoms: counts,
            keys.idx_i: torch.from_numpy(receivers),
            keys.idx_j: torch.from_numpy(senders),
            keys.offsets: torch.tensor(shifts, dtype=torch.float32),
        }

    def forward(self, module: Any, batch: Any, training: bool) -> tuple[Any, Any]:
        """Energies and forces; the package writes into its input, so it gets a copy."""
        from schnetpack import properties as keys

        del training  # the module's mode decides
        found = module({**batch, keys.R: batch[keys.R].detach().clone()})
        return found["energy"], found["forces"]

    def recipe(self, module: Any, frames: Sequence[Frame]) -> Recipe:
        """AdamW at 0.0005, batches of 10, total energy : forces 0.01 : 0.99, as in the package's tutorial."""
        import torch

        del frames
        return Recipe(
            optimiser=torch.optim.AdamW(module.parameters(), lr=LEARNING_RATE),
            batch=10,
            lr=lambda _, progress: LEARNING_RATE * (1.0 - last_part(progress)),
            weights=lambda _: (0.01, 0.99),
            per_atom=False,
            ema=0.995,
        )


if __name__ == "__main__":
    serve(SchNetPack)
