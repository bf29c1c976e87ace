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
from gnn.structures.readers.lookup import usual_names
from gnn.structures.readers.opening import open_text
from gnn.structures.readers.raw import SHOWN, Bad, Row, UnreadableFile, unreadable_row

SYMBOL = re.compile(r"[A-Z][a-z]{0,2}")
TENSOR = re.compile(
    rf"\b({'|'.join(sorted(usual_names('stress') | usual_names('virial')))})="
    r'("(?:_JSON\s)?[-+.\deE\s,\[\]{}]*"|\{[-+.\deE\s,{}]*\}|\[[-+.\deE\s,\[\]]*\])',
    re.IGNORECASE,
)
PUNCTUATION = re.compile(r'_JSON|[\[\]{},"]')
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
    try:
        atoms = _atoms(lines)
    except Exception as error:  # noqa: BLE001 - ASE raises whatever its parsing steps on; the reason is kept
        return Bad(_reason(error), "".join(lines[:3])[:SHOWN])
    return raw_of_atoms(atoms)


def read_atoms(path: Path) -> Iterator[Atoms]:
    """The frames as ASE reads them.

    Raises:
        UnreadableFile: as `read_extxyz`; a bad frame raises what ASE does.
    """
    with open_text(path) as stream:
        yield from map(_atoms, frames(stream, path.name))


def _atoms(lines: list[str]) -> Atoms:
    head, comment, *body = lines
    atoms = ase.io.read(io.StringIO("".join([head, TENSOR.sub(_flat, comment), *body])), format="extxyz")
    assert isinstance(atoms, Atoms)
    return atoms


def _flat(tensor: re.Match[str]) -> str:
    """A stress or virial as ASE reads it: numbers in a row, six of them under a name that ASE leaves alone."""
    name, numbers = tensor[1], PUNCTUATION.sub(" ", tensor[2]).split()
    if len(numbers) == 6:
        name = OTHER_NAMES.get(name, name)
    return f'{name}="{" ".join(numbers)}"'
