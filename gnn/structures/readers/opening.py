"""Opening files that may be compressed, and telling a damaged file from a mistake of ours."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import shutil
import sqlite3
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from xml.etree.ElementTree import ParseError

from gnn.structures.readers.raw import UnreadableFile

OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
MAGIC = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ\x00": ".xz"}
"""How compressed content begins; names are often wrong."""

DAMAGE: tuple[type[Exception], ...] = (
    OSError, EOFError, zlib.error, lzma.LZMAError, UnicodeDecodeError, json.JSONDecodeError, tarfile.TarError,
    ParseError, sqlite3.DatabaseError, csv.Error,
)  # fmt: skip
"""What libraries raise on truncated or damaged files."""


def bare_name(path: Path) -> str:
    """The file's name without the suffix of its compression."""
    return path.stem if path.suffix.lower() in OPENERS else path.name


@contextmanager
def costs_the_file(path: Path, *more: type[Exception]) -> Iterator[None]:
    """Turn what libraries raise on damaged files (and `more`) into `UnreadableFile`."""
    try:
        yield
    except (*DAMAGE, *more) as error:
        raise UnreadableFile(f"{path.name}: {type(error).__name__}: {error}") from error


def compression(path: Path) -> str | None:
    """The suffix of the compression that a file's content has, whatever its name is."""
    with path.open("rb") as stream:
        head = stream.read(max(map(len, MAGIC)))
    return next((suffix for magic, suffix in MAGIC.items() if head.startswith(magic)), None)


def open_bytes(path: Path) -> IO[bytes]:
    """The decompressed bytes of a file, as a stream."""
    opener = OPENERS.get(compression(path) or "")
    return path.open("rb") if opener is None else opener(path, "rb")  # type: ignore[operator]


def open_text(path: Path) -> io.TextIOWrapper:
    """The decompressed text of a file, as a stream; line ends as they are in the file, without a byte order mark.

    Letters of another encoding than UTF-8 become a replacement character: names may hold them, numbers do not.
    """
    return io.TextIOWrapper(open_bytes(path), encoding="utf-8-sig", errors="replace", newline="")


@contextmanager
def plain_file(path: Path) -> Iterator[Path]:
    """A path with the decompressed content under its bare name: the file itself, or a temporary copy."""
    if compression(path) is None and bare_name(path) == path.name:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="sluice-") as folder:
        plain = Path(folder) / bare_name(path)
        with open_bytes(path) as source, plain.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        yield plain
