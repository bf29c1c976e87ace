"""A model whose energies and slopes are one compiled program, checked against the model itself before it is trusted."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch

from gnn.graphs.batch import Batch
from gnn.models.model import Model, Prediction
from gnn.models.program import Compiler, CompileWarning, EnergyProgram, Filled, filled, reason_of

TOLERANCE = 1e-4
"""Largest difference from the model itself, of energies per atom and of forces, in units of the energy scale."""


class CompiledModel:
    """Gives what `Model.predict` gives. Where compiling fails or changes the numbers, it says so and uses the model.

    Args:
        model: with frozen weights.
        compiler: makes a program of the traced graph; torch.compile with symbolic sizes.
    """

    def __init__(self, model: Model, compiler: Compiler | None = None) -> None:
        self.model = model
        self.config = model.config
        self.reason: str | None = None
        self.is_checked = False
        self._program = EnergyProgram(model, compiler)

    def parameters(self) -> Any:
        """The model's weights."""
        return self.model.parameters()

    def predict(
        self, batch: Batch, forces: bool = True, stress: bool = True, training: bool = False, last_layer: bool = False
    ) -> Prediction:
        """See `Model.predict`; a training, or energies alone, or a batch that is not for a program is not compiled."""
        wanted = {"forces": forces, "stress": stress, "last_layer": last_layer}
        if training or not (forces or stress) or self.reason is not None:
            return self.model.predict(batch, training=training, **wanted)
        if (found := filled(batch, self.model)) is None:
            return self.model.predict(batch, **wanted)
        return self._by_program(batch, found, wanted) if self.is_checked else self._checked(batch, found, wanted)

    @torch.no_grad()
    def _by_program(self, batch: Batch, found: Filled, wanted: dict[str, bool]) -> Prediction:
        return self._program.predict(batch, found, **wanted)

    def _give_up(self, reason: str) -> None:
        self.reason = reason
        warnings.warn(f"not compiled, used as it is: {reason}", CompileWarning, stacklevel=4)

    def _checked(self, batch: Batch, found: Filled, wanted: dict[str, bool]) -> Prediction:
        """Compile, compare with the model on this batch, and keep the program if they agree."""
        plain = self.model.predict(batch, **wanted)
        try:
            mine = self._by_program(batch, found, wanted)
        except Exception as error:  # noqa: BLE001 (the compiler raises errors of every kind; the reason is told)
            self._give_up(reason_of(error))
            return plain
        if (difference := self._difference(plain, mine, batch)) > TOLERANCE:
            self._give_up(f"it changes energies or forces by {difference:.1e} energy scales")
        else:
            self.is_checked = True
        return plain

    def _difference(self, plain: Prediction, mine: Prediction, batch: Batch) -> float:
        differences = [((plain.energy - mine.energy) / batch.n_atoms).abs().max()]
        if plain.forces is not None and mine.forces is not None:
            differences.append((plain.forces - mine.forces).abs().max())
        largest = torch.stack([value.double() for value in differences])
        return float(torch.nan_to_num(largest, nan=torch.inf).max()) / self.config.energy_scale


def compiled(models: Sequence[Model]) -> list[CompiledModel]:
    """Each model as a compiled one; compiling waits for the first batch."""
    return [CompiledModel(model) for model in models]
