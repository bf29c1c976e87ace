"""Frozen benchmark suites: the structures on which all versions of a model are compared, kept with their labels.

A suite is made of the test split of the first version that is registered under a name, once. Later graph sets for that
name keep its structures, and all that belongs to their groups, out of training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from flows.learnt import COLUMNS
from flows.settings import Home
from gnn.errors import InputError, SluiceError
from gnn.files import digest, file_sha256, locked, write_atomically, write_text
from gnn.graphs.graph_set import GraphSet, LakeInput

if TYPE_CHECKING:
    import pyarrow as pa

    from gnn.graphs.graph import Graph
    from gnn.training.evaluation import Evaluation

ROWS_NAME, MANIFEST_NAME = "suite.parquet", "manifest.json"
MOST = 5000
"""Structures of a suite; of a larger test split those whose ids' hashes come first."""
BATCH_ROWS = 500


class SuiteManifest(BaseModel):
    """What a suite is made of. `digest` names its structures and their labels, `rows_sha256` the file they lie in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    name: str
    digest: str
    rows_sha256: str
    n_structures: int
    n_atoms: int
    inputs: list[LakeInput]
    graph_set_id: str
    created: str


@dataclass(frozen=True)
class Suite:
    """A suite on disk."""

    folder: Path
    manifest: SuiteManifest

    @property
    def rows_path(self) -> Path:
        """Its records, one a row."""
        return self.folder / ROWS_NAME

    def members(self) -> list[dict[str, Any]]:
        """Id, data set and group of its structures."""
        import pyarrow.parquet as pq

        found: list[dict[str, Any]] = pq.read_table(self.rows_path, columns=list(COLUMNS)).to_pylist()
        return found

    def structure_ids(self) -> list[str]:
        """Ids of its structures, sorted."""
        return sorted(member["structure_id"] for member in self.members())

    def graphs(self, cutoff: float) -> Iterator[Graph]:
        """Its structures as graphs.

        Raises:
            SluiceError: the file is not the one that was frozen.
        """
        import pyarrow.parquet as pq

        from gnn.graphs.graph import graph_of_record
        from gnn.structures.record import row_to_record

        if (found := file_sha256(self.rows_path)) != self.manifest.rows_sha256:
            raise SluiceError(f"{self.rows_path} has sha256 {found[:12]}, frozen was {self.manifest.rows_sha256[:12]}")
        for batch in pq.ParquetFile(self.rows_path).iter_batches(BATCH_ROWS):
            for row in batch.to_pylist():
                yield graph_of_record(row_to_record(row), cutoff)


def suite_folder(name: str, home: Home) -> Path:
    """Where the suite of a registered model lies."""
    return home.models / "suites" / name


def read_suite(name: str, home: Home) -> Suite | None:
    """The suite of a registered model; None where none was frozen."""
    folder = suite_folder(name, home)
    path = folder / MANIFEST_NAME
    if not path.is_file():
        return None
    return Suite(folder, SuiteManifest.model_validate_json(path.read_text(encoding="utf-8")))


def frozen_ids(name: str | None, home: Home) -> tuple[str, ...]:
    """Structures that trainings for this name must not see."""
    suite = None if name is None else read_suite(name, home)
    return () if suite is None else tuple(suite.structure_ids())


def freeze(name: str, graph_folder: Path, home: Home) -> Suite | None:
    """Make the suite of the test split of a graph set, unless there is one; None where that split is empty.

    Raises:
        InputError: the lake no longer holds the versions that the graph set was made from.
    """
    folder = suite_folder(name, home)
    with locked(folder.with_name(f"{name}.lock"), f"the suite of {name}", timeout_s=600):
        if (known := read_suite(name, home)) is not None:
            return known
        graph_set = GraphSet.read(graph_folder)
        rows = suite_rows(graph_set, held_out_ids(graph_folder / graph_set.splits_path), home)
        if rows is None:
            return None
        return _write(name, folder, rows, graph_set)


def held_out_ids(splits: Path) -> dict[str, set[str]]:
    """Data set -> ids of its structures in the test split; at most `MOST` in all."""
    import pyarrow.parquet as pq

    rows = pq.read_table(splits, columns=["structure_id", "dataset"], filters=[("role", "=", "test")]).to_pylist()
    rows.sort(key=lambda row: hashlib.sha256(row["structure_id"].encode()).digest())
    found: dict[str, set[str]] = {}
    for row in rows[:MOST]:
        found.setdefault(row["dataset"], set()).add(row["structure_id"])
    return found


def suite_rows(graph_set: GraphSet, wanted: dict[str, set[str]], home: Home) -> pa.Table | None:
    """The lake's rows of these structures, in the order of their ids; None if there are none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from gnn.lake.table import Lake
    from gnn.structures.record import RECORD_SCHEMA

    lake = Lake(home.lake)
    parts: list[pa.RecordBatch] = []
    for item in graph_set.inputs:
        ids = pa.array(sorted(wanted.get(item.dataset, ())), pa.string())
        batches = lake.record_batches(item.dataset, item.version) if len(ids) else iter(())
        parts.extend(batch.filter(pc.is_in(batch["structure_id"], value_set=ids)) for batch in batches)
    if not parts:
        return None
    table = pa.Table.from_batches(parts).select(RECORD_SCHEMA.names)
    if table.num_rows != (expected := sum(map(len, wanted.values()))):
        raise InputError(
            f"the lake holds {table.num_rows} of the {expected} structures of the test split; preprocess again"
        )
    return table.sort_by([("dataset", "ascending"), ("structure_id", "ascending")])


def _write(name: str, folder: Path, rows: pa.Table, graph_set: GraphSet) -> Suite:
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / ROWS_NAME, lambda temporary: pq.write_table(rows, temporary, compression="zstd"))
    manifest = SuiteManifest(
        name=name,
        digest=content_digest(rows),
        rows_sha256=file_sha256(folder / ROWS_NAME),
        n_structures=rows.num_rows,
        n_atoms=sum(rows["n_atoms"].to_pylist()),
        inputs=graph_set.inputs,
        graph_set_id=graph_set.graph_set_id,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_text(folder / MANIFEST_NAME, manifest.model_dump_json(indent=1) + "\n")
    return Suite(folder, manifest)


def content_digest(rows: pa.Table) -> str:
    """Digest of structures and labels, the same however the file is written."""
    return digest([list(row.values()) for row in rows.select(["dataset", "structure_id", "label_hash"]).to_pylist()])


def evaluate_on(suite: Suite, checkpoint: Path, device: str = "auto") -> Evaluation:
    """Errors of a checkpoint on a suite.

    Raises:
        InputError: the checkpoint cannot be read, or there is no such device.
    """
    from flows.evaluate import MAX_ATOMS, Source, known_to, packed
    from gnn.models.device import device_of
    from gnn.training.checkpoint import read_checkpoint
    from gnn.training.evaluation import evaluate

    manifest, members = read_checkpoint(checkpoint)
    target = device_of(device)
    source = Source(f"the suite of {suite.manifest.name}", suite.graphs(manifest.cutoff))
    batches = packed(known_to(manifest, source), manifest, MAX_ATOMS)
    return evaluate([member.to(target) for member in members], batches, target)
