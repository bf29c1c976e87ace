"""One bad structure costs itself only; memory that runs out costs speed; a broken potential or disk stops the shard."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from gnn.errors import InputError, SluiceError
from gnn.graphs.batch import Batch
from gnn.potentials.foreign import CalculatorPotential
from gnn.potentials.potential import BatchPrediction
from gnn.screening.campaign import RelaxationSpec
from gnn.screening.candidates import Candidate
from gnn.screening.compute import MOST_DOUBTFUL, compute

ELEMENTS = ("Al", "Cu", "Ni", "Ag", "Au", "Pd", "Pt")
NICKEL = 28


@pytest.fixture
def rows(candidate: Callable[..., Candidate]) -> list[Candidate]:
    return [candidate(bulk(symbol, cubic=True), symbol) for symbol in ELEMENTS]


class Fragile(CalculatorPotential):
    """EMT that raises `error` over batches for which `hates` says so; `sizes` are the batches it took."""

    def __init__(self, error: BaseException, hates: Callable[[Batch], bool]) -> None:
        super().__init__(EMT, "emt/ase")
        self.error, self.hates, self.sizes = error, hates, []

    def predict(self, batch: Batch) -> BatchPrediction:
        if self.hates(batch):
            raise self.error
        self.sizes.append(len(batch.numbers))
        return super().predict(batch)

    def _one(self, atoms: Atoms) -> Any:
        if self.hates(Numbers(atoms)):
            raise self.error
        return super()._one(atoms)


class Numbers:
    """Just the numbers of a batch."""

    def __init__(self, atoms: Atoms) -> None:
        self.numbers = torch.tensor(atoms.numbers)


def has_nickel(batch: Any) -> bool:
    return NICKEL in batch.numbers


def results(rows: list[Candidate], potential: Any, mode: str = "cell", **options: Any) -> dict[str, dict[str, Any]]:
    found: list[dict[str, Any]] = []
    spec = RelaxationSpec(mode=mode, max_steps=60, **options)
    compute(rows, spec, potential, found.append)
    assert len({row["candidate_id"] for row in found}) == len(found) == len(rows)
    sources = {row.candidate_id: row.source for row in rows}
    return {sources[row["candidate_id"]]: row for row in found}


@pytest.mark.parametrize("mode", ["cell", "none"])
@pytest.mark.parametrize(
    "error", [KeyError("Ni"), RuntimeError("device"), InputError("no such thing"), ZeroDivisionError()]
)
def test_one_poisonous_structure(rows: list[Candidate], mode: str, error: Exception) -> None:
    calm = results(rows, CalculatorPotential(EMT, "emt/ase"), mode)
    found = results(rows, Fragile(error, has_nickel), mode)
    assert found["Ni"]["outcome"] == "error"
    assert type(error).__name__ in found["Ni"]["reason"]
    for name in set(ELEMENTS) - {"Ni"}:
        assert found[name]["energy_per_atom"] == pytest.approx(calm[name]["energy_per_atom"], abs=1e-9)
        assert found[name]["converged"]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_out_of_memory_makes_batches_smaller(rows: list[Candidate], error: Exception) -> None:
    potential = Fragile(error, lambda batch: len(batch.numbers) > 9)
    found = results(rows, potential)
    assert {row["outcome"] for row in found.values()} == {"converged"}
    assert 4 <= max(potential.sizes) <= 9


def test_out_of_memory_outside_the_potential(rows: list[Candidate], monkeypatch: pytest.MonkeyPatch) -> None:
    from gnn.potentials.edges import EdgeKeeper

    real = EdgeKeeper.batch

    def batch(self: EdgeKeeper, frame: Any) -> Any:
        if len(frame.numbers) > 9:
            raise MemoryError
        return real(self, frame)

    monkeypatch.setattr(EdgeKeeper, "batch", batch)
    found = results(rows, CalculatorPotential(EMT, "emt/ase"))
    assert {row["outcome"] for row in found.values()} == {"converged"}


def test_a_structure_too_large_for_any_memory_is_set_aside(rows: list[Candidate]) -> None:
    found = results(rows, Fragile(MemoryError("64 GiB"), has_nickel))
    assert found["Ni"]["reason"] == "MemoryError: 64 GiB"
    assert sum(row["outcome"] == "converged" for row in found.values()) == len(ELEMENTS) - 1


@pytest.mark.parametrize("mode", ["cell", "none"])
def test_a_potential_that_fails_over_everything_blames_nobody(rows: list[Candidate], mode: str) -> None:
    found: list[dict[str, Any]] = []
    potential = Fragile(RuntimeError("CUDA error: unspecified launch failure"), lambda _: True)
    with pytest.raises(SluiceError, match=r"failed over 7 structures in a row.*launch failure; none has succeeded"):
        compute(rows, RelaxationSpec(mode=mode), potential, found.append)
    assert found == []


def test_a_potential_that_breaks_on_the_way_keeps_what_it_did(rows: list[Candidate]) -> None:
    found: list[dict[str, Any]] = []
    potential = Fragile(RuntimeError("CUDA error"), lambda _: len(found) >= 2)
    with pytest.raises(SluiceError, match=r"now it fails over .* too: RuntimeError: CUDA error"):
        compute(rows, RelaxationSpec(mode="none"), potential, found.append)
    assert 0 < len(found) < len(rows) - MOST_DOUBTFUL
    assert all(row["converged"] for row in found)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gnn.screening.compute.CHUNK", 1)


def test_a_row_of_bad_structures_is_believed_where_another_still_works(rows: list[Candidate]) -> None:
    good, *bad = rows
    potential = Fragile(RuntimeError("no"), lambda batch: 13 not in batch.numbers)
    found: list[dict[str, Any]] = []
    compute(bad, RelaxationSpec(), potential, found.append, probe=good)
    assert [row["outcome"] for row in found] == ["error"] * len(bad)


@pytest.mark.parametrize("order", ["BGGBBBB", "GBGBBBB"])
def test_the_potential_is_tried_on_one_that_it_could_bear(candidate: Callable[..., Candidate], order: str) -> None:
    """Not on one that was set aside and passed on before: that would blame the potential."""
    rows = [candidate(bulk("Ni" if c == "B" else "Al", a=4 + 0.01 * k), str(k)) for k, c in enumerate(order)]
    found = results(rows, Fragile(RuntimeError("no"), has_nickel), "none")
    assert [found[str(k)]["outcome"] for k in range(len(order))] == [
        "error" if c == "B" else "converged" for c in order
    ]


@pytest.mark.parametrize("mode", ["cell", "none"])
def test_a_full_disk_is_nobodys_fault(rows: list[Candidate], mode: str) -> None:
    written: list[dict[str, Any]] = []

    def append(row: dict[str, Any]) -> None:
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(row)

    with pytest.raises(OSError, match="No space left"):
        compute(rows, RelaxationSpec(mode=mode, max_steps=60), CalculatorPotential(EMT, "emt/ase"), append)
    assert len(written) == 3
    assert all(row["outcome"] != "error" for row in written)


def test_a_potential_without_forces_is_refused_at_once(rows: list[Candidate]) -> None:
    potential = CalculatorPotential(EMT, "emt/ase", provides=frozenset({"energy"}))
    with pytest.raises(InputError, match="gives no forces"):
        compute(rows, RelaxationSpec(), potential, lambda _: None)
