"""Energies and slopes of a model as one compiled program for batches of all sizes.

torch.compile cannot differentiate what it has compiled twice, nor follow a derivative inside a program. So energy and
derivative are first traced together into one graph of plain operations (make_fx, as NequIP does), with symbolic sizes,
and that graph is compiled: once for all batches. Edges are filled up to equally many an atom with edges of twice the
cutoff, which contribute exactly nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, functionalize
from torch.fx.experimental.proxy_tensor import make_fx

from gnn.errors import told
from gnn.graphs.batch import Batch, edge_vectors
from gnn.graphs.grid import AtomGrid, atom_grid
from gnn.models.blocks import neighbour_blocks
from gnn.models.derivatives import from_slope
from gnn.models.model import Model, Prediction
from gnn.models.pairs import is_dense

GRID_FAMILIES = ("tensor",)
"""Families whose networks sum over all pairs of a structure; in a program they do so on a grid."""

SMALLEST = 2
"""Sizes of 0 and 1 are taken for constants by the tracer."""
INVENTED_SIZES = (509, 29, 37, 31)
"""Atoms, edges an atom, rows and columns of the grid of the batch that is traced and compiled for: no more atoms than
places, and about as many as a batch has, for whose sizes the compiler chooses."""

Program = Callable[..., Sequence[Tensor]]
Compiler = Callable[[torch.fx.GraphModule], Program]


class CompileWarning(UserWarning):
    """A network could not be compiled; it goes on as it is."""


@dataclass(frozen=True)
class Filled:
    """A batch with equally many edges an atom.

    bonds (E, 3), the true edges' vectors; vectors (N, K, 3); senders (N·K,); places (E,), where the true edges are;
    grid, where the family sums over pairs.
    """

    bonds: Tensor
    vectors: Tensor
    senders: Tensor
    places: Tensor
    grid: AtomGrid | None

    def layout(self) -> tuple[Tensor, ...]:
        """What a program takes of it."""
        return (self.vectors, self.senders, *(() if self.grid is None else (self.grid.place, self.grid.atom)))


def filled(batch: Batch, model: Model) -> Filled | None:
    """Fill up with edges from an atom to itself, twice the cutoff long.

    None where the batch is not for a program: a size of it would be taken for a constant, or the grid were too empty.
    """
    n_atoms = batch.numbers.shape[0]
    blocks = neighbour_blocks(batch.receivers, n_atoms)
    on_grid = model.config.family in GRID_FAMILIES
    if min(n_atoms, blocks.width) < SMALLEST or (on_grid and not is_dense(batch)):
        return None
    bonds = edge_vectors(batch).to(model.dtype)
    size = n_atoms * blocks.width
    places = torch.arange(size, device=bonds.device) if blocks.slot is None else blocks.slot
    far = bonds.new_tensor([2.0 * model.config.cutoff, 0.0, 0.0]).repeat(size, 1)
    itself = torch.arange(n_atoms, device=bonds.device).repeat_interleave(blocks.width)
    return Filled(
        bonds,
        far.index_copy(0, places, bonds).view(n_atoms, blocks.width, 3),
        itself.index_copy(0, places, batch.senders),
        places,
        atom_grid(batch.structure, batch.n_atoms, SMALLEST) if on_grid else None,
    )


class Core(nn.Module):
    """The part of a model that is worth compiling: bond vectors in, energies and invariants of atoms out."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, numbers: Tensor, elements: Tensor, theory: Tensor, vectors: Tensor, senders: Tensor, *grid: Tensor
    ) -> Any:
        """Shapes: (N,) each, then `Filled.layout` -> (N,) float64 and (N, C) a layer."""
        n_atoms, width = vectors.shape[0], vectors.shape[1]
        receivers = torch.arange(n_atoms, device=vectors.device).unsqueeze(1).expand(n_atoms, width).reshape(-1)
        nothing = vectors.new_zeros(0)
        batch = Batch(
            numbers,
            *(nothing,) * 3,
            theory,
            nothing,
            senders,
            receivers,
            nothing,
            theory,
            width=width,
            grid=AtomGrid(*grid) if grid else None,
        )
        bonds = vectors.reshape(-1, 3)
        features = self.model.network(batch, bonds, elements)
        return self.model.node_energies(batch, bonds, features, elements, theory), features


