"""Rows that wait on disk: a file without a name that ends with its owner, eight bytes of memory a row."""

from __future__ import annotations

import json
import os
import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

CHUNK = 4096
"""Rows that are read at once when all are read."""


class Spool:
    """An append-only list of JSON values on disk, in `folder` or the system's place for temporary files."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._stream: IO[bytes] | None = None
        self._ends = array("q", [0])
        self._unwritten = False

    def append(self, value: Any) -> int:
        """Add a value; its place."""
        line = json.dumps(value, separators=(",", ":")).encode()
        self._open().write(line)
        self._unwritten = True
        self._ends.append(self._ends[-1] + len(line))
        return len(self) - 1

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, place: int) -> Any:
        return json.loads(self._bytes(self._ends[place], self._ends[place + 1]))

    def __iter__(self) -> Iterator[Any]:
        for first in range(0, len(self), CHUNK):
            last = min(first + CHUNK, len(self))
            start = self._ends[first]
            content = self._bytes(start, self._ends[last])
            for place in range(first, last):
                yield json.loads(content[self._ends[place] - start : self._ends[place + 1] - start])

    def _bytes(self, start: int, end: int) -> bytes:
        stream = self._open()
        if self._unwritten:
            stream.flush()
            self._unwritten = False
        return os.pread(stream.fileno(), end - start, start)

    def _open(self) -> IO[bytes]:
        if self._stream is None:
            if self.folder is not None:
                self.folder.mkdir(parents=True, exist_ok=True)
            self._stream = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115
        return self._stream
