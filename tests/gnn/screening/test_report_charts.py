"""Markup that cannot be broken out of, scales, ticks, hulls and parity errors."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gnn.screening.report import HullEntry, Parity
from gnn.screening.report.charts import Frame, Scale, figure, padded, round_ticks, tick_labels
from gnn.screening.report.comparison import stability_words
from gnn.screening.report.hulls import binary_figure, lower_hull
from gnn.screening.report.markup import (
    Html,
    count,
    element,
    formula_html,
    join,
    number,
    plain_formula,
    seconds,
    share,
    void,
)
from gnn.screening.report.parity import errors, parity_figure, parity_section
from gnn.screening.report.rows import Candidate
from gnn.screening.report.stability import CLASSES, legend, stability_class
from gnn.screening.report.ternary import place, ternary_figure, tie_lines

NASTY = '<script>alert("x")</script>&\'"'
finite = st.floats(-1e6, 1e6).map(lambda x: round(x, 6))


@given(st.text())
def test_text_comes_back_as_it_was(content):
    assume(all(ord(c) >= 32 and not 0xD800 <= ord(c) <= 0xDFFF and ord(c) not in (0xFFFE, 0xFFFF) for c in content))
    parsed = ET.fromstring(element("p", content, title=content))
    assert (parsed.text or "") == content
    assert parsed.attrib["title"] == content
    assert len(parsed) == 0


def test_markup_is_not_escaped_twice():
    inner = element("b", NASTY)
    assert element("p", inner).count("&lt;script") == 1
    assert join([Html("<i/>"), "<i/>"]) == "<i/>&lt;i/&gt;"


def test_attributes():
    made = void("circle", class_="a b", data_tip="x", hidden=True, lang=None, open=False, r=1.0, cx=2.126, n=3)
    assert made == '<circle class="a b" data-tip="x" hidden r="1" cx="2.13" n="3"/>'


def test_numbers_for_people():
    assert number(-0.1234) == "−0.123"
    assert number(12.3, 0, sign=True) == "+12"
    assert number(None) == number(float("nan")) == "–"
    assert count(1234567) == "1\u202f234\u202f567"
    assert [seconds(s) for s in (3.21, 600, 7200)] == ["3.2\u202fs", "10.0\u202fmin", "2.0\u202fh"]


@pytest.mark.parametrize(("value", "shown"), [(0, "0"), (1, "100"), (0.5, "50"), (0.984, "98.4"), (0.9996, "99.96")])
def test_shares(value, shown):
    assert share(value) == f"{shown}\u202f%"


@given(st.integers(1, 10**7), st.data())
def test_a_share_is_never_rounded_to_all_or_nothing(total, data):
    part = data.draw(st.integers(0, total))
    shown = float(share(part / total).split("\u202f")[0])
    assert (shown == 0) == (part == 0)
    assert (shown == 100) == (part == total)


def test_formulas():
    assert formula_html("Li2MgSi10") == "Li<sub>2</sub>MgSi<sub>10</sub>"
    assert plain_formula("Li2MgSi10") == "Li₂MgSi₁₀"
    assert "<script" not in formula_html(NASTY)


@given(finite, st.floats(1e-3, 1e5), st.integers(2, 8))
def test_ticks_are_round_inside_and_not_too_many(low, width, about):
    high = low + width
    ticks = round_ticks(low, high, about)
    assert all(low - 1e-6 * width <= tick <= high + 1e-6 * width for tick in ticks)
    assert len(ticks) <= 3 * about + 1
    assert len(set(tick_labels(ticks))) == len(ticks)


@given(st.lists(finite, max_size=20))
def test_a_padded_range_holds_its_values_and_is_never_empty(values):
    low, high = padded(values)
    assert low < high
    assert all(low <= value <= high for value in values)


def test_a_scale_goes_from_end_to_end():
    scale = Scale(-1, 3, 100, 20)
    assert (scale(-1), scale(3), scale(1)) == (100, 20, 60)
    assert scale.holds(3)
    assert not scale.holds(3.1)


def test_a_frame_is_wellformed_svg():
    frame = Frame.of(300, 200, (0, 1), (0, 1))
    picture = frame.svg(
        NASTY, frame.axes(NASTY, "y"), frame.dot(0.5, 0.5, "s1", tip=NASTY), frame.line([(0, 0), (1, 1)], "hull")
    )
    parsed = ET.fromstring(figure(picture, NASTY, NASTY))
    assert parsed.find(".//circle").attrib["data-tip"] == NASTY
    assert parsed.find("svg").attrib["viewBox"] == "0 0 300 200"


points = st.lists(st.tuples(st.integers(0, 12).map(lambda n: n / 12), st.floats(-1, 1)), min_size=1, max_size=30)


@given(points)
def test_the_lower_hull_is_below_all_points_and_convex(values):
    hull = lower_hull([(0.0, 0.0), (1.0, 0.0), *values])
    xs, ys = np.array(hull).T
    assert np.all(np.diff(xs) > 0)
    assert np.all(np.diff(np.diff(ys) / np.diff(xs)) > -1e-9)
    assert all(np.interp(x, xs, ys) <= y + 1e-9 for x, y in values)
    assert set(hull) <= {(0.0, 0.0), (1.0, 0.0), *values}


@given(points)
def test_the_lower_hull_is_pymatgens(values):
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition

    inside = [(x, y) for x, y in values if 0 < x < 1 and y < -1e-3]
    entries = [PDEntry(Composition({"Li": 1 - x, "Si": x}), y) for x, y in inside]
    diagram = PhaseDiagram([*entries, PDEntry("Li", 0), PDEntry("Si", 0)])
    xs, ys = np.array(lower_hull([(0.0, 0.0), (1.0, 0.0), *inside])).T
    for x in (0.1, 0.35, 0.77):
        expected = diagram.get_hull_energy_per_atom(Composition({"Li": 1 - x, "Si": x}))
        assert np.interp(x, xs, ys) == pytest.approx(expected, abs=1e-6)


def test_corners_of_the_triangle_are_equally_far_apart():
    a, b, c = (np.array(place(*corner)) for corner in np.eye(3))
    sides = [np.linalg.norm(a - b), np.linalg.norm(b - c), np.linalg.norm(c - a)]
    assert sides == pytest.approx([sides[0]] * 3)
    np.testing.assert_allclose(place(1, 1, 1), (a + b + c) / 3)


def test_tie_lines_without_compounds_are_the_triangle():
    stable, ties = tie_lines(np.eye(3), np.zeros(3))
    assert stable == {0, 1, 2}
    assert ties == {(0, 1), (0, 2), (1, 2)}


def test_a_stable_compound_is_joined_to_all_corners():
    shares = np.vstack([np.eye(3), [1 / 3, 1 / 3, 1 / 3]])
    stable, ties = tie_lines(shares, np.array([0, 0, 0, -0.4]))
    assert stable == {0, 1, 2, 3}
    assert {(0, 3), (1, 3), (2, 3)} <= ties


def test_an_unstable_compound_is_on_no_tie_line():
    shares = np.vstack([np.eye(3), [0.5, 0.5, 0], [0.5, 0.25, 0.25]])
    stable, ties = tie_lines(shares, np.array([0, 0, 0, -0.4, -0.01]))
    assert stable == {0, 1, 2, 3}
    assert all(4 not in tie for tie in ties)


@given(st.integers(0, 10**6))
def test_stable_entries_of_a_ternary_are_pymatgens(seed):
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition

    random = np.random.default_rng(seed)
    amounts = random.integers(0, 5, (8, 3))
    amounts = amounts[(amounts > 0).sum(axis=1) > 1]
    energies = random.uniform(-0.5, 0.1, len(amounts))
    assume((energies < 0).any())
    entries = [
        PDEntry(
            Composition(dict(zip(("Li", "Mg", "Si"), map(int, n), strict=True))), float(e) * int(n.sum()), name=str(i)
        )
        for i, (n, e) in enumerate(zip(amounts, energies, strict=True))
    ]
    diagram = PhaseDiagram([*entries, *(PDEntry(symbol, 0.0, name=symbol) for symbol in ("Li", "Mg", "Si"))])
    expected = {int(entry.name) for entry in diagram.stable_entries if entry.name.isdecimal()}
    shares = np.vstack([np.eye(3), amounts / amounts.sum(axis=1, keepdims=True)])
    stable, _ = tie_lines(shares, np.concatenate([np.zeros(3), energies]))
    found = {index - 3 for index in stable if index > 2}
    assert expected == found


def test_stability_classes():
    assert [stability_class(d) for d in (-0.1, 0.0, 0.05, 0.15, 9.0, None)] == ["s0", "s1", "s2", "s3", "s4", "sx"]
    assert all(words in legend() for _, _, words in CLASSES)


@given(st.lists(st.tuples(finite, finite), min_size=3, max_size=40))
def test_errors_are_the_textbooks(pairs):
    reference, predicted = np.array(pairs).T
    found = errors(reference, predicted)
    assert found.mae == pytest.approx(np.mean(np.abs(reference - predicted)))
    assert found.rmse == pytest.approx(np.sqrt(np.mean((reference - predicted) ** 2)))
    assert found.mae <= found.rmse + 1e-9
    assert found.spearman is None or -1.0000001 <= found.spearman <= 1.0000001


def test_a_perfect_prediction():
    found = errors(np.arange(5.0), np.arange(5.0))
    assert (found.mae, found.r2, found.spearman) == (0, 1, pytest.approx(1))


def test_one_point_or_equal_references_have_no_r2():
    assert errors(np.array([1.0]), np.array([2.0])).r2 is None
    assert errors(np.ones(4), np.arange(4.0)).spearman is None


def test_stability_in_words():
    places = [(0.0, 0.02), (0.2, 0.01), (0.03, 0.3), (0.4, 0.5)]
    assert stability_words(places, 0.05) == (
        "2 of 4 not seen in training on the right side of 50 meV/atom (dashed); "
        "1 of 2 that the model puts below are (precision 0.50); 1 of 2 below are found (recall 0.50)"
    )
    assert stability_words(places[3:], 0.05) == "1 of 1 not seen in training on the right side of 50 meV/atom (dashed)"
    assert "seen in training" in stability_words([], 0.05)


def test_a_parity_plot_thins_and_leaves_out_what_is_not_finite():
    values = np.append(np.linspace(0, 1, 4000), [np.nan, np.inf])
    picture = parity_figure(Parity("forces", "eV/Å", "test", values, values))
    assert picture.count("<circle") == 1500
    assert "4\u202f000 values; 1\u202f500 drawn" in picture
    assert "meV/Å" in picture


def test_without_parity_the_page_says_so():
    empty = Parity("energy", "eV/atom", "test", np.array([]), np.array([]))
    assert "no parity" in parity_section([empty])


def test_a_hull_entry_is_plain():
    assert HullEntry("Mg2Si", {"Mg": 2, "Si": 1}, -0.18).source == ""


ELEMENTS = [HullEntry(symbol, {symbol: 2}, 0.0) for symbol in ("Al", "Cu", "Pd")]
COMPOUND = HullEntry("AlCu", {"Al": 1, "Cu": 1, "Pd": 0}, -0.2)


@pytest.mark.parametrize(
    ("entries", "vertices", "said"),
    [
        (ELEMENTS, 2, "0 candidates<"),
        (ELEMENTS[:2], 1, "0 candidates; no reference of Pd<"),
        ([COMPOUND], 0, "0 candidates; no reference of Al, Pd<"),
    ],
)
def test_a_binary_has_vertices_and_a_line_only_where_there_are_references(entries, vertices, said):
    picture = binary_figure(("Al", "Pd"), [], entries)
    assert picture.count("· reference") == vertices
    assert ('class="hull"' in picture) is (vertices == 2)
    assert said in picture


def test_a_ternary_has_ties_only_between_references():
    whole = ternary_figure(("Al", "Cu", "Pd"), [], [*ELEMENTS, COMPOUND])
    part = ternary_figure(("Al", "Cu", "Pd"), [], [*ELEMENTS[:2], COMPOUND])
    assert [whole.count("· reference"), whole.count('class="tie"')] == [4, 5]
    assert [part.count("· reference"), part.count('class="tie"')] == [3, 2]
    assert "no reference of" not in whole
    assert "0 candidates at 0 compositions; no reference of Pd" in part


def test_nonsense_does_not_stretch_the_hull():
    """A structure that fell apart can have any energy; it is counted and the others stay readable."""

    def candidate(name: str, energy: float) -> Candidate:
        return Candidate(name, "LiSi", "x", 2, {"Li": 1, "Si": 1}, energy, energy, None, None, shortlisted=False)

    shown = binary_figure(("Li", "Si"), [candidate("a", -0.2), candidate("b", -33064.9)], [])
    assert "2 candidates; 1 outside of the frame" in shown
    assert shown == binary_figure(("Li", "Si"), [candidate("a", -0.2), candidate("b", -9.0)], [])
