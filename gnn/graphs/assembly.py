"""A graph set from its shards: who is trained on, who is held out, who is a reference, who is dropped and why.

Every row ends in exactly one role: rows in = train + valid + test + references + dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
import pyarrow as pa
from ase.data import chemical_symbols
from numpy.typing import NDArray

from gnn.errors import InputError, SluiceError
from gnn.files import digest
from gnn.graphs.columns import Columns, read_columns
from gnn.graphs.copies import copies, twins
from gnn.graphs.energies import EnergyChoice, choose_energies
from gnn.graphs.graph_set import SPLITS, GraphSet, LakeInput, ShardInfo, Split, TheoryReferences
from gnn.graphs.members import DROPPED, FILE_NAME, REFERENCE, ROLES, SCHEMA, write_members
from gnn.graphs.outliers import outlier_reason
from gnn.graphs.plan import BUILDER_VERSION, ShardPlan
from gnn.graphs.preprocess import PreprocessSpec
from gnn.graphs.references import fit_references, lowest
from gnn.graphs.splits import Assignment, assign_splits, keep_frozen
from gnn.graphs.statistics import statistics_of
from gnn.structures.properties import PropertySpec
from gnn.structures.record import Ints

DUPLICATE = "duplicate-in-other-dataset"
UNLABELLED = "unlabelled"
CHARGED_ATOM = "charged-atom"
OTHER_KIND = "other-energy-kind"
NO_REFERENCE = "element-without-reference"
NOT_SELECTED = "not-selected"
HELD_OUT = "shows-what-is-held-out"
SET_ASIDE = "no-graph"


@dataclass
class Roles:
    """What becomes of each row: a role of `ROLES` or None while undecided, and the reason of what is dropped."""

    role: list[str | None]
    reason: list[str | None]

    @classmethod
    def undecided(cls, n: int) -> Roles:
        """Nothing decided for any of n rows."""
        return cls([None] * n, [None] * n)

    def drop(self, row: int, reason: str) -> None:
        """Drop a row."""
        self.role[row], self.reason[row] = DROPPED, reason

    def rows(self, role: str | None) -> Ints:
        """Rows that have this role."""
        return np.array([row for row, found in enumerate(self.role) if found == role], dtype=np.int64)

    def dropped(self) -> dict[str, int]:
        """How many rows were dropped for each reason."""
        return dict(sorted(Counter(reason for reason in self.reason if reason is not None).items()))


def assemble(
    spec: PreprocessSpec,
    inputs: Sequence[LakeInput],
    properties: Mapping[str, PropertySpec],
    plans: Sequence[ShardPlan],
    shards: Sequence[ShardInfo],
    graphs_root: Path,
) -> tuple[GraphSet, Path]:
    """Write the graph set of finished shards; the manifest and its folder. The same input gives the same bytes.

    Raises:
        InputError: nothing is left to train on, or the split asks for more than there is.
    """
    paths = [graphs_root / shard.path for shard in shards]
    columns = read_columns(paths, properties)
    flags = flags_of(plans, shards)
    if len(flags) != len(columns):
        raise SluiceError(f"the shards hold {len(columns)} rows where {len(flags)} were planned; preprocess again")
    roles = Roles.undecided(len(columns))
    drop_unfit(roles, columns, flags, spec)
    energies = choose_energies(columns, roles.rows(None))
    for row in energies.without_labels(roles.rows(None), columns):
        roles.drop(row, OTHER_KIND)
    split = assign(roles, columns, spec)
    helped = assign_helpers(roles, columns, spec, split)
    references = fit_all(roles, columns, energies)
    drop_without_reference(roles, columns, energies, references)
    graph_set = manifest(spec, inputs, properties, shards, columns, roles, energies, references, split, helped)
    folder = graphs_root / graph_set.graph_set_id[:16]
    members = pa.concat_tables([members_table(columns, roles), lost_rows(plans, shards)])
    write_members(folder / FILE_NAME, members)
    graph_set.write(folder)
    return graph_set, folder


def flags_of(plans: Sequence[ShardPlan], shards: Sequence[ShardInfo]) -> list[tuple[str, ...]]:
    """Flags of the rows that have a graph, shard after shard."""
    return [
        flags
        for plan, shard in zip(plans, shards, strict=True)
        for name, flags in zip(plan.ids, plan.flags, strict=True)
        if name not in shard.set_aside
    ]


def set_aside(shards: Sequence[ShardInfo]) -> int:
    """Rows of which no graph could be made."""
    return sum(len(shard.set_aside) for shard in shards)


def drop_unfit(roles: Roles, columns: Columns, flags: Sequence[Sequence[str]], spec: PreprocessSpec) -> None:
    """Duplicates of an earlier data set, references, rows without labels, outliers."""
    seen: set[str] = set()
    labelled = columns.has_labels()
    for row, structure_id in enumerate(columns.structure_id):
        if structure_id in seen:
            roles.drop(row, DUPLICATE)
            continue
        seen.add(structure_id)
        largest = columns.max_force[row]
        if columns.isolated[row] and columns.charged[row]:
            roles.drop(row, CHARGED_ATOM)
        elif columns.isolated[row]:
            roles.role[row] = REFERENCE
        elif not labelled[row]:
            roles.drop(row, UNLABELLED)
        elif reason := outlier_reason(flags[row], None if np.isnan(largest) else float(largest), spec.outliers):
            roles.drop(row, reason)


def assign(roles: Roles, columns: Columns, spec: PreprocessSpec) -> Assignment:
    """Hand the undecided rows, but those of helpers, to the splits; all rows that show the same atoms to one.

    Raises:
        InputError: none is left, or the split asks for more than there are.
    """
    helpers = spec.helper_names
    rows = np.array([row for row in roles.rows(None) if columns.dataset[row] not in helpers], dtype=np.int64)
    if len(rows) == 0:
        told = ", ".join(f"{reason} {n}" for reason, n in roles.dropped().items()) or "there are only references"
        raise InputError(f"{', '.join(spec.datasets)}: none of {len(columns)} rows can be trained on ({told})")
    keys = [columns.structure_id[row] for row in rows]
    groups = [columns.group[row] for row in rows]
    symbols = [columns.symbols(row) for row in rows.tolist()]
    contents = [[(columns.theory[row], symbol) for symbol in found] for row, found in zip(rows, symbols, strict=True)]
    trained = frozenset(key for key, found in zip(keys, symbols, strict=True) if len(set(found)) == 1)
    pinned = trained if spec.train_on_elements else frozenset()
    tied = twins(columns, rows.tolist())
    found = assign_splits(keys, groups, spec.split, spec.seed, spec.split_by, contents, pinned, tied)
    found = keep_frozen(found, keys, groups, frozenset(spec.frozen_test), tied)
    for row, split in zip(rows.tolist(), found.splits, strict=True):
        if split is None:
            roles.drop(row, NOT_SELECTED)
        else:
            roles.role[row] = split
    return found


def assign_helpers(roles: Roles, columns: Columns, spec: PreprocessSpec, split: Assignment) -> dict[str, int]:
    """Train on the rows that are left, those of helpers; how many that are of each.

    What would tell of what is to be found out is dropped: copies of rows that are held out and, where groups stay
    together, rows of their groups.
    """
    if not spec.helpers:
        return {}
    held_out = [*roles.rows("valid").tolist(), *roles.rows("test").tolist()]
    helping = roles.rows(None).tolist()
    known = copies(columns, held_out, helping)
    groups = {columns.group[row] for row in held_out} - {None} if split.split_by == "group" else set()
    counts = dict.fromkeys(sorted(spec.helper_names), 0)
    for row in helping:
        if row in known or columns.group[row] in groups:
            roles.drop(row, HELD_OUT)
        else:
            roles.role[row] = "train"
            counts[columns.dataset[row]] += 1
    return counts


def own_repeats(n_own: int, n_helping: int, share: float) -> int:
    """How often a pass shows the structures that are no helper's, for helpers to make no more than `share` of it."""
    return max(1, ceil(n_helping * (1 - share) / share / n_own)) if n_own else 1


