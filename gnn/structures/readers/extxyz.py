"""Extended XYZ, plain XYZ included, frame by frame: one bad frame costs itself, a torn one the file."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TextIO

import ase.io
from ase import Atoms

from gnn.structures.cards import ReadingRules
from gnn.structures.readers.ase_atoms import raw_of_atoms
from gnn.structures.readers.opening import open_text
from gnn.structures.readers.raw import SHOWN, Bad, Row, UnreadableFile, unreadable_row

SYMBOL = re.compile(r"[A-Z][a-z]{0,2}")
SIX = re.compile(r'\b(stress|virial)=(["{\[])(\s*[-+.\deE]+(?:[\s,]+[-+.\deE]+){5}[\s,]*)(["}\]])')
"""Numbers stand apart: were that left open, the digits of nine could be taken for six in a billion ways."""
OTHER_NAMES = {"stress": "stress_tensor", "virial": "virials"}
"""Under the first name of each pair ASE takes nine numbers only."""


def read_extxyz(path: Path, rules: ReadingRules) -> Iterator[Row]:
    """The frames of an (extended) XYZ file.

    Raises:
        UnreadableFile: a frame is cut short, or its first line is no number of atoms.
    """
    del rules
    with open_text(path) as stream:
        for lines in frames(stream, path.name):
            yield _frame(lines)


def frames(stream: TextIO, name: str) -> Iterator[list[str]]:
    """The lines of each frame, its count and comment included."""
    for row, line in enumerate(iter(lambda: _next_line(stream), "")):
        if not line.strip().isdigit():
            raise UnreadableFile(
                f"{name}: frame {row} begins with {line.strip()[:60]!r} where a number of atoms is due"
            )
        n_atoms = int(line)
        body = list(islice(stream, n_atoms + 1))
        if len(body) < n_atoms + 1 or (not body[-1].endswith("\n") and _is_short(body)):
            raise UnreadableFile(f"{name}: truncated: frame {row} has {max(len(body) - 1, 0)} of {n_atoms} atoms")
        yield [line, *body]


def _next_line(stream: TextIO) -> str:
    """The next line that is not empty; "" at the end."""
    for line in stream:
        if line.strip():
            return line
    return ""


def _is_short(body: list[str]) -> bool:
    """Whether a last line without its end has fewer words than the one before."""
    return len(body) > 2 and len(body[-1].split()) < len(body[-2].split())


def _reason(error: Exception) -> str:
    """Why ASE cannot read a frame: it raises a symbol that is none as a key that it lacks."""
    missing = error.args[0] if isinstance(error, KeyError) and error.args else None
    if isinstance(missing, str) and SYMBOL.fullmatch(missing):
        return f"unknown-element: {missing}"
    return unreadable_row(error)


def _frame(lines: list[str]) -> Row:
    lines[1] = SIX.sub(lambda found: f"{OTHER_NAMES[found[1]]}={found[2]}{found[3]}{found[4]}", lines[1])
    try:
        atoms = ase.io.read(io.StringIO("".join(lines)), format="extxyz")
    except Exception as error:  # noqa: BLE001 - ASE raises whatever its parsing steps on; the reason is kept
        return Bad(_reason(error), "".join(lines[:3])[:SHOWN])
    assert isinstance(atoms, Atoms)
    return raw_of_atoms(atoms)
