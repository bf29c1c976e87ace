"""What a report is made of: plain values, filled by whoever ran the campaign.

Units: eV per atom for energies, formation energies, hull distances and uncertainties; seconds for cost. Text may come
from files of unknown origin: the page escapes all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gnn.errors import SluiceError

Floats = NDArray[np.float64]

CANDIDATE_COLUMNS = (
    "candidate_id", "formula", "prototype", "n_atoms", "source", "energy_per_atom", "formation_energy_per_atom",
    "hull_distance", "uncertainty", "converged", "steps", "cpu_s", "stage_dropped", "reason", "rank", "shortlisted",
    "numbers", "positions", "cell",
)  # fmt: skip
"""Columns of candidates.parquet that the report reads; lists are flat, a missing number is null."""


@dataclass(frozen=True)
class CampaignFacts:
    """The campaign itself: what it is called, how it ended, what it was asked (`spec_toml`: the text of its TOML file).

    stability_threshold: hull distance (eV/atom) up to which a candidate counts as worth its DFT; the share of
    shortlisted candidates beyond it by DFT is the wasted share.
    n_candidates: how many distinct candidates there were, counted after duplicates were removed.
    elements: the chemical space, in the order in which axes are drawn; what else candidates hold comes after it.
    """

    name: str
    state: str
    finished_at: str
    spec_toml: str
    hull_reference: Literal["dft", "model"]
    n_candidates: int
    stability_threshold: float = 0.05
    elements: Sequence[str] = ()
    shards_total: int = 0
    shards_failed: int = 0
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class FunnelRow:
    """One stage: n_in = n_out + the sum of `rejected` (reason -> count)."""

    stage: str
    n_in: int
    n_out: int
    rejected: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class CostRow:
    """What one stage cost: how many structures went through it, and how long (0 where it was not measured)."""

    stage: str
    n: int
    cpu_s: float
    wall_s: float = 0.0


@dataclass(frozen=True)
class HullEntry:
    """One entry of the reference hull. composition: element -> atoms; the energy (eV/atom) is against the elements."""

    name: str
    composition: Mapping[str, float]
    formation_energy_per_atom: float
    source: str = ""

    @property
    def elements(self) -> frozenset[str]:
        """Chemical symbols."""
        return frozenset(symbol for symbol, amount in self.composition.items() if amount)


def without_reference(system: Sequence[str], entries: Sequence[HullEntry]) -> list[str]:
    """Those elements of `system` that no entry is a crystal of."""
    pure = {symbol for entry in entries if len(entry.elements) == 1 for symbol in entry.elements}
    return [symbol for symbol in system if symbol not in pure]


@dataclass(frozen=True)
class Parity:
    """Reference against prediction for one quantity on one split, e.g. ("energy", "eV/atom", "test"); shapes (M,)."""

    quantity: str
    unit: str
    split: str
    reference: Floats
    predicted: Floats


@dataclass(frozen=True)
class DftComparison:
    """One candidate whose DFT energy is known in the lake at the model's level of theory.

    origin says where from: the data set's name, e.g. `sample-truth` or `labels-gpaw`. In training: the model has seen
    this very structure, so that the point proves nothing.
    """

    candidate_id: str
    formula: str
    prototype: str
    origin: str
    model_formation_energy_per_atom: float
    dft_formation_energy_per_atom: float
    uncertainty: float | None = None
    dft_hull_distance: float | None = None
    rank: int | None = None
    shortlisted: bool = False
    in_training: bool = False


@dataclass(frozen=True)
class KnownCompound:
    """A compound known to be stable (by the reference, or named in the campaign): was it found, and where it ranks.

    rank: place among the ranked candidates, from 1; None where it was missed. comment: why it was missed, e.g. the
    stage that dropped it.
    """

    formula: str
    name: str
    found: bool
    rank: int | None = None
    shortlisted: bool = False
    candidate_id: str | None = None
    hull_distance: float | None = None
    dft_hull_distance: float | None = None
    comment: str = ""


@dataclass(frozen=True)
class Provenance:
    """Where the result comes from."""

    code_version: str
    model: str
    model_version: str | None
    model_sha256: str
    theory: str
    lake_versions: Mapping[str, int] = field(default_factory=dict)
    candidate_datasets: Sequence[str] = ()
    graph_set_id: str | None = None
    candidates_digest: str | None = None
    spec_digest: str | None = None
    machine: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)
    model_metrics: Mapping[str, float] = field(default_factory=dict)
    licences: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportContext:
    """Everything a page shows. `candidates` has at least `CANDIDATE_COLUMNS`, every candidate once.

    files: label -> path relative to the campaign folder, shown as links (candidates.parquet, dft/vasp, …).

    A missing column raises SluiceError.
    """

    facts: CampaignFacts
    funnel: Sequence[FunnelRow]
    candidates: pa.Table
    provenance: Provenance
    hull_entries: Sequence[HullEntry] = ()
    parity: Sequence[Parity] = ()
    dft: Sequence[DftComparison] = ()
    known: Sequence[KnownCompound] = ()
    cost: Sequence[CostRow] = ()
    files: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        missing = [name for name in CANDIDATE_COLUMNS if name not in self.candidates.column_names]
        if missing:
            raise SluiceError(f"the report's table of candidates lacks the columns {', '.join(missing)}")
