"""Building models."""

from __future__ import annotations

import torch
from ase.build import bulk, molecule

from gnn.graphs.collate import batch_of_atoms
from gnn.models.config import ModelConfig
from gnn.models.heads import AtomReadout
from gnn.models.linear import SILU_GAIN, Linear
from gnn.models.model import build_model

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
    frame = batch_of_atoms([molecule("CH3CH2OH")], 4.0, dtype=torch.float64)
    exact = build_model(CONFIG).double()
    there_and_back = build_model(CONFIG).half().double()
    there_and_back.load_state_dict(exact.state_dict())
    assert torch.equal(exact.predict(frame).energy, there_and_back.predict(frame).energy)


def test_eighty_nine_elements_cost_only_their_embeddings() -> None:
    few = sum(p.numel() for p in build_model(ModelConfig(elements=["H", "C", "N", "O"] * 1)).parameters())
    from ase.data import chemical_symbols

    many = sum(p.numel() for p in build_model(ModelConfig(elements=chemical_symbols[1:90])).parameters())
    assert many < 2 * few


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
