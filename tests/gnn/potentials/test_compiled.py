"""Compiled models give the model's numbers, for every size, or say why they are not compiled."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from gnn.errors import InputError
from gnn.graphs.collate import batch_of_atoms
from gnn.models.model import Model
from gnn.models.network import FAMILIES
from gnn.models.program import CompileWarning, EnergyProgram, filled
from gnn.potentials.compiled import CompiledModel
from gnn.potentials.load import load
from gnn.training.checkpoint import read_checkpoint


@pytest.fixture(scope="module")
def models(make_checkpoint: Callable[..., Path]) -> dict[str, Model]:
    """One of each family."""
    folders = {family: make_checkpoint(members=1, properties=True, family=family) for family in FAMILIES}
    return {family: read_checkpoint(folder)[1][0].requires_grad_(False) for family, folder in folders.items()}


@pytest.fixture(scope="module")
def model(models: dict[str, Model]) -> Model:
    return models["ace"]


@pytest.fixture(scope="module")
def traced(model: Model) -> CompiledModel:
    return as_traced(model)


def as_traced(model: Model) -> CompiledModel:
    """The traced graph, run as it is: what a compiler is given."""
    return CompiledModel(model, compiler=lambda graph: graph)


def assert_same(mine: Any, plain: Any) -> None:
    torch.testing.assert_close(mine.energy, plain.energy, rtol=0, atol=1e-5)
    torch.testing.assert_close(mine.forces, plain.forces, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mine.stress, plain.stress, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(mine.last_layer, plain.last_layer, rtol=1e-4, atol=1e-6)
    assert mine.properties.keys() == plain.properties.keys()
    for name, value in plain.properties.items():
        torch.testing.assert_close(mine.properties[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "family", [family if family == "ace" else pytest.param(family, marks=pytest.mark.long) for family in FAMILIES]
)
def test_one_trace_serves_batches_of_all_sizes(family: str, models: dict[str, Model], structures: list[Atoms]) -> None:
    model, traced = models[family], as_traced(models[family])
    with warnings.catch_warnings():
        warnings.simplefilter("error", CompileWarning)
        for chosen in (structures[:4], structures, structures[5:], [bulk("Cu") * (3, 2, 2)]):
            batch = batch_of_atoms(chosen, 4.0)
            assert_same(traced.predict(batch, last_layer=True), model.predict(batch, last_layer=True))
    assert traced.reason is None
    assert traced.is_checked


def test_small_batches_and_energies_alone_are_the_models_own(model: Model, traced: CompiledModel) -> None:
    alone, water = batch_of_atoms([Atoms("Cu")], 4.0), batch_of_atoms([molecule("H2O")], 4.0)
    assert torch.equal(traced.predict(alone).energy, model.predict(alone).energy)
    found = traced.predict(water, forces=False, stress=False)
    assert found.forces is None
    assert torch.equal(found.energy, model.predict(water).energy)


def test_a_program_that_changes_the_numbers_is_not_used(model: Model) -> None:
    wrong = CompiledModel(model, compiler=lambda graph: lambda *tensors: [1.01 * found for found in graph(*tensors)])
    batch = batch_of_atoms([bulk("Cu", cubic=True), molecule("H2O")], 4.0)
    with pytest.warns(CompileWarning, match="changes energies or forces by"):
        found = wrong.predict(batch)
    assert torch.equal(found.energy, model.predict(batch).energy)
    assert torch.equal(wrong.predict(batch).forces, model.predict(batch).forces)


def test_a_compiler_that_fails_gives_its_reason(model: Model) -> None:
    def broken(graph: Any) -> Any:
        raise RuntimeError("no C++ compiler\nfound")

    batch = batch_of_atoms([molecule("H2O")], 4.0)
    failing = CompiledModel(model, broken)
    with pytest.warns(CompileWarning, match="RuntimeError: no C\\+\\+ compiler found"):
        failing.predict(batch)
    assert failing.reason is not None


def test_unknown_elements_are_refused(traced: CompiledModel) -> None:
    with pytest.raises(InputError, match="does not know Ni"):
        traced.predict(batch_of_atoms([bulk("Ni", cubic=True)], 4.0))


def test_a_potential_takes_compiled_members(make_checkpoint: Callable[..., Path], traced: CompiledModel) -> None:
    potential = load(make_checkpoint(members=2), compile=True)
    assert all(isinstance(member, CompiledModel) for member in potential.members)
    potential.members = [traced, traced]
    found = potential.predict_atoms([bulk("Cu", cubic=True)])[0]
    assert found.uncertainty == 0
    assert found.forces is not None


@pytest.mark.parametrize("family", FAMILIES)
def test_no_two_sizes_are_equal_where_it_is_compiled(
    family: str, models: dict[str, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they are in one structure alone, whose atoms are the columns of its grid."""

    class SeenError(Exception):
        """What a program is first called with."""

    def program(*given: torch.Tensor) -> Any:
        raise SeenError([tensor.shape for tensor in given])

    monkeypatch.setattr(EnergyProgram, "_traced", lambda *_: None)
    batch = batch_of_atoms([bulk("Cu", cubic=True)], 4.0)
    found = filled(batch, models[family])
    assert found is not None
    with pytest.raises(SeenError) as seen:
        EnergyProgram(models[family], lambda _: program).predict(batch, found, forces=True, stress=True)
    (shapes,) = seen.value.args
    numbers, vectors, *rest = shapes[0], shapes[3], *(() if found.grid is None else shapes[6])
    sizes = {*numbers, *vectors[:2], numbers[0] * vectors[1], *rest}
    assert vectors == (numbers[0], vectors[1], 3)
    assert len(sizes) == 3 + len(rest)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("family", FAMILIES)
def test_inductor_gives_the_same_numbers(family: str, models: dict[str, Model], structures: list[Atoms]) -> None:
    model, mine = models[family], CompiledModel(models[family])

    def both(chosen: list[Atoms]) -> None:
        batch = batch_of_atoms(chosen, 4.0)
        mine.predict(batch)
        assert_same(mine.predict(batch, last_layer=True), model.predict(batch, last_layer=True))

    with torch._dynamo.config.patch(error_on_recompile=True):
        for chosen in ([bulk("Cu") * (3, 3, 3)], structures, structures[1:]):
            both(chosen)
    both(structures[:4])  # fewer than 17 atoms are a program of their own to the compiler
    assert mine.reason is None
