"""The keys of a table and the hashes of their labels, 64 bytes a row in memory."""

from __future__ import annotations

import binascii
import hashlib

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

WIDTH = 32
MERGE_AT = 50_000

Digests = NDArray[np.bytes_]


class KeyIndex:
    """Which structure ids a table holds, with which labels; new ones are merged into sorted arrays now and then."""

    def __init__(self, keys: Digests | None = None, labels: Digests | None = None) -> None:
        empty = np.empty(0, dtype=f"S{WIDTH}")
        order = np.argsort(keys) if keys is not None else np.empty(0, dtype=np.int64)
        self._keys: Digests = empty if keys is None else keys[order]
        self._labels: Digests = empty if labels is None else labels[order]
        self._recent: dict[bytes, bytes] = {}

    @classmethod
    def of_columns(cls, keys: pa.ChunkedArray, labels: pa.ChunkedArray) -> KeyIndex:
        """The index of two columns of hexadecimal digests."""
        return cls(_decode(keys), _decode(labels))

    def __len__(self) -> int:
        return len(self._keys) + len(self._recent)

    def label_of(self, key: str) -> str | None:
        """The label hash (hex) under a structure id (hex); None where the table has no such row."""
        raw = bytes.fromhex(key)
        recent = self._recent.get(raw)
        if recent is not None:
            return recent.hex()
        position = int(np.searchsorted(self._keys, np.bytes_(raw)))
        if position == len(self._keys) or _padded(self._keys[position]) != raw:
            return None
        return _padded(self._labels[position]).hex()

    def add(self, key: str, label: str) -> None:
        """Take in one row."""
        self._recent[bytes.fromhex(key)] = bytes.fromhex(label)
        if len(self._recent) >= MERGE_AT:
            self._merge()

    def _merge(self) -> None:
        if not self._recent:
            return
        keys = np.array(list(self._recent.keys()), dtype=f"S{WIDTH}")
        labels = np.array(list(self._recent.values()), dtype=f"S{WIDTH}")
        keys = np.concatenate([self._keys, keys])
        order = np.argsort(keys, kind="stable")
        self._keys, self._labels = keys[order], np.concatenate([self._labels, labels])[order]
        self._recent = {}

    def content_digest(self) -> str:
        """sha256 (hex) over every key, sorted, followed by its label hash: equal for equal content."""
        self._merge()
        interleaved = np.stack([self._keys, self._labels], axis=1)
        return hashlib.sha256(interleaved.tobytes()).hexdigest()


def _padded(digest: bytes) -> bytes:
    # NumPy strips trailing zero bytes
    return bytes(digest).ljust(WIDTH, b"\0")


def _decode(column: pa.ChunkedArray) -> Digests:
    chunks = [binascii.unhexlify("".join(chunk.to_pylist())) for chunk in column.chunks]
    return np.frombuffer(b"".join(chunks), dtype=f"S{WIDTH}")
