"""What every family and every head must obey, whatever its weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk, make_supercell, molecule
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from springs import Springs

from gnn.errors import InputError
from gnn.graphs.batch import Batch
from gnn.graphs.collate import batch_of_atoms
from gnn.models.config import PropertyScale
from gnn.models.model import Model, Prediction
from gnn.structures.properties import PropertySpec
from gnn.structures.units import matrix_from_voigt

Batcher = Callable[..., Batch]
Builder = Callable[..., Model]


def turned(atoms: Atoms, matrix: np.ndarray) -> Atoms:
    """The structure under an orthogonal matrix: r -> M r."""
    out = atoms.copy()
    out.set_cell(atoms.cell @ matrix.T)
    out.positions = atoms.positions @ matrix.T
    return out


def close(a: torch.Tensor, b: torch.Tensor, rtol: float = 1e-9) -> None:
    scale = max(1.0, float(b.abs().max())) if b.numel() else 1.0
    assert float((a - b).abs().max() if b.numel() else 0.0) <= rtol * scale


def same(a: Prediction, b: Prediction, matrix: np.ndarray) -> None:
    """b is a under an orthogonal matrix."""
    turn = torch.tensor(matrix)
    close(b.energy, a.energy)
    close(b.forces, a.forces @ turn.T)
    before = torch.tensor(np.stack([matrix_from_voigt(s) for s in a.stress.numpy()]))
    after = torch.tensor(np.stack([matrix_from_voigt(s) for s in b.stress.numpy()]))
    close(after, turn @ before @ turn.T)


@pytest.mark.parametrize("mirror", [1, -1], ids=["rotation", "reflection"])
def test_turning_turns_forces_and_stress(
    model: Model, batch: Batcher, ethanol: Atoms, alloy: Atoms, mirror: int
) -> None:
    matrix = mirror * Rotation.random(random_state=5).as_matrix()
    before = model.predict(batch(ethanol, alloy))
    after = model.predict(batch(turned(ethanol, matrix), turned(alloy, matrix)))
    same(before, after, matrix)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), mirror=st.sampled_from([1, -1]))
def test_any_rotation(seed: int, mirror: int) -> None:
    from gnn.models.config import ModelConfig
    from gnn.models.model import build_model

    config = ModelConfig(elements=["H", "C", "O"], cutoff=4.0, channels=4, hidden_l_max=1, radial_hidden=[8])
    model, atoms = build_model(config, seed=seed % 7).double(), molecule("CH3CH2OH")
    atoms.rattle(0.1, seed=seed)
    matrix = mirror * Rotation.random(random_state=seed).as_matrix()
    before, after = (model.predict(batch_of_atoms([a], 4.0)) for a in (atoms, turned(atoms, matrix)))
    same(before, after, matrix)


def test_translation_changes_nothing(model: Model, batch: Batcher, ethanol: Atoms, alloy: Atoms) -> None:
    moved = [atoms.copy() for atoms in (ethanol, alloy)]
    for atoms in moved:
        atoms.positions += [1.7, -20.3, 5.1]
    same(model.predict(batch(ethanol, alloy)), model.predict(batch(*moved)), np.eye(3))


def test_wrapping_changes_nothing(model: Model, batch: Batcher, alloy: Atoms) -> None:
    wrapped = alloy.copy()
    wrapped.positions[0] += wrapped.cell[0] - 2 * wrapped.cell[2]
    same(model.predict(batch(alloy)), model.predict(batch(wrapped)), np.eye(3))


def test_order_of_atoms_does_not_matter(model: Model, batch: Batcher, ethanol: Atoms) -> None:
    order = np.random.default_rng(0).permutation(len(ethanol))
    before, after = model.predict(batch(ethanol)), model.predict(batch(ethanol[order]))
    close(after.energy, before.energy)
    close(after.forces, before.forces[torch.tensor(order)])


def test_supercells_have_the_same_energy_an_atom(model: Model, batch: Batcher, alloy: Atoms) -> None:
    big = make_supercell(alloy, [[1, 1, 0], [0, 2, 0], [0, 0, 1]])
    small, large = model.predict(batch(alloy)), model.predict(batch(big))
    close(large.energy / len(big), small.energy / len(alloy))
    close(large.stress, small.stress)


def test_forces_are_the_slope_of_the_energy(model: Model, batch: Batcher, ethanol: Atoms, alloy: Atoms) -> None:
    frame = batch(ethanol, alloy)
    forces = model.predict(frame).forces
    direction = torch.tensor(np.random.default_rng(1).normal(size=forces.shape))
    slope = _derivative(lambda t: model.predict(replace(frame, positions=frame.positions + t * direction)).energy.sum())
    assert slope == pytest.approx(-float((forces * direction).sum()), abs=1e-6, rel=1e-8)


def test_stress_is_the_slope_of_the_energy_under_strain(model: Model, batch: Batcher, alloy: Atoms) -> None:
    frame = batch(alloy)
    stress = matrix_from_voigt(model.predict(frame).stress[0].numpy())
    strain = np.random.default_rng(2).normal(size=(3, 3))
    strain = torch.tensor(strain + strain.T)

    def energy(t: float) -> torch.Tensor:
        map_ = torch.eye(3, dtype=torch.float64) + t * strain
        return model.predict(replace(frame, positions=frame.positions @ map_, cell=frame.cell @ map_)).energy.sum()

    expected = float((torch.tensor(stress) * strain).sum()) * alloy.get_volume()
    assert _derivative(energy) == pytest.approx(expected, abs=1e-6, rel=1e-8)


def _derivative(function: Callable[[float], torch.Tensor], h: float = 2e-5) -> float:
    """Central difference of fourth order at 0."""
    near, far = (float(function(s * h) - function(-s * h)) for s in (1, 2))
    return (8 * near - far) / (12 * h)


def test_forces_sum_to_zero(model: Model, batch: Batcher, ethanol: Atoms, alloy: Atoms) -> None:
    for atoms in (ethanol, alloy):
        forces = model.predict(batch(atoms)).forces
        close(forces.sum(0) / float(forces.abs().max()), torch.zeros(3), 1e-10)


def test_energy_is_smooth_where_an_atom_crosses_the_cutoff(model: Model, batch: Batcher) -> None:
    def pulled(distance: float) -> Prediction:
        frame = batch(Atoms("COH", [[0, 0, 0], [0, 1.2, 0], [0.3, 0.1, distance]]), cutoff=4.5)
        return model.predict(frame)

    rim = float(np.sqrt(4.0**2 - 0.1))
    gaps = (1e-1, 1e-2, 1e-3)
    slopes = [float(pulled(rim - d).forces[2].norm() - pulled(rim + d).forces[2].norm()) for d in gaps]
    bends = [float(pulled(rim - d).energy - pulled(rim).energy) for d in gaps]
    inner = float(pulled(rim - 1.0).forces[2].norm())
    assert abs(slopes[2]) < 1e-4 * inner
    assert abs(slopes[2]) < 3e-2 * abs(slopes[1]) + 1e-12
    assert abs(bends[2]) < 1e-2 * abs(bends[1]) + 1e-12


def test_far_copies_add_up(model: Model, batch: Batcher, ethanol: Atoms) -> None:
    copy = ethanol.copy()
    copy.positions += [0, 0, 40.0]
    both = model.predict(batch(ethanol + copy))
    close(both.energy, 2 * model.predict(batch(ethanol)).energy)


def test_company_in_a_batch_changes_nothing(model: Model, batch: Batcher, mixture: Sequence[Atoms]) -> None:
    together = model.predict(batch(*mixture))
    alone = [model.predict(batch(atoms)) for atoms in mixture]
    close(together.energy, torch.cat([one.energy for one in alone]))
    close(together.forces, torch.cat([one.forces for one in alone]))
    close(together.stress, torch.cat([one.stress for one in alone]))


def test_one_atom_has_its_own_energy_and_no_force(model: Model, batch: Batcher) -> None:
    alone, apart = model.predict(batch(Atoms("Si"))), model.predict(batch(Atoms("SiSi", [[0, 0, 0], [9.0, 0, 0]])))
    assert torch.isfinite(alone.energy).all()
    close(apart.energy, 2 * alone.energy)
    for found in (alone, apart):
        assert not found.forces.any()
        assert not found.stress.any()


def test_training_gives_gradients_of_a_force_loss_to_every_weight(
    model: Model, batch: Batcher, mixture: Sequence[Atoms]
) -> None:
    found = model.predict(batch(*mixture), training=True)
    (found.energy.square().sum() + found.forces.square().sum() + found.stress.square().sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_training_without_neighbours(model: Model, batch: Batcher) -> None:
    found = model.predict(batch(Atoms("H"), Atoms("O")), training=True)
    (found.energy.sum() + found.forces.square().sum() + found.stress.square().sum()).backward()


def test_gradients_of_a_force_loss_are_right(model: Model, batch: Batcher, ethanol: Atoms) -> None:
    frame = batch(ethanol)
    parameter = dict(model.named_parameters())[next(n for n, _ in model.named_parameters() if "radial" in n)]
    model.predict(frame, training=True).forces.square().sum().backward()
    direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)).double()
    original = parameter.detach().clone()

    def loss(t: float) -> torch.Tensor:
        parameter.data = original + t * direction
        return model.predict(frame).forces.square().sum()

    expected = float((parameter.grad * direction).sum())
    assert _derivative(loss, 1e-4) == pytest.approx(expected, rel=1e-6)


def test_unknown_element_is_named(model: Model, batch: Batcher) -> None:
    with pytest.raises(InputError, match="Xe"):
        model.predict(batch(Atoms("XeH", [[0, 0, 0], [0, 0, 1.5]])))


def test_unknown_theory_is_named(model: Model, batch: Batcher, ethanol: Atoms) -> None:
    frame = batch(ethanol)
    with pytest.raises(InputError, match="theory index 1"):
        model.predict(replace(frame, theory=frame.theory + 1))


def test_float32_agrees_with_float64(build: Builder, batch: Batcher, mixture: Sequence[Atoms]) -> None:
    model = build()
    exact = model.predict(batch(*mixture))
    rough = model.float().predict(batch(*mixture))
    assert rough.energy.dtype == torch.float64
    close(rough.energy, exact.energy, 2e-5)
    close(rough.forces, exact.forces, 2e-4)
    again = model.double().predict(batch(*mixture))
    close(again.energy, exact.energy, 1e-6)


def test_float32_loses_nothing_far_from_the_origin(
    build: Builder, batch: Batcher, ethanol: Atoms, alloy: Atoms
) -> None:
    model = build().float()
    here, far = [ethanol, alloy], [ethanol.copy(), alloy.copy()]
    for atoms in far:
        atoms.translate([1024.0, -512.0, 4096.0])
    near, moved = model.predict(batch(*here)), model.predict(batch(*far))
    close(moved.energy, near.energy, 1e-6)
    close(moved.forces, near.forces, 1e-6)
    close(moved.stress, near.stress, 1e-6)


def test_reference_energies_stay_exact_in_float32(build: Builder, batch: Batcher) -> None:
    model = build(references={"default": {"H": -654321.123456789}}).float()
    for parameter in model.parameters():
        parameter.data.zero_()
    assert float(model.predict(batch(Atoms("H"))).energy) == -654321.123456789


def test_theories_have_their_own_references_and_readouts(build: Builder, batch: Batcher, ethanol: Atoms) -> None:
    model = build(theories=["pbe", "r2scan"], bonding={}, references={"pbe": {"H": -1.0}, "r2scan": {"H": -5.0}})
    frame = batch(ethanol, ethanol)
    found = model.predict(replace(frame, theory=torch.tensor([0, 1])))
    gap = float(found.energy[1] - found.energy[0])
    assert gap != pytest.approx(6 * -4.0, abs=1e-6)
    assert not torch.allclose(found.forces[: len(ethanol)], found.forces[len(ethanol) :])


PROPERTIES = {
    "total": PropertySpec(unit="eV", extensive=True),
    "gap": PropertySpec(unit="eV"),
    "charge": PropertySpec(unit="e", level="atom"),
}


def test_property_heads_scale_as_their_kind_says(build: Builder, batch: Batcher, alloy: Atoms) -> None:
    model = build(properties=PROPERTIES)
    big = alloy.repeat((2, 1, 1))
    small, large = (model.predict(batch(atoms)).properties for atoms in (alloy, big))
    close(large["total"], 2 * small["total"])
    close(large["gap"], small["gap"])
    close(large["charge"], small["charge"].repeat(2))


def test_extensive_properties_stay_exact_in_float32(build: Builder, batch: Batcher, alloy: Atoms) -> None:
    """Total energies of molecules are of this size beside what is learnt."""
    far = {"total": PropertyScale(mean=-7900.123456, std=0.1)}
    model = build(properties={"total": PROPERTIES["total"]}, property_scales=far).float()
    big = alloy.repeat((2, 2, 2))
    small, large = (model.predict(batch(atoms)).properties["total"] for atoms in (alloy, big))
    assert abs(float(large - 8 * small)) < 1e-5 * len(big)


@pytest.mark.parametrize("name", ["type", "values", "train", "keys", "double"])
def test_a_property_may_have_a_name_of_torchs_own(build: Builder, batch: Batcher, ethanol: Atoms, name: str) -> None:
    model = build(properties={name: PropertySpec(unit="eV")})
    assert list(model.predict(batch(ethanol)).properties) == [name]


def test_theories_shift_a_property_only_where_they_were_taught(build: Builder, batch: Batcher, ethanol: Atoms) -> None:
    model = build(properties=PROPERTIES, theories=["pbe", "r2scan"], bonding={}, references={})
    frame = batch(ethanol, ethanol)
    frame = replace(frame, theory=torch.tensor([0, 1]))
    untaught = model.predict(frame, forces=False, stress=False).properties
    close(untaught["gap"][0], untaught["gap"][1])
    with torch.no_grad():
        model.property_heads["gap"].shift.of_theory[-1, 1] = 2.0
    taught = model.predict(frame, forces=False, stress=False).properties
    close(taught["gap"], untaught["gap"] + torch.tensor([0.0, 2.0]).double())
    close(taught["charge"], untaught["charge"])


def test_labels_of_one_theory_teach_its_shift_alone(build: Builder, batch: Batcher, ethanol: Atoms) -> None:
    model = build(properties=PROPERTIES, theories=["pbe", "r2scan"], bonding={}, references={})
    frame = replace(batch(ethanol, ethanol), theory=torch.tensor([0, 1]))
    model.predict(frame, training=True).properties["gap"][1].backward()
    gradient = model.property_heads["gap"].shift.of_theory.grad
    assert not gradient[:, 0].any()
    assert gradient[:, 1].any()


def test_property_heads_are_invariant(build: Builder, batch: Batcher, ethanol: Atoms) -> None:
    model = build(properties=PROPERTIES)
    matrix = -Rotation.random(random_state=8).as_matrix()
    before, after = (model.predict(batch(a)).properties for a in (ethanol, turned(ethanol, matrix)))
    for name in PROPERTIES:
        close(after[name], before[name])


def test_properties_alone_need_no_forces(build: Builder, batch: Batcher, ethanol: Atoms) -> None:
    found = build(properties=PROPERTIES).predict(batch(ethanol), forces=False, stress=False, training=True)
    assert found.forces is None
    assert found.stress is None
    found.properties["gap"].sum().backward()


def test_predictions_carry_no_graph(build: Builder, batch: Batcher, ethanol: Atoms) -> None:
    found = build(properties=PROPERTIES).predict(batch(ethanol))
    for value in (found.energy, found.forces, found.stress, found.node_energy, *found.properties.values()):
        assert not value.requires_grad


def test_core_repulsion_keeps_atoms_apart(build: Builder, batch: Batcher) -> None:
    pair = [Atoms("CuCu", [[0, 0, 0], [0, 0, d]]) for d in (0.5, 0.8)]
    bare, cored = (build(zbl=zbl).predict(batch(*pair)) for zbl in (False, True))
    repulsion = cored.energy - bare.energy
    assert repulsion[0] > repulsion[1] > 0
    assert (cored.forces - bare.forces)[0, 2] < 0


def test_forces_with_core_repulsion_are_the_slope_of_the_energy(build: Builder, batch: Batcher, alloy: Atoms) -> None:
    model, close_pair = build(zbl=True), Atoms("CO", [[0, 0, 0], [0.1, 0.2, 0.7]])
    frame = batch(close_pair, alloy)
    forces = model.predict(frame).forces
    direction = torch.tensor(np.random.default_rng(4).normal(size=forces.shape))
    slope = _derivative(lambda t: model.predict(replace(frame, positions=frame.positions + t * direction)).energy.sum())
    assert slope == pytest.approx(-float((forces * direction).sum()), abs=1e-6, rel=1e-8)


@pytest.mark.long
def test_a_hundred_thousand_atoms(build: Builder) -> None:
    atoms = bulk("Al", cubic=True).repeat((25, 25, 40))
    atoms.rattle(0.05, seed=0)
    assert len(atoms) == 100_000
    model = build(cutoff=3.2, hidden_l_max=0).float()
    found = model.predict(batch_of_atoms([atoms], 3.2))
    assert torch.isfinite(found.forces).all()
    assert float(found.forces.double().sum(0).abs().max()) < 1e-1


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_energy_is_conserved_for_ten_picoseconds(build: Builder) -> None:
    """A molecule and a crystal move in the field of a network and of springs, which keep them together.

    In a network alone, its weights at random or from a short training, the molecule finds a hole to fall into. Core
    repulsion stays out: its wall begins at the lengths of bonds, and to vibrate against it takes much shorter steps.
    """
    springs, n_steps = Springs([tritiated(molecule("CH3CH2OH")), bulk("Cu", cubic=True)]), 33_400
    model = pushing(build, springs).requires_grad_(False)
    energies, heat, stretch = torch.zeros(n_steps, 2).double(), torch.zeros(2).double(), 0.0
    course = springs.moving(springs.beside(model), 600.0, 0.3 * units.fs, n_steps, seed=1)
    for n, (positions, potential, kinetic) in enumerate(course):
        energies[n] = (potential + kinetic) / springs.rest.n_atoms
        heat += kinetic / (1.5 * units.kB * springs.rest.n_atoms) / n_steps
        stretch = max(stretch, springs.stretch(positions))
    drift = energies[-n_steps // 10 :].mean(0) - energies[: n_steps // 10].mean(0)
    assert (heat > 200).all()
    assert stretch < 1.0
    assert (drift.abs() < 1e-3).all()


def tritiated(atoms: Atoms) -> Atoms:
    """With the heaviest hydrogen, whose vibrations 0.3 fs resolve as 0.17 fs do those of the lightest.

    The energy that a step of 0.5 fs keeps differs from the true one by up to 1 meV/atom, as heat wanders into the stiff
    vibrations and out of them.
    """
    atoms.set_masses(np.where(atoms.numbers == 1, 3.016, atoms.get_masses()))
    return atoms


def pushing(build: Builder, springs: Springs, strength: float = 0.1) -> Model:
    """A model of random weights whose forces on moving atoms are of this size in the root mean square, eV/Å."""
    *_, (positions, _, _) = springs.moving(springs, 600.0, 1.0 * units.fs, 200, seed=0)
    fields = {"hidden_l_max": 1, "cutoff": 3.5, "references": {}}
    forces = build(**fields).predict(springs.batch(positions, 3.5)).forces
    return build(**fields, energy_scale=strength / float(forces.square().mean().sqrt()))