def fit_all(roles: Roles, columns: Columns, energies: EnergyChoice) -> dict[str, TheoryReferences]:
    """References of every theory that has energies, from its isolated atoms and its training split."""
    isolated = roles.rows(REFERENCE).tolist()
    train = [row for row in roles.rows("train").tolist() if energies.known[row]]
    found = {}
    for theory in energies.kinds:
        rows = np.array([row for row in train if columns.theory[row] == theory], dtype=np.int64)
        atoms = [r for r in isolated if columns.theory[r] == theory and not np.isnan(energies.of_isolated(r))]
        numbers = np.unique(np.concatenate([columns.atoms_of(rows), columns.atoms_of(np.array(atoms, dtype=np.int64))]))
        found[theory] = fit_references(
            [chemical_symbols[z] for z in numbers],
            columns.counts(rows, numbers.astype(np.int64)),
            energies.values[rows],
            lowest((columns.symbols(r)[0], energies.of_isolated(r)) for r in atoms),
        )
    return found


def drop_without_reference(
    roles: Roles, columns: Columns, energies: EnergyChoice, references: Mapping[str, TheoryReferences]
) -> None:
    """Held-out rows with an energy but an element that nothing in training gives a reference for."""
    for split in ("valid", "test"):
        for row in roles.rows(split).tolist():
            known = references[columns.theory[row]].energies if energies.known[row] else None
            if known is not None and not known.keys() >= set(columns.symbols(row)):
                roles.drop(row, NO_REFERENCE)


