"""Filling splits with whole groups, close to the counts wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from gnn.graphs.graph_set import Split

FILL_ORDER: tuple[Split, ...] = ("test", "valid", "train")
"""Held-out splits are filled first, so that they change least when data are added."""


@dataclass(frozen=True, eq=False)
class Group:
    """Structures that stay together, by index, and what they hold (elements); `stays`: in training, come what may."""

    indices: list[int]
    items: frozenset[Hashable]
    stays: bool = False

    def __len__(self) -> int:
        return len(self.indices)


@dataclass
class _Waiting:
    """Groups that are in no split yet, in the order in which they are offered, and how many of them hold each item."""

    groups: list[Group]
    holders: Counter[Hashable] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.holders.update(item for group in self.groups for item in group.items)

    def free(self) -> list[Group]:
        """Groups that may be held out."""
        return [group for group in self.groups if not group.stays]

    def rest(self) -> list[Group]:
        """All groups, those that stay in training first."""
        return sorted(self.groups, key=lambda group: not group.stays)

    def reserved(self, splits: Sequence[Split], targets: Mapping[Split, int]) -> int:
        """Groups to leave for these splits: one each, unless what stays in training anyway is enough for it."""
        needy = [split for split in splits if targets[split] > 0]
        return len(needy) - ("train" in needy and any(group.stays for group in self.groups))

    def is_last_holder(self, group: Group) -> bool:
        """Whether something would be held by no waiting group without this one."""
        return any(self.holders[item] == 1 for item in group.items)

    def take(self, chosen: Sequence[Group]) -> None:
        """Take groups out."""
        taken = {id(group) for group in chosen}
        self.groups = [group for group in self.groups if id(group) not in taken]


def fill(groups: Sequence[Group], targets: Mapping[Split, int], n: int, exact: bool) -> list[Split | None]:
    """The split of each of n structures; train takes the groups that test and valid leave, up to its target.

    Where counts are exact, the last group of a split is cut to them as long as enough structures remain for the others.
    """
    splits: list[Split | None] = [None] * n
    waiting = _Waiting(list(groups))
    slack = n - sum(targets.values()) if exact else 0
    for position, split in enumerate(FILL_ORDER):
        later = FILL_ORDER[position + 1 :]
        spare = len(waiting.free()) - waiting.reserved(later, targets)
        chosen = _choose(waiting, targets[split], spare, slack, exact) if later else waiting.rest()
        indices = [index for group in chosen for index in group.indices]
        surplus = len(indices) - targets[split]
        if surplus > 0 and (surplus <= slack or not later):
            indices = indices[: targets[split]]
            slack -= surplus
        for index in indices:
            splits[index] = split
        waiting.take(chosen)
    return splits


def _choose(waiting: _Waiting, target: int, spare: int, slack: int, exact: bool) -> list[Group]:
    """At most `spare` groups that hold about `target` structures, at least one group if there is a target.

    Groups that are the last to hold something are looked at when the others do not do.
    """
    if target <= 0 or spare <= 0:
        return []
    choice = _Choice(waiting, target, spare, slack)
    choice.look(among_last_holders=False)
    if exact or not choice.groups:
        choice.look(among_last_holders=True)
    return list(choice.groups.values()) or sorted(waiting.free(), key=len)[:1]


@dataclass
class _Choice:
    """Groups chosen for one split so far, and how many structures they hold."""

    waiting: _Waiting
    target: int
    spare: int
    slack: int
    count: int = 0
    groups: dict[int, Group] = field(default_factory=dict)

    def look(self, among_last_holders: bool) -> None:
        """Go through the waiting groups and take those that bring the count closer to the target."""
        for group in self.waiting.free():
            if self.count >= self.target or len(self.groups) >= self.spare:
                return
            if id(group) not in self.groups and (among_last_holders or not self.waiting.is_last_holder(group)):
                self._take_if_nearer(group)

    def _take_if_nearer(self, group: Group) -> None:
        """Take a group whose surplus can be left out, or is less than what is missing without it."""
        surplus = self.count + len(group) - self.target
        if abs(surplus) < self.target - self.count or surplus <= self.slack:
            self.groups[id(group)] = group
            self.count += len(group)
            self.waiting.holders.subtract(group.items)
