"""Long benchmarks as runs in a journal: what is finished is never done again, several processes may share the work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from flows.bench.table import BenchTable, Part, bench_table, own_versions, this_machine
from flows.cli.output import say
from gnn.errors import InputError, SluiceError, one_line
from gnn.files import Journal, canonical_json, digest
from gnn.overlay import dotted

SCHEMA = 1
CODE_NOTE = "`sluice`: the commit that trained; what the command leaves to presets and defaults is as it was there."
Key = dict[str, Any]
Record = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One piece of work: what it is called by, and how it is done. The key and the result are JSON."""

    key: Key
    do: Callable[[], dict[str, Any]]


@dataclass
class Progress:
    """How a call of `work_through` went; `failed` says why, by the run's label."""

    done_before: int
    done: int = 0
    taken_by_others: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def in_words(changes: dict[str, Any]) -> str:
    """Changes of a configuration as `a.b = c`, in alphabetical order."""
    return ", ".join(f"{name} = {value}" for name, value in sorted(dotted(changes).items()))


def journal_of(benchmark: str, path: Path) -> Journal:
    """The journal of a benchmark."""
    return Journal(path, {"benchmark": benchmark, "schema": SCHEMA})


def finished(journal: Journal) -> dict[str, Record]:
    """Finished runs by the canonical text of their key; of several the last."""
    return {canonical_json(record["key"]): record for record in journal.read()}


def work_through(journal: Journal, runs: Sequence[Run], locks: Path, limit: int | None = None) -> Progress:
    """Do what is not in the journal, in order, `limit` of them at most; a failed run stops none of the others.

    Raises:
        InputError: the input of a run cannot be used.
    """
    known = finished(journal)
    remaining = [run for run in runs if canonical_json(run.key) not in known]
    progress = Progress(done_before=len(runs) - len(remaining))
    for run in remaining:
        if limit is not None and progress.done + len(progress.failed) >= limit:
            break
        with claimed(run, locks) as mine:
            if mine and canonical_json(run.key) not in finished(journal):
                attempt(journal, run, progress)
            else:
                progress.taken_by_others += 1
    return progress


@contextmanager
def claimed(run: Run, locks: Path) -> Iterator[bool]:
    """Whether this process has the run for itself while the block is open."""
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(str(locks / f"{digest(run.key)[:16]}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def attempt(journal: Journal, run: Run, progress: Progress) -> None:
    """Do one run and note it; what went wrong is told and kept."""
    say(f"{label(run.key)} …")
    machine = this_machine()
    try:
        result = run.do()
    except InputError:
        raise
    except SluiceError as error:
        progress.failed[label(run.key)] = one_line(error)
        say(f"failed: {one_line(error)}")
        return
    when = datetime.now(UTC).isoformat(timespec="seconds")
    where = {"processor": machine.processor, "load": machine.load, "when": when}
    with journal.appending() as append:
        append({"key": run.key, "result": result, "where": where, "versions": own_versions()})
    progress.done += 1


def run_table(
    name: str,
    title: str,
    command: str,
    parts: list[Part],
    records: Sequence[Record],
    notes: Sequence[str],
    versions: Mapping[str, str] | None = None,
) -> BenchTable:
    """The page of a benchmark made of runs: their processors and versions, not those of the machine that draws it."""
    facts = {
        "machine": None,
        "processors": processors(records),
        "versions": versions_of(records) | dict(versions or {}),
        "seeds": sorted({record["key"]["seed"] for record in records if "seed" in record["key"]}),
        "notes": list(notes),
    }
    return bench_table(name, title, command, parts, **facts)


def processors(records: Sequence[Record]) -> list[str]:
    """What the runs were made on, in the order they came."""
    return list(dict.fromkeys(record["where"]["processor"] for record in records))


def versions_of(records: Sequence[Record]) -> dict[str, str]:
    """Libraries that runs were made with, in the order they came; commits are told by run, or by `trained_by`."""
    found: dict[str, dict[str, None]] = {}
    for record in records:
        for name, version in record["versions"].items():
            found.setdefault(name, {})[version] = None
    return {name: ", ".join(versions) for name, versions in found.items() if name != "sluice"}


def trained_by(records: Sequence[Record]) -> str:
    """The commits of all runs, where a table has no column for them."""
    commits = sorted({code_of(record) for record in records})
    return f"Trained by sluice {', '.join(commits) or '(nothing yet)'}."


def code_of(record: Record) -> str:
    """The commit of ours that a run was made with; the whole version where that names none."""
    return str(record["versions"].get("sluice", "")).rpartition(" ")[-1]


def label(key: Key) -> str:
    """A key in a few words."""
    return " ".join(f"{name}={value}" for name, value in key.items() if value not in ({}, None))


def select(runs: Sequence[Run], wanted: dict[str, Sequence[Any]]) -> list[Run]:
    """Runs whose key has one of the wanted values of each name; a name without values wants all."""
    return [run for run in runs if all(run.key.get(name) in values for name, values in wanted.items() if values)]
