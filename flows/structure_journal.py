"""Finished structures of a verb that reads a file and writes another, kept beside the output until all are there.

A killed command goes on from them; the output is put together when the last one is finished.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms

from flows.structure_files import writable
from gnn.errors import SluiceError
from gnn.files import Journal, write_atomically
from gnn.structures.readers.sources import source_sha256

ENDING = ".part"
INDEX, TEXT = "index", "text"

Record = dict[str, Any]
Keep = Callable[[int, Sequence[Atoms], Mapping[str, Any]], None]
"""Takes a structure's place in the file, its frames and how it went, once it is finished."""


class StructureJournal:
    """The journal `OUTPUT.part`. `work` says what its structures belong to: verb, input, model, settings."""

    def __init__(self, output: Path, work: Mapping[str, Any]) -> None:
        self.output = output.resolve()
        self._journal = Journal(self.output.with_name(f"{self.output.name}{ENDING}"), dict(work))

    def finished(self) -> set[int]:
        """Places of the structures that are finished already.

        Raises:
            InputError: what is kept belongs to other work.
        """
        return {record[INDEX] for record in self._journal.read_sound()}

    @contextmanager
    def keeping(self) -> Iterator[Keep]:
        """Give a function that keeps one more structure, durably.

        Raises:
            SluiceError: the file system refuses.
        """
        with ExitStack() as stack:
            with _told(self._journal.path):
                self._journal.mend()
                append = stack.enter_context(self._journal.appending())

            def keep(index: int, frames: Sequence[Atoms], facts: Mapping[str, Any]) -> None:
                record = {INDEX: index, TEXT: in_extxyz(frames), **facts}
                with _told(self._journal.path):
                    append(record)

            yield keep

    def write(self) -> list[Record]:
        """Put the output together in one stroke, in the order of the structures; how each of them went.

        Raises:
            SluiceError: the file system refuses.
        """
        records = [record for _, record in sorted({r[INDEX]: r for r in self._journal.read()}.items())]

        def write(path: Path) -> None:
            with path.open("w", encoding="utf-8") as stream:
                stream.writelines(record[TEXT] for record in records)

        with _told(self.output):
            write_atomically(self.output, write)
            self._journal.path.unlink()
        return records


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SluiceError(f"{path} cannot be written: {error.strerror or error}") from None


def in_extxyz(frames: Sequence[Atoms]) -> str:
    """Frames as extended XYZ; fixed atoms as such, whatever constraint held them; line breaks in texts as spaces."""
    stream = StringIO()
    for atoms in frames:
        ase.io.write(stream, writable(atoms), format="extxyz")
    return stream.getvalue()


def work_of(verb: str, file: Path, model: str, theory: str, dtype: str, settings: Record) -> Record:
    """What decides the results of a verb: the content of its input, not its name; the digest of its model."""
    content = source_sha256(file)
    return {"verb": verb, "input": content, "model": model, "theory": theory, "dtype": dtype, "settings": settings}
