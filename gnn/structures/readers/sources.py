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
from gnn.structures.readers.sniffing import is_recognised
from gnn.structures.readers.vasp_folder import without_copies

DOCUMENTS = {".md", ".rst", ".pdf", ".html", ".bib", ".toml", ".sha256", ".lock"}
DOCUMENT_NAMES = {"license", "licence", "readme", "citation"}
TEXTS = {".txt", ".log"}
"""Names of results of many codes, and of words: in folders, what is in them decides."""
SHOWN = 3

UNPRINTABLE = re.compile("[\ud800-\udfff]")
"""How Python holds the bytes of a name that is not in the system's encoding; tables take no such text."""


def is_document(path: Path) -> bool:
    """Whether a file is about the data rather than data."""
    return path.suffix.lower() in DOCUMENTS or path.stem.lower() in DOCUMENT_NAMES or path.name.startswith(".")


def is_data(path: Path) -> bool:
    """Whether a file that nobody named is one to read."""
    return not is_document(path) and (path.suffix.lower() not in TEXTS or is_recognised(path))


def expand(arguments: Iterable[str | Path]) -> list[Path]:
    """Files, DeePMD folders, the contents of other folders, and globs, sorted within each argument, each once.

    Documents (README, *.md, …) are left out unless there is nothing else, and what VASP writes beside its results too;
    so are, of folders and globs, texts (*.txt, *.log) that no code's results begin as.

    Raises:
        InputError: an argument leads to nothing.
    """
    found: dict[Path, None] = {}
    for argument in arguments:
        paths = list(_of_argument(str(argument)))
        if not paths:
            raise InputError(_nothing(str(argument)))
        found.update(dict.fromkeys(paths))
    data = [path for path in found if not is_document(path)]
    return without_copies(data or list(found))


def _of_argument(argument: str) -> Iterator[Path]:
    path = Path(argument).expanduser()
    if path.exists():
        yield from _of_path(path)
        return
    for match in _matches(path):
        if match.is_dir() or is_data(match):
            yield from _of_path(match)


def _matches(pattern: Path) -> list[Path]:
    return [Path(match) for match in sorted(glob.glob(str(pattern), recursive=True))]  # noqa: PTH207 - absolute patterns


def _nothing(argument: str) -> str:
    """Why an argument leads to nothing."""
    path = Path(argument).expanduser()
    found = sorted(path.rglob("*")) if path.is_dir() else _matches(path)
    names = [file.name for file in found if file.is_file()]
    if not names:
        return f"there is no file {'in ' if path.is_dir() else ''}{argument}"
    shown = ", ".join([*names[:SHOWN], *(["…"] if len(names) > SHOWN else [])])
    return f"only documents ({shown}) in {argument}; name a file itself to have it read"


def _of_path(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
    else:
        yield from inside(path)


def inside(folder: Path, around: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Everything to read in a folder, sorted; a DeePMD system is one thing.

    `around` are the folders that it was reached through: a link back to one of them is not followed.
    """
    around |= {folder.resolve()}
    if is_system(folder):
        yield folder
        return
    paths = sorted(folder.iterdir())
    data = set(without_copies([path for path in paths if path.is_file() and is_data(path)]))
    for path in paths:
        if path.is_dir() and path.resolve() not in around:
            yield from inside(path, around)
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
