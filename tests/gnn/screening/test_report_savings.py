"""The sentence that every report prints."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gnn.screening.report import DftComparison
from gnn.screening.report.rows import candidates, thinned
from gnn.screening.report.savings import Waste, savings, savings_sentence


def plain(html: str) -> str:
    for mark in ("<b>", "</b>"):
        html = html.replace(mark, "")
    return html.replace("\u202f", " ")


def point(row, distance: float | None, **changes) -> DftComparison:
    return DftComparison(
        row.candidate_id, row.formula, row.prototype, "truth", 0.0, 0.0, dft_hull_distance=distance,
        rank=row.rank, shortlisted=row.shortlisted, **changes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def rows(report_context):
    return sorted(candidates(report_context.candidates), key=lambda row: row.rank)


def test_what_goes_to_dft_and_what_is_saved(report_context, rows):
    found = savings(replace(report_context, dft=()), rows)
    assert found.n_shortlist == 20
    assert found.saved == pytest.approx(1 - 20 / report_context.facts.n_candidates)
    assert "20 of 480 candidates go to DFT: 95.8 % of the expensive work is saved." in plain(savings_sentence(found))
    assert "cannot be told" in savings_sentence(found)


def test_waste_is_measured_on_the_shortlisted_where_dft_is_known(report_context, rows):
    dft = [point(rows[0], 0.01), point(rows[1], 0.2), point(rows[100], 0.3), point(rows[200], 0.0)]
    found = savings(replace(report_context, dft=dft), rows)
    assert found.shortlisted == Waste(2, 1)
    assert found.at_random == Waste(4, 2)
    said = plain(savings_sentence(found))
    assert "DFT is known for 2 of the shortlisted: 1 lie more than 50 meV/atom above the hull, so 50 %" in said
    assert "(50 % if picked blindly, from 4 with known DFT)" in said


def test_else_it_is_expected_from_candidates_that_look_alike(report_context, rows):
    last = rows[19]
    below = replace(rows[30], hull_distance=last.hull_distance - 0.001)
    changed = [*rows[:30], below, *rows[31:]]
    found = savings(replace(report_context, dft=[point(below, 0.2), point(rows[300], 0.4)]), changed)
    assert found.shortlisted.share is None
    assert found.alike == Waste(1, 1)
    assert "expect 100 % of the work to be wasted" in plain(savings_sentence(found))


def test_what_the_model_was_trained_on_proves_nothing(report_context, rows):
    found = savings(replace(report_context, dft=[point(rows[0], 0.9, in_training=True)]), rows)
    assert found.shortlisted == found.at_random == Waste(0, 0)


def test_a_comparison_without_a_hull_distance_is_not_counted(report_context, rows):
    assert savings(replace(report_context, dft=[point(rows[0], None)]), rows).shortlisted.n_known == 0


def test_thinning_keeps_the_shortlist_and_the_stable(rows):
    kept = thinned(rows, 100)
    assert len(kept) == 100
    assert {row.candidate_id for row in rows[:50]} <= {row.candidate_id for row in kept}
    assert thinned(rows, 10**6) is rows
