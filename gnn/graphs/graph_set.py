"""A graph set: the manifest that lists graph shards, splits, statistics and reference energies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from gnn.errors import InputError, one_line
from gnn.files import write_text
from gnn.structures.properties import PropertySpec

SCHEMA_VERSION = 1
MANIFEST_NAME = "graph_set.json"
Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ShardInfo(_Model):
    """One file of graphs; `path` is relative to the graph folder."""

    path: str
    sha256: str
    n_graphs: int
    n_atoms: int
    n_edges: int
    set_aside: dict[str, str] = Field(
        default_factory=dict, description="rows of which no graph could be made: structure_id -> why"
    )


class TheoryReferences(_Model):
    """Reference energy (eV) of each element at one level of theory, and where it comes from.

    bonding: what atoms of an element have beside a free atom's energy in the mean of the structures (eV).
    """

    energies: dict[str, float]
    source: dict[str, Literal["isolated", "fitted"]]
    bonding: dict[str, float] = Field(default_factory=dict)


class PropertyStatistics(_Model):
    """Mean and standard deviation of a property over the training split, in its unit (per atom where extensive)."""

    n: int
    mean: float
    std: float


class Statistics(_Model):
    """Statistics of the training split.

    energy_rms: eV/atom, after references and bonding are subtracted; force_rms: eV/Å; stress_rms: eV/Å³.
    """

    n_structures: int
    n_atoms: int
    n_edges: int
    mean_neighbours: float
    energy_rms: float | None
    force_rms: float | None
    stress_rms: float | None
    properties: dict[str, PropertyStatistics] = Field(default_factory=dict)

    @property
    def mean_size(self) -> float:
        """Atoms of a structure."""
        return self.n_atoms / max(self.n_structures, 1)

    @property
    def labels(self) -> list[str]:
        """What the training split has labels of: energy, forces, stress, names of properties."""
        derived = {"energy": self.energy_rms, "forces": self.force_rms, "stress": self.stress_rms}
        known = [name for name, value in derived.items() if value is not None]
        return known + [name for name, found in self.properties.items() if found.n > 0]


class LakeInput(_Model):
    """A data set that went in: table version, content digest, licence."""

    dataset: str
    version: int
    content_digest: str
    licence: str | None = None


class GraphSet(_Model):
    """The manifest. rows_in = sum of splits + references + sum of dropped."""

    schema_version: int = SCHEMA_VERSION
    graph_set_id: str
    builder_version: int
    cutoff: float
    inputs: list[LakeInput]
    theories: list[str]
    elements: list[str]
    properties: dict[str, PropertySpec] = Field(default_factory=dict)
    shards: list[ShardInfo]
    split_seed: int
    split_counts: dict[Split, int]
    splits_path: str
    statistics: Statistics
    references: dict[str, TheoryReferences]
    rows_in: int
    reference_rows: int
    dropped: dict[str, int]
    energy_kinds: dict[str, Literal["energy", "free_energy"]] = Field(
        default_factory=dict, description="theory -> the one kind of energy that is trained on"
    )
    masked_energies: dict[str, int] = Field(
        default_factory=dict, description="theory -> rows without that kind, which keep their other labels"
    )
    split_by: Literal["group", "structure"] = "group"
    split_groups: dict[Split, int] = Field(
        default_factory=dict,
        description="groups of each split, if split by them; a structure without one is its own",
    )
    helpers: dict[str, int] = Field(
        default_factory=dict, description="data set that is only trained on -> its training structures"
    )
    helper_theories: list[str] = Field(default_factory=list, description="levels of theory that none but helpers bring")
    repeats: int = Field(
        default=1, ge=1, description="times a pass over the training split shows each structure that is no helper's"
    )
    notes: list[str] = Field(default_factory=list, description="what differs from what was asked for, for people")

    @property
    def own_theories(self) -> list[str]:
        """Levels of theory that not only helpers bring."""
        return [theory for theory in self.theories if theory not in self.helper_theories]

    @property
    def n_own(self) -> int:
        """Training structures that are no helper's."""
        return self.split_counts["train"] - sum(self.helpers.values())

    @property
    def pass_size(self) -> int:
        """Structures that a pass over the training split shows, repeats counted."""
        return sum(self.helpers.values()) + self.repeats * self.n_own

    @property
    def repeats_alone(self) -> int:
        """Times that a pass without helpers, about as long as one with them, shows each structure."""
        return max(1, round(self.pass_size / self.n_own)) if self.n_own else 1

    def independent(self, split: Split) -> int:
        """Structures of a split that do not belong together: its groups where it was split by them."""
        return self.split_groups.get(split, self.split_counts.get(split, 0))

    def write(self, folder: Path) -> Path:
        """Write the manifest into `folder`."""
        return write_text(folder / MANIFEST_NAME, self.model_dump_json(indent=1))

    @classmethod
    def read(cls, folder: Path) -> GraphSet:
        """Read the manifest of `folder`.

        Raises:
            InputError: there is none, it is damaged, or it is of another schema version.
        """
        path = folder / MANIFEST_NAME
        if not path.is_file():
            raise InputError(f"no graph set in {folder}: {MANIFEST_NAME} is missing; run `sluice preprocess` first")
        try:
            text = path.read_text(encoding="utf-8")
            version = json.loads(text).get("schema_version")
            if version == SCHEMA_VERSION:
                return cls.model_validate_json(text)
        except (ValueError, AttributeError) as error:
            raise InputError(f"{path} is no graph set ({one_line(error):.200}); preprocess again") from None
        raise InputError(f"{path} has schema version {version}, this code reads {SCHEMA_VERSION}; preprocess again")
