"""Many structures through a potential: packed by size, in order, and smaller when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from ase import Atoms

from gnn.errors import InputError
from gnn.graphs.batch import Batch
from gnn.graphs.collate import batch_of_atoms
from gnn.potentials.potential import (
    AtomsPrediction,
    BatchPrediction,
    Floats,
    Potential,
    refuse_unknown_elements,
    usual_max_atoms,
    warn_of_inherited_elements,
)

T = TypeVar("T")
R = TypeVar("R")

MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory")


def predict_atoms(
    potential: Potential, atoms_list: Sequence[Atoms], max_atoms: int | None = None
) -> list[AtomsPrediction]:
    """Predictions for `atoms_list` in their order; see `Potential.predict_atoms`.

    Raises:
        InputError: a structure has no atoms, or elements that the potential does not know.
    """
    if (empty := next((k for k, atoms in enumerate(atoms_list) if not len(atoms)), None)) is not None:
        raise InputError(f"structure {empty} has no atoms, so nothing can be predicted of it")
    refuse_unknown_elements(atoms_list, potential.elements, potential.theory)
    warn_of_inherited_elements(atoms_list, potential)
    found: list[AtomsPrediction | None] = [None] * len(atoms_list)
    limit = max_atoms or usual_max_atoms(potential.device)
    for pack in packs([len(atoms) for atoms in atoms_list], limit):
        predictions = halving(lambda items: _predict_pack(potential, items), [atoms_list[i] for i in pack])
        for index, prediction in zip(pack, predictions, strict=True):
            found[index] = prediction
    return [prediction for prediction in found if prediction is not None]


def packs(sizes: Sequence[int], max_atoms: int) -> list[list[int]]:
    """Indices of `sizes` in groups of at most `max_atoms` atoms (or one structure), similar sizes together."""
    groups: list[list[int]] = []
    filled = 0
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        if not groups or filled + sizes[index] > max_atoms:
            groups.append([])
            filled = 0
        groups[-1].append(index)
        filled += sizes[index]
    return groups


def halving(work: Callable[[Sequence[T]], list[R]], items: Sequence[T]) -> list[R]:
    """`work(items)`; when memory runs out, the two halves one after the other, down to single items."""
    try:
        return work(items)
    except (RuntimeError, MemoryError) as error:
        if len(items) < 2 or not is_out_of_memory(error):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    middle = len(items) // 2
    return halving(work, items[:middle]) + halving(work, items[middle:])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or in main memory."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return any(words in str(error).lower() for words in MEMORY_WORDS)


def _predict_pack(potential: Potential, atoms_list: Sequence[Atoms]) -> list[AtomsPrediction]:
    batch = batch_of_atoms(list(atoms_list), potential.cutoff)
    return split(potential.predict(batch.to(potential.device)), batch)


def split(prediction: BatchPrediction, batch: Batch) -> list[AtomsPrediction]:
    """A batch's prediction, structure by structure."""
    ends = batch.n_atoms.cumsum(0).tolist()
    starts = [0, *ends[:-1]]
    periodic = batch.pbc.all(dim=1).tolist()
    host = on_host(prediction)
    return [_one(host, k, slice(starts[k], ends[k]), periodic[k]) for k in range(batch.n_structures)]


def on_host(prediction: BatchPrediction) -> BatchPrediction:
    """The same prediction as float64 tensors in main memory."""
    return BatchPrediction(
        energy=_to_host(prediction.energy),
        forces=None if prediction.forces is None else _to_host(prediction.forces),
        stress=None if prediction.stress is None else _to_host(prediction.stress),
        uncertainty=None if prediction.uncertainty is None else _to_host(prediction.uncertainty),
        properties={name: _to_host(value) for name, value in prediction.properties.items()},
        of_atoms=prediction.of_atoms,
    )


def _to_host(value: torch.Tensor) -> torch.Tensor:
    return value.detach().to("cpu", torch.float64)


def _one(host: BatchPrediction, k: int, rows: slice, periodic: bool) -> AtomsPrediction:
    properties: dict[str, float | Floats] = {
        name: values[rows].numpy().copy() if name in host.of_atoms else float(values[k])
        for name, values in host.properties.items()
    }
    return AtomsPrediction(
        energy=float(host.energy[k]),
        forces=None if host.forces is None else host.forces[rows].numpy().copy(),
        stress=host.stress[k].numpy().copy() if host.stress is not None and periodic else None,
        uncertainty=None if host.uncertainty is None else float(host.uncertainty[k]),
        properties=properties,
    )
