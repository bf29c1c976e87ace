"""Training from a trained model: step 0 is its parent, whatever the data add."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gnn.errors import InputError
from gnn.graphs.batch import Batch
from gnn.graphs.graph_set import PropertyStatistics
from gnn.models.config import PropertyScale
from gnn.models.element_weights import ElementWeights
from gnn.models.model import Model, build_model
from gnn.structures.properties import PropertySpec
from gnn.training.ema import copy_weights
from gnn.training.finetune import Start, _grown_table, continued, unsettled
from gnn.training.loop import train
from gnn.training.resolve import TUNING_LR, Recipe, resolve

THEORY = "emt/ase"
GAP = PropertySpec(unit="eV")
ISOLATED = {THEORY: {"Al": "isolated", "Cu": "isolated"}}


@pytest.fixture
def start(copper: Any, tiny_recipe: Callable[..., Any]) -> Start:
    """A network of Al and Cu with weights of its own, and references and bonding unlike those of the data."""
    own = {"references": {THEORY: {"Al": -1.5, "Cu": 0.5}}, "bonding": {THEORY: {"Al": -1.0, "Cu": -3.0}}}
    model = tiny_recipe().model.model_copy(update=own)
    weights = {name: value.detach() for name, value in build_model(model, seed=7).named_parameters()}
    return Start(model, "sha", weights, ISOLATED)


@pytest.fixture
def begin(tiny_config: Callable[..., Any]) -> Callable[..., tuple[Model, Recipe]]:
    """A maker of the model that a fine-tuning has before its first step."""

    def make(start: Start, data: Any, **changes: Any) -> tuple[Model, Recipe]:
        recipe = resolve(tiny_config(model={}, **changes), data.graph_set, start, data)
        model = build_model(recipe.model, seed=3)
        copy_weights(model, recipe.initial_weights(model))
        return model, recipe

    return make


def whole(data: Any, split: str = "train") -> Batch:
    return next(data.batches(split, 10_000, shuffle=False))


def with_theories(data: Any, theories: list[str], references: dict[str, dict[str, float]]) -> Any:
    """The data relabelled: every graph has the last theory; the source of all references is a fit."""
    known = data.graph_set.references[THEORY]
    found = {
        t: known.model_copy(update={"energies": references[t], "source": dict.fromkeys(references[t], "fitted")})
        for t in theories
    }
    held = {split: [replace(g, theory=theories[-1]) for g in graphs] for split, graphs in data.held.items()}
    return replace(
        data, held=held, graph_set=data.graph_set.model_copy(update={"theories": theories, "references": found})
    )


def test_step_zero_is_the_parent_whatever_references_the_data_have(
    copper: Any, start: Start, begin: Callable[..., Any]
) -> None:
    data = with_theories(copper, [THEORY], {THEORY: {"Al": 100.0, "Cu": -100.0}})
    model, recipe = begin(start, data)
    batch = whole(copper)
    mine, parents = model.predict(batch), start.network().predict(batch)
    assert torch.equal(mine.energy, parents.energy)
    assert torch.equal(mine.forces, parents.forces)
    assert recipe.model.references == start.model.references
    assert recipe.model.bonding == start.model.bonding
    assert recipe.lr == TUNING_LR
    assert "as --init" in recipe.remarks[1]
    assert "added: nothing" in recipe.remarks[2]


def test_the_first_validation_of_a_training_is_the_parents(
    copper: Any, start: Start, tiny_config: Callable[..., Any], run_folder: Path
) -> None:
    from gnn.training.evaluation import evaluate

    recipe = resolve(tiny_config(model={}, epochs=1), copper.graph_set, start, copper)
    outcome = train(recipe, copper, run_folder)
    parents = evaluate([start.network()], [whole(copper, "valid")]).headline()
    assert outcome.curve[0].step == 0
    assert outcome.curve[0].valid == pytest.approx(parents, rel=1e-4)


def test_a_new_theory_starts_with_the_parents_energies_and_fitted_references(
    copper: Any, start: Start, begin: Callable[..., Any]
) -> None:
    theories = ["new/code", THEORY]
    data = with_theories(copper, theories, {t: {"Al": 7.0, "Cu": 3.0} for t in theories})
    held = {split: [replace(g, theory="new/code") for g in graphs] for split, graphs in data.held.items()}
    parent = start.network()
    shifted = {
        split: [replace(g, energy=float(parent.predict(batch_of(copper, g)).energy) + 4.0 * g.n_atoms) for g in graphs]
        for split, graphs in held.items()
    }
    model, recipe = begin(start, replace(data, held=shifted))
    assert recipe.model.theories == theories
    batch = whole(replace(data, held=shifted))
    error = (model.predict(batch).energy - batch.labels.energy) / batch.n_atoms
    assert float(error.abs().max()) < 1e-3
    assert recipe.model.references["new/code"] == pytest.approx({"Al": 2.5, "Cu": 4.5}, abs=1e-3)
    # the theory that both know is untouched
    old = replace(batch, theory=torch.ones_like(batch.theory))
    torch.testing.assert_close(
        model.predict(old).energy, parent.predict(replace(batch, theory=torch.zeros_like(batch.theory))).energy
    )
    assert "references fitted" in recipe.remarks[2]


def batch_of(data: Any, graph: Any) -> Batch:
    from gnn.graphs.collate import collate

    return collate([replace(graph, theory=THEORY)], [THEORY])


def test_isolated_atoms_on_both_sides_need_no_fit(copper: Any, start: Start) -> None:
    references = copper.graph_set.references[THEORY]
    graph_set = copper.graph_set.model_copy(update={"theories": ["new/code"], "references": {"new/code": references}})
    assert unsettled(start, graph_set) == {}
    assert unsettled(replace(start, reference_sources={}), graph_set) == {"new/code": ["Al", "Cu"]}


def test_an_element_is_known_only_where_its_theory_has_energies_of_it(
    copper: Any, tiny_recipe: Callable[..., Any], begin: Callable[..., Any]
) -> None:
    """Al comes with a new theory, beside energies of Cu alone at the old one."""
    small = tiny_recipe().model.model_copy(update={"elements": ["Cu"], "references": {THEORY: {"Cu": 0.5}}})
    weights = {name: value.detach() for name, value in build_model(small, seed=7).named_parameters()}
    data = with_theories(copper, [THEORY, "new/code"], {THEORY: {"Cu": 3.0}, "new/code": {"Al": 7.0, "Cu": 3.0}})
    held = {split: [pure_at_the_old_theory(g) for g in graphs] for split, graphs in data.held.items()}
    start = Start(small, "sha", weights, {THEORY: {"Cu": "fitted"}})
    assert unsettled(start, data.graph_set) == {"new/code": ["Al", "Cu"]}
    _, recipe = begin(start, replace(data, held=held))
    assert recipe.model.references[THEORY] == {"Cu": 0.5}
    assert sorted(recipe.model.references["new/code"]) == ["Al", "Cu"]


def pure_at_the_old_theory(graph: Any) -> Any:
    return replace(graph, theory=THEORY) if set(graph.numbers.tolist()) == {29} else graph


def test_a_new_element_with_an_isolated_atom_brings_its_bonding(copper: Any, tiny_recipe: Callable[..., Any]) -> None:
    own = {"elements": ["Cu"], "references": {THEORY: {"Cu": 0.5}}, "bonding": {THEORY: {"Cu": -3.0}}}
    small = tiny_recipe().model.model_copy(update=own)
    start = Start(small, "sha", {}, {THEORY: {"Cu": "isolated"}})
    given = {"energies": {"Al": 1.0, "Cu": 0.4}, "source": ISOLATED[THEORY], "bonding": {"Al": -2.0, "Cu": -3.3}}
    references = {THEORY: copper.graph_set.references[THEORY].model_copy(update=given)}
    found = continued(start, copper.graph_set.model_copy(update={"references": references}), {}, {})
    assert found.references == {THEORY: {"Cu": 0.5, "Al": 1.0}}
    assert found.bonding == {THEORY: {"Cu": -3.0, "Al": -2.0}}


def test_new_elements_leave_the_known_ones_as_they_were(
    copper: Any, tiny_recipe: Callable[..., Any], begin: Callable[..., Any]
) -> None:
    small = tiny_recipe().model.model_copy(update={"elements": ["Cu"], "references": {THEORY: {"Cu": 0.5}}})
    weights = {name: value.detach() for name, value in build_model(small, seed=7).named_parameters()}
    start = Start(small, "sha", weights)
    model, recipe = begin(start, copper)
    assert recipe.model.elements == ["Cu", "Al"]
    assert "elements Al" in recipe.remarks[2]
    pure = [g for g in copper.held["train"] if set(g.numbers.tolist()) == {29}]
    for graph in pure:
        batch = batch_of(copper, graph)
        mine, parents = model.predict(batch), start.network().predict(batch)
        assert float((mine.energy - parents.energy).abs()) < 1e-3 * graph.n_atoms
        torch.testing.assert_close(mine.forces, parents.forces, rtol=1e-4, atol=1e-4)
    mixed = whole(copper)
    rest = (mixed.labels.energy - model.predict(mixed).energy)[torch.tensor(_with_al(copper))]
    assert abs(float(rest.mean())) < 0.05
    model.predict(mixed, training=True).energy.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_a_new_element_begins_as_its_relatives_are() -> None:
    torch.manual_seed(0)
    parent, grown = (ElementWeights(elements, 8, 4).double() for elements in (["Na", "Cl"], ["Na", "Cl", "K", "Br"]))
    element, vector = _grown_table(parent, grown, ["Na", "Cl", "K", "Br"])
    with torch.no_grad():
        grown.element.copy_(element)
        grown.vector.copy_(vector)
    na, cl, k, br = grown()
    torch.testing.assert_close(torch.stack([na, cl]), parent())
    assert torch.dist(k, na) < 0.6 * torch.dist(k, cl)
    assert torch.dist(br, cl) < 0.6 * torch.dist(br, na)


def _with_al(data: Any) -> list[bool]:
    return [13 in graph.numbers for graph in data.held["train"]]


def test_a_new_property_gets_a_head_and_a_lost_one_goes(copper: Any, start: Start, begin: Callable[..., Any]) -> None:
    model, recipe = begin(start, with_gap(copper))
    assert list(model.property_heads) == ["gap"]
    assert recipe.model.property_scales["gap"].mean == 2.0
    assert torch.equal(model.predict(whole(copper)).energy, start.network().predict(whole(copper)).energy)
    known = {name: value.detach() for name, value in model.named_parameters()}
    again, _ = begin(Start(recipe.model, "sha", known, ISOLATED), copper)
    assert not again.property_heads


def test_theories_without_data_are_left_out(copper: Any, start: Start, begin: Callable[..., Any]) -> None:
    config = start.model.model_copy(
        update={
            "theories": ["other", THEORY],
            "references": {"other": {"Al": 9.0, "Cu": 9.0}, **start.model.references},
        }
    )
    two = Start(config, "sha", {n: v.detach() for n, v in build_model(config, 5).named_parameters()}, ISOLATED)
    model, recipe = begin(two, copper)
    assert recipe.model.theories == [THEORY]
    batch = whole(copper)
    expected = two.network().predict(replace(batch, theory=torch.ones_like(batch.theory))).energy
    np.testing.assert_allclose(model.predict(batch).energy.numpy(), expected.numpy(), atol=1e-5)


def test_the_child_of_several_theories_keeps_the_properties_of_the_one_it_goes_on_with(
    copper: Any, start: Start, begin: Callable[..., Any]
) -> None:
    data = with_gap(copper)
    config = start.model.model_copy(
        update={
            "theories": ["other", THEORY],
            "references": {"other": {"Al": 9.0, "Cu": 9.0}, **start.model.references},
            "properties": data.graph_set.properties,
            "property_scales": {"gap": PropertyScale(mean=1.0, std=0.3)},
        }
    )
    torch.manual_seed(1)
    weights = {name: torch.randn_like(v) for name, v in build_model(config, 5).named_parameters()}
    model, _ = begin(Start(config, "sha", weights, ISOLATED), data)
    batch = whole(copper)
    parents = Start(config, "sha", weights).network().predict(replace(batch, theory=torch.ones_like(batch.theory)))
    others = Start(config, "sha", weights).network().predict(batch)
    torch.testing.assert_close(model.predict(batch).properties["gap"], parents.properties["gap"])
    assert not torch.allclose(parents.properties["gap"], others.properties["gap"])


def with_gap(data: Any, spec: PropertySpec = GAP) -> Any:
    """The data with a property that there are labels of."""
    statistics = data.graph_set.statistics.model_copy(
        update={"properties": {"gap": PropertyStatistics(n=16, mean=2.0, std=0.5)}}
    )
    changes = {"properties": {"gap": spec}, "statistics": statistics}
    return replace(data, graph_set=data.graph_set.model_copy(update=changes))


def test_a_theory_without_energies_has_no_references_to_settle(
    copper: Any, start: Start, begin: Callable[..., Any]
) -> None:
    data = with_gap(copper)
    model, recipe = begin(start, replace(data, graph_set=data.graph_set.model_copy(update={"references": {}})))
    assert recipe.model.references == start.model.references
    assert torch.equal(model.predict(whole(copper)).energy, start.network().predict(whole(copper)).energy)


def test_an_element_that_comes_late_has_its_reference_fitted_too(
    copper: Any, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gnn.training import finetune

    monkeypatch.setattr(finetune, "ENOUGH_STRUCTURES", 4)
    parent = start.network()
    pure = [g for g in copper.held["train"] if set(g.numbers.tolist()) == {29}]
    mixed = next(g for g in copper.held["train"] if 13 in g.numbers)
    # unlabelled energies say nothing of an element, whenever it comes
    unlabelled = replace(mixed, energy=None)
    graphs = [*[pure[k % len(pure)] for k in range(8)], unlabelled, pure[0], mixed, pure[0]]

    def shifted(graph: Any) -> Any:
        if graph.energy is None:
            return graph
        known = {29: 4.0, 13: -6.0}
        more = sum(known[number] for number in graph.numbers.tolist())
        return replace(graph, energy=float(parent.predict(batch_of(copper, graph)).energy) + more)

    batches = (batch_of(copper, shifted(graph)) for graph in graphs)
    found = finetune.settled(parent, batches, {THEORY: ["Al", "Cu"]})
    assert found[THEORY] == pytest.approx({"Al": -7.5, "Cu": 4.5}, abs=1e-3)
    assert len(list(batches)) == 1  # what comes after the last missing one is not read


def test_what_cannot_go_on_is_refused(copper: Any, start: Start, tiny_config: Callable[..., Any]) -> None:
    far = replace(start, model=start.model.model_copy(update={"cutoff": 5.0}))
    with pytest.raises(InputError, match="cutoff 5 Å, the graphs 4 Å"):
        resolve(tiny_config(model={}), copper.graph_set, far)


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"unit": "meV"}, "in meV, of each structure, intensive"),
        ({"unit": "eV", "level": "atom"}, "in eV, of each atom, intensive"),
        ({"unit": "eV", "extensive": True}, "in eV, of each structure, extensive"),
    ],
)
def test_a_property_that_is_declared_otherwise_is_refused(
    copper: Any, start: Start, begin: Callable[..., Any], declared: dict[str, Any], said: str
) -> None:
    parent = replace(start, model=begin(start, with_gap(copper))[1].model)
    data = with_gap(copper, PropertySpec(**declared))
    with pytest.raises(InputError, match=f"gap: --init has it in eV, of each structure, intensive, the data {said};"):
        begin(parent, data)


def test_the_start_decides_the_cutoff(start: Start, tiny_config: Callable[..., Any]) -> None:
    from gnn.training.resolve import cutoff_of

    assert cutoff_of(tiny_config(), start.model) == 4.0
    assert cutoff_of(tiny_config(data={"cutoff": 6.0}), start.model) == 6.0
