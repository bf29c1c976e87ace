"""Training that starts from a trained model: its architecture, its weights and its reference energies go on.

What the start knows stays as it is, so that step 0 gives its energies: weights, scale, references of known levels of
theory. What it does not know is added: a new element begins as its relatives among the known ones, a new level of
theory with the readout of the start's first one. Their reference energies are fitted to what the start leaves over,
E - E_start ("estimated" in MACE), unless both start and data have isolated atoms.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor

from gnn.errors import InputError
from gnn.graphs.batch import Batch
from gnn.graphs.graph_set import GraphSet
from gnn.graphs.references import fit_alike
from gnn.models.config import ModelConfig, PropertyScale
from gnn.models.element_weights import ElementWeights
from gnn.models.model import Model, build_model
from gnn.structures.periodic_table import likeness
from gnn.structures.properties import PropertySpec

ENOUGH_STRUCTURES = 500
"""Training structures that reference energies are fitted to, where every new element is among them."""

References = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Start:
    """A trained model to start from: architecture, sha256, named weights, where its references come from, its data."""

    model: ModelConfig
    sha256: str
    weights: dict[str, Tensor]
    reference_sources: dict[str, dict[str, str]] = field(default_factory=dict)
    graph_sets: tuple[str, ...] = ()

    def base(self, theory: str) -> str:
        """The level of theory whose readout and references `theory` begins with."""
        return theory if theory in self.model.theories else self.model.theories[0]

    def network(self) -> Model:
        """The model itself."""
        model = build_model(self.model)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(self.weights[name])
        return model


@dataclass(frozen=True)
class Additions:
    """What the data hold and the start does not know."""

    elements: list[str]
    theories: list[str]
    properties: list[str]

    def __str__(self) -> str:
        parts = [("elements", self.elements), ("theories", self.theories), ("properties", self.properties)]
        return "; ".join(f"{name} {', '.join(found)}" for name, found in parts if found) or "nothing"


def additions(start: Start, graph_set: GraphSet, properties: Iterable[str]) -> Additions:
    """Elements, theories and trained properties of the data that the start does not know."""
    known = start.model
    return Additions(
        elements=sorted(set(graph_set.elements) - set(known.elements)),
        theories=[theory for theory in graph_set.theories if theory not in known.theories],
        properties=sorted(set(properties) - set(known.properties)),
    )


def continued(
    start: Start, graph_set: GraphSet, properties: dict[str, PropertySpec], scales: dict[str, PropertyScale]
) -> ModelConfig:
    """The start's architecture for this data: its elements and the new ones, the data's theories and properties.

    A theory or a property that the data have no labels of would change unnoticed with the shared weights; it is left
    out. Known properties keep their scales.

    Raises:
        InputError: another cutoff, or a known property is declared otherwise.
    """
    known = start.model
    if abs(graph_set.cutoff - known.cutoff) > 1e-9:
        raise InputError(f"--init has cutoff {known.cutoff:g} Å, the graphs {graph_set.cutoff:g} Å; set data.cutoff")
    for name in sorted(properties.keys() & known.properties.keys()):
        if properties[name] != known.properties[name]:
            theirs, ours = _declared(known.properties[name]), _declared(properties[name])
            raise InputError(f"property {name}: --init has it {theirs}, the data {ours}; declare it alike")
    added = additions(start, graph_set, properties)
    return known.model_copy(
        update={
            "elements": [*known.elements, *added.elements],
            "theories": list(graph_set.theories),
            "references": first_references(start, graph_set),
            "bonding": first_bonding(start, graph_set),
            "properties": properties,
            "property_scales": {n: known.property_scales.get(n, scale) for n, scale in scales.items()},
            "property_shifts": known.shifts_properties,
        }
    )


def _declared(spec: PropertySpec) -> str:
    return f"in {spec.unit}, of each {spec.level}, {'extensive' if spec.extensive else 'intensive'}"


def first_references(start: Start, graph_set: GraphSet) -> References:
    """References before any fit: the start's where it has them, else the data's; isolated atoms win in a new theory."""
    found: References = {}
    for theory in graph_set.theories:
        own = dict(graph_set.references[theory].energies) if theory in graph_set.references else {}
        inherited = start.model.references.get(start.base(theory), {})
        fitted = set(unsettled(start, graph_set).get(theory, []))
        isolated_theory = theory not in start.model.theories and not fitted
        found[theory] = {**inherited, **own} if isolated_theory else {**own, **inherited}
    return found


def first_bonding(start: Start, graph_set: GraphSet) -> References:
    """Bonding: the start's; that of the data for what it lacks, where references of both are of isolated atoms."""
    fitted = unsettled(start, graph_set)
    found: References = {}
    for theory in graph_set.theories:
        given = None if theory in fitted else graph_set.references.get(theory)
        inherited = start.model.bonding.get(start.base(theory), {})
        found[theory] = {**({} if given is None else given.bonding), **inherited}
    return found


def unsettled(start: Start, graph_set: GraphSet) -> dict[str, list[str]]:
    """By theory, the elements of its energies whose references must be fitted to what the start leaves over."""
    found = {}
    for theory, given in graph_set.references.items():
        base = start.base(theory)
        theirs = start.reference_sources.get(base, {})
        known = start.model.references.get(theory) or start.model.elements if theory in start.model.theories else ()
        unknown = [e for e in graph_set.elements if e in given.energies and e not in known]
        isolated = {"isolated"} == {theirs.get(e, "fitted") for e in start.model.elements} | {
            given.source.get(e, "fitted") for e in unknown
        }
        if unknown and not isolated:
            found[theory] = unknown
    return found


