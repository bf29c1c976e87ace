"""Which reader reads a file, and the records of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from gnn.errors import InputError, told
from gnn.structures.cards import AUTO, Card, ReadingRules, Units
from gnn.structures.readers.archive import is_archive, unpacked
from gnn.structures.readers.ase_files import read_any_ase, read_db, read_traj
from gnn.structures.readers.convert import Converter, GroupBy
from gnn.structures.readers.csv_cif import read_csv
from gnn.structures.readers.deepmd import is_system, read_deepmd
from gnn.structures.readers.extxyz import read_extxyz
from gnn.structures.readers.json_rows import read_json
from gnn.structures.readers.opening import bare_name, costs_the_file
from gnn.structures.readers.parquet import read_parquet
from gnn.structures.readers.raw import (
    ASE_UNITS,
    NO_UNITS,
    Bad,
    Raw,
    Rejected,
    Row,
    UnreadableFile,
    UnreadableRow,
    unreadable_row,
)
from gnn.structures.readers.sniffing import sniffed
from gnn.structures.readers.sources import inside, printable, source_name, source_sha256
from gnn.structures.readers.vasp import read_outcar, read_vasprun
from gnn.structures.record import Record, Source

PARQUET = "parquet"
ARCHIVE = "tar"
HELD_ATOMS = 1_000_000
SHOWN_FAILURES = 3

Remark = Callable[[str], None]
"""Told of each thing in a file that a person may have meant to be read and that is not."""


def unremarked(_: str) -> None:
    """Nobody is told."""


@dataclass(frozen=True)
class Reader:
    """One format: what its names look like, what its units are, how its rows are grouped unless a card says.

    known_to_ase: whether ASE reads it too.
    """

    read: Callable[[Path, ReadingRules], Iterator[Row]]
    names: tuple[str, ...]
    units: Units = ASE_UNITS
    group: GroupBy = "none"
    known_to_ase: bool = True


READERS: dict[str, Reader] = {
    "extxyz": Reader(read_extxyz, ("*.xyz", "*.extxyz", "*.exyz")),
    "ase-traj": Reader(read_traj, ("*.traj",), group="file"),
    "ase-db": Reader(read_db, ("*.db",)),
    "json": Reader(read_json, ("*.json", "*.jsonl", "*.json.txt"), units=NO_UNITS, known_to_ase=False),
    "csv": Reader(read_csv, ("*.csv", "*.tsv"), units=NO_UNITS, group="chemical_system", known_to_ase=False),
    "deepmd": Reader(read_deepmd, (), group="file", known_to_ase=False),
    "vasprun": Reader(read_vasprun, ("*vasprun*.xml*", "*vasprun*"), group="file"),
    "outcar": Reader(read_outcar, ("*outcar*",), group="file"),
    "ase": Reader(read_any_ase, ("*",)),
}
"""Readers by name, in the order in which names are matched."""

ALIASES = {"pymatgen-json": "json", "jarvis-json": "json", "nested-json": "json", "csv-cif": "csv", "traj": "ase-traj"}


def guess_reader(path: Path) -> str:
    """The name of the reader for a file or folder: by how it begins, else by its name.

    Raises:
        UnreadableFile: a folder that is no DeePMD system.
    """
    if path.is_dir():
        if is_system(path):
            return "deepmd"
        raise UnreadableFile(f"{path.name}: a folder without type.raw is no DeePMD system")
    if is_archive(path):
        return ARCHIVE
    if path.is_file() and (found := sniffed(path)) is not None:
        return found
    name = bare_name(path).lower()
    if name.endswith(".parquet"):
        return PARQUET
    return next(key for key, reader in READERS.items() if any(fnmatch(name, pattern) for pattern in reader.names))


def known_to_ase(path: Path) -> bool:
    """Whether ASE reads the format of a file or folder.

    Raises:
        UnreadableFile: a folder that is no DeePMD system.
    """
    name = guess_reader(path)
    return name in READERS and READERS[name].known_to_ase


def read_records(path: Path, card: Card, remark: Remark = unremarked) -> Iterator[Record | Rejected]:
    """The rows of one file (a DeePMD folder and a tar archive count as files) as records, one at a time.

    Rows outside the card's `rows` are not read at all. A row that nothing can be made of is given as `Rejected`.

    Raises:
        UnreadableFile: the file is damaged, cut short, or of an unknown format; rows before the damage were given.
        InputError: the card must say more, and what.
    """
    yield from _read(path, card, source_name(path), None, remark)


def read_whole(path: Path, card: Card, remark: Remark = unremarked) -> Iterator[Record | Rejected]:
    """As `read_records`, but nothing of a file is given before it is known to be readable to its end.

    Each member of an archive counts as a file here. Rows are held back up to `HELD_ATOMS`; a longer file is read twice,
    so that memory stays bounded.
    """
    if is_archive(path):
        yield from _read_archive(path, card, source_name(path), _whole, remark)
    else:
        yield from _whole(path, card, source_name(path), None, remark)


def _whole(path: Path, card: Card, file: str, sha256: str | None, remark: Remark) -> Iterator[Record | Rejected]:
    stream = _read(path, card, file, sha256, remark)
    held: list[Record | Rejected] = []
    atoms = 0
    for record in stream:
        held.append(record)
        atoms += record.n_atoms if isinstance(record, Record) else 1
        if atoms >= HELD_ATOMS:
            held.clear()
            for _ in stream:
                pass
            yield from _read(path, card, file, sha256, remark)
            return
    yield from held


def _read(path: Path, card: Card, file: str, sha256: str | None, remark: Remark) -> Iterator[Record | Rejected]:
    if is_archive(path):
        yield from _read_archive(path, card, file, _read, remark)
        return
    rules = card.rules_for(path)
    name = guess_reader(path) if rules.reader == AUTO or path.is_dir() else rules.reader
    with costs_the_file(path):
        sha256 = sha256 or source_sha256(path)
    source = Source(file, 0, sha256)
    if name == PARQUET:
        yield from read_parquet(path, Converter(card, rules, ASE_UNITS, "none", remark), source)
    else:
        yield from _read_rows(path, card, rules, _reader(name, card), source, remark)


def _reader(name: str, card: Card) -> Reader:
    try:
        return READERS[ALIASES.get(name, name)]
    except KeyError:
        known = ", ".join(sorted([*READERS, *ALIASES, PARQUET]))
        raise InputError(f"card {card.name}: there is no reader {name!r}; known are: {known}") from None


def _read_rows(
    path: Path, card: Card, rules: ReadingRules, reader: Reader, file: Source, remark: Remark
) -> Iterator[Record | Rejected]:
    converter = Converter(card, rules, reader.units, reader.group, remark)
    first, past = rules.rows or (0, None)
    for row, raw in enumerate(_raw_rows(path, rules, reader)):
        if past is not None and row >= past:
            return
        if row >= first:
            yield _converted(converter, raw, Source(file.file, row, file.sha256))


def _raw_rows(path: Path, rules: ReadingRules, reader: Reader) -> Iterator[Row]:
    """What the reader gives; whatever a library raises at a file costs that file and not the others."""
    try:
        yield from reader.read(path, rules)
    except InputError:
        raise
    except Exception as error:
        raise UnreadableFile(f"{path.name}: {told(error)}") from error


def _converted(converter: Converter, raw: Row, source: Source) -> Record | Rejected:
    if isinstance(raw, Bad):
        return Rejected(source.row, raw.reason, source, raw.content)
    try:
        return converter.record(raw, source)
    except UnreadableRow as error:
        return Rejected(source.row, str(error), source, _shown(raw))
    except (TypeError, ValueError, IndexError) as error:  # words or tables where numbers are due
        return Rejected(source.row, unreadable_row(error), source, _shown(raw))


def _shown(raw: Raw) -> str:
    return f"{len(raw.numbers)} atoms; {str(raw.values)[:200]}"


def _read_archive(
    path: Path, card: Card, file: str, read_member: Callable[..., Iterator[Record | Rejected]], remark: Remark
) -> Iterator[Record | Rejected]:
    """Every member in turn; those that cannot be read are named together at the end."""
    failures: list[InputError] = []
    with unpacked(path) as folder:
        sha256 = source_sha256(path)
        members = list(inside(folder))
        if not members:
            raise UnreadableFile(f"{path.name}: an archive without data")
        for member in members:
            name = printable(f"{file}!{member.relative_to(folder).as_posix()}")
            try:
                yield from read_member(member, card, name, sha256, remark)
            except InputError as error:
                failures.append(error)
    if failures:
        raise _of_members(failures, len(members), path.name)


def _of_members(failures: list[InputError], n_members: int, name: str) -> InputError:
    """One error for all members that failed: what a card must say, where that is what each of them lacks."""
    lacking = [error for error in failures if not isinstance(error, UnreadableFile)]
    if len(lacking) == n_members:
        return lacking[0]
    shown = "; ".join(str(error) for error in failures[:SHOWN_FAILURES])
    more = "; …" if len(failures) > SHOWN_FAILURES else ""
    return UnreadableFile(f"{name}: {len(failures)} of {n_members} members: {shown}{more}")
