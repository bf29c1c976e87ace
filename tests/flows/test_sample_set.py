"""What the sample set that ships promises: one level of theory, enough structures, hidden formulas, labels in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk

from flows.bench.sample_noise import row
from flows.bench.sample_plan import bridge_jobs, compounds, grid_growth, truth_formulas
from flows.demo import sample_file
from gnn.dft.gpaw import GpawSettings
from gnn.screening.truth import truth_cases
from gnn.structures.record import RECORD_SCHEMA, Record, reduced_formula, table_to_records


@pytest.fixture(scope="module")
def part() -> Callable[[str], list[Record]]:
    """The records of a part of the set."""
    return lambda name: list(table_to_records(pq.read_table(sample_file(f"{name}.parquet"), schema=RECORD_SCHEMA)))


def formulas(records: list[Record]) -> set[str]:
    return {reduced_formula(record.numbers) for record in records}


def test_there_is_enough_at_one_level_of_theory(part: Callable[[str], list[Record]]) -> None:
    training, truth = part("sample"), part("sample-truth")
    theories = {record.theory for record in (*training, *truth)}
    assert len(theories) == 1
    GpawSettings.from_theory(theories.pop())
    assert len(training) >= 1200
    assert len(truth_cases(truth)) >= 100
    assert all(1 <= len(record.numbers) <= 8 for record in training)


def test_every_structure_has_all_labels_and_a_group(part: Callable[[str], list[Record]]) -> None:
    for record in part("sample"):
        assert record.energy is not None and record.free_energy is not None and record.group
        assert record.forces is not None and np.isfinite(record.forces).all()
        assert record.stress is not None and np.isfinite(record.stress).all()


def test_no_formula_of_the_truth_was_trained_on(part: Callable[[str], list[Record]]) -> None:
    assert not formulas(part("sample")) & formulas(part("sample-truth"))


def test_bridges_lie_between_the_prototypes_and_touch_no_hidden_formula() -> None:
    hidden = truth_formulas(compounds())
    found = Counter(reduced_formula(job.atoms().numbers) for job in bridge_jobs(hidden))
    assert len(found) == 12 and set(found.values()) == {2} and not hidden & set(found)


def test_a_grid_grows_where_a_rotation_mixes_a_short_and_a_long_axis() -> None:
    layers = bulk("Al", cubic=True).repeat((1, 1, 4))
    assert grid_growth(layers) == pytest.approx(1.0)
    slanted = Atoms("Al", cell=[[2, 0, 0], [0, 2, 0], [1, 1, 9]], pbc=True)
    assert grid_growth(slanted) == pytest.approx(np.linalg.norm([1, 1, 9]) ** 2 / 4)


def test_the_noise_of_a_mesh_is_told_against_the_densest() -> None:
    found = {
        2.8: {"a": (-10.0, None), "b": (4.0, None), "c": (0.0, None)},
        3.6: {"a": (1.0, 5.0), "b": (-1.0, 7.0)},
        4.5: {"a": (0.0, 9.0), "b": (0.0, 9.0)},
        5.6: {"a": (0.0, 20.0), "b": (0.0, 20.0), "c": (0.0, 20.0)},
    }
    assert row(2.8, found) == "| 2.8 | 2 | 7.0 | 7.0 | 10.0 | – |\n"
    assert row(5.6, found) == "| 5.6 | 2 | 0.0 | 0.0 | 0.0 | 20.0 |\n"
