"""Measuring in turn: A B C, A B C, …, so that a drift of the machine touches all alike; medians and ratios."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

Key = TypeVar("Key")
Found = TypeVar("Found")


def interleaved(names: Sequence[Key], rounds: int) -> Iterator[tuple[int, Key]]:
    """Every name once in the first round, then every name once in the second, and so on."""
    for number in range(rounds):
        for name in names:
            yield number, name


def in_turn(names: Sequence[Key], rounds: int, measure: Callable[[Key], Found]) -> dict[Key, list[Found]]:
    """What `measure` finds for each name, one entry a round."""
    found: dict[Key, list[Found]] = {name: [] for name in names}
    for _, name in interleaved(names, rounds):
        found[name].append(measure(name))
    return found


@dataclass(frozen=True)
class Spread:
    """Median of rounds, and the least and the greatest."""

    middle: float
    least: float
    greatest: float

    def text(self, digits: int = 2) -> str:
        """`middle (least to greatest)`."""
        return f"{self.middle:.{digits}f} ({self.least:.{digits}f} to {self.greatest:.{digits}f})"


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    return Spread(median(values), min(values), max(values))


def ratios(seconds: Mapping[Key, Sequence[float]], reference: Key) -> dict[Key, Spread]:
    """How many times faster than `reference` each is, round by round: its seconds over theirs in the same round."""
    base = seconds[reference]
    return {name: spread([b / s for b, s in zip(base, own, strict=True)]) for name, own in seconds.items()}
