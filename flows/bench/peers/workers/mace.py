"""MACE (mace-torch). Models: CHANNELS_Ll, two layers, correlation 3, harmonics to l = 3, as `64_L0`.

`-cueq` after one has its products done by cuEquivariance, on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .fitting import LAST_PART, Recipe
from .frames import Frame, elements_of, force_rms, mean_neighbours
from .session import serve

CUEQ = "-cueq"


class Mace:
    """The adapter."""

    def __init__(self) -> None:
        import mace  # before e3nn: it sets what this e3nn needs of torch

        self.version = f"mace-torch {mace.__version__}"

    def build(self, model: str, frames: Sequence[Frame], cutoff: float, seed: int) -> Any:
        """Defaults of the package's own command line."""
        import numpy as np
        import torch
        from e3nn import o3
        from mace import modules
        from mace.tools import AtomicNumberTable

        torch.manual_seed(seed)
        channels, degree = model.removesuffix(CUEQ).split("_L")
        elements = elements_of(frames)
        self.table, self.cutoff = AtomicNumberTable(elements), cutoff
        module = modules.ScaleShiftMACE(
            r_max=cutoff,
            num_bessel=8,
            num_polynomial_cutoff=5,
            max_ell=3,
            interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
            interaction_cls_first=modules.interaction_classes["RealAgnosticInteractionBlock"],
            num_interactions=2,
            num_elements=len(elements),
            hidden_irreps=o3.Irreps([(int(channels), (k, (-1) ** k)) for k in range(int(degree) + 1)]),
            MLP_irreps=o3.Irreps("16x0e"),
            atomic_energies=np.zeros(len(elements)),
            avg_num_neighbors=mean_neighbours(frames),
            atomic_numbers=elements,
            correlation=3,
            gate=torch.nn.functional.silu,
            atomic_inter_scale=force_rms(frames),
            atomic_inter_shift=0.0,
        )
        return with_cueq(module) if model.endswith(CUEQ) else module.float()

    def prepared(self, frame: Frame) -> Any:
        """The package's AtomicData, graph included."""
        from mace import data

        config = data.config_from_atoms(frame.atoms(), key_specification=data.KeySpecification())
        return data.AtomicData.from_config(config, z_table=self.table, cutoff=self.cutoff)

    def collate(self, prepared: Sequence[Any]) -> Any:
        """The package's own batch."""
        from mace.tools.torch_geometric.batch import Batch

        return Batch.from_data_list(list(prepared)).to_dict()

    def forward(self, module: Any, batch: Any, training: bool) -> tuple[Any, Any]:
        """Energies and forces."""
        found = module(batch, training=training, compute_force=True)
        return found["energy"], found["forces"]

    def recipe(self, module: Any, frames: Sequence[Frame]) -> Recipe:
        """Adam with amsgrad at 0.01, batches of 5, energy : force 1 : 100, then stage two: 1000 : 100 at 0.001."""
        import torch

        del frames

        def is_decayed(name: str) -> bool:
            return "linear.weight" in name or "skip_tp" in name or ("products" in name and "symmetric" in name)

        groups: list[dict[str, Any]] = [
            {"params": [p for n, p in module.named_parameters() if is_decayed(n)], "weight_decay": 5e-7},
            {"params": [p for n, p in module.named_parameters() if not is_decayed(n)], "weight_decay": 0.0},
        ]
        return Recipe(
            optimiser=torch.optim.Adam(groups, lr=0.01, amsgrad=True),
            batch=5,
            lr=lambda _, progress: 0.01 if progress < LAST_PART else 0.001,
            weights=lambda progress: (1.0, 100.0) if progress < LAST_PART else (1000.0, 100.0),
            clip=10.0,
            ema=0.99,
        )


def with_cueq(module: Any) -> Any:
    """The module with the layers of cuEquivariance, on the GPU, float32."""
    import torch
    from mace.cli.convert_e3nn_cueq import run

    torch.set_default_dtype(torch.float32)
    return run(module.float().to("cuda"), device="cuda", return_model=True)


if __name__ == "__main__":
    serve(Mace)
