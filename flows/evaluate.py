"""Errors of a model on a data set of the lake or on a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from flows.cli.results import EvaluateResult
from flows.registry import Found, find
from flows.settings import Home
from gnn.errors import InputError

if TYPE_CHECKING:
    from gnn.graphs.batch import Batch
    from gnn.graphs.graph import Graph
    from gnn.graphs.graph_set import Split
    from gnn.structures.cards import Card
    from gnn.structures.record import Record
    from gnn.training.checkpoint import CheckpointManifest

Part = Literal["train", "valid", "test", "all"]
MAX_ATOMS = 1024
WITHOUT_GRAPH = "no-neighbour-list"


@dataclass
class Source:
    """Graphs to evaluate on, what they are called, and what was skipped on the way."""

    name: str
    graphs: Iterable[Graph]
    skipped: Counter[str] = field(default_factory=Counter)


def evaluate(
    model: str,
    data: str,
    home: Home,
    split: Part = "test",
    card: str | None = None,
    theory: str | None = None,
    device: str = "auto",
    max_atoms: int = MAX_ATOMS,
) -> EvaluateResult:
    """Evaluate a checkpoint (folder, `models:/` URI or name) on a lake data set or a file.

    Of a data set that the model was trained on, only its own `split` is used, to whose `test` belongs what another
    version of the data set has beside; of others everything.

    Raises:
        InputError: no such model, data set or file, nothing in it that the model can be compared with, or it is not
            known here what of it the model has seen.
    """
    from gnn.models.device import device_of
    from gnn.training.checkpoint import read_checkpoint
    from gnn.training.evaluation import evaluate as errors_of

    found = find(model, home)
    manifest, members = read_checkpoint(found.path)
    target = device_of(device)
    source = source_of(data, home, manifest, split, card, theory)
    batches = packed(known_to(manifest, source), manifest, max_atoms)
    metrics = errors_of([member.to(target) for member in members], batches, target).metrics
    if metrics.n_structures == 0:
        reasons = ", ".join(f"{n} {reason}" for reason, n in source.skipped.items()) or "it is empty"
        raise InputError(f"nothing in {source.name} can be evaluated: {reasons}")
    values = metrics.model_dump()
    return EvaluateResult(model=name_of(found), data=source.name, skipped=dict(source.skipped), **values)


def part(text: str) -> Part:
    """A split by its name.

    Raises:
        InputError: it is none.
    """
    for known in get_args(Part):
        if text == known:
            return known
    raise InputError(f"split {text!r} is none of {', '.join(get_args(Part))}")


def name_of(found: Found) -> str:
    """How a result names its model."""
    return str(found.path) if found.name is None else f"models:/{found.name}/{found.version}"


def source_of(
    data: str, home: Home, manifest: CheckpointManifest, split: Part, card: str | None, theory: str | None
) -> Source:
    """Graphs of a file, or of a lake data set (the model's own split of it where it was trained on it).

    A data set goes before a file or folder of its name: read from the folder it was ingested from, its training split
    would count as unseen.

    Raises:
        InputError: neither a file nor a data set of the lake, or the model's graph set is not here.
    """
    from gnn.graphs.graph_set import MANIFEST_NAME
    from gnn.graphs.loader import GraphData
    from gnn.lake.reference import parse_reference
    from gnn.lake.table import Lake

    if data and Path(data).exists() and data not in Lake(home.lake).datasets():
        return file_source(Path(data), home, manifest, card, theory)
    name, version = parse_reference(data)
    used = {item.dataset: item.version for item in manifest.data.inputs}
    if split == "all" or name not in used:
        return lake_source(data, home, manifest)
    folder = home.graphs / manifest.graph_set_id[:16]
    if not (folder / MANIFEST_NAME).is_file():
        raise InputError(
            f"what the model has seen of {name} is not known here: its graph set {folder.name} is not in {home.graphs};"
            " --split all takes everything"
        )
    if version in (None, used[name]):
        graphs = GraphData(home.graphs, folder).graphs(split)
        return Source(f"{name}@{used[name]} ({split} split)", (g for g in graphs if g.dataset == name))
    return in_role(lake_source(data, home, manifest), name, folder, split)


def in_role(source: Source, name: str, folder: Path, split: Split) -> Source:
    """What of another version of a data set is in a split of the model's own; what is new is in its test split."""
    from gnn.graphs.graph_set import GraphSet
    from gnn.graphs.members import read_roles

    graph_set = GraphSet.read(folder)
    roles = read_roles(folder / graph_set.splits_path, name, by_group=graph_set.split_by == "group")

    def graphs() -> Iterator[Graph]:
        for graph in source.graphs:
            role = roles.of(graph.structure_id, graph.group) or "test"
            if role == split:
                yield graph
            else:
                source.skipped[f"{role} of the training"] += 1

    return Source(f"{source.name} ({split} split)", graphs(), source.skipped)


def lake_source(data: str, home: Home, manifest: CheckpointManifest) -> Source:
    """Everything in a lake data set."""
    from gnn.graphs.rows import graphs_of_rows
    from gnn.lake.reference import parse_reference
    from gnn.lake.table import Lake

    lake = Lake(home.lake)
    name, version = parse_reference(data)
    if name not in lake.datasets():
        known = ", ".join(lake.datasets()) or "nothing yet"
        raise InputError(f"{data!r} is neither a file nor a data set of the lake, which holds: {known}")
    version = lake.version(name) if version is None else version
    skipped: Counter[str] = Counter()

    def on_bad(structure: str, reason: str) -> None:
        del structure, reason
        skipped[WITHOUT_GRAPH] += 1

    batches = lake.record_batches(name, version)
    graphs = (graph for batch in batches for graph in graphs_of_rows(batch, manifest.cutoff, on_bad))
    return Source(f"{name}@{version}", graphs, skipped)


def graphs_of(records: Iterable[Record], cutoff: float, skipped: Counter[str]) -> Iterator[Graph]:
    """Graphs of records; those that have no neighbour list are counted among the skipped."""
    from gnn.graphs.graph import graph_of_record

    for record in records:
        try:
            yield graph_of_record(record, cutoff)
        except InputError:
            skipped[WITHOUT_GRAPH] += 1


def file_source(path: Path, home: Home, manifest: CheckpointManifest, card: str | None, theory: str | None) -> Source:
    """The readable structures of a file or a folder; rows that cannot be used are counted by the code of their reason.

    Where neither file, card nor `theory` names a level of theory, the only one of the model is meant.
    """
    from gnn.structures.checks import reject_reason
    from gnn.structures.readers import Rejected, read_records
    from gnn.structures.readers.sources import expand

    paths = expand([path])
    chosen = file_card(paths[0], home, manifest, card, theory)
    skipped: Counter[str] = Counter()

    def sound() -> Iterator[Record]:
        for record in chain.from_iterable(read_records(each, chosen) for each in paths):
            reason = record.reason if isinstance(record, Rejected) else reject_reason(record)
            if reason is not None:
                skipped[reason.partition(":")[0]] += 1
            elif not isinstance(record, Rejected):
                yield record

    return Source(str(path), graphs_of(sound(), manifest.cutoff, skipped), skipped)


def file_card(path: Path, home: Home, manifest: CheckpointManifest, card: str | None, theory: str | None) -> Card:
    """The card that a file is read with: the given one, else the format's own conventions.

    Raises:
        InputError: no such card, or something is missing that only a card can say.
    """
    from flows.cards import card_for, first_error
    from gnn.structures.cards import AUTO
    from gnn.structures.readers import UnreadableFile

    chosen = card_for("evaluated", home, card or AUTO, theory)
    said, usual = chosen.theory or chosen.fallback_theory, manifest.usual_theory
    error = first_error(path, chosen)
    if error is not None and said is None and usual is not None:
        chosen = chosen.with_theory(usual)
        error = first_error(path, chosen)
    if error is None:
        return chosen
    if card is None and not isinstance(error, UnreadableFile):
        own = " or ".join(f"--card {item.dataset}" for item in manifest.data.inputs)
        raise InputError(f"{error}; {own} reads it as the model's own data were read")
    raise error


def known_to(manifest: CheckpointManifest, source: Source) -> Iterator[Graph]:
    """The graphs that the model can be compared on; the others are counted in `source.skipped` by reason."""
    from ase.data import chemical_symbols

    for graph in source.graphs:
        strangers = sorted({chemical_symbols[z] for z in graph.numbers} - manifest.elements_at(graph.theory))
        if graph.is_isolated_atom:
            source.skipped["isolated atom"] += 1
        elif strangers:
            source.skipped[f"unknown element {strangers[0]}"] += 1
        elif graph.theory not in manifest.theories:
            source.skipped[f"unknown theory {graph.theory}"] += 1
        elif not has_labels(known := with_known_labels(graph, manifest), manifest):
            source.skipped["no label of what the model predicts"] += 1
        else:
            yield known


def with_known_labels(graph: Graph, manifest: CheckpointManifest) -> Graph:
    """The graph without the labels that the model was never trained to predict."""
    kind = manifest.data.energy_kinds.get(graph.theory)
    if not manifest.knows_energies:
        return replace(graph, energy=None, forces=None, stress=None)
    if kind is not None:
        return graph.with_energy(kind) if graph.kinds else graph
    return graph if manifest.data.labels is None else replace(graph, energy=None)


def has_labels(graph: Graph, manifest: CheckpointManifest) -> bool:
    """Whether there is anything to compare with."""
    derived = (graph.energy, graph.forces, graph.stress)
    return any(label is not None for label in derived) or not manifest.model.properties.keys().isdisjoint(
        graph.properties
    )


def packed(graphs: Iterable[Graph], manifest: CheckpointManifest, max_atoms: int) -> Iterator[Batch]:
    """Batches of consecutive graphs with at most `max_atoms` atoms; a larger structure is one by itself."""
    from gnn.graphs.collate import collate

    waiting: list[Graph] = []
    atoms = 0
    for graph in graphs:
        if waiting and atoms + graph.n_atoms > max_atoms:
            yield collate(waiting, manifest.theories, manifest.model.properties)
            waiting, atoms = [], 0
        waiting.append(graph)
        atoms += graph.n_atoms
    if waiting:
        yield collate(waiting, manifest.theories, manifest.model.properties)
