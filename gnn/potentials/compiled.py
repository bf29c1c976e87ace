"""A model whose energies and slopes are one compiled program, checked against the model itself before it is trusted.

torch.compile cannot differentiate what it has compiled twice, nor follow a derivative inside a program. So energy and
derivative are first traced together into one graph of plain operations (make_fx, as NequIP does), with symbolic sizes,
and that graph is compiled: once for all batches. Edges are filled up to equally many an atom with edges of twice the
cutoff, which contribute exactly nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from gnn.graphs.batch import Batch, edge_vectors
from gnn.models.blocks import neighbour_blocks
from gnn.models.derivatives import from_slope
from gnn.models.model import Model, Prediction

FAMILIES = ("ace",)
"""Families whose networks take batches of equally many edges an atom."""
TOLERANCE = 1e-4
"""Largest difference from the model itself, of energies per atom and of forces, in units of the energy scale."""

SMALLEST = 2
"""Sizes of 0 and 1 are taken for constants by the tracer."""

Program = Callable[..., Sequence[Tensor]]


class CompileWarning(UserWarning):
    """A network could not be compiled; it goes on as it is."""


@dataclass(frozen=True)
class Filled:
    """A batch with equally many edges an atom: vectors (N, K, 3), senders (N·K,), and where the true edges are (E,)."""

    vectors: Tensor
    senders: Tensor
    places: Tensor


def filled(batch: Batch, vectors: Tensor, cutoff: float) -> Filled:
    """Fill up with edges from an atom to itself, twice the cutoff long. Shapes: vectors (E, 3)."""
    n_atoms = batch.numbers.shape[0]
    blocks = neighbour_blocks(batch.receivers, n_atoms)
    size = n_atoms * blocks.width
    places = torch.arange(size, device=vectors.device) if blocks.slot is None else blocks.slot
    far = vectors.new_tensor([2.0 * cutoff, 0.0, 0.0]).repeat(size, 1)
    itself = torch.arange(n_atoms, device=vectors.device).repeat_interleave(blocks.width)
    whole = far.index_copy(0, places, vectors)
    return Filled(whole.view(n_atoms, blocks.width, 3), itself.index_copy(0, places, batch.senders), places)


class Core(nn.Module):
    """The part of a model that is worth compiling: bond vectors in, energies and invariants of atoms out."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, vectors: Tensor, senders: Tensor, numbers: Tensor, elements: Tensor, theory: Tensor) -> Any:
        """Shapes: vectors (N, K, 3), senders (N·K,), the others (N,) -> (N,) float64 and (N, C) a layer."""
        n_atoms, width = vectors.shape[0], vectors.shape[1]
        receivers = torch.arange(n_atoms, device=vectors.device).unsqueeze(1).expand(n_atoms, width).reshape(-1)
        nothing = vectors.new_zeros(0)
        batch = Batch(
            numbers, nothing, nothing, nothing, theory, nothing, senders, receivers, nothing, theory, width=width
        )
        bonds = vectors.reshape(-1, 3)
        features = self.model.network(batch, bonds, elements)
        return self.model.node_energies(batch, bonds, features, elements, theory), features


