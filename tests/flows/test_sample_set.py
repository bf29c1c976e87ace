"""What the sample set that ships promises: one level of theory, enough structures, hidden formulas, labels in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pyarrow.parquet as pq
import pytest

from flows.bench.sample_antisites import antisite_jobs
from flows.bench.sample_bridges import bridge_jobs, narrow_bridge_jobs
from flows.bench.sample_crystals import ELEMENTS, OPEN_LATTICES, Ordering, compounds, truth_formulas
from flows.bench.sample_formulas import HELD_OUT, SEEN, SEVERAL, UNSEEN, divided, energy_per_atom, minima
from flows.bench.sample_hidden import truth_orderings
from flows.bench.sample_noise import row
from flows.bench.sample_plan import open_lattice_jobs
from flows.demo import sample_file
from gnn.dft.gpaw import GpawSettings
from gnn.dft.label import LabelJob
from gnn.screening.truth import distinct, truth_cases
from gnn.structures.record import RECORD_SCHEMA, Record, reduced_formula, table_to_records


@pytest.fixture(scope="module")
def part() -> Callable[[str], list[Record]]:
    """The records of a part of the set."""
    return lambda name: list(table_to_records(pq.read_table(sample_file(f"{name}.parquet"), schema=RECORD_SCHEMA)))


@pytest.fixture(scope="module")
def bridges() -> list[LabelJob]:
    return bridge_jobs(truth_formulas(compounds()))


@pytest.fixture(scope="module")
def orderings() -> list[Ordering]:
    """The truth's."""
    return truth_orderings(compounds())


@pytest.fixture(scope="module")
def antisites(orderings: list[Ordering]) -> list[LabelJob]:
    return antisite_jobs(compounds(), orderings)


def formulas(records: list[Record]) -> set[str]:
    return {reduced_formula(record.numbers) for record in records}


def test_there_is_enough_at_one_level_of_theory(part: Callable[[str], list[Record]]) -> None:
    training, truth = part("sample"), part("sample-truth")
    theories = {record.theory for record in (*training, *truth)}
    assert len(theories) == 1
    GpawSettings.from_theory(theories.pop())
    assert len(training) >= 1200
    assert len(distinct(truth_cases(truth))) >= 100
    assert all(1 <= len(record.numbers) <= 8 for record in training)


def test_every_structure_has_all_labels_and_a_group(part: Callable[[str], list[Record]]) -> None:
    for record in part("sample"):
        assert record.energy is not None and record.free_energy is not None and record.group
        assert record.forces is not None and np.isfinite(record.forces).all()
        if record.is_isolated_atom:
            assert record.stress is None
        else:
            assert record.stress is not None and np.isfinite(record.stress).all()


def test_every_element_has_a_free_atom(part: Callable[[str], list[Record]]) -> None:
    assert [record.elements for record in part("sample") if record.is_isolated_atom] == [[e] for e in ELEMENTS]


def test_no_formula_of_the_truth_was_trained_on(part: Callable[[str], list[Record]]) -> None:
    assert not formulas(part("sample")) & formulas(part("sample-truth"))


def test_formulas_are_held_out_with_all_their_structures(part: Callable[[str], list[Record]]) -> None:
    parts = divided(part("sample"))
    assert formulas(parts[UNSEEN]) == HELD_OUT
    assert not formulas(parts[SEEN]) & HELD_OUT
    assert sum(map(len, parts.values())) == len(part("sample"))


def test_bridges_lie_between_the_prototypes_and_touch_no_hidden_formula(bridges: list[LabelJob]) -> None:
    found = Counter(reduced_formula(job.numbers) for job in bridges)
    assert {len(job.numbers) for job in bridges} == {5} and not truth_formulas(compounds()) & set(found)
    assert all(found[f"{a}{i}{b}{j}"] == 4 for a, b in combinations(sorted(ELEMENTS), 2) for i, j in ((2, 3), (3, 2)))
    assert len({job.job_id for job in bridges}) == len(bridges) and max(found.values()) == 4


