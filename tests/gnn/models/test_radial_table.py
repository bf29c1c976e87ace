"""Tables of radial functions say what the network says."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from gnn.graphs.collate import batch_of_atoms
from gnn.models.config import ModelConfig
from gnn.models.model import Model, build_model
from gnn.models.network import FAMILIES
from gnn.models.radial import BesselBasis, RadialNetwork
from gnn.models.radial_table import (
    NEAREST,
    RadialTable,
    basis_polynomials,
    exact_table,
    table_error,
    table_of,
    tabulate,
)

CUTOFF = 4.5
DISTANCES = torch.linspace(0.4, CUTOFF - 1e-6, 1999, dtype=torch.float64)


@pytest.fixture(scope="module")
def network() -> RadialNetwork:
    torch.manual_seed(0)
    return RadialNetwork(BesselBasis(CUTOFF, 8, 5), [32], 12).double()


@pytest.fixture(scope="module")
def table(network: RadialNetwork) -> RadialTable:
    found = exact_table(network)
    assert found is not None
    return found


@pytest.fixture(params=list(FAMILIES))
def model(request: pytest.FixtureRequest) -> Model:
    """With weights as rough as trained ones."""
    config = {"family": request.param, "channels": 8, "radial_hidden": [32], "cutoff": CUTOFF}
    made = build_model(ModelConfig(elements=["H", "C", "O", "Cu"], **config), seed=1).double()
    for parameter in made.network.radial.parameters():
        parameter.data.mul_(1.3)
    return made


def frames() -> list[Atoms]:
    crystal = bulk("Cu", cubic=True)
    made = [molecule("CH3CH2OH"), crystal]
    for seed, atoms in enumerate(made):
        atoms.rattle(0.1, seed=seed)
    return made


def test_b_splines_add_up_to_one() -> None:
    sums = basis_polynomials().sum(axis=1)
    np.testing.assert_allclose(sums, [1, 0, 0, 0, 0, 0], atol=1e-12)


def test_values_and_slopes(network: RadialNetwork, table: RadialTable) -> None:
    r = DISTANCES.clone().requires_grad_(True)
    ours, theirs = table(r), network(r)
    assert float((ours - theirs).abs().max().detach()) < 1e-7 * float(theirs.abs().max().detach())
    for column in range(3):
        a, b = (torch.autograd.grad(values[:, column].sum(), r, retain_graph=True)[0] for values in (ours, theirs))
        assert float((a - b).abs().max()) < 1e-6 * float(b.abs().max())


def test_slopes_are_those_of_the_table(table: RadialTable) -> None:
    r = DISTANCES[::97].clone().requires_grad_(True)
    assert torch.autograd.gradcheck(table, (r,), eps=1e-6, atol=1e-7, rtol=1e-6)


def test_slopes_do_not_jump_between_intervals(table: RadialTable) -> None:
    edge = NEAREST + 60 / table.per_length
    r = torch.tensor([edge - 1e-9, edge + 1e-9], dtype=torch.float64, requires_grad=True)
    (slopes,) = torch.autograd.grad(table(r).sum(), r)
    assert float(slopes[1] - slopes[0]) == pytest.approx(0.0, abs=1e-6 * float(slopes[0].detach().abs()))


def test_nothing_beyond_the_cutoff(table: RadialTable) -> None:
    r = torch.tensor([CUTOFF, CUTOFF + 0.1, 99.0], dtype=torch.float64, requires_grad=True)
    values = table(r)
    assert float(values.abs().max()) < 1e-8
    assert not torch.autograd.grad(values.sum(), r)[0].any()


def test_no_distances(table: RadialTable) -> None:
    assert table(torch.zeros(0, dtype=torch.float64)).shape == (0, 12)


def test_float32_tables_lose_no_more_than_float32_networks(network: RadialNetwork, table: RadialTable) -> None:
    r = DISTANCES.float().requires_grad_(True)
    exact = DISTANCES.float().double().requires_grad_(True)
    (truth,) = torch.autograd.grad(network(exact).sum(), exact)
    rough = copy.deepcopy(network).float()
    errors = [
        float((torch.autograd.grad(function(r).sum(), r)[0] - truth).abs().max()) for function in (table.float(), rough)
    ]
    assert errors[0] < 3 * errors[1]


def test_a_coarse_table_is_refused(network: RadialNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    assert table_error(table_of(network, 16), network) > 1e-4
    monkeypatch.setattr("gnn.models.radial_table.INTERVALS", (8, 16))
    assert exact_table(network) is None


def test_forces_and_stress_are_exact_to_a_millionth(model: Model) -> None:
    frame = batch_of_atoms(frames(), CUTOFF)
    direct = model.predict(frame)
    assert tabulate(model)
    assert isinstance(model.network.radial, RadialTable)
    tabulated = model.predict(frame)
    assert float((tabulated.energy - direct.energy).abs().max()) < 1e-6 * float(direct.energy.abs().max())
    for ours, theirs in ((tabulated.forces, direct.forces), (tabulated.stress, direct.stress)):
        assert float((ours - theirs).abs().max()) < 1e-6 * float(theirs.abs().max())


def test_forces_are_the_slope_of_the_tabulated_energy(model: Model) -> None:
    assert tabulate(model)
    atoms, h = frames()[0], 1e-4

    def energy(shift: float) -> float:
        moved = atoms.copy()
        moved.positions[1, 0] += shift
        return float(model.predict(batch_of_atoms([moved], CUTOFF)).energy)

    slope = (8 * (energy(h) - energy(-h)) - energy(2 * h) + energy(-2 * h)) / (12 * h)
    forces = model.predict(batch_of_atoms([atoms], CUTOFF)).forces
    assert -float(forces[1, 0]) == pytest.approx(slope, rel=1e-6, abs=1e-6)


def test_a_tabulated_model_says_that_it_cannot_be_trained(model: Model) -> None:
    assert tabulate(model)
    found = model.predict(batch_of_atoms(frames(), CUTOFF), training=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        found.forces.square().sum().backward()


def test_nothing_to_tabulate() -> None:
    assert not tabulate(torch.nn.Linear(2, 2))
