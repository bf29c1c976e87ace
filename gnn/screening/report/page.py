"""The page: sections in order, style and script inside, nothing fetched from anywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from gnn.files import write_text
from gnn.screening.report.comparison import dft_section
from gnn.screening.report.context import ReportContext
from gnn.screening.report.cost import cost_section
from gnn.screening.report.funnel import funnel_section
from gnn.screening.report.hulls import hull_section
from gnn.screening.report.known import known_section
from gnn.screening.report.markup import Html, count, element, join, number, share, text
from gnn.screening.report.parity import errors, parity_section
from gnn.screening.report.provenance import provenance_section
from gnn.screening.report.rows import Candidate, candidates
from gnn.screening.report.savings import Savings, savings, savings_sentence
from gnn.screening.report.shortlist import shortlist_section
from gnn.screening.report.uncertainty import uncertainty_section

REPORT = "report.html"

Section = tuple[str, str, Callable[[ReportContext, Sequence[Candidate]], Html]]
SECTIONS: tuple[Section, ...] = (
    ("funnel", "Funnel", lambda context, _: funnel_section(context.funnel)),
    ("shortlist", "Shortlist", shortlist_section),
    ("hulls", "Hulls", hull_section),
    ("uncertainty", "Energy and uncertainty", uncertainty_section),
    ("dft", "Model against DFT", dft_section),
    ("known", "Known compounds", lambda context, _: known_section(context.known)),
    ("parity", "The model on its test split", lambda context, _: parity_section(context.parity)),
    ("cost", "Cost", lambda context, _: cost_section(context.cost)),
    ("provenance", "Provenance", lambda context, _: provenance_section(context)),
)


def write_report(campaign_folder: Path, context: ReportContext) -> Path:
    """Write `campaign_folder`/report.html and return its path."""
    return write_text(campaign_folder / REPORT, render(context))


def render(context: ReportContext) -> str:
    """The whole page as text."""
    rows = candidates(context.candidates)
    sections = [_section(key, title, draw(context, rows)) for key, title, draw in SECTIONS]
    links = [element("a", title, href=f"#{key}") for key, title, _ in SECTIONS]
    return Template(_asset("page.html")).substitute(
        title=text(context.facts.name),
        style=_asset("style.css"),
        script=_asset("script.js"),
        header=_header(context, rows),
        navigation=join(links),
        sections=join(sections),
    )


def _asset(name: str) -> str:
    return files("gnn.screening.report").joinpath(name).read_text(encoding="utf-8")


def _section(key: str, title: str, body: Html) -> Html:
    return element("section", element("h2", title), body, id=key)


def _header(context: ReportContext, rows: Sequence[Candidate]) -> Html:
    facts = context.facts
    found = savings(context, rows)
    state = element("span", facts.state.lower(), class_="badge good" if _is_good(facts.state) else "badge bad")
    notes = [element("li", note) for note in facts.notes]
    return join(
        [
            element("p", "Screening campaign", class_="kicker"),
            element("h1", facts.name, " ", state),
            element("p", savings_sentence(found), class_="lead"),
            element("dl", *_tiles(context, found), class_="tiles"),
            element("ul", *notes, class_="notes") if notes else "",
        ]
    )


def _is_good(state: str) -> bool:
    return state.upper() in {"COMPLETED", "DONE", "FINISHED"}


def _tiles(context: ReportContext, found: Savings) -> list[Html]:
    tiles = [
        ("Candidates", count(found.n_candidates), "after removing duplicates"),
        ("To DFT", count(found.n_shortlist), "shortlisted"),
        ("Work saved", share(found.saved), "candidates without DFT"),
        _waste_tile(found),
        _energy_tile(context),
    ]
    return [_tile(*tile) for tile in tiles]


def _waste_tile(found: Savings) -> tuple[str, str, str]:
    for waste, words in (
        (found.shortlisted, "of the shortlisted with DFT"),
        (found.alike, "expected, from like candidates"),
    ):
        if waste.share is not None:
            return "Wasted DFT", share(waste.share), f"{words} ({waste.n_known})"
    return "Wasted DFT", "–", "no DFT known yet"


def _energy_tile(context: ReportContext) -> tuple[str, str, str]:
    energy = next((parity for parity in context.parity if parity.quantity == "energy" and len(parity.reference)), None)
    if energy is None:
        return "Model error", "–", "no test parity stored"
    found = errors(energy.reference, energy.predicted)
    return "Model error", f"{number(1000 * found.mae, 1)}", f"meV/atom, energy MAE, {energy.split} split"


def _tile(name: str, value: str, words: str) -> Html:
    return element("div", element("dt", name), element("dd", element("b", value), element("span", words)))