def settled(model: Model, batches: Iterable[Batch], wanted: dict[str, list[str]]) -> References:
    """The model's references with those of the `wanted` elements shifted so that E - E_model is least on the batches.

    Of more than `ENOUGH_STRUCTURES` only those are looked at that show a wanted element for the first time. Least
    squares of errors an atom: elements that the structures do not tell apart share their shift, those alike the more.
    """
    config = model.config
    references = {theory: dict(energies) for theory, energies in config.references.items()}
    rows: dict[str, list[tuple[Tensor, float]]] = {theory: [] for theory in config.theories}
    missing = {(theory, element) for theory, elements in wanted.items() for element in elements}
    seen = 0
    for batch in batches:
        shown = _energies_shown(batch, config)
        if seen < ENOUGH_STRUCTURES or missing & shown:
            for index, counts, rest in _left_over(model, batch):
                rows[config.theories[index]].append((counts, rest))
        missing -= shown
        seen += batch.n_structures
        if seen >= ENOUGH_STRUCTURES and not missing:
            break
    for theory, elements in wanted.items():
        for element, shift in _shifts(rows[theory], elements).items():
            references[theory][element] = references[theory].get(element, 0.0) + shift
    return references


def _energies_shown(batch: Batch, config: ModelConfig) -> set[tuple[str, str]]:
    """Theories and elements that the energies of a batch say something of."""
    if batch.labels is None:
        return set()
    labelled = batch.labels.energy_mask.index_select(0, batch.structure)
    theories = batch.theory.index_select(0, batch.structure)[labelled]
    pairs = torch.stack([theories, batch.numbers[labelled]], dim=1).unique(dim=0).tolist()
    return {(config.theories[theory], chemical_symbols[number]) for theory, number in pairs}


def _left_over(model: Model, batch: Batch) -> list[tuple[int, Tensor, float]]:
    """Theory, atoms by atomic number and E - E_model of each structure with an energy."""
    if batch.labels is None:
        return []
    energy = model.predict(batch, forces=False, stress=False).energy
    rest = (batch.labels.energy - energy).tolist()
    counts = torch.zeros(batch.n_structures, len(chemical_symbols), dtype=torch.float64)
    counts.index_put_((batch.structure, batch.numbers), torch.ones(len(batch.numbers)).double(), accumulate=True)
    known = batch.labels.energy_mask.nonzero().flatten().tolist()
    return [(int(batch.theory[k]), counts[k], rest[k]) for k in known]


def _shifts(rows: list[tuple[Tensor, float]], elements: list[str]) -> dict[str, float]:
    if not rows:
        return {}
    counts = torch.stack([counts for counts, _ in rows]).numpy()
    shown = [element for element in elements if counts[:, chemical_symbols.index(element)].any()]
    columns = [chemical_symbols.index(element) for element in shown]
    left = np.array([[rest] for _, rest in rows])
    return fit_alike(shown, [np.hstack([counts[:, columns], left]) / counts.sum(axis=1, keepdims=True)])


def grown(start: Start, model: Model) -> dict[str, Tensor]:
    """The start's weights in the shapes of `model`, whose own stand where the start has none.

    Raises:
        InputError: a weight has another shape for another reason than new elements or theories.
    """
    parent = start.network()
    found = {name: value.detach().clone() for name, value in model.named_parameters()}
    theirs = dict(parent.named_parameters())
    growing = _tables(model) if len(model.config.elements) > len(start.model.elements) else {}
    parents = _tables(parent)
    for name, value in found.items():
        owner, _, leaf = name.rpartition(".")
        if name not in theirs or (owner in growing and leaf != "element"):
            continue
        if owner in growing:
            new = _grown_table(parents[owner], growing[owner], model.config.elements)
            found[f"{owner}.element"], found[f"{owner}.vector"] = new
        elif leaf == "of_theory" or (owner.startswith("energy_head.") and not owner.endswith("hidden")):
            found[name] = theirs[name].detach()[:, _theory_columns(start, model.config)]
        elif value.shape == theirs[name].shape:
            found[name] = theirs[name].detach().clone()
        else:
            raise InputError(f"--init: {name} has shape {list(theirs[name].shape)}, here {list(value.shape)}")
    return found


def _theory_columns(start: Start, config: ModelConfig) -> list[int]:
    return [start.model.theories.index(start.base(theory)) for theory in config.theories]


def _tables(model: Model) -> dict[str, ElementWeights]:
    return {name: part for name, part in model.named_modules() if isinstance(part, ElementWeights)}


def _grown_table(parent: ElementWeights, grown: ElementWeights, elements: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Its `element` and `vector`: w_z = t_z v / √rank of old elements as it was; new rows of v stay, with t = 0.

    New elements begin as their relatives among the old ones are: t_new = t̄ + K_new,old K_old⁻¹ (t_old - t̄), K their
    likeness (Rasmussen & Williams 2006, eq. 2.19).
    """
    old = parent.table().detach().double()
    n_old, rank = old.shape
    alike = torch.from_numpy(likeness(elements))
    mean = old.mean(dim=0)
    new = mean + alike[n_old:, :n_old] @ torch.linalg.solve(alike[:n_old, :n_old], old - mean)
    table = torch.zeros(len(elements), grown.rank, dtype=torch.float64)
    table[:, :rank] = torch.cat([old, new]) * math.sqrt(grown.rank / rank)
    vector = grown.vector.detach().clone()
    vector[:rank] = parent.vector.detach()
    return grown.element_of(table).to(vector.dtype), vector
