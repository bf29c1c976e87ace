"""Tar and zip archives: unpacked safely into a temporary folder, then read like any folder."""

from __future__ import annotations

import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gnn.structures.readers.opening import costs_the_file

ZIP = ".zip"
SUFFIXES = (ZIP, ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


def is_archive(path: Path) -> bool:
    """Whether the name is that of an archive."""
    return path.name.lower().endswith(SUFFIXES)


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """A temporary folder with the archive's members; links out of it, devices and absolute paths are refused.

    Raises:
        UnreadableFile: the archive is damaged, cut short, or holds such members.
    """
    with tempfile.TemporaryDirectory(prefix="sluice-") as folder:
        if path.suffix.lower() == ZIP:
            with costs_the_file(path, zipfile.BadZipFile, RuntimeError), zipfile.ZipFile(path) as packed:
                packed.extractall(folder)  # noqa: S202 - it puts what points outside inside; links become files
        else:
            with costs_the_file(path), tarfile.open(path) as archive:
                archive.extractall(folder, filter="data")
        yield Path(folder)
