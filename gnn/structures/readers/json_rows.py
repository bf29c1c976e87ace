"""JSON: lists of pymatgen or JARVIS entries, and nested dictionaries whose keys mean something."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from gnn.errors import InputError
from gnn.structures.cards import ReadingRules
from gnn.structures.readers.lookup import MISSING, find
from gnn.structures.readers.opening import open_text
from gnn.structures.readers.raw import Bad, Raw, Row, UnreadableFile, UnreadableRow
from gnn.structures.readers.structures import decode, looks_like_structure

CHUNK = 1 << 20
SHOWN = 200
STRUCTURE_KEYS = ("structure", "atoms", "crystal", "molecule", "final_structure", "cif")
LABEL_FOLDERS = ("outputs", "output", "data", "results", "labels")
"""Dictionaries beside the structure whose entries count as the row's own."""


def read_json(path: Path, rules: ReadingRules) -> Iterator[Row]:
    """The rows of a JSON file: each entry of a list, of a dictionary of entries, or of nested dictionaries.

    A row is a dictionary that holds a structure (under `[columns] structure`, else a usual name). On the way down, the
    names of keys become values of the row: under the names in the card's `levels`, and as `key0`, `key1`, …

    Raises:
        UnreadableFile: no JSON, or cut short.
        InputError: nothing in it looks like a structure.
    """
    found = False
    with open_text(path) as stream:
        for entry in entries(stream, path.name):
            for keys, node in leaves(entry, rules.columns.structure, ()):
                row = _row(node, rules, keys)
                found |= isinstance(row, Raw)
                yield row
    if not found:
        raise InputError(
            f'{path.name}: nothing in it looks like a structure; write [columns] structure = "KEY" in a card, for the '
            "key that holds it in each entry"
        )


def entries(stream: TextIO, name: str) -> Iterator[Any]:
    """The items of a top-level list, one at a time without loading the rest; else the one value there is."""
    buffer = stream.read(CHUNK).lstrip("\ufeff \t\r\n")
    if not buffer.startswith("["):
        yield json.loads(buffer + stream.read())
        return
    yield from _items(buffer[1:], stream, name)


def _items(buffer: str, stream: TextIO, name: str) -> Iterator[Any]:
    decoder, start, chunk = json.JSONDecoder(), 0, CHUNK
    while True:
        start = _skip_separators(buffer, start)
        if buffer.startswith("]", start):
            return
        try:
            item, end = decoder.raw_decode(buffer, start)
        except json.JSONDecodeError:
            end = len(buffer)
        if end < len(buffer):
            yield item
            start, chunk = end, CHUNK
            continue
        more = stream.read(chunk)
        if not more:
            raise UnreadableFile(f"{name}: truncated: the list of entries does not end")
        buffer, start, chunk = buffer[start:] + more, 0, 2 * chunk


def _skip_separators(buffer: str, start: int) -> int:
    while start < len(buffer) and buffer[start] in " \t\r\n,":
        start += 1
    return start


def leaves(node: Any, structure: str | None, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every row below `node` with the keys that lead to it; text where a row is due is a row too."""
    if isinstance(node, Mapping) and not _is_row(node, structure):
        for key, child in node.items():
            yield from leaves(child, structure, (*keys, str(key)))
    elif isinstance(node, list):
        for child in node:
            yield from leaves(child, structure, keys)
    else:
        yield keys, node


def _is_row(node: Mapping[str, Any], structure: str | None) -> bool:
    if structure is not None:
        return find(node, structure) is not MISSING
    return looks_like_structure(node) or _structure_key(node) is not None


def _structure_key(node: Mapping[str, Any]) -> str | None:
    return next(
        (key for key in STRUCTURE_KEYS if looks_like_structure(node.get(key)) or (key == "cif" and key in node)), None
    )


def _row(node: Any, rules: ReadingRules, keys: tuple[str, ...]) -> Row:
    where = "/".join(keys)
    if not isinstance(node, Mapping):
        text = str(node)[:SHOWN]
        code = text.lower() if isinstance(node, str) and text else "not-a-row"
        return Bad(f"{code.replace(':', ' ')}: {where or 'entry'} is {text!r}", text)
    try:
        return _structure_row(node, rules, keys)
    except UnreadableRow as error:
        return Bad(str(error), f"{where} {str(node)[:SHOWN]}")


def _structure_row(node: Mapping[str, Any], rules: ReadingRules, keys: tuple[str, ...]) -> Raw:
    key = rules.columns.structure or _structure_key(node)
    raw = decode(node if key is None else find(node, key))
    for folder in LABEL_FOLDERS:
        if isinstance(node.get(folder), Mapping):
            raw.values |= node[folder]
    raw.values |= {name: value for name, value in node.items() if name != key}
    raw.values |= {f"key{depth}": name for depth, name in enumerate(keys)}
    raw.values |= dict(zip(rules.levels, keys, strict=False))
    return raw
