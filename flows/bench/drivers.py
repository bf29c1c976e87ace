"""Long benchmarks as a whole: run what is not in the journal, then write the page (and the picture) of what is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.bench.runs import Progress, Record, Run, finished, journal_of, label, work_through
from flows.bench.table import BenchTable
from flows.cli.output import say
from flows.settings import Home
from gnn.errors import SluiceError
from gnn.files import canonical_json, write_text


@dataclass(frozen=True)
class Driver:
    """A long benchmark: its runs, how its records become a table, and where its journal and its page lie."""

    name: str
    runs: Sequence[Run]
    table: Callable[[Sequence[Record], str], BenchTable]
    results: Path
    command: str
    picture: Callable[[Sequence[Record], Path], Path] | None = None

    @property
    def journal(self) -> Path:
        """Finished runs, one a line."""
        return self.results / f"{self.name}.jsonl"

    def records(self) -> list[Record]:
        """Finished runs."""
        return list(finished(journal_of(self.name, self.journal)).values())

    def render(self) -> BenchTable:
        """Write the page of what is finished."""
        records = self.records()
        table = self.table(records, self.command)
        write_text(self.results / f"{self.name}.md", table.markdown())
        if self.picture is not None and records:
            self.picture(records, self.results / f"{self.name}.svg")
        return table

    def drive(self, home: Home, limit: int | None = None) -> BenchTable:
        """Do what is left, `limit` runs at most, then write the page.

        Raises:
            SluiceError: runs failed; the page of the finished ones is written.
        """
        found = work_through(journal_of(self.name, self.journal), self.runs, home.root / "locks", limit)
        table = self.render()
        say(describe(found, len(self.runs)))
        if found.failed:
            name, why = next(iter(found.failed.items()))
            raise SluiceError(f"{len(found.failed)} runs failed; the first was {name}: {why}")
        return table

    def plan(self) -> list[str]:
        """What is left to do, for people."""
        known = finished(journal_of(self.name, self.journal))
        return [label(run.key) for run in self.runs if canonical_json(run.key) not in known]


def describe(progress: Progress, total: int) -> str:
    """How a call went, in one line."""
    left = total - progress.done_before - progress.done
    others = f", {progress.taken_by_others} in other processes" if progress.taken_by_others else ""
    return f"{progress.done} runs done now, {progress.done_before} before, {left} of {total} left{others}"
