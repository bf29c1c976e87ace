"""Building models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.data import chemical_symbols
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from gnn.graphs.collate import batch_of_atoms
from gnn.models.config import ModelConfig, PropertyScale
from gnn.models.heads import AtomReadout
from gnn.models.linear import SILU_GAIN, Linear
from gnn.models.model import Model, build_model
from gnn.models.network import FAMILIES
from gnn.structures.properties import PropertySpec

CONFIG = ModelConfig(elements=["H", "C", "O"], channels=8, radial_hidden=[8], cutoff=4.0)


def test_the_same_seed_gives_the_same_weights_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    a, b, c = build_model(CONFIG, 1), build_model(CONFIG, 1), build_model(CONFIG, 2)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not all(torch.equal(x, y) for x, y in zip(a.parameters(), c.parameters(), strict=True))


def test_weights_are_float32_and_constants_are_not_saved() -> None:
    model = build_model(CONFIG)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}


def test_weights_carry_over_by_state_dict() -> None:
    a, b = build_model(CONFIG, 1), build_model(CONFIG, 2)
    b.load_state_dict(a.state_dict())
    frame = batch_of_atoms([molecule("CH3CH2OH")], 4.0)
    assert torch.equal(a.predict(frame).forces, b.predict(frame).forces)


def test_constants_survive_a_round_trip_of_precision() -> None:
    frame = batch_of_atoms([molecule("CH3CH2OH")], 4.0)
    exact = build_model(CONFIG).double()
    there_and_back = build_model(CONFIG).half().double()
    there_and_back.load_state_dict(exact.state_dict())
    assert torch.equal(exact.predict(frame).energy, there_and_back.predict(frame).energy)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_the_network_there_are_references_bonding_and_means(family: str) -> None:
    config = ModelConfig(
        elements=["H", "C", "O"], family=family, channels=8, radial_hidden=[8], cutoff=4.0,
        references={"default": {"H": -1.0, "C": -4.0, "O": -2.0}}, bonding={"default": {"C": -3.0}},
        properties={"gap": PropertySpec(unit="eV")}, property_scales={"gap": PropertyScale(mean=2.5, std=0.5)},
    )  # fmt: skip
    model = build_model(config, seed=3)
    batch = batch_of_atoms([molecule("CH3CH2OH"), molecule("CH4")], 4.0)
    found = model.untaught(batch)
    torch.testing.assert_close(found.energy, torch.tensor([-16.0 - 6.0, -8.0 - 3.0]).double(), atol=0.05, rtol=0)
    torch.testing.assert_close(found.properties["gap"], torch.full((2,), 2.5).double())
    assert found.forces is not None
    assert not found.forces.any()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "readout" in name:
                value.zero_()
    torch.testing.assert_close(model.predict(batch).energy, found.energy)


class FlopCount(TorchDispatchMode):
    """Floating-point operations of all matrix products, those of both derivatives included."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.total += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


def flops_of_a_training_step(model: Model) -> int:
    frame = batch_of_atoms([molecule("CH3CH2OH")] * 16, 5.0)
    with FlopCount() as count:
        found = model.predict(frame, stress=False, training=True)
        (found.energy.sum() + found.forces.square().sum()).backward()
    return count.total


@pytest.mark.parametrize("family", FAMILIES)
def test_eighty_nine_elements_cost_no_more_than_four(family: str) -> None:
    few, many = (
        build_model(ModelConfig(elements=elements, family=family))
        for elements in (["H", "C", "N", "O"], chemical_symbols[1:90])
    )
    weights = [sum(p.numel() for p in model.parameters()) for model in (few, many)]
    assert weights[1] < 1.4 * weights[0]
    assert flops_of_a_training_step(many) < 1.03 * flops_of_a_training_step(few)


def test_energies_sum_from_the_atoms() -> None:
    model = build_model(CONFIG)
    frame = batch_of_atoms([molecule("CH4"), molecule("H2O")], 4.0)
    found = model.predict(frame, forces=False, stress=False)
    torch.testing.assert_close(found.energy, torch.stack([found.node_energy[:5].sum(), found.node_energy[5:].sum()]))
    assert found.forces is None
    assert found.stress is None


def test_stress_is_zero_without_a_full_cell() -> None:
    model = build_model(ModelConfig(elements=["Si"], channels=8, cutoff=4.0))
    slab = bulk("Si", cubic=True)
    slab.pbc = (True, True, False)
    found = model.predict(batch_of_atoms([slab, bulk("Si")], 4.0)).stress
    assert not found[0].any()
    assert found[1].any()


def test_linear_keeps_the_variance() -> None:
    torch.manual_seed(0)
    x = torch.randn(4000, 64)
    assert abs(float(Linear(64, 64)(x).detach().var()) - 1) < 0.2
    active = torch.nn.functional.silu(x) * SILU_GAIN
    assert abs(float(active.square().mean()) - 1) < 0.05


def test_readout_uses_every_layer() -> None:
    readout = AtomReadout(4, 3, 8, 2)
    features = [torch.randn(5, 4, requires_grad=True) for _ in range(3)]
    out = readout(features)
    out.sum().backward()
    assert out.shape == (5, 2)
    assert all(f.grad is not None and f.grad.any() for f in features)


def eight_around_one(turn: float) -> Atoms:
    """Two tetrahedra of H around a C, the second turned by `turn` degrees about z (90: a cube). No two H in reach."""
    corners = np.array([(1, 1, 1), (-1, -1, 1), (1, -1, -1), (-1, 1, -1)]) / np.sqrt(3)
    second = Atoms("H4", corners)
    second.rotate(turn, "z")
    return Atoms("C", [(0, 0, 0)]) + Atoms("H4", corners) + second


@pytest.mark.parametrize(("degree", "differs"), [(2, False), (3, True), (4, True)])
def test_angles_on_cubic_sites_need_more_than_matrices(degree: int, differs: bool) -> None:
    fields = {"elements": ["H", "C"], "cutoff": 1.03, "channels": 8, "edge_l_max": degree}
    model = build_model(ModelConfig(family="tensor", **fields)).double()
    cube, other = (batch_of_atoms([eight_around_one(turn)], 1.03) for turn in (90.0, 80.0))
    difference = float((model.predict(cube).energy - model.predict(other).energy).detach().abs())
    assert (difference > 1e-12) is differs
