"""What a user's arguments mean: files, folders and globs, as the list of things to read."""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from gnn.errors import InputError
from gnn.files import file_sha256
from gnn.structures.readers.deepmd import is_system
from gnn.structures.readers.vasp_folder import without_copies

DOCUMENTS = {".md", ".rst", ".txt", ".pdf", ".html", ".bib", ".toml", ".sha256", ".lock", ".log"}
DOCUMENT_NAMES = {"license", "licence", "readme", "citation.cff"}

UNPRINTABLE = re.compile("[\ud800-\udfff]")
"""How Python holds the bytes of a name that is not in the system's encoding; tables take no such text."""


def is_document(path: Path) -> bool:
    """Whether a file is about the data rather than data."""
    return path.suffix.lower() in DOCUMENTS or path.name.lower() in DOCUMENT_NAMES or path.name.startswith(".")


def expand(arguments: Iterable[str | Path]) -> list[Path]:
    """Files, DeePMD folders, the contents of other folders, and globs, sorted within each argument, each once.

    Documents (README, *.md, …) are left out unless there is nothing else, and what VASP writes beside its results too.

    Raises:
        InputError: an argument leads to nothing.
    """
    found: dict[Path, None] = {}
    for argument in arguments:
        paths = list(_of_argument(str(argument)))
        if not paths:
            raise InputError(f"there is no file {argument}")
        found.update(dict.fromkeys(paths))
    data = [path for path in found if not is_document(path)]
    return without_copies(data or list(found))


def _of_argument(argument: str) -> Iterator[Path]:
    path = Path(argument).expanduser()
    if path.exists():
        yield from _of_path(path)
        return
    for match in sorted(glob.glob(str(path), recursive=True)):  # noqa: PTH207 - absolute patterns too
        if not is_document(Path(match)):
            yield from _of_path(Path(match))


def _of_path(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
    else:
        yield from inside(path)


def inside(folder: Path) -> Iterator[Path]:
    """Everything to read in a folder, sorted; a DeePMD system is one thing."""
    if is_system(folder):
        yield folder
        return
    paths = sorted(folder.iterdir())
    data = set(without_copies([path for path in paths if path.is_file() and not is_document(path)]))
    for path in paths:
        if path.is_dir():
            yield from inside(path)
        elif path in data:
            yield path


def source_sha256(path: Path) -> str:
    """sha256 of a file, or of the names and digests of all files in a folder."""
    if path.is_file():
        return file_sha256(path)
    sha = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        sha.update(f"{file.relative_to(path).as_posix()} {file_sha256(file)}\n".encode())
    return sha.hexdigest()


def source_name(path: Path) -> str:
    """How a record names its file: the last folder and the name, and nothing of the machine."""
    resolved = path.resolve()
    return printable(f"{resolved.parent.name}/{resolved.name}" if resolved.parent.name else resolved.name)


def printable(text: str) -> str:
    """`text` with a replacement character for each byte of a file's name that is no UTF-8."""
    return UNPRINTABLE.sub("\ufffd", text)
