"""Tar and zip archives: unpacked safely into a temporary folder, then read like any folder."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from gnn.structures.readers.opening import costs_the_file

ZIP = ".zip"
SUFFIXES = (ZIP, ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


def is_archive(path: Path) -> bool:
    """Whether the name is that of an archive."""
    return path.name.lower().endswith(SUFFIXES)


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """A temporary folder with the archive's members; links out of it, devices and paths outside are refused.

    Raises:
        UnreadableFile: the archive is damaged, cut short, or holds such members.
    """
    with tempfile.TemporaryDirectory(prefix="sluice-") as folder:
        if path.suffix.lower() == ZIP:
            with costs_the_file(path, zipfile.BadZipFile, RuntimeError), zipfile.ZipFile(path) as packed:
                packed.extractall(folder)  # noqa: S202 - it puts what points outside inside; links become files
        else:
            with costs_the_file(path), tarfile.open(path) as archive:
                _extract(archive, Path(folder).resolve())
        yield Path(folder)


def _extract(archive: tarfile.TarFile, folder: Path) -> None:
    """Write the members below `folder`; a link becomes a copy of the member that it points to.

    By hand, because `extractall` refuses what is hostile only from Python 3.11.4 on.

    Raises:
        tarfile.TarError: a member would lie outside, points to no other member, or is no file.
    """
    for member in archive:
        target = (folder / member.name).resolve()
        if not target.is_relative_to(folder):
            raise tarfile.TarError(f"member {member.name!r} lies outside the archive")
        if member.isdir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        content = _content(archive, member)
        if content is not None:
            with content, target.open("wb") as file:
                shutil.copyfileobj(content, file)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes] | None:
    """None for a link to a folder, whose members the archive holds anyway."""
    try:
        content = archive.extractfile(member)
    except (KeyError, RecursionError) as error:
        raise tarfile.TarError(f"member {member.name!r} points to what is not in the archive, or to itself") from error
    if content is None and not member.issym():
        raise tarfile.TarError(f"member {member.name!r} is neither a file nor a folder")
    return content
