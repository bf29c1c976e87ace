"""What a reader finds in a file, before units, signs and names are those of the house."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnn.errors import InputError, told
from gnn.structures.cards import Units
from gnn.structures.record import Source


class UnreadableFile(InputError):  # noqa: N818 - reads as what it is
    """A file that cannot be read to its end: truncated, damaged, or of an unknown format."""


class UnreadableRow(ValueError):  # noqa: N818 - reads as what it is
    """One row that cannot be read, while the file goes on. The message is `code: detail`."""


SHOWN = 200
"""Characters of a row or of an error that are kept for people."""


UNREADABLE = "unreadable-row"
"""The code of rows that nobody can tell anything about."""


def unreadable_row(error: Exception) -> str:
    """What a library raised at a row, as the reason why the row is refused."""
    return f"{UNREADABLE}: {told(error)[:SHOWN]}"


def is_unreadable(reason: str) -> bool:
    """Whether a row was refused because nobody could tell what it is, rather than for what it is."""
    return reason.startswith(UNREADABLE)


@dataclass(frozen=True)
class Rejected:
    """A row that no record can be made of. `reason` is `code` or `code: detail`; `content` shows the row, shortened."""

    row: int
    reason: str
    source: Source | None = None
    content: str | None = None

    @property
    def code(self) -> str:
        """The part of the reason that is counted."""
        return self.reason.partition(":")[0]


@dataclass
class Raw:
    """One row as the file has it.

    numbers (N,), positions (N, 3) and cell (3, 3) in the file's length unit, pbc (3,). `values` holds every other thing
    the row states, nested as in the file: labels, info keys, columns, names of the keys that led here.
    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    cell: NDArray[np.float64]
    pbc: NDArray[np.bool_]
    values: dict[str, Any] = field(default_factory=dict)
    fixed: NDArray[np.bool_] | None = None
    tags: NDArray[np.int64] | None = None
    theory: str | None = None
    group: str | None = None
    flags: tuple[str, ...] = ()


ASE_UNITS = Units(energy="eV", length="Å", forces="eV/Å", stress="eV/Å^3")
"""What formats mean that follow ASE: extended XYZ, trajectories, databases; what ASE's VASP readers give."""

NO_UNITS = Units(length="Å")
"""Formats that say nothing about the units of their labels."""


DISORDERED = "disordered: a site is shared by several elements or partly empty"
"""Why no structure can be made of a crystal that has no ordering."""


@dataclass(frozen=True)
class Bad:
    """A row of a file that goes on, which nothing can be made of."""

    reason: str
    content: str | None = None


Row = Raw | Bad
"""What a reader yields, one for each row of its file."""
