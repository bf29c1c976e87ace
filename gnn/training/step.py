"""One batch's loss and its gradient with respect to the weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from gnn.graphs.batch import Batch
from gnn.models.model import Model, Prediction
from gnn.models.program import Compiler, CompileWarning, EnergyProgram, filled, reason_of, recording
from gnn.training.config import LossConfig, TrainConfig
from gnn.training.losses import Scales, Wanted, loss_terms, total_loss
from gnn.training.parallel import gradients

TOLERANCE = 1e-3
"""Largest difference of a compiled gradient from torch's own, as part of its length."""

Terms = dict[str, Tensor]
Predict = Callable[[Batch], Prediction]


class Step(Protocol):
    """Adds a batch's gradient to the weights' `.grad`."""

    @property
    def is_compiled(self) -> bool:
        """Whether no compiling is ahead."""
        ...

    def __call__(self, batch: Batch, progress: float, counts: Mapping[str, float] | None) -> Terms:
        """The unweighted terms and, as `loss`, their weighted sum at `progress`, all detached; empty without labels.

        `counts` are the labels of each term in the batches of all processes together; None: in this batch.
        """
        ...


class EagerStep:
    """The step as torch does it, operation by operation."""

    is_compiled = True

    def __init__(self, model: Model, losses: LossConfig, scales: Scales, wanted: Wanted) -> None:
        self.model, self.losses, self.scales = model, losses, scales
        self.weights = [weight for weight in model.parameters() if weight.requires_grad]
        self._predict = partial(model.predict, forces=wanted.forces, stress=wanted.stress, training=True)

    def __call__(self, batch: Batch, progress: float, counts: Mapping[str, float] | None) -> Terms:
        """See `Step`."""
        return self.descend(self._predict, batch, progress, counts)

    def descend(self, predict: Predict, batch: Batch, progress: float, counts: Mapping[str, float] | None) -> Terms:
        """The step with what `predict` says of the batch."""
        terms = loss_terms(predict(batch), batch, self.losses, self.scales, counts)
        if not terms:
            return {}
        loss = total_loss(terms, self.losses, progress)
        loss.backward(inputs=self.weights)  # the slopes of the geometry, which nobody reads, stay uncomputed
        return {"loss": loss.detach(), **{name: value.detach() for name, value in terms.items()}}


class CompiledStep:
    """The step with energies and slopes as one program, which the compiler differentiates.

    Its gradient is compared with torch's own on the first batch. Where compiling fails or changes the gradient, it says
    so and goes on as an `EagerStep`, as it does with a batch that is not for a program.

    Args:
        compiler: makes a program of the traced graph; torch.compile with symbolic sizes.
    """

    def __init__(
        self, model: Model, losses: LossConfig, scales: Scales, wanted: Wanted, compiler: Compiler | None = None
    ) -> None:
        self.eager = EagerStep(model, losses, scales, wanted)
        self.wanted = wanted
        self.program = EnergyProgram(model, compiler)
        self.is_checked = False
        self.reason: str | None = None
        if not (wanted.forces or wanted.stress):
            self._give_up("there are neither forces nor stresses to train on")

    @property
    def is_compiled(self) -> bool:
        """See `Step`."""
        return self.is_checked or self.reason is not None

    def __call__(self, batch: Batch, progress: float, counts: Mapping[str, float] | None) -> Terms:
        """See `Step`."""
        if self.reason is None and (found := filled(batch, self.eager.model)) is not None:
            wanted = {"forces": self.wanted.forces, "stress": self.wanted.stress}
            by_program = partial(self.eager.descend, lambda same: self.program.predict(same, found, **wanted))
            if not self.is_checked:
                self._check(partial(by_program, batch, progress, counts), partial(self.eager, batch, progress, counts))
            if self.is_checked:
                return by_program(batch, progress, counts)
        return self.eager(batch, progress, counts)

    def _give_up(self, reason: str) -> None:
        self.reason = reason
        warnings.warn(f"the training is not compiled: {reason}", CompileWarning, stacklevel=3)

    def _check(self, by_program: Callable[[], Terms], plain: Callable[[], Terms]) -> None:
        """Compile, and compare the gradient with torch's own; a batch that nothing is learnt from proves nothing."""
        own = self._gradient(plain)
        if own.norm() == 0:
            return
        try:
            mine = self._gradient(by_program)
        except Exception as error:  # noqa: BLE001 (the compiler raises errors of every kind; the reason is told)
            self._give_up(reason_of(error))
            return
        if not (own - mine).norm() <= TOLERANCE * own.norm():
            self._give_up(f"it changes the gradient from {own.norm():.4g} by {(own - mine).norm():.4g}")
        else:
            self.is_checked = True

    def _gradient(self, step: Callable[[], Terms]) -> Tensor:
        """What a step adds to the gradients, as one vector; they are left as they were."""
        weights = self.eager.weights
        kept = [weight.grad for weight in weights]
        try:
            for weight in weights:
                weight.grad = None
            step()
            return torch.cat([gradient.flatten() for gradient in gradients(weights)])
        finally:
            for weight, grad in zip(weights, kept, strict=True):
                weight.grad = grad


def make_step(model: Model, config: TrainConfig, scales: Scales, wanted: Wanted) -> Step:
    """The step that a configuration asks for."""
    if not config.compile:
        return EagerStep(model, config.losses, scales, wanted)
    return CompiledStep(model, config.losses, scales, wanted, recording if config.replay else None)