def manifest(
    spec: PreprocessSpec,
    inputs: Sequence[LakeInput],
    properties: Mapping[str, PropertySpec],
    shards: Sequence[ShardInfo],
    columns: Columns,
    roles: Roles,
    energies: EnergyChoice,
    references: dict[str, TheoryReferences],
    split: Assignment,
    helped: dict[str, int],
) -> GraphSet:
    """The manifest of decided roles."""
    used = np.concatenate([roles.rows(name) for name in SPLITS])
    numbers = np.unique(columns.atoms_of(used))
    theories = {columns.theory[row] for row in used}
    energies = energies.among(theories)
    references = {theory: found for theory, found in references.items() if theory in theories}
    own_theories = {columns.theory[row] for row in used if columns.dataset[row] not in helped}
    n_helping = sum(helped.values())
    repeats = own_repeats(len(roles.rows("train")) - n_helping, n_helping, spec.helper_share)
    identity = {
        "builder": BUILDER_VERSION,
        "spec": spec.model_dump(mode="json", exclude={"datasets", "frozen_test", "helpers", "helper_share"}),
        "helpers": [helped, repeats],
        "inputs": [[item.dataset, item.content_digest] for item in inputs],
        "shards": [shard.sha256 for shard in shards],
        "roles": digest([roles.role, roles.reason]),
    }
    return GraphSet(
        graph_set_id=digest(identity),
        builder_version=BUILDER_VERSION,
        cutoff=spec.cutoff,
        inputs=list(inputs),
        theories=sorted(theories),
        elements=sorted(chemical_symbols[z] for z in numbers),
        properties={name: properties[name] for name in sorted(columns.properties)},
        shards=list(shards),
        split_seed=spec.seed,
        split_counts={name: len(roles.rows(name)) for name in SPLITS},
        splits_path=FILE_NAME,
        statistics=statistics_of(columns, roles.rows("train"), energies, references, properties),
        references=references,
        rows_in=len(columns) + set_aside(shards),
        reference_rows=len(roles.rows(REFERENCE)),
        dropped=roles.dropped() | ({SET_ASIDE: lost} if (lost := set_aside(shards)) else {}),
        energy_kinds=energies.kinds,
        masked_energies=energies.masked,
        split_by=split.split_by,
        split_groups=groups_of_splits(roles, columns) if split.split_by == "group" else {},
        helpers=helped,
        helper_theories=sorted(theories - own_theories),
        repeats=repeats,
        notes=[note for note in (split.note, *energies.notes(), charge_note(columns, used)) if note],
    )


def groups_of_splits(roles: Roles, columns: Columns) -> dict[Split, int]:
    """How many groups each split has; a structure without one is its own."""
    rows_of = {split: roles.rows(split).tolist() for split in SPLITS}
    return {
        split: len({(columns.group[row] is None, columns.group[row] or columns.structure_id[row]) for row in rows})
        for split, rows in rows_of.items()
    }


def charge_note(columns: Columns, used: NDArray[np.int64]) -> str | None:
    """What is to be said of charged structures."""
    n = int(columns.charged[used].sum())
    return f"{n} of {len(used)} structures are charged, of which networks know nothing" if n else None


def members_table(columns: Columns, roles: Roles) -> pa.Table:
    """One row of `SCHEMA` for every row of the inputs."""
    if any(role not in ROLES for role in roles.role):
        raise SluiceError("a row of the graph set has no role")
    return pa.table(
        {
            "structure_id": columns.structure_id,
            "dataset": columns.dataset,
            "theory": columns.theory,
            "group": columns.group,
            "shard": columns.shard,
            "row": columns.row,
            "n_atoms": columns.n_atoms,
            "n_edges": columns.n_edges,
            "role": roles.role,
            "reason": roles.reason,
        },
        schema=SCHEMA,
    )


def lost_rows(plans: Sequence[ShardPlan], shards: Sequence[ShardInfo]) -> pa.Table:
    """Rows of `SCHEMA` for those of which no graph could be made; they stand in no row of their shard."""
    lost = [
        {
            "structure_id": name,
            "dataset": plan.dataset,
            "theory": "",
            "shard": index,
            "row": -1,
            "n_atoms": 0,
            "n_edges": 0,
            "role": DROPPED,
            "reason": f"{SET_ASIDE}: {reason}",
        }
        for index, (plan, shard) in enumerate(zip(plans, shards, strict=True))
        for name, reason in shard.set_aside.items()
    ]
    return pa.Table.from_pylist(lost, schema=SCHEMA)
