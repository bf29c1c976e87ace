"""The ingest flow: DFT files into the lake, one task a group of files, in the order in which they were given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel, ConfigDict, Field

from flows.cards import card_for
from flows.cli.results import IngestResult
from flows.events import announce_growth
from flows.settings import Home
from gnn.errors import InputError
from gnn.lake import Lake
from gnn.structures.cards import Card
from gnn.structures.checks import is_unlabelled
from gnn.structures.readers import Rejected, read_whole
from gnn.structures.readers.sources import expand, printable, source_name
from gnn.structures.record import Record
from gnn.structures.shear import ShearedCells

GROUP_FILES = 200
SHOWN_ERRORS = 3
TELL_EVERY = 100

watcher: ContextVar[Callable[[str, int], None] | None] = ContextVar("watcher", default=None)
"""Called now and then with the file that is read and the rows so far; a command line sets it."""


class NothingRead(InputError):  # noqa: N818 - reads as what it is
    """Not one row could be kept; `result` says why."""

    def __init__(self, result: IngestResult) -> None:
        self.result = result
        reasons = [*(f"{name}: {why}" for name, why in result.file_errors.items()), *_counted(result.reasons)]
        shown = "; ".join(reasons[:SHOWN_ERRORS]) or "the files hold no rows"
        super().__init__(f"nothing could be read into {result.dataset}: {shown}")


class GroupResult(BaseModel):
    """What one group of files gave."""

    model_config = ConfigDict(frozen=True)

    version: int | None
    content_digest: str | None
    rows_in: int
    kept: int
    duplicates: int
    quarantined: int
    reasons: dict[str, int]
    theories: list[str]
    file_errors: dict[str, str] = Field(default_factory=dict)
    file_rows: dict[str, int] = Field(default_factory=dict)
    file_sha256: dict[str, str] = Field(default_factory=dict)
    remarks: list[str] = Field(default_factory=list)
    unlabelled: int = 0


class _Reading:
    """The rows of several files one after the other; notes what each gave, and goes on after one that fails."""

    def __init__(self, paths: list[Path], card: Card) -> None:
        self.paths, self.card = paths, card
        self.errors: dict[str, str] = {}
        self.rows: Counter[str] = Counter()
        self.sha256: dict[str, str] = {}
        self.theories: set[str] = set()
        self.remarks: list[str] = []
        self.unlabelled = 0

    def __iter__(self) -> Iterator[Record | Rejected]:
        for path in self.paths:
            name, sheared = source_name(path), ShearedCells()
            try:
                for record in read_whole(path, self.card, partial(self._remark, name)):
                    self._note(name, record)
                    if isinstance(record, Record):
                        sheared.note(record)
                    yield record
            except InputError as error:
                self.errors[name] = printable(str(error))
            if (wrong := sheared.remark()) is not None:
                self._remark(name, wrong)

    def _remark(self, name: str, text: str) -> None:
        if (remark := f"{name}: {text}") not in self.remarks:
            self.remarks.append(remark)

    def _note(self, name: str, record: Record | Rejected) -> None:
        self.rows[name] += 1
        if record.source is not None:
            self.sha256[name] = record.source.sha256
        if isinstance(record, Record):
            self.theories.add(record.theory)
            self.unlabelled += is_unlabelled(record)
        if (tell := watcher.get()) is not None and self.rows[name] % TELL_EVERY == 1:
            tell(name, sum(self.rows.values()))


def ingest_group(paths: list[str], dataset: str, lake: str, card: Card) -> GroupResult:
    """Read a group of files and append what is new; a file that cannot be read to its end costs itself."""
    reading = _Reading([Path(path) for path in paths], card)
    done = Lake(Path(lake)).append(dataset, reading, card)
    return GroupResult(
        version=done.version,
        content_digest=done.content_digest,
        rows_in=done.rows_in,
        kept=done.kept,
        duplicates=done.duplicates,
        quarantined=done.quarantined,
        reasons=done.reasons,
        theories=sorted(reading.theories),
        file_errors=reading.errors,
        file_rows=dict(reading.rows),
        file_sha256=reading.sha256,
        remarks=reading.remarks,
        unlabelled=reading.unlabelled,
    )


ingest_files = task(name="ingest-files", cache_policy=NO_CACHE)(ingest_group)


@flow(name="ingest")
def ingest(
    files: list[str], dataset: str, home: Home, card: str | None = None, theory: str | None = None
) -> IngestResult:
    """Read files, folders and globs into data set `dataset` of the lake under `home`.

    `card` is a name, a path, "auto" (the format's own conventions), or None: the data set's stored card, else the card
    of the data set's name, else "auto". `theory` is for files and cards that name none.

    Raises:
        InputError: no such file or card, something the card must say, or nothing could be read (`NothingRead`).
    """
    result = ingest_with(ingest_files, get_run_logger().warning, files, dataset, home, card, theory)
    if result.kept:
        announce_growth(dataset, result.version, result.content_digest, result.kept)
    return result


def ingest_with(
    each: Callable[[list[str], str, str, Card], GroupResult],
    warn: Callable[[str], None],
    files: list[str],
    dataset: str,
    home: Home,
    card: str | None,
    theory: str | None,
) -> IngestResult:
    """The flow's body: `each` ingests a group, `warn` is told how files differ from what is expected."""
    paths = expand(files)
    chosen = card_for(dataset, home, card, theory)
    was_empty = not Lake(home.lake).has(dataset)
    groups = [paths[start : start + GROUP_FILES] for start in range(0, len(paths), GROUP_FILES)]
    done = [each([str(path) for path in group], dataset, str(home.lake), chosen) for group in groups]
    result = _merged(dataset, len(paths), done)
    result.warnings.extend([*remarks_on(done), *told_theories(theory, chosen, result)])
    if dataset == chosen.name or str(card).endswith(".toml"):  # else another set, read by the rules of this card
        result.warnings.extend(differences(chosen, done, result, was_empty))
    for warning in result.warnings:
        warn(warning)
    if result.kept + result.duplicates == 0:
        raise NothingRead(result)
    return result


def _merged(dataset: str, n_files: int, groups: list[GroupResult]) -> IngestResult:
    reasons: Counter[str] = Counter()
    errors: dict[str, str] = {}
    for group in groups:
        reasons.update(group.reasons)
        errors.update(group.file_errors)
    return IngestResult(
        dataset=dataset,
        version=groups[-1].version,
        content_digest=groups[-1].content_digest,
        theories=sorted({theory for group in groups for theory in group.theories}),
        files=n_files,
        files_failed=len(errors),
        file_errors=errors,
        rows_in=sum(group.rows_in for group in groups),
        kept=sum(group.kept for group in groups),
        duplicates=sum(group.duplicates for group in groups),
        quarantined=sum(group.quarantined for group in groups),
        reasons=dict(sorted(reasons.items())),
    )


def told_theories(theory: str | None, card: Card, result: IngestResult) -> list[str]:
    """Levels of theory that files told, where another was given: what they say goes before it."""
    told = [found for found in result.theories if found != theory]
    if theory is None or theory != card.fallback_theory or not told:
        return []
    return [
        f"--theory {theory} serves only what tells no level of theory; here is what files told: {', '.join(told)}"
        f' (a card with theory = "{theory}" goes before that)'
    ]


def remarks_on(groups: list[GroupResult]) -> list[str]:
    """What somebody may have meant to be read and was not."""
    unlabelled = sum(group.unlabelled for group in groups)
    found = [remark for group in groups for remark in group.remarks]
    if unlabelled:
        found.append(f"{unlabelled} rows have no energy, forces, stress or property: structures only")
    return found


def differences(card: Card, groups: list[GroupResult], result: IngestResult, was_empty: bool) -> list[str]:
    """Where files and counts differ from what the card expects; counts only where every expected file was given."""
    rows = {name: count for group in groups for name, count in group.file_rows.items()}
    sha256 = {name: digest for group in groups for name, digest in group.file_sha256.items()}
    found, missing = [], False
    for wanted, expected in card.expected.files.items():
        name = next((name for name in rows if name == wanted or name.endswith(f"/{wanted}")), None)
        missing |= name is None
        if name is None:
            continue
        if expected.rows is not None and rows[name] != expected.rows:
            found.append(f"{name} has {rows[name]} rows where the card expects {expected.rows}")
        if expected.sha256 is not None and sha256.get(name) != expected.sha256:
            found.append(f"{name} is not the file that the card describes (sha256 {sha256.get(name, '?')[:12]}…)")
    return found if missing else [*found, *_count_differences(card, result, was_empty)]


def _count_differences(card: Card, result: IngestResult, was_empty: bool) -> list[str]:
    names = ("rows_in", "kept", "duplicates", "quarantined") if was_empty else ("rows_in",)
    found = []
    for name in names:
        expected = getattr(card.expected, name)
        if expected is not None and getattr(result, name) != expected:
            found.append(f"{name} is {getattr(result, name)} where the card expects {expected}")
    return found


def _counted(reasons: dict[str, int]) -> list[str]:
    return [f"{count} rows {reason}" for reason, count in reasons.items()]