def test_bridges_start_with_one_of_every_composition_and_lattice(bridges: list[LabelJob]) -> None:
    first = [(reduced_formula(job.numbers), job.config_type) for job in bridges[: len(bridges) // 2]]
    assert len(set(first)) == len(first)
    assert all(len(set(job.numbers)) == 2 for job in bridges[:24])


def test_narrow_bridges_are_as_near_to_a_hidden_ab_as_seven_sites_come() -> None:
    hidden = truth_formulas(compounds())
    found = Counter((reduced_formula(job.numbers), job.config_type) for job in narrow_bridge_jobs(hidden))
    gaps = [(a, b) for a, b in combinations(sorted(ELEMENTS), 2) if f"{a}{b}" in hidden]
    assert {formula for formula, _ in found} == {f"{a}{i}{b}{7 - i}" for a, b in gaps for i in (3, 4)}
    assert len(found) == 4 * len(gaps) and set(found.values()) == {2}
    assert not hidden & {formula for formula, _ in found}


@pytest.mark.long
def test_open_lattices_are_parted_to_nearly_twice_their_volume() -> None:
    hidden = truth_formulas(compounds())
    jobs = [job for job in open_lattice_jobs(compounds()) if len(set(job.numbers)) > 1]
    assert not hidden & {reduced_formula(job.numbers) for job in jobs}
    volumes: dict[tuple[str, str], list[float]] = {}
    for job in jobs:
        volumes.setdefault((job.config_type, job.group), []).append(job.atoms().get_volume())
    assert {config_type for config_type, _ in volumes} == {f"open-{lattice}" for lattice in OPEN_LATTICES}
    assert all(max(found) > 1.5 * min(found) for found in volumes.values())
    assert len({job.job_id for job in jobs}) == len(jobs)


def test_the_lowest_label_of_a_crystal_is_taken_where_there_are_several(part: Callable[[str], list[Record]]) -> None:
    records = part("sample")
    lowest = minima(records)
    groups = Counter(record.group for record in records)
    assert {record.group for record in lowest} == {group for group, n in groups.items() if n >= SEVERAL}
    for record in lowest[:20]:
        assert energy_per_atom(record) == min(energy_per_atom(r) for r in records if r.group == record.group)


def test_the_noise_of_a_mesh_is_told_against_the_densest() -> None:
    found = {
        2.8: {"a": (-10.0, None), "b": (4.0, None), "c": (0.0, None)},
        3.6: {"a": (1.0, 5.0), "b": (-1.0, 7.0)},
        4.5: {"a": (0.0, 9.0), "b": (0.0, 9.0)},
        5.6: {"a": (0.0, 20.0), "b": (0.0, 20.0), "c": (0.0, 20.0)},
    }
    assert row(2.8, found) == "| 2.8 | 2 | 7.0 | 7.0 | 10.0 | – |\n"
    assert row(5.6, found) == "| 5.6 | 2 | 0.0 | 0.0 | 0.0 | 20.0 |\n"


@pytest.mark.long
def test_antisites_are_of_no_hidden_formula_and_small(antisites: list[LabelJob]) -> None:
    hidden = truth_formulas(compounds())
    assert antisites and len({job.job_id for job in antisites}) == len(antisites)
    for job in antisites:
        atoms = job.atoms()
        assert len(atoms) <= 8 and reduced_formula(atoms.numbers) not in hidden


@pytest.mark.long
def test_orderings_have_antisites_too(antisites: list[LabelJob], orderings: list[Ordering]) -> None:
    crystals = {ordering.crystal for ordering in orderings}
    exchanged = Counter(job.group for job in antisites if job.group in crystals)
    assert exchanged.keys() == crystals
    assert max(exchanged.values()) == 12, "six exchanges of three elements, undistorted and stretched"


@pytest.mark.long
def test_squeezed_antisites_begin_where_the_others_end(antisites: list[LabelJob]) -> None:
    pool = compounds()
    guessed = {decoration.crystal: decoration.atoms().get_volume() / len(decoration.atoms()) for decoration in pool}
    ratios: dict[bool, list[float]] = {True: [], False: []}
    for job in antisites:
        if job.group in guessed:
            volume = job.atoms().get_volume() / len(job.numbers)
            ratios[(job.config_type or "").startswith("squeezed")].append(volume / guessed[job.group])
    assert min(ratios[True]) < 0.7 < min(ratios[False])
    assert np.median(ratios[True]) < 0.8 and np.median(ratios[False]) > 0.95
