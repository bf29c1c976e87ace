"""Train, valid and test: deterministic, by groups where structures belong together, close to the counts asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Literal, TypeVar

from gnn.errors import InputError
from gnn.graphs.filling import Group, fill
from gnn.graphs.graph_set import SPLITS, Split

Key = TypeVar("Key", bound=Hashable)
SplitBy = Literal["group", "structure"]
Shares = Mapping[Split, float]

DEFAULT_HELPER_SHARE = 0.75
"""Part of a pass over the training split that helpers may make."""
DEFAULT_SHARES: dict[Split, float] = {"train": 0.8, "valid": 0.1, "test": 0.1}


@dataclass(frozen=True)
class Assignment:
    """Split of each key in the order given; None = left out, since fewer were asked for.

    `split_by` is what was done, `note` why it is not what was asked for.
    """

    splits: list[Split | None]
    split_by: SplitBy
    note: str | None = None

    def counts(self) -> dict[Split, int]:
        """How many keys each split has."""
        return {split: sum(found == split for found in self.splits) for split in SPLITS}


def parse_shares(text: str) -> dict[Split, float]:
    """Shares from `train=450,valid=50` or `train=0.8,valid=0.1,test=0.1`; a split that is not named gets none.

    Raises:
        InputError: the text is not of that form, or `check_shares` refuses it.
    """
    shares: dict[Split, float] = {}
    for part in text.split(","):
        name, separator, number = part.strip().partition("=")
        split = next((known for known in SPLITS if known == name.strip()), None)
        if not separator or split is None or split in shares:
            raise InputError(f"--split {text!r} is not of the form train=450,valid=50 or train=0.8,valid=0.1,test=0.1")
        try:
            shares[split] = float(number)
        except ValueError:
            raise InputError(f"--split {text!r}: {number!r} is not a number") from None
    check_shares(shares)
    return shares


def check_shares(shares: Shares) -> None:
    """Refuse shares that are neither fractions with a sum of at most 1 nor whole counts.

    Raises:
        InputError: with what is wrong.
    """
    values = list(shares.values())
    if not all(value >= 0 and isfinite(value) for value in values) or shares.get("train", 0) <= 0:
        raise InputError(f"split shares {dict(shares)} must not be negative and need something to train on")
    if are_counts(shares):
        if any(value != int(value) for value in values):
            raise InputError(f"split shares {dict(shares)} mix counts and fractions; give whole counts or fractions")
    elif sum(values) > 1 + 1e-9:
        raise InputError(f"split fractions {dict(shares)} sum to {sum(values):g}; give at most 1")


def are_counts(shares: Shares) -> bool:
    """Whether shares are counts of structures: one above 1 says so, or whole numbers that are no fractions of one."""
    values = shares.values()
    return any(value > 1 for value in values) or (all(value == int(value) for value in values) and sum(values) > 1)


def assign_splits(
    keys: Sequence[Key],
    groups: Sequence[str | None],
    shares: Shares = DEFAULT_SHARES,
    seed: int = 0,
    split_by: SplitBy = "group",
    contents: Sequence[Iterable[Hashable]] | None = None,
    trained: frozenset[Hashable] = frozenset(),
    twins: Sequence[Hashable] | None = None,
) -> Assignment:
    """Assign each key; the same for the same keys, shares and seed in any order of the keys.

    With "group", keys of one group stay together and a key without group is its own. Each split takes, in an order
    drawn by the seed, the groups that bring it closer to its count; where there are too few groups to fill the splits,
    structures are split singly and the note says so. With counts, a group of which only a part is needed is cut and its
    rest left out, never put elsewhere. `contents` name what each key holds, as its elements: a group that is the last
    to hold something stays in training while others will do, since nothing could be learnt about it otherwise. The
    groups of the keys that are to be `trained` on stay in training whatever the others do. Keys of one mark in `twins`
    show the same atoms: they and their groups stay together with either; None marks nothing.

    Raises:
        InputError: more structures are asked for than there are, or `check_shares` refuses the shares.
    """
    check_shares(shares)
    targets = _targets(len(keys), shares)
    members = _members(keys, groups, split_by, twins)
    n_filled = sum(target > 0 for target in targets.values())
    note = None
    if split_by == "group" and all(group is None for group in groups) and keys:
        split_by, note = "structure", "the data name no groups, so structures were split singly"
    elif len(members) < min(n_filled, len(keys)):
        note = f"{len(members)} group(s) cannot fill {n_filled} splits, so structures were split singly"
        split_by, members = "structure", _members(keys, groups, "structure", twins)
    ordered = [sorted(members[name], key=lambda i: _draw(seed, str(keys[i]))) for name in _order(members, seed)]
    offered = [
        Group(
            group,
            frozenset(item for index in group for item in contents[index]) if contents else frozenset(),
            stays=any(keys[index] in trained for index in group),
        )
        for group in ordered
    ]
    filled = fill(offered, targets, len(keys), are_counts(shares))
    assignment = Assignment(filled, split_by, note)
    return _with_shortfall(assignment, targets) if are_counts(shares) else assignment


def keep_frozen(
    assignment: Assignment,
    keys: Sequence[Key],
    groups: Sequence[str | None],
    frozen: frozenset[Hashable],
    twins: Sequence[Hashable] | None = None,
) -> Assignment:
    """The assignment with all frozen keys in test, and what belongs to one out of training and validation.

    Where the frozen keys are in test already, it is left as it is.
    """
    if not frozen:
        return assignment
    together = _members(keys, groups, assignment.split_by, twins).values()
    held = {index for members in together if any(keys[i] in frozen for i in members) for index in members}
    stays = [index in held for index in range(len(keys))]
    splits: list[Split | None] = [
        "test" if kept and (key in frozen or split is not None) else split
        for key, kept, split in zip(keys, stays, assignment.splits, strict=True)
    ]
    moved = sum(now != before for now, before in zip(splits, assignment.splits, strict=True))
    if not moved:
        return assignment
    note = f"{moved} structures were moved to the test split, where the frozen suite keeps them"
    return replace(assignment, splits=splits, note="; ".join(filter(None, [assignment.note, note])))


def _with_shortfall(assignment: Assignment, targets: Mapping[Split, int]) -> Assignment:
    """Say which counts whole groups could not give."""
    found = assignment.counts()
    if found == dict(targets):
        return assignment
    got = ", ".join(
        f"{split}={found[split]} for {targets[split]}" for split in SPLITS if found[split] != targets[split]
    )
    note = (
        f"whole groups gave {got}; use --split-by structure for exact counts"
        if assignment.split_by == "group"
        else f"structures with all their levels of theory gave {got}"
    )
    return replace(assignment, note="; ".join(filter(None, [assignment.note, note])))


def _targets(n: int, shares: Shares) -> dict[Split, int]:
    if are_counts(shares):
        wanted = {split: int(shares.get(split, 0)) for split in SPLITS}
        if sum(wanted.values()) > n:
            raise InputError(f"--split asks for {sum(wanted.values())} structures, the data have {n}; ask for fewer")
        return wanted
    held_out: dict[Split, int] = {split: round(n * shares.get(split, 0.0)) for split in SPLITS if split != "train"}
    for split in held_out:
        if shares.get(split, 0.0) > 0 and held_out[split] == 0 and n >= len(SPLITS):
            held_out[split] = 1
    rest = n - sum(held_out.values())
    complete = sum(shares.values()) > 1 - 1e-9
    return {"train": n if complete else min(rest, round(n * shares["train"])), **held_out}


def _members(
    keys: Sequence[Key], groups: Sequence[str | None], split_by: SplitBy, twins: Sequence[Hashable] | None
) -> dict[str, list[int]]:
    """Indices that stay together, by a name that does not depend on their order."""
    names = [
        f"key:{key}" if split_by == "structure" or group is None else f"group:{group}"
        for key, group in zip(keys, groups, strict=True)
    ]
    members: dict[str, list[int]] = {}
    for index, name in enumerate(names if twins is None else _tied(names, twins)):
        members.setdefault(name, []).append(index)
    return members


def _tied(names: Sequence[str], twins: Sequence[Hashable]) -> list[str]:
    """The names, those that a mark ties together (over others, too) replaced by the first of them."""
    from scipy.cluster.hierarchy import DisjointSet

    sets = DisjointSet(names)
    first: dict[Hashable, str] = {}
    for name, mark in zip(names, twins, strict=True):
        if mark is not None:
            sets.merge(first.setdefault(mark, name), name)
    common = {name: min(subset) for subset in sets.subsets() for name in subset}
    return [common[name] for name in names]


def _order(members: Mapping[str, list[int]], seed: int) -> list[str]:
    return sorted(members, key=lambda name: _draw(seed, name))


def _draw(seed: int, name: str) -> bytes:
    """Bytes that order names at random, the same everywhere."""
    return hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=16).digest()
