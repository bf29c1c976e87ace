from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from hypothesis import given
from hypothesis import strategies as st

from gnn.screening.truth import TruthCase, distinct, score, truth_cases
from gnn.structures.record import Record, Source


def record(numbers: list[int], energy: float, config_type: str = "x", job: str = "a", step: int = 0) -> Record:
    positions = np.arange(3 * len(numbers), dtype=float).reshape(-1, 3) + 0.01 * step
    return Record(
        dataset="d",
        theory="t",
        numbers=np.array(numbers),
        positions=positions,
        cell=np.eye(3) * 5,
        pbc=np.array([True] * 3),
        energy=energy,
        config_type=config_type,
        source=Source("f", 0, job),
    )


def test_only_converged_relaxations_are_cases() -> None:
    records = [
        record([3], -1.0, "truth-fcc-relaxing", "a", 0),
        record([3], -1.2, "truth-fcc-relaxed", "a", 1),
        record([3], -1.0, "truth-bcc-relaxing", "b", 0),
    ]
    cases = truth_cases(records)
    assert [(case.start.energy, case.end.energy) for case in cases] == [(-1.0, -1.2)]


def ended_as(atoms: Atoms, energy_per_atom: float) -> TruthCase:
    """A relaxation that ended there."""
    end = Record(
        dataset="d",
        theory="t",
        numbers=atoms.numbers,
        positions=atoms.positions,
        cell=atoms.cell[:],
        pbc=atoms.pbc,
        energy=energy_per_atom * len(atoms),
    )
    return TruthCase(end, end)


def test_a_crystal_counts_once_however_it_was_reached() -> None:
    brass = bulk("CuZn", "cesiumchloride", a=2.95)
    stretched = brass.copy()
    stretched.set_cell(stretched.cell * [1.0, 1.0, 1.4], scale_atoms=True)
    first, again = ended_as(brass, -3.0), ended_as(brass * (1, 1, 2), -3.0005)
    other_lattice, other_energy = ended_as(stretched, -3.0), ended_as(brass, -2.99)
    assert distinct([first, again, other_lattice, other_energy]) == [first, other_lattice, other_energy]


@given(st.lists(st.floats(-1, 1), min_size=10, max_size=60, unique=True))
def test_the_truth_itself_scores_perfectly(values: list[float]) -> None:
    true = np.array(values)
    perfect = score(true, true)
    assert perfect.spearman == pytest.approx(1.0)
    assert perfect.best_decile_recall == 1.0
    assert perfect.mae == 0.0
    assert score(-true, true).spearman == pytest.approx(-1.0)


def test_what_failed_comes_last_and_is_not_in_the_mae() -> None:
    true = np.arange(20.0)
    predicted = true + 0.5
    predicted[0] = np.inf
    found = score(predicted, true)
    assert found.best_decile_recall == 0.5
    assert found.mae == pytest.approx(0.5)
    assert found.spearman < 0.75


def test_there_is_no_mae_where_everything_failed() -> None:
    true = np.arange(20.0)
    assert score(np.full(20, np.inf), true).mae is None


def test_recall_counts_the_best_decile() -> None:
    true = np.arange(20.0)
    predicted = true.copy()
    predicted[1] = 100.0
    assert score(predicted, true).best_decile_recall == 0.5
