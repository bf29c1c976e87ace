"""JSON: lists of pymatgen or JARVIS entries, and nested dictionaries whose keys mean something."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from gnn.errors import InputError
from gnn.structures.cards import ReadingRules
from gnn.structures.readers.lookup import MISSING, WHOLE, can_be, find, labels_named, the_one
from gnn.structures.readers.opening import open_text
from gnn.structures.readers.raw import SHOWN, Bad, Raw, Row, UnreadableFile, UnreadableRow, is_unreadable
from gnn.structures.readers.structures import decode, looks_like_structure

CHUNK = 1 << 20
LONGEST_CODE = 60
"""Characters of a text that stands where a row is due and may be counted as the reason."""
STRUCTURE_KEYS = ("structure", "atoms", "crystal", "molecule", "final_structure", "cif")
LABEL_FOLDERS = ("outputs", "output", "data", "results", "labels")
"""Dictionaries beside the structure whose entries count as the row's own."""


def read_json(path: Path, rules: ReadingRules) -> Iterator[Row]:
    """The rows of a JSON file: each entry of a list, of a dictionary of entries, of nested dictionaries, or of a table
    written column by column (as pandas does); one document, or one a line.

    A row is a dictionary that holds a structure (under `[columns] structure`, else a usual name). On the way down, the
    names of keys become values of the row: under the names in the card's `levels`, and as `key0`, `key1`, …

    Raises:
        UnreadableFile: no JSON, or cut short.
        InputError: nothing in it looks like a structure.
    """
    found = False
    with open_text(path) as stream:
        for entry in entries(stream, path.name):
            for keys, node in leaves(by_rows(entry, rules.columns.structure), rules.columns.structure, ()):
                row = _row(node, rules, keys)
                found |= _is_of_structure(row, node, rules.columns.structure)
                yield row
    if not found:
        raise InputError(
            f'{path.name}: nothing in it looks like a structure; write [columns] structure = "KEY" in a card, for the '
            "key that holds it in each entry"
        )


def entries(stream: TextIO, name: str) -> Iterator[Any]:
    """The items of top-level lists, one at a time without loading the rest; else the values there are, one or many."""
    buffer = _begun("", stream)
    while buffer.startswith("["):
        rest = yield from _items(buffer[1:], stream, name)
        buffer = _begun(rest, stream)
        if not buffer:
            return
    yield from _values(buffer + stream.read())


def _begun(buffer: str, stream: TextIO) -> str:
    """The text from the next value on; "" where there is none."""
    while not (buffer := buffer[_skip_separators(buffer, 0) :]):
        if not (buffer := stream.read(CHUNK)):
            return ""
    return buffer


def _values(text: str) -> Iterator[Any]:
    """One value after the other, as in files with one document a line."""
    decoder, end = json.JSONDecoder(), len(text.rstrip(" \t\r\n,"))
    value, start = decoder.raw_decode(text)
    yield value
    while start < end:
        value, start = decoder.raw_decode(text, _skip_separators(text, start))
        yield value


def _items(buffer: str, stream: TextIO, name: str) -> Generator[Any, None, str]:
    """The items of a list whose bracket is open; returns what was read beyond its end."""
    decoder, start, chunk = json.JSONDecoder(), 0, CHUNK
    while True:
        start = _skip_separators(buffer, start)
        if buffer.startswith("]", start):
            return buffer[start + 1 :]
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


def by_rows(node: Any, structure: str | None) -> Any:
    """A table that is written column by column, as a list of rows; anything else as it is.

    Three ways are known, all of them pandas': lists of equal length, dictionaries with the same keys, and `columns`
    beside `data`.
    """
    if not isinstance(node, Mapping):
        return node
    names, data = node.get("columns"), node.get("data")
    if isinstance(names, list) and isinstance(data, list) and all(_has_length(row, len(names)) for row in data):
        return [dict(zip(names, row, strict=True)) for row in data]
    column = node.get(structure or next((name for name in STRUCTURE_KEYS if name in node), ""))
    if isinstance(column, list) and column and all(_has_length(each, len(column)) for each in node.values()):
        return [dict(zip(node, row, strict=True)) for row in zip(*node.values(), strict=True)]
    if not isinstance(column, Mapping) or not _are_structures(column):
        return node
    if all(_has_keys(each, column) for each in node.values()):
        return [{name: each[key] for name, each in node.items()} for key in column]
    return node


def _has_length(value: Any, length: int) -> bool:
    return isinstance(value, list) and len(value) == length


def _has_keys(value: Any, column: Mapping[str, Any]) -> bool:
    return isinstance(value, Mapping) and value.keys() == column.keys()


def _are_structures(column: Mapping[str, Any]) -> bool:
    return bool(column) and all(isinstance(each, str) or looks_like_structure(each) for each in column.values())


def leaves(node: Any, structure: str | None, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every row below `node` with the keys that lead to it.

    Text where a row is due is a row too. At the top, words beside a list of rows tell about the set and are none.
    """
    if isinstance(node, Mapping) and not _is_row(node, structure):
        due = bool(keys) or any(isinstance(child, Mapping) and _is_row(child, structure) for child in node.values())
        for key, child in node.items():
            if due or isinstance(child, Mapping | list):
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
        says_why = isinstance(node, str) and 0 < len(text) <= LONGEST_CODE
        code = text.lower().replace(":", " ") if says_why else "not-a-row"
        return Bad(f"{code}: {where or 'entry'} is {text!r}", text)
    try:
        return _structure_row(node, rules, keys)
    except UnreadableRow as error:
        return Bad(str(error), f"{where} {str(node)[:SHOWN]}")


def _is_of_structure(row: Row, node: Any, structure: str | None) -> bool:
    """Whether there is a structure where it was looked for, be it one that has to be refused."""
    if isinstance(row, Raw):
        return True
    if not isinstance(node, Mapping):
        return False
    return structure is None or looks_like_structure(find(node, structure)) or not is_unreadable(row.reason)


def _structure_row(node: Mapping[str, Any], rules: ReadingRules, keys: tuple[str, ...]) -> Raw:
    key = rules.columns.structure or _structure_key(node)
    raw = decode(node if key is None else find(node, key))
    raw.values |= _stated({name: value for name, value in node.items() if name != key}, rules)
    raw.values |= {f"key{depth}": name for depth, name in enumerate(keys)}
    raw.values |= dict(zip(rules.levels, keys, strict=False))
    return raw


def _stated(node: Mapping[str, Any], rules: ReadingRules) -> dict[str, Any]:
    """What stands in the dictionaries beside a structure, then in the row itself, where null replaces nothing.

    Raises:
        InputError: two of them state a label that is to be read and differ.
    """
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for place, name, value in _places(node):
        if name in values and value is None:
            continue
        if name in values:
            _refuse_rivals(name, {places[name]: values[name], place: value}, rules)
        values[name], places[name] = value, place
    return values


def _places(node: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Path, name and value of everything that counts as the row's own."""
    for folder in LABEL_FOLDERS:
        if isinstance(node.get(folder), Mapping):
            yield from ((f"{folder}.{name}", name, value) for name, value in node[folder].items())
    yield from ((name, name, value) for name, value in node.items())


def _refuse_rivals(name: str, found: Mapping[str, Any], rules: ReadingRules) -> None:
    for label in labels_named(name):
        due = rules.labels or label in WHOLE
        if due and getattr(rules.columns, label) is None:
            the_one(label, {path: value for path, value in found.items() if can_be(label, value)})
