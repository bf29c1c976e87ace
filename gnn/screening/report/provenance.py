"""Where the result comes from: code, model, data, specification."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gnn.screening.report.context import CampaignFacts, Provenance, ReportContext
from gnn.screening.report.markup import Html, element, join


def provenance_section(context: ReportContext) -> Html:
    """Definitions in groups, links to the files, and the campaign's TOML in full."""
    origin, facts = context.provenance, context.facts
    groups = [
        _group("Model", _model(origin)),
        _group("Data", _data(origin, facts)),
        _group("Code", _code(origin, facts)),
        _group("Files", _files(context.files)),
    ]
    spec = element(
        "details",
        element("summary", "The campaign as it was asked for"),
        element("pre", element("code", facts.spec_toml)),
    )
    return join([element("div", *groups, class_="facts"), spec])


Pairs = list[tuple[str, str]]


def _model(origin: Provenance) -> Pairs:
    named = origin.model if origin.model_version is None else f"{origin.model}, version {origin.model_version}"
    metrics = [(name, f"{value:.4g}") for name, value in origin.model_metrics.items()]
    return [("Model", named), ("sha256", _code_text(origin.model_sha256)), ("Theory", origin.theory), *metrics]


def _data(origin: Provenance, facts: CampaignFacts) -> Pairs:
    pairs: Pairs = [(name, f"version {version}") for name, version in sorted(origin.lake_versions.items())]
    pairs += [("Candidates of", reference) for reference in origin.candidate_datasets]
    pairs += [(f"Licence of {name}", licence) for name, licence in sorted(origin.licences.items())]
    if origin.graph_set_id:
        pairs.append(("Graph set", _code_text(origin.graph_set_id)))
    if origin.candidates_digest:
        pairs.append(("Candidates", _code_text(origin.candidates_digest)))
    pairs.append(("Hull", {"dft": "the lake's DFT", "model": "the model"}[facts.hull_reference]))
    return pairs


def _code(origin: Provenance, facts: CampaignFacts) -> Pairs:
    pairs: Pairs = [("Sluice", origin.code_version)]
    if origin.spec_digest:
        pairs.append(("Specification", _code_text(origin.spec_digest)))
    if origin.machine:
        pairs.append(("Machine", origin.machine))
    if facts.shards_total:
        pairs.append(("Shards", f"{facts.shards_total - facts.shards_failed} of {facts.shards_total} done"))
    pairs.append(("Finished", facts.finished_at))
    return [*pairs, *sorted(origin.packages.items())]


def _files(files: Mapping[str, str]) -> Pairs:
    return [(label, element("a", path, href=path)) for label, path in files.items() if _is_relative(path)]


def _is_relative(path: str) -> bool:
    """Whether a link stays inside the campaign's folder; others (schemes, roots, parents) are not made into links."""
    return ":" not in path and not path.startswith(("/", "\\")) and ".." not in path.split("/")


def _code_text(value: str) -> Html:
    return element("code", value)


def _group(title: str, pairs: Iterable[tuple[str, str]]) -> Html:
    inside = [element("div", element("dt", name), element("dd", value)) for name, value in pairs]
    return element("section", element("h3", title), element("dl", *inside)) if inside else Html()
