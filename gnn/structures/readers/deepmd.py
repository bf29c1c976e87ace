"""DeePMD systems: a folder with type.raw and either set.*/*.npy or *.raw text, one frame a line.

Units are eV, Å and eV/Å by the format's definition; the virial W = -dE/dstrain is in eV.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from gnn.errors import InputError
from gnn.structures.cards import ReadingRules
from gnn.structures.readers.opening import OPENERS, open_bytes, open_text
from gnn.structures.readers.raw import Bad, Raw, Row, UnreadableFile

Floats = NDArray[np.float64]
PADDING = -1
"""The type of places without an atom, where frames of several sizes share a file."""
LABELS = ("energy", "force", "virial")
NAMES = {"force": "forces"}


def is_system(folder: Path) -> bool:
    """Whether a folder is a DeePMD system."""
    return folder.is_dir() and _present(folder, "type.raw") is not None


def read_deepmd(path: Path, rules: ReadingRules) -> Iterator[Row]:
    """The frames of one system.

    Raises:
        UnreadableFile: a file is missing, or files disagree in their number of frames.
        InputError: the elements of the types are not known.
    """
    system = _System.of(path, rules)
    folders = sorted(folder for folder in path.glob("set.*") if folder.is_dir())
    blocks = [_npy_frames(folder) for folder in folders] or [_raw_frames(path)]
    empty = True
    for frame in chain.from_iterable(blocks):
        empty = False
        yield system.row(frame)
    if empty:
        raise UnreadableFile(f"{path.name}: a system without frames")


@dataclass(frozen=True)
class _System:
    numbers: NDArray[np.int64]
    type_numbers: NDArray[np.int64]
    periodic: bool

    @classmethod
    def of(cls, path: Path, rules: ReadingRules) -> _System:
        types = _read_types(_due(path, "type.raw"))
        elements = _type_map(path, rules, int(types.max(initial=0)) + 1)
        type_numbers = np.array([atomic_numbers[symbol] for symbol in elements], dtype=np.int64)
        return cls(type_numbers[types], type_numbers, _present(path, "nopbc") is None)

    def row(self, frame: dict[str, Floats]) -> Row:
        """One frame as a raw row."""
        numbers, real = self.numbers, np.ones(len(self.numbers), dtype=bool)
        if "real_atom_types" in frame:
            types = frame["real_atom_types"].astype(np.int64)
            if not ((types >= PADDING) & (types < len(self.type_numbers))).all():
                return Bad(
                    f"unknown-element: types {types.min()} to {types.max()} of {len(self.type_numbers)} elements"
                )
            real = types != PADDING
            numbers = self.type_numbers[types[real]]
        if frame["coord"].size != 3 * len(real):
            return Bad(f"array-length: coord has {frame['coord'].size} numbers where {3 * len(real)} are due")
        if self.periodic and frame["box"].size != 9:
            return Bad(f"array-length: box has {frame['box'].size} numbers where 9 are due")
        values: dict[str, Any] = {NAMES.get(name, name): frame[name] for name in LABELS if name in frame}
        if values.get("forces") is not None and np.size(values["forces"]) == 3 * len(real):
            values["forces"] = np.reshape(values["forces"], (-1, 3))[real]
        return Raw(
            numbers=numbers,
            positions=frame["coord"].reshape(-1, 3)[real],
            cell=frame["box"].reshape(3, 3) if self.periodic else np.zeros((3, 3)),
            pbc=np.full(3, self.periodic),
            values=values,
        )


def _present(folder: Path, name: str) -> Path | None:
    """The file of that name, compressed or not."""
    return next((path for suffix in ("", *OPENERS) if (path := folder / f"{name}{suffix}").exists()), None)


def _due(folder: Path, name: str) -> Path:
    path = _present(folder, name)
    if path is None:
        raise UnreadableFile(f"{folder.name}: {name} is missing")
    return path


def _read_types(path: Path) -> NDArray[np.int64]:
    with open_text(path) as stream:
        try:
            return np.array(stream.read().split(), dtype=np.int64)
        except ValueError as error:
            raise UnreadableFile(f"{path.name}: {error}") from None


def _type_map(path: Path, rules: ReadingRules, n_types: int) -> list[str]:
    """Elements of the types, from type_map.raw or the card."""
    file = _present(path, "type_map.raw")
    if file is not None:
        with open_text(file) as stream:
            elements = stream.read().split()
    else:
        elements = list(rules.type_map)
    if len(elements) < n_types:
        raise InputError(
            f"{path.name} has {n_types} atom types and names {len(elements)}; there is no complete type_map.raw, so "
            'write type_map = ["O", "H"] (the elements in the order of the types) in a card'
        )
    unknown = [symbol for symbol in elements if symbol not in atomic_numbers]
    if unknown:
        raise UnreadableFile(f"{path.name}: type_map names {unknown[0]!r}, which is no element")
    return elements


def _npy_frames(folder: Path) -> Iterator[dict[str, Floats]]:
    """The frames of one set.* folder; arrays are one line a frame."""
    arrays = {"coord": _load(_due(folder, "coord.npy"))}
    n = len(arrays["coord"])
    if n == 0:
        return
    for name in ("box", *LABELS, "real_atom_types"):
        path = _present(folder, f"{name}.npy")
        if path is not None:
            arrays[name] = _load(path).reshape(n, -1) if _has_rows(path, n) else _wrong_rows(path, n)
    _check_box(arrays, folder)
    for index in range(n):
        yield {name: array[index] for name, array in arrays.items()}


def _load(path: Path) -> Floats:
    with open_bytes(path) as stream:
        try:
            return np.asarray(np.load(stream, allow_pickle=False), dtype=np.float64)
        except ValueError as error:
            raise UnreadableFile(f"{path.parent.name}/{path.name}: truncated or damaged: {error}") from None


def _has_rows(path: Path, n: int) -> bool:
    return len(np.atleast_1d(_load(path))) == n


def _wrong_rows(path: Path, n: int) -> Floats:
    raise UnreadableFile(f"{path.parent.name}/{path.name}: not {n} frames, as coord has")


def _check_box(arrays: dict[str, Floats], folder: Path) -> None:
    system = folder.parent if folder.name.startswith("set.") else folder
    if "box" not in arrays and _present(system, "nopbc") is None:
        raise UnreadableFile(f"{folder.name}: box is missing, and there is no file 'nopbc'")


def _raw_frames(folder: Path) -> Iterator[dict[str, Floats]]:
    """The frames of *.raw text files, read line by line side by side."""
    paths = {"coord": _due(folder, "coord.raw")}
    for name in ("box", *LABELS):
        if (path := _present(folder, f"{name}.raw")) is not None:
            paths[name] = path
    _check_box(dict.fromkeys(paths, np.empty(0)), folder)
    streams = {name: open_text(path) for name, path in paths.items()}
    try:
        for index, lines in enumerate(zip_longest(*streams.values())):
            if not any((line or "").strip() for line in lines):
                continue
            frame = dict(zip(streams, lines, strict=True))
            yield {name: _numbers(line, f"{folder.name}/{name}.raw", index) for name, line in frame.items()}
    finally:
        for stream in streams.values():
            stream.close()


def _numbers(line: str | None, name: str, index: int) -> Floats:
    if line is None:
        raise UnreadableFile(f"{name}: ends at frame {index} before the others")
    try:
        return np.array(line.split(), dtype=np.float64)
    except ValueError as error:
        raise UnreadableFile(f"{name}: frame {index}: {error}") from None
