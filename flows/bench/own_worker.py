"""Our own networks as a worker: the same requests as every peer's, and `floor`. `python -m flows.bench.own_worker`.

Models: FAMILY_CHANNELS_Ll, as `ace_64_L0`; `tensor_64` has no degree; `-tabulated` after either only predicts;
`-compiled` after either has energies and slopes as one program.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from flows.bench.peers.workers.frames import Frame, elements_of, force_rms, mean_neighbours
from flows.bench.peers.workers.session import Bench, serve
from flows.bench.potential import COMPILED, TABULATED


class Own:
    """The adapter."""

    def __init__(self) -> None:
        from gnn import __version__

        self.version = f"sluice {__version__}"

    def build(self, model: str, frames: Sequence[Frame], cutoff: float, seed: int) -> Any:
        """A network for these elements, its other fields at their defaults."""
        from ase.data import chemical_symbols

        from gnn.models.config import ModelConfig
        from gnn.models.model import build_model

        self.cutoff = cutoff
        fields = architecture(model) | {
            "elements": [chemical_symbols[z] for z in elements_of(frames)],
            "cutoff": cutoff,
            "mean_neighbours": mean_neighbours(frames),
            "energy_scale": force_rms(frames),
        }
        built = build_model(ModelConfig.model_validate(fields), seed)
        if model.endswith(TABULATED):
            use_tables(built)
        return compiled(built) if model.endswith(COMPILED) else built

    def prepared(self, frame: Frame) -> Any:
        """A graph with its labels."""
        from gnn.graphs.graph import Graph

        labels: dict[str, Any] = {"energy": frame.energy, "forces": frame.forces}
        return Graph("", "", "bench", None, **_arrays(frame), **labels)

    def collate(self, prepared: Sequence[Any]) -> Any:
        """The product's own batch."""
        from gnn.graphs.collate import collate

        return collate(list(prepared), ["bench"])

    def forward(self, module: Any, batch: Any, training: bool) -> tuple[Any, Any]:
        """Energies and forces."""
        found = module.predict(batch, stress=False, training=training)
        return found.energy, found.forces


def architecture(model: str) -> dict[str, Any]:
    """Fields of ModelConfig by a model's name; the correlation is that of MACE."""
    family, channels, *degree = model.removesuffix(TABULATED).removesuffix(COMPILED).split("_")
    fields: dict[str, Any] = {"family": family, "channels": int(channels), "correlation": 3}
    return fields | ({"hidden_l_max": int(degree[0].removeprefix("L"))} if degree else {})


def compiled(model: Any) -> Any:
    """The model with a `predict` whose energies and slopes are one compiled program, in training and in inference."""
    from torch import nn, set_grad_enabled

    from gnn.errors import SluiceError
    from gnn.models.program import EnergyProgram, filled

    class Compiled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.program: EnergyProgram | None = None

        def predict(self, batch: Any, stress: bool, training: bool) -> Any:
            self.program = self.program or EnergyProgram(self.model)  # of the weights where they have been moved to
            with set_grad_enabled(training):
                found = filled(batch, self.model)
                if found is None:
                    raise SluiceError("a batch of this benchmark is too small or too sparse to be compiled")
                return self.program.predict(batch, found, forces=True, stress=stress)

    return Compiled()


def use_tables(model: Any) -> None:
    """Put tables in the place of the radial networks.

    Raises:
        SluiceError: no table is exact enough.
    """
    from gnn.errors import SluiceError
    from gnn.models.radial_table import tabulate

    if not tabulate(model):
        raise SluiceError("no table says what the radial network says closely enough")


def _arrays(frame: Frame) -> dict[str, Any]:
    names = ("numbers", "positions", "cell", "pbc", "senders", "receivers", "shifts")
    return {name: getattr(frame, name) for name in names}


def floor(bench: Bench, request: dict[str, Any]) -> dict[str, Any]:
    """The floor of one step of a task."""
    from flows.bench.floor import count_work, floor_of

    found = floor_of(count_work(lambda: bench.step(request["task"])))
    return asdict(found) | {"gflop_rate": found.gflop_rate, "gbyte_rate": found.gbyte_rate}


def main() -> None:
    """Answer requests until stdin ends."""
    serve(Own, {"floor": floor})


if __name__ == "__main__":
    main()
    sys.exit()
