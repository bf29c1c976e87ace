"""Several potentials as one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from gnn.errors import InputError
from gnn.potentials.committee import Committee
from gnn.potentials.foreign import foreign
from gnn.potentials.load import load


def test_mean_and_spread_over_checkpoints_of_different_cutoffs(
    make_checkpoint: Callable[..., Path], structures: list[Atoms]
) -> None:
    members = [load(make_checkpoint(1, cutoff=cutoff), dtype="float64") for cutoff in (3.5, 4.5)]
    found = Committee(members).predict_atoms(structures)
    each = [member.predict_atoms(structures) for member in members]
    for prediction, one, other in zip(found, *each, strict=True):
        n_atoms = len(one.forces) if one.forces is not None else 1
        assert prediction.energy == pytest.approx((one.energy + other.energy) / 2, abs=1e-9)
        assert prediction.uncertainty == pytest.approx(abs(one.energy - other.energy) / 2 / n_atoms, abs=1e-9)
        assert prediction.forces == pytest.approx(np.mean([one.forces, other.forces], axis=0), abs=1e-9)


def test_a_committee_of_two_of_the_same_is_sure(checkpoint: Path, structures: list[Atoms]) -> None:
    lead = load(checkpoint, dtype="float64").lead()
    committee = Committee([lead, lead])
    assert [p.uncertainty for p in committee.predict_atoms(structures)] == pytest.approx([0.0] * len(structures))
    assert committee.lead() is lead
    assert "uncertainty" in committee.provides


def test_members_must_share_their_theory(checkpoint: Path) -> None:
    with pytest.raises(InputError, match="emt/ase, pbe"):
        Committee([load(checkpoint), foreign("emt")])
    with pytest.raises(InputError, match="at least two"):
        Committee([load(checkpoint)])