class EnergyProgram:
    """What `Model.predict` gives, by a program that is compiled when the first batch comes.

    What it returns can be differentiated with respect to the model's weights, where they want it.

    Args:
        model: of any family.
        compiler: makes a program of the traced graph; torch.compile with symbolic sizes.
    """

    def __init__(self, model: Model, compiler: Compiler | None = None) -> None:
        self.model = model
        self._core = Core(model)
        self._tensors = {**dict(self._core.named_parameters()), **dict(self._core.named_buffers())}
        self._compiler = compiler or _inductor
        self._program: Program | None = None

    def predict(
        self, batch: Batch, found: Filled, *, forces: bool, stress: bool, last_layer: bool = False
    ) -> Prediction:
        """See `Model.predict`; `found` is the batch filled up."""
        theory = batch.theory.index_select(0, batch.structure)
        inputs = (batch.numbers, self.model.element_indices(batch), theory, *found.layout())
        if self._program is None:
            self._program = self._compiled(inputs)
        node_energy, slope, *features = self._program(*inputs, *self._tensors.values())
        of_edges = slope.reshape(-1, 3).index_select(0, found.places)
        slopes = from_slope(of_edges, found.bonds, batch, forces=forces, stress=stress)
        return self.model.completed(batch, node_energy, list(features), slopes, last_layer)

    def _compiled(self, inputs: tuple[Tensor, ...]) -> Program:
        """The program, compiled for a batch in which no two sizes are equal.

        The first real one may have some that are, as atoms and columns of the grid of one structure alone; they would
        be taken for one size, and the next batch compiled anew.
        """
        weights = list(self._tensors.values())
        program = self._compiler(self._traced(inputs))
        program(*_unlike(inputs, weights), *weights)
        return program

    def _traced(self, inputs: tuple[Tensor, ...]) -> torch.fx.GraphModule:
        """One graph from inputs and weights to energies, slopes and invariants."""
        names = list(self._tensors)

        def energies_and_slopes(*given: Tensor) -> tuple[Tensor, ...]:
            numbers, elements, theory, vectors, *rest = given[: len(inputs)]
            weights = dict(zip(names, given[len(inputs) :], strict=True))
            with torch.enable_grad():
                leaf = vectors.detach().requires_grad_(True)
                energy, features = functional_call(self._core, weights, (numbers, elements, theory, leaf, *rest))
                (slope,) = torch.autograd.grad(energy.sum(), leaf, create_graph=True)
            return energy, slope, *features

        weights = [tensor.detach() for tensor in self._tensors.values()]
        given = (*_unlike(inputs, weights), *weights)
        graph = make_fx(energies_and_slopes, tracing_mode="symbolic")(*given)
        return make_fx(functionalize(_differentiable(graph)), tracing_mode="symbolic")(*given)


def _unlike(inputs: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    """Inputs of the same kinds whose sizes are different from each other and from the weights'.

    Tracer and compiler take sizes that are equal for one and the same size.
    """
    taken = {size for weight in weights for size in weight.shape}
    sizes = []
    for first in INVENTED_SIZES:
        sizes.append(next(size for size in count(first) if size not in taken))
        taken.add(sizes[-1])
    n, k, rows, width = sizes
    shapes = [(n,), (n,), (n,), (n, k, 3), (n * k,), (n,), (rows, width)]
    # indices of 0 are of something, and vectors of 1 have a length
    return [like.new_full(shape, float(like.is_floating_point())) for like, shape in zip(inputs, shapes, strict=False)]


def _differentiable(graph: torch.fx.GraphModule) -> torch.fx.GraphModule:
    """The graph without the places where autograd, while it was traced, cut values off from their weights."""
    for node in graph.graph.find_nodes(op="call_function", target=torch.ops.aten.detach.default):
        node.replace_all_uses_with(node.args[0])
        graph.graph.erase_node(node)
    graph.recompile()
    return graph


def _inductor(graph: torch.fx.GraphModule) -> Program:
    compiled: Program = torch.compile(graph, dynamic=True)
    return compiled


def recording(graph: torch.fx.GraphModule) -> Program:
    """A compiler whose programs record their kernels on a GPU, once for each size of batch, and replay them."""
    compiled: Program = torch.compile(graph, dynamic=True, mode="reduce-overhead")
    return compiled


def reason_of(error: Exception) -> str:
    """What a compiler raised, as the reason why a network is used as it is."""
    return told(error)[:300]
