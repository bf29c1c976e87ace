"""The whole page: complete, self-contained, and safe with text from anywhere."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pyarrow as pa
import pytest

from gnn.errors import SluiceError
from gnn.screening.report import (
    CANDIDATE_COLUMNS,
    CampaignFacts,
    FunnelRow,
    KnownCompound,
    ReportContext,
    render,
    write_report,
)
from gnn.screening.report.funnel import funnel_section
from gnn.screening.report.hulls import hull_section
from gnn.screening.report.page import SECTIONS
from gnn.screening.report.rows import Candidate

NASTY = '"><img src=x onerror=alert(1)></script><script>alert(2)</script>'
VOID = {"meta", "link", "img", "br", "input", "hr"}


class Checker(HTMLParser):
    """Tags that open and close in order, ids, and everything that could fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self._look(attrs)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self._look(attrs)

    def _look(self, attrs):
        for name, value in attrs:
            self.ids += [value] if name == "id" else []
            self.links += [value] if name in ("src", "href", "xlink:href", "srcset", "action") else []
            self.handlers += [name] if name.startswith("on") else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def checked(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    return checker


@pytest.fixture(scope="module")
def page(report_context) -> str:
    return render(report_context)


def test_the_page_is_wellformed_and_every_section_is_there(page):
    checker = checked(page)
    assert len(checker.ids) == len(set(checker.ids))
    assert {key for key, _, _ in SECTIONS} <= set(checker.ids)


def test_nothing_is_fetched(page):
    links = checked(page).links
    assert all(link.startswith(("#", "data:,")) or re.fullmatch(r"[\w./-]+", link) for link in links)
    assert "url(http" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_the_page_is_small(page):
    assert len(page.encode()) < 1_500_000


def test_it_is_written_into_the_campaign(report_context, tmp_path):
    path = write_report(tmp_path, report_context)
    assert path == tmp_path / "report.html"
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_the_same_context_gives_the_same_page(report_context, page):
    assert render(report_context) == page


def test_every_shortlisted_candidate_is_a_row_with_a_picture(report_context, page):
    table = page[page.index('id="shortlist-table"') : page.index('id="crystals"')]
    assert table.count("<tr data-row=") == 20
    assert table.count('class="crystal"') == 20


def test_the_viewer_has_the_geometry_of_each(page):
    text = re.search(r'<script type="application/json" id="crystals">(.*?)</script>', page, re.S)[1]
    crystals = json.loads(text)
    assert len(crystals["models"]) == 20
    for model in crystals["models"].values():
        assert len(model["positions"]) == 3 * len(model["symbols"])
        assert len(model["cell"]) == 9
        assert max(model["bonds"], default=0) < len(model["symbols"])
        assert set(model["symbols"]) <= set(crystals["elements"])


def test_provenance_is_complete(report_context, page):
    origin = report_context.provenance
    for said in (origin.model, origin.model_sha256, origin.theory, origin.code_version, "sample-truth", "version 2"):
        assert said in page


def test_all_binaries_and_ternaries_are_drawn(page):
    assert page.count('aria-label="Convex hull of ') == 6
    assert page.count('aria-label="Ternary hull of ') == 4


def nasty(context: ReportContext) -> ReportContext:
    rows = context.candidates.to_pylist()
    for row in rows:
        row.update(formula=NASTY, prototype=NASTY, source=NASTY, candidate_id=row["candidate_id"] + NASTY)
    facts = replace(context.facts, name=NASTY, spec_toml=NASTY, notes=[NASTY], state=NASTY)
    return replace(
        context,
        facts=facts,
        candidates=pa.Table.from_pylist(rows, schema=context.candidates.schema),
        funnel=[FunnelRow(NASTY, 3, 1, {NASTY: 2})],
        known=[KnownCompound(NASTY, NASTY, True, comment=NASTY)],
        dft=[replace(point, formula=NASTY, prototype=NASTY, origin=NASTY) for point in context.dft],
        hull_entries=[replace(entry, name=NASTY) for entry in context.hull_entries],
        provenance=replace(context.provenance, model=NASTY, machine=NASTY, lake_versions={NASTY: 1}),
        files={NASTY: NASTY, "bad": "javascript:alert(1)", "up": "../../etc/passwd", "root": "/etc/passwd"},
    )


def test_no_text_can_become_markup(report_context, page):
    attacked = checked(render(nasty(report_context)))
    assert "img" not in attacked.tags
    assert attacked.handlers == []
    assert attacked.tags.count("script") == checked(page).tags.count("script") == 2
    assert not any(link.startswith(("javascript", "/", "..")) for link in attacked.links)


def test_a_dollar_sign_in_a_name_is_a_dollar_sign(report_context):
    changed = replace(report_context, facts=replace(report_context.facts, name="$title ${x}"))
    assert "<title>$title ${x}" in render(changed)


def bare(rows: list[dict]) -> ReportContext:
    """As little as a campaign that failed early can give."""
    columns = {name: [row.get(name) for row in rows] for name in CANDIDATE_COLUMNS}
    facts = CampaignFacts("early", "FAILED", "", "", "dft", n_candidates=len(rows), notes=["shard 3 failed"])
    from gnn.screening.report import Provenance

    return ReportContext(facts, [], pa.table(columns), Provenance("0", "m", None, "0", "t"))


def test_a_campaign_without_anything_has_a_page_that_says_so():
    page = render(bare([]))
    checked(page)
    for said in (
        "No stage has run",
        "No candidate was shortlisted",
        "gives no uncertainty",
        "sluice label",
        "shard 3 failed",
    ):
        assert said in page


def test_hulls_of_candidates_beyond_the_elements_are_drawn_too():
    context = bare([])
    context = replace(context, facts=replace(context.facts, elements=["Si", "Mg"]))
    row = Candidate("a", "LiSi", "x", 2, {"Li": 1, "Si": 1}, -0.2, 0.0, None, 1, shortlisted=True)
    assert "Convex hull of Si-Li" in hull_section(context, [row])


def test_chips_know_elements_from_prototypes_and_formulas():
    """Sc must not find simple cubic Al, nor Co the carbon monoxide."""
    kinds = [("Al", "sc", [13]), ("Co", "hcp", [27]), ("CO", "rocksalt", [6, 8]), ("Sc", "hcp", [21])]
    rows = [
        {"candidate_id": f"{formula}-{prototype}", "formula": formula, "prototype": prototype, "numbers": numbers}
        for formula, prototype, numbers in kinds
    ]
    page = render(bare([{**row, "shortlisted": True} for row in rows]))
    held = dict(re.findall(r'<tr data-row="(.*?)"[^>]* data-elements="(.*?)"', page))
    assert held == {"Al-sc": "al", "Co-hcp": "co", "CO-rocksalt": "c o", "Sc-hcp": "sc"}
    assert {"al", "sc", "co", "c", "o"} == set(re.findall(r'data-element="(.*?)"', page))
    assert "row.dataset.elements" in page


def test_candidates_without_energies_or_geometry():
    rows = [{"candidate_id": "a", "source": "file"}, {"candidate_id": "b", "shortlisted": True, "formula": "LiSi"}]
    page = render(bare(rows))
    checked(page)
    assert 'data-row="b"' in page


def test_one_candidate_alone(report_context):
    one = report_context.candidates.slice(0, 1)
    checked(render(replace(report_context, candidates=one, hull_entries=(), dft=(), parity=())))


def test_numbers_that_are_not_finite_are_missing(report_context):
    rows = report_context.candidates.slice(0, 5).to_pylist()
    for row in rows:
        row.update(hull_distance=float("nan"), uncertainty=float("inf"), formation_energy_per_atom=float("nan"))
    page = render(replace(report_context, candidates=pa.Table.from_pylist(rows), dft=()))
    assert "NaN" not in page.replace("isNaN", "")
    assert ">nan" not in page


def test_a_missing_column_is_named():
    with pytest.raises(SluiceError, match="lacks the columns candidate_id, formula"):
        ReportContext(bare([]).facts, [], pa.table({"energy": [1.0]}), bare([]).provenance)


def test_a_stage_whose_reasons_do_not_add_up_is_shown_as_such():
    assert "without a reason" in funnel_section([FunnelRow("x", 10, 4, {"a": 5})])
    assert "without a reason" not in funnel_section([FunnelRow("x", 10, 4, {"a": 6})])
    assert "<b>6</b> without a reason" in funnel_section([FunnelRow("x", 10, 4)])
    assert "without a reason" not in funnel_section([FunnelRow("x", 10, 10)])


@pytest.mark.slow
def test_many_candidates_make_no_large_page(report_context):
    table = report_context.candidates
    many = pa.concat_tables([table.set_column(table.column_names.index("shortlisted"), "shortlisted",
                             pa.array([False] * table.num_rows))] * 60 + [table])  # fmt: skip
    page = render(replace(report_context, candidates=many))
    assert len(page.encode()) < 3_000_000
    assert "drawn" in page
