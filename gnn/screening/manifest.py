"""What a campaign's folder records: the pinned model, the funnel, the hull's entries, and the manifest of all."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from gnn.errors import InputError
from gnn.files import write_text
from gnn.screening.campaign import read_kept

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelPin(_Part):
    """The model, resolved once at the start: an alias that moves later changes nothing."""

    uri: str
    version: str | None
    sha256: str
    path: str | None = Field(description="checkpoint folder relative to the home; null for foreign potentials")
    theory: str
    elements: list[str]
    foreign: str | None = None


class Stage(_Part):
    """One stage of the funnel: n_in = n_out + sum of rejected."""

    stage: str
    n_in: int
    n_out: int
    rejected: dict[str, int]


class KnownOutcome(_Part):
    """What became of a known compound."""

    formula: str
    name: str
    prototype: str | None
    citation: str
    found: bool = Field(description="on the shortlist")
    rank: int | None
    candidate_id: str | None
    hull_distance: float | None
    comment: str


class HullEntryRow(_Part):
    """An entry of the reference hull; energies in eV/atom."""

    name: str
    composition: dict[str, float]
    energy_per_atom: float
    formation_energy_per_atom: float | None
    source: str


State = Literal["RUNNING", "COMPLETED", "FAILED", "CANCELLED"]


class ShardTally(_Part):
    """How many shards there are, and how they stand."""

    total: int = 0
    done: int = 0
    failed: int = 0


class CampaignManifest(_Part):
    """What a campaign's folder holds and what it was made from. Paths are relative to the campaign's folder."""

    schema_version: int = SCHEMA_VERSION
    name: str
    state: State
    spec_digest: str
    model: ModelPin
    code_version: str
    candidates_digest: str | None = None
    lake_versions: dict[str, int] = {}
    candidate_datasets: list[str] = Field(default=[], description="NAME@VERSION")
    started_at: str = ""
    finished_at: str | None = None
    n_candidates: int = 0
    n_shortlist: int = 0
    funnel: list[Stage] = []
    shards: ShardTally = ShardTally()
    shard_errors: dict[str, str] = Field(default={}, description="shard -> why it failed")
    computed: int = Field(default=0, description="structures relaxed by the last run")
    reused: int = Field(default=0, description="structures that an earlier run had relaxed")
    cost: dict[str, float] = Field(default={}, description="seconds: cpu_s, wall_s, and wall_s of each stage")
    known: list[KnownOutcome] = []
    hull_entries: list[HullEntryRow] = []
    warnings: list[str] = []
    paths: dict[str, str] = {}

    def write(self, folder: Path) -> Path:
        """Write the manifest into the campaign's `folder`."""
        return write_text(folder / MANIFEST_NAME, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> CampaignManifest:
        """The manifest of a campaign's `folder`.

        Raises:
            InputError: there is none, it is damaged, or it is of another schema version.
        """
        path = folder / MANIFEST_NAME
        if not path.is_file():
            raise InputError(f"no campaign in {folder}: {MANIFEST_NAME} is missing; `sluice campaigns ls` lists them")
        manifest = read_kept(path, cls)
        if manifest.schema_version != SCHEMA_VERSION:
            raise InputError(f"{path} has schema version {manifest.schema_version}, this code reads {SCHEMA_VERSION}")
        return manifest
