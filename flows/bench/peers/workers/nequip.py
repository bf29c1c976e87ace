"""NequIP. Models: the package's presets S, M, L; lDEGREE_FEATURES (three layers), as `l1_32`; either `-compiled`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from .fitting import Recipe, last_part
from .frames import Frame, elements_of, force_rms, mean_neighbours
from .session import serve

COMPILED = "-compiled"


class Nequip:
    """The adapter."""

    def __init__(self) -> None:
        import torch
        from nequip.utils.global_state import set_global_state

        torch.set_default_dtype(torch.float64)  # the package wants this default; the model's own precision is float32
        set_global_state()
        self.version = f"nequip {version('nequip')}"

    def build(self, model: str, frames: Sequence[Frame], cutoff: float, seed: int) -> Any:
        """A preset, or the package's plain model."""
        from ase.data import chemical_symbols
        from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper
        from nequip.model import NequIPGNNModel, PresetNequIPGNNModel

        types = sorted(chemical_symbols[z] for z in elements_of(frames))
        self.mapper, self.cutoff = ChemicalSpeciesToAtomTypeMapper(types), cutoff
        name = model.removesuffix(COMPILED)
        common = {
            "seed": seed,
            "model_dtype": "float32",
            "type_names": types,
            "r_max": cutoff,
            "avg_num_neighbors": mean_neighbours(frames),
            "per_type_energy_scales": dict.fromkeys(types, force_rms(frames)),
            "per_type_energy_shifts": dict.fromkeys(types, 0.0),
            "compile_mode": "compile" if model.endswith(COMPILED) else "eager",
        }
        if name in ("S", "M", "L"):
            return PresetNequIPGNNModel(preset=name, **common)
        degree, features = name.removeprefix("l").split("_")
        return NequIPGNNModel(num_layers=3, l_max=int(degree), num_features=int(features), parity=True, **common)

    def prepared(self, frame: Frame) -> Any:
        """The package's dictionary of arrays, graph included."""
        from nequip.data import compute_neighborlist_, from_ase

        return compute_neighborlist_(self.mapper(from_ase(frame.atoms())), self.cutoff)

    def collate(self, prepared: Sequence[Any]) -> Any:
        """The package's own batch."""
        from nequip.data import AtomicDataDict

        return AtomicDataDict.batched_from_list(list(prepared))

    def forward(self, module: Any, batch: Any, training: bool) -> tuple[Any, Any]:
        """Energies and forces."""
        from nequip.data import AtomicDataDict as Keys

        del training  # the module's mode decides
        found = module(dict(batch))
        return found[Keys.TOTAL_ENERGY_KEY].reshape(-1), found[Keys.FORCE_KEY]

    def recipe(self, module: Any, frames: Sequence[Frame]) -> Recipe:
        """Adam at 0.01, batches of 5, energy an atom : forces 1 : 1, as in the package's tutorial."""
        import torch

        del frames
        return Recipe(
            optimiser=torch.optim.Adam(module.parameters(), lr=0.01),
            batch=5,
            lr=lambda _, progress: 0.01 * (1.0 - last_part(progress)),
            weights=lambda _: (1.0, 1.0),
            ema=0.99,
        )


if __name__ == "__main__":
    serve(Nequip)
