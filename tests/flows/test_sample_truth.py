"""Relaxations that stopped on a slope are taken on to the bottom, and stay one case each."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase.build import bulk

from flows.bench.sample_truth import REST, next_jobs, taken_on, unfinished, unrest
from gnn.dft.emt import EmtEngine
from gnn.dft.engine import RelaxSettings
from gnn.dft.label import LabelJob, journal_records, label, label_journal
from gnn.screening.truth import truth_cases
from gnn.structures.record import Record

LOOSE = RelaxSettings(fmax=0.08, max_steps=20)


def labelled(jobs: list[LabelJob], journal: Path, relax: RelaxSettings) -> list[Record]:
    """The frames of all jobs that the journal holds after these."""
    label(jobs, EmtEngine, journal, relax)
    return journal_records(label_journal(journal, EmtEngine().name, EmtEngine().theory), "d")


def nearly_bcc() -> LabelJob:
    """Copper on bcc, a saddle of the path to fcc, drawn out along it."""
    atoms = bulk("Cu", "bcc", a=2.86, cubic=True)
    atoms.set_cell(atoms.cell[:] * [1.0, 1.0, 1.06], scale_atoms=True)
    return LabelJob.of(atoms, "relax", "Cu", "truth-bcc")


@pytest.fixture
def loose(tmp_path: Path) -> list[Record]:
    at_rest = LabelJob.of(bulk("Al", "fcc", a=3.995), "relax", "Al", "truth-fcc")
    return labelled([nearly_bcc(), at_rest], tmp_path / "loose.jsonl", LOOSE)


def test_what_stopped_on_a_slope_is_taken_on_to_the_bottom(loose: list[Record], tmp_path: Path) -> None:
    saddle, aluminium = truth_cases(loose)
    assert REST.fmax < unrest(saddle.end) < LOOSE.fmax and unrest(aluminium.end) < REST.fmax
    (job,) = next_jobs(loose)
    further = labelled([job], tmp_path / "rest.jsonl", REST)
    records = taken_on(loose, further)
    copper, unchanged = truth_cases(records)
    assert unchanged == aluminium and copper.start == saddle.start
    assert unrest(copper.end) < REST.fmax and copper.end.config_type == "truth-bcc-relaxed"
    assert copper.end.energy is not None and saddle.end.energy is not None
    assert copper.end.energy < saddle.end.energy - 0.05
    assert len(records) == len(loose) + len(further) - 1 == len({record.structure_id for record in records})
    assert not unfinished(records)


def test_taking_on_twice_adds_nothing(loose: list[Record], tmp_path: Path) -> None:
    further = labelled(next_jobs(loose), tmp_path / "rest.jsonl", REST)
    records = taken_on(loose, further)
    again = taken_on(records, further)
    assert [(r.structure_id, r.config_type) for r in again] == [(r.structure_id, r.config_type) for r in records]


def test_what_was_given_up_is_taken_on_too(tmp_path: Path) -> None:
    stretched = LabelJob.of(bulk("Al", "fcc", a=4.3), "relax", "Al", "truth-fcc")
    records = labelled([stretched], tmp_path / "loose.jsonl", RelaxSettings(fmax=0.08, max_steps=1))
    assert not truth_cases(records)
    records = taken_on(records, labelled(next_jobs(records), tmp_path / "rest.jsonl", REST))
    (case,) = truth_cases(records)
    assert case.start == records[0] and case.end.config_type == "truth-fcc-relaxed" and unrest(case.end) < REST.fmax


def test_a_failed_continuation_leaves_the_case_as_it_was(loose: list[Record]) -> None:
    assert taken_on(loose, []) == loose