class CompiledModel:
    """Gives what `Model.predict` gives. Where compiling fails or changes the numbers, it says so and uses the model.

    Args:
        model: with frozen weights.
        compiler: makes a program of the traced graph; torch.compile with symbolic sizes.
    """

    def __init__(self, model: Model, compiler: Callable[[Any], Program] | None = None) -> None:
        self.model = model
        self.config = model.config
        self.reason: str | None = None
        self._core = Core(model)
        self._tensors = {**dict(self._core.named_parameters()), **dict(self._core.named_buffers())}
        self._compiler = compiler or _inductor
        self._program: Program | None = None

    def parameters(self) -> Any:
        """The model's weights."""
        return self.model.parameters()

    def predict(
        self, batch: Batch, forces: bool = True, stress: bool = True, training: bool = False, last_layer: bool = False
    ) -> Prediction:
        """See `Model.predict`; a training, or energies alone, or a batch too small to be symbolic is not compiled."""
        wanted = {"forces": forces, "stress": stress, "last_layer": last_layer}
        if self.config.family not in FAMILIES and self.reason is None:
            self._give_up(f"family {self.config.family} is not among {', '.join(FAMILIES)}")
        if training or not (forces or stress) or self.reason is not None:
            return self.model.predict(batch, training=training, **wanted)
        vectors = edge_vectors(batch, batch.positions, batch.cell)
        found = filled(batch, vectors, self.config.cutoff)
        if min(found.vectors.shape[:2]) < SMALLEST:
            return self.model.predict(batch, **wanted)
        if self._program is not None:
            return self._by(self._program, batch, vectors, found, **wanted)
        return self._checked(batch, vectors, found, wanted)

    def _give_up(self, reason: str) -> None:
        self.reason = reason
        warnings.warn(f"not compiled, used as it is: {reason}", CompileWarning, stacklevel=4)

    def _checked(self, batch: Batch, vectors: Tensor, found: Filled, wanted: dict[str, bool]) -> Prediction:
        """Compile, compare with the model on this batch, and keep the program if they agree."""
        plain = self.model.predict(batch, **wanted)
        try:
            program = self._compiler(self._traced(self._inputs(batch, found)))
            mine = self._by(program, batch, vectors, found, **wanted)
        except Exception as error:  # noqa: BLE001 (the compiler raises errors of every kind; the reason is told)
            self._give_up(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
            return plain
        if (difference := self._difference(plain, mine, batch)) > TOLERANCE:
            self._give_up(f"it changes energies or forces by {difference:.1e} energy scales")
        else:
            self._program = program
        return plain

    def _difference(self, plain: Prediction, mine: Prediction, batch: Batch) -> float:
        differences = [((plain.energy - mine.energy) / batch.n_atoms).abs().max()]
        if plain.forces is not None and mine.forces is not None:
            differences.append((plain.forces - mine.forces).abs().max())
        largest = torch.stack([value.double() for value in differences])
        return float(torch.nan_to_num(largest, nan=torch.inf).max()) / self.config.energy_scale

    def _inputs(self, batch: Batch, found: Filled) -> tuple[Tensor, ...]:
        theory = batch.theory.index_select(0, batch.structure)
        return found.vectors, found.senders, batch.numbers, self.model.element_indices(batch), theory

    def _traced(self, inputs: tuple[Tensor, ...]) -> Any:
        """One graph from vectors and weights to energies, slopes and invariants."""
        names = list(self._tensors)

        def energies_and_slopes(vectors: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
            weights = dict(zip(names, rest[len(inputs) - 1 :], strict=True))
            with torch.enable_grad():
                leaf = vectors.detach().requires_grad_(True)
                energy, features = functional_call(self._core, weights, (leaf, *rest[: len(inputs) - 1]))
                (slope,) = torch.autograd.grad(energy.sum(), leaf)
            return energy.detach(), slope, *(layer.detach() for layer in features)

        return make_fx(energies_and_slopes, tracing_mode="symbolic")(*inputs, *self._tensors.values())

    def _by(
        self, program: Program, batch: Batch, vectors: Tensor, found: Filled, *,
        forces: bool, stress: bool, last_layer: bool,
    ) -> Prediction:  # fmt: skip
        with torch.no_grad():
            node_energy, slope, *features = program(*self._inputs(batch, found), *self._tensors.values())
            bonds = slope.reshape(-1, 3).index_select(0, found.places)
            slopes = from_slope(bonds, vectors, batch, forces=forces, stress=stress)
            return self.model.completed(batch, node_energy, list(features), slopes, last_layer)


def _inductor(graph: Any) -> Program:
    compiled: Program = torch.compile(graph, dynamic=True)
    return compiled


def compiled(models: Sequence[Model]) -> list[CompiledModel]:
    """Each model as a compiled one; compiling waits for the first batch."""
    return [CompiledModel(model) for model in models]
