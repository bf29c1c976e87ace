"""A checkpoint as a potential: theories, members, precision, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from gnn.errors import InputError
from gnn.graphs.collate import batch_of_atoms
from gnn.models.device import device_of
from gnn.potentials.load import load
from gnn.potentials.potential import BatchPrediction
from gnn.training.checkpoint import read_checkpoint


def test_energy_is_the_mean_of_the_members_and_uncertainty_their_deviation_per_atom(
    checkpoint: Path, structures: list[Atoms]
) -> None:
    _, members = read_checkpoint(checkpoint)
    batch = batch_of_atoms(structures, 4.0)
    energies = torch.stack([member.predict(batch).energy for member in members]).numpy()
    predictions = load(checkpoint).predict_atoms(structures)
    n_atoms = np.array([len(atoms) for atoms in structures])
    assert [p.energy for p in predictions] == pytest.approx(energies.mean(axis=0), abs=1e-4)
    assert [p.uncertainty for p in predictions] == pytest.approx(energies.std(axis=0) / n_atoms, abs=1e-5)


def test_calibration_scales_the_uncertainty(make_checkpoint: Callable[..., Path], structures: list[Atoms]) -> None:
    plain = load(make_checkpoint()).predict_atoms(structures)
    scaled = load(make_checkpoint(calibration=2.5)).predict_atoms(structures)
    assert [p.uncertainty for p in scaled] == pytest.approx([2.5 * (p.uncertainty or 0) for p in plain])


def test_the_lead_is_the_first_member_without_uncertainty(checkpoint: Path, structures: list[Atoms]) -> None:
    _, members = read_checkpoint(checkpoint)
    lead = load(checkpoint).lead()
    expected = members[0].predict(batch_of_atoms(structures, 4.0)).energy
    found = lead.predict_atoms(structures)
    assert [p.energy for p in found] == pytest.approx(expected.tolist(), abs=1e-4)
    assert all(p.uncertainty is None for p in found)
    assert "uncertainty" not in lead.provides


def test_provides_says_what_there_is(make_checkpoint: Callable[..., Path], structures: list[Atoms]) -> None:
    potential = load(make_checkpoint(properties=True))
    assert potential.provides == {"energy", "forces", "stress", "uncertainty", "gap", "charge"}
    for atoms, prediction in zip(structures, potential.predict_atoms(structures), strict=True):
        assert isinstance(prediction.properties["gap"], float)
        assert np.shape(prediction.properties["charge"]) == (len(atoms),)


def test_properties_of_atoms_stay_lists_even_for_single_atoms(make_checkpoint: Callable[..., Path]) -> None:
    found = load(make_checkpoint(properties=True)).predict_atoms([bulk("Al"), bulk("Cu")])
    assert [np.shape(p.properties["charge"]) for p in found] == [(1,), (1,)]


def test_several_theories_need_a_choice_and_have_their_own_references(make_checkpoint: Callable[..., Path]) -> None:
    folder = make_checkpoint(theories=("pbe", "scan"))
    with pytest.raises(InputError, match="pbe, scan"):
        load(folder)
    with pytest.raises(InputError, match="no theory 'hf'; it knows pbe, scan"):
        load(folder, theory="hf")
    alone = Atoms("Cu")
    pbe, scan = (load(folder, theory=name).lead().predict_atoms([alone])[0].energy for name in ("pbe", "scan"))
    assert scan != pytest.approx(pbe)
    assert load(folder, theory="scan").theory == "scan"


def test_the_theory_that_no_helper_brought_is_meant_where_none_is_named(make_checkpoint: Callable[..., Path]) -> None:
    folder = make_checkpoint(theories=("gfn2-xtb", "pbe"), helper_theories=("gfn2-xtb",))
    assert load(folder).theory == "pbe"
    assert load(folder, theory="gfn2-xtb").theory == "gfn2-xtb"


def test_double_precision_agrees_with_single(checkpoint: Path, structures: list[Atoms]) -> None:
    single, double = (load(checkpoint, dtype=name).predict_atoms(structures) for name in ("float32", "float64"))
    for one, other in zip(single, double, strict=True):
        assert one.energy == pytest.approx(other.energy, abs=1e-4)
        assert one.forces == pytest.approx(other.forces, abs=1e-4)


def test_radial_functions_come_from_tables_in_single_precision_only(checkpoint: Path) -> None:
    kinds = {
        dtype: {type(part).__name__ for member in load(checkpoint, dtype=dtype).members for part in member.modules()}
        for dtype in ("float32", "float64")
    }
    assert "RadialTable" in kinds["float32"]
    assert "RadialNetwork" not in kinds["float32"]
    assert "RadialTable" not in kinds["float64"]


def test_weights_are_frozen_and_nothing_carries_a_graph(checkpoint: Path, structures: list[Atoms]) -> None:
    potential = load(checkpoint)
    assert not any(p.requires_grad for member in potential.members for p in member.parameters())
    found: BatchPrediction = potential.predict(batch_of_atoms(structures, 4.0))
    assert not any(t is not None and t.requires_grad for t in (found.energy, found.forces, found.stress))


def test_elements_never_seen_are_listed(checkpoint: Path) -> None:
    with pytest.raises(InputError, match=r"never seen Mg, Ni; it knows Al, Cu, H, O"):
        load(checkpoint).predict_atoms([bulk("Al"), bulk("Ni"), bulk("Mg")])


def test_an_element_without_a_reference_at_its_theory_is_not_known_there(
    make_checkpoint: Callable[..., Path],
) -> None:
    """Its reference would count as 0 eV."""
    path = make_checkpoint(
        members=1, theories=("wide", "narrow"), references={"wide": {"H": -13.0, "O": -430.0}, "narrow": {"H": -12.0}}
    )
    assert load(path, theory="wide").elements == {"H", "O"}
    with pytest.raises(InputError, match=r"\(narrow\) has never seen O; it knows H;"):
        load(path, theory="narrow").predict_atoms([molecule("H2O")])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "float16"}, "dtype 'float16'.*float32 or float64"),
        ({"device": "gpu"}, "device 'gpu' is not known"),
        ({"device": "cuda:99"}, "not on this machine"),
    ],
)
def test_settings_that_cannot_be(checkpoint: Path, settings: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(checkpoint, **settings)


def test_a_folder_without_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no checkpoint in .*model\.json is missing"):
        load(tmp_path)


def test_auto_is_a_device_that_exists() -> None:
    assert device_of("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_energies_alone_are_the_same_energies(checkpoint: Path, structures: list[Atoms]) -> None:
    potential = load(checkpoint)
    scorer = potential.energies_only()
    assert scorer.provides == {"energy", "uncertainty"}
    for one, other in zip(potential.predict_atoms(structures), scorer.predict_atoms(structures), strict=True):
        assert other.energy == pytest.approx(one.energy, abs=1e-5)
        assert other.uncertainty == pytest.approx(one.uncertainty, abs=1e-6)
        assert other.forces is None
