"""Files that survive a crash: atomic writes, digests, locks and append-only journals."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gnn.errors import BusyError, InputError

CHUNK_BYTES = 1 << 20


def canonical_json(value: Any) -> str:
    """`value` as JSON with sorted keys and no spaces, so that equal values have equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """sha256 (hex) of a JSON-able value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    sha = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            sha.update(chunk)
    return sha.hexdigest()


def fsync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, write: Callable[[Path], None]) -> Path:
    """Call `write` on a temporary sibling of `path`, then move it into place; readers see the old file or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)
    return path


def write_text(path: Path, text: str) -> Path:
    """Write `text` to `path` atomically."""
    return write_atomically(path, lambda temporary: _write_utf8(temporary, text))


def _write_utf8(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _sound(lines: list[bytes]) -> list[bytes]:
    """Lines that are JSON objects; none where the header, the first of them, is not."""
    return [line for line in lines if _is_object(line)] if lines and _is_object(lines[0]) else []


@contextmanager
def locked(path: Path, what: str, timeout_s: float = 0.0) -> Iterator[None]:
    """Hold the lock file `path`; the operating system releases it when the process dies.

    Raises:
        BusyError: another process holds it after `timeout_s`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(str(path), timeout=timeout_s):
            yield
    except Timeout:
        raise BusyError(f"{what} is in use by another process (lock {path}); wait for it or stop it") from None


class Journal:
    """An append-only JSON-lines file that a killed process can continue.

    The first line is a header that says what the records belong to; each record is fsynced; a torn last line is
    not read, and cut off when somebody appends.
    """

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path = path
        self.header = header

    def read(self) -> list[dict[str, Any]]:
        """Records written so far, without the header and without a torn last line, which another process may write.

        Raises:
            InputError: the journal belongs to other work (its header differs).
        """
        return self._records(self._whole_lines())

    def read_sound(self) -> list[dict[str, Any]]:
        """What `read` gives once the journal is mended; the file is left to the one who writes it.

        Raises:
            InputError: the journal belongs to other work (its header differs).
        """
        return self._records(_sound(self._whole_lines()))

    def _records(self, whole_lines: list[bytes]) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in whole_lines]
        if not lines:
            return []
        if lines[0] != json.loads(canonical_json(self.header)):
            raise InputError(
                f"{self.path} holds records of other work (its header differs); move it away to start anew"
            )
        return lines[1:]

    def mend(self) -> int:
        """Take out lines that are no JSON objects, as a failing disk leaves them; how many were taken out.

        Without its header the rest means nothing and goes too. The file as it was is kept, with the ending `.damaged`.
        """
        lines = self._whole_lines()
        good = _sound(lines)
        if len(good) < len(lines):
            self.path.with_name(f"{self.path.name}.damaged").write_bytes(self.path.read_bytes())
            write_atomically(self.path, lambda temporary: _write_bytes(temporary, b"".join(good)))
        return len(lines) - len(good)

    def _whole_lines(self) -> list[bytes]:
        content = self.path.read_bytes() if self.path.exists() else b""
        return content[: content.rfind(b"\n") + 1].splitlines(keepends=True)

    def _cut_torn_line(self) -> None:
        """Of the one who writes alone."""
        content = self.path.read_bytes() if self.path.exists() else b""
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with self.path.open("rb+") as stream:
                stream.truncate(whole)

    @contextmanager
    def appending(self) -> Iterator[Callable[[dict[str, Any]], None]]:
        """Give a function that appends one record durably; only one process may have it at a time."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._cut_torn_line()
        is_new = not self.path.exists() or self.path.stat().st_size == 0
        with self.path.open("a", encoding="utf-8") as stream:

            def append(record: dict[str, Any]) -> None:
                stream.write(canonical_json(record) + "\n")
                stream.flush()
                os.fsync(stream.fileno())

            if is_new:
                append(self.header)
            yield append
