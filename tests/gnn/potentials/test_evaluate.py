"""Many structures through a potential: order, packing, memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import bulk
from hypothesis import given
from hypothesis import strategies as st

from gnn.errors import InputError
from gnn.potentials.evaluate import halving, is_out_of_memory, packs
from gnn.potentials.load import load


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 80))
def test_packs_hold_every_structure_once_and_keep_the_limit(sizes: list[int], max_atoms: int) -> None:
    groups = packs(sizes, max_atoms)
    assert sorted(index for group in groups for index in group) == list(range(len(sizes)))
    for group in groups:
        assert len(group) == 1 or sum(sizes[index] for index in group) <= max_atoms


@pytest.mark.parametrize("max_atoms", [1, 5, 9, 1000])
def test_the_batch_size_changes_nothing_and_the_order_stays(
    checkpoint: Path, structures: list[Atoms], max_atoms: int
) -> None:
    potential = load(checkpoint, dtype="float64")
    together = potential.predict_atoms(structures, max_atoms=max_atoms)
    for atoms, prediction in zip(structures, together, strict=True):
        alone = potential.predict_atoms([atoms])[0]
        assert prediction.energy == pytest.approx(alone.energy, abs=1e-9)
        assert prediction.forces == pytest.approx(alone.forces, abs=1e-9)
        assert prediction.forces is not None
        assert prediction.forces.shape == (len(atoms), 3)
        assert (prediction.stress is None) == (not atoms.pbc.all())


def test_a_structure_without_atoms_is_told(checkpoint: Path) -> None:
    with pytest.raises(InputError, match="structure 1 has no atoms"):
        load(checkpoint).predict_atoms([bulk("Cu"), Atoms()])


def test_nothing_in_nothing_out(checkpoint: Path) -> None:
    assert load(checkpoint).predict_atoms([]) == []


@given(st.integers(0, 40), st.integers(1, 9))
def test_halving_gives_every_result_in_order(count: int, fits: int) -> None:
    def work(items: Sequence[int]) -> list[int]:
        if len(items) > fits:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return [-item for item in items]

    assert halving(work, list(range(count))) == [-item for item in range(count)]


def test_other_errors_pass_and_a_single_item_too_large_is_an_error() -> None:
    def fail(_: Sequence[int]) -> list[int]:
        raise RuntimeError("shapes do not match")

    def full(_: Sequence[int]) -> list[int]:
        raise MemoryError

    with pytest.raises(RuntimeError, match="shapes"):
        halving(fail, [1, 2])
    with pytest.raises(MemoryError):
        halving(full, [1, 2])


def test_what_counts_as_out_of_memory() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"))
    assert not is_out_of_memory(RuntimeError("index out of range"))
