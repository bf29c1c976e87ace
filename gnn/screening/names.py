"""Many ids in little memory: fixed-width bytes, found by bisection, and what is known of each looked up by place."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
CHUNK = 1 << 16


class Names(Sequence[str]):
    """Different ASCII ids in a fixed order; twenty bytes each for the usual sixteen characters."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        stream, parts = iter(names), []
        while chunk := list(islice(stream, CHUNK)):
            parts.append(np.array(chunk, dtype=np.bytes_))
        self.array: NDArray[np.bytes_] = np.concatenate(parts) if parts else np.empty(0, dtype="S1")

    @classmethod
    def of_array(cls, array: NDArray[np.bytes_]) -> Names:
        """The names of an array of bytes."""
        names = cls()
        names.array = array
        return names

    @classmethod
    def joined(cls, parts: Iterable[Names]) -> Names:
        """The names of all parts, one after the other."""
        arrays = [part.array for part in parts]
        return cls.of_array(np.concatenate(arrays)) if arrays else cls()

    @cached_property
    def order(self) -> NDArray[np.uint32]:
        """Places in the order of the sorted names."""
        return np.argsort(self.array, kind="stable").astype(np.uint32)

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Names: ...
    def __getitem__(self, place: int | slice) -> str | Names:
        if isinstance(place, slice):
            return Names.of_array(self.array[place])
        return str(self.array[place].decode())

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self.array), CHUNK):
            for name in self.array[start : start + CHUNK].tolist():
                yield name.decode()

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.place(name) is not None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Names) and np.array_equal(self.array, other.array)

    __hash__ = None  # type: ignore[assignment]

    def place(self, name: str) -> int | None:
        """Where `name` stands, None if it does not."""
        key = name.encode(errors="replace")
        if len(key) > self.array.itemsize:
            return None
        found = int(np.searchsorted(self.array, np.bytes_(key), sorter=self.order))
        if found == len(self.array):
            return None
        place = int(self.order[found])
        return place if self.array[place] == key else None

    def repeated(self) -> str | None:
        """A name that stands more than once, None if each stands once."""
        ordered = self.array[self.order]
        twice = np.flatnonzero(ordered[1:] == ordered[:-1])
        return str(ordered[twice[0]].decode()) if len(twice) else None


def names_digest(names: Iterable[str]) -> str:
    """sha256 (hex) of the sorted names, one after the other."""
    packed = names if isinstance(names, Names) else Names(names)
    sha = hashlib.sha256()
    for start in range(0, len(packed), CHUNK):
        sha.update(b"".join(packed.array[packed.order[start : start + CHUNK]].tolist()))
    return sha.hexdigest()


class ByName(Mapping[str, T]):
    """What is known of each name, got by its place when it is asked for; `known` marks names of which something is."""

    def __init__(self, names: Names, at: Callable[[int], T], known: NDArray[Any] | None = None) -> None:
        self.names = names
        self.at = at
        self._known = known

    def __len__(self) -> int:
        return len(self.names) if self._known is None else int(np.count_nonzero(self._known))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._place(name) is not None

    def __getitem__(self, name: str) -> T:
        place = self._place(name)
        if place is None:
            raise KeyError(name)
        return self.at(place)

    def get(self, name: str, default: Any = None) -> Any:
        """What is known of `name`, else `default`."""
        place = self._place(name)
        return default if place is None else self.at(place)

    def __iter__(self) -> Iterator[str]:
        if self._known is None:
            return iter(self.names)
        return (name for name, is_known in zip(self.names, self._known, strict=True) if is_known)

    def _place(self, name: str) -> int | None:
        place = self.names.place(name)
        return place if place is None or self._known is None or self._known[place] else None


def links(names: Names, other: NDArray[np.uint32]) -> ByName[str]:
    """Name -> another of the names; `other` holds the place of that one, counted from 1, and 0 where there is none."""
    return ByName(names, lambda place: names[int(other[place]) - 1], known=other)
