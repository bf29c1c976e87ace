"""Formats that the first bytes of a file give away, whatever its name says."""

from __future__ import annotations

import re
from pathlib import Path

from ase.io.formats import UnknownFileTypeError, match_magic

from gnn.structures.readers.opening import DAMAGE, open_bytes

HEAD_BYTES = 2048

SIGNATURES: dict[str, re.Pattern[bytes]] = {
    "ase-traj": re.compile(rb"- of UlmASE-Trajectory"),
    "ase-db": re.compile(rb'SQLite format 3\0|\s*\{"\d+": \{\s*"calculator"|\s*\{"\d+": \{\s*"cell": \{"array"'),
    "parquet": re.compile(rb"PAR1"),
    "vasprun": re.compile(rb"<\?xml[^>]*>\s*<modeling>"),
    "outcar": re.compile(rb"\s*vasp\.\d"),
    "extxyz": re.compile(rb"(\xef\xbb\xbf)?\s*\d+[ \t]*\r?\n[^\r\n]*\b(Lattice|Properties)="),
    "json": re.compile(rb"(\xef\xbb\xbf)?\s*(\[\s*)?\{\s*\""),
}
"""Readers by what their files begin with; the first that fits is meant."""


def sniffed(path: Path) -> str | None:
    """The reader whose files begin as this one does; None where the beginning gives nothing away."""
    head = _head(path)
    return next((reader for reader, pattern in SIGNATURES.items() if pattern.match(head)), None)


def is_recognised(path: Path) -> bool:
    """Whether a file begins as one of a format that is known here or to ASE does."""
    if sniffed(path) is not None:
        return True
    try:
        match_magic(_head(path))
    except UnknownFileTypeError:
        return False
    return True


def _head(path: Path) -> bytes:
    """The first bytes of a file; none of one that cannot be opened."""
    try:
        with open_bytes(path) as stream:
            return stream.read(HEAD_BYTES)
    except DAMAGE:
        return b""
