"""One batch's loss and its gradient with respect to the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from gnn.graphs.batch import Batch
from gnn.models.model import Model
from gnn.training.config import LossConfig
from gnn.training.losses import Scales, Wanted, loss_terms, total_loss


class Step(Protocol):
    """Adds a batch's gradient to the weights' `.grad`."""

    def __call__(self, batch: Batch, progress: float, counts: Mapping[str, float] | None) -> dict[str, Tensor]:
        """The unweighted terms and, as `loss`, their weighted sum at `progress`, all detached; empty without labels.

        `counts` are the labels of each term in the batches of all processes together; None: in this batch.
        """
        ...


class EagerStep:
    """The step as torch does it, operation by operation."""

    def __init__(self, model: Model, losses: LossConfig, scales: Scales, wanted: Wanted) -> None:
        self.model, self.losses, self.scales, self.wanted = model, losses, scales, wanted
        self.weights = [weight for weight in model.parameters() if weight.requires_grad]

    def __call__(self, batch: Batch, progress: float, counts: Mapping[str, float] | None) -> dict[str, Tensor]:
        """See `Step`."""
        wanted = self.wanted
        prediction = self.model.predict(batch, forces=wanted.forces, stress=wanted.stress, training=True)
        terms = loss_terms(prediction, batch, self.losses, self.scales, counts)
        if not terms:
            return {}
        loss = total_loss(terms, self.losses, progress)
        loss.backward(inputs=self.weights)  # the slopes of the geometry, which nobody reads, stay uncomputed
        return {"loss": loss.detach(), **{name: value.detach() for name, value in terms.items()}}
