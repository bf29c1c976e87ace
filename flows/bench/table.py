"""What every benchmark gives: a typed table with its machine, versions, seeds and command."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import Field

from flows.cli.results import Result
from gnn.machine import processor

Cell = str | int | float | None
OWN_VERSIONS = ("torch", "numpy", "ase")


class Machine(Result):
    """Where it was measured. `load` is the one-minute average when the benchmark began."""

    processor: str
    cores: int
    system: str
    python: str
    load: float | None = None

    def in_words(self) -> str:
        """Processor, system, load and Python in a few words."""
        load = "" if self.load is None else f", load {self.load:.1f} at the start"
        return f"{self.processor}, {self.cores} cores, {self.system}{load}. Python {self.python}"


class Column(Result):
    """One column: its heading with unit, and how many decimals its numbers are shown with (None: as they are)."""

    name: str
    digits: int | None = None


class Part(Result):
    """One table of a benchmark; every row has a cell for every column."""

    title: str
    columns: list[Column]
    rows: list[list[Cell]]
    notes: list[str] = Field(default_factory=list)

    def markdown(self) -> str:
        """Heading, table, notes."""
        notes = ["\n".join(f"- {note}" for note in self.notes)] if self.notes else []
        return "\n\n".join([f"## {self.title}", grid(self.columns, self.rows), *notes])


class BenchTable(Result):
    """What a benchmark found, and all that is needed to judge and repeat it."""

    benchmark: str
    title: str
    command: str
    machine: Machine | None = Field(description="null: made of runs that may be of several, on `processors`")
    processors: list[str] = Field(default_factory=list)
    versions: dict[str, str]
    seeds: list[int] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    parts: list[Part]

    def markdown(self) -> str:
        """A page: heading, provenance, command, notes, then the parts."""
        notes = ["\n".join(f"- {note}" for note in self.notes)] if self.notes else []
        head = [f"# {self.title}", self.provenance(), f"    {self.command}", *notes]
        return "\n\n".join([*head, *(part.markdown() for part in self.parts)]) + "\n"

    def provenance(self) -> str:
        """Machine, versions and seeds in a few words."""
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        seeds = f" Seeds: {', '.join(map(str, self.seeds))}." if self.seeds else ""
        if self.machine is None:
            return f"Runs on {'; '.join(self.processors)}. {versions}.{seeds}" if self.processors else "No run yet."
        return f"{self.machine.in_words()}, {versions}.{seeds}"


def grid(columns: list[Column], rows: list[list[Cell]]) -> str:
    """Cells as a Markdown table, numbers to the right."""
    cells = [list(zip(row, columns, strict=True)) for row in rows]
    numeric = [any(isinstance(row[k][0], int | float) for row in cells) for k in range(len(columns))]
    lines = [[column.name for column in columns], ["---:" if right else "---" for right in numeric]]
    lines += [[shown(cell, column) for cell, column in row] for row in cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown(cell: Cell, column: Column) -> str:
    """One cell as text; nothing known is a dash."""
    if cell is None:
        return "–"
    if isinstance(cell, float) and column.digits is not None:
        return f"{cell:.{column.digits}f}"
    return str(cell)


def this_machine() -> Machine:
    """The machine that this runs on."""
    return Machine(
        processor=processor(),
        cores=os.cpu_count() or 1,
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        load=round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    )


def own_versions() -> dict[str, str]:
    """Sluice with its commit, and the libraries that decide its speed."""
    from flows.tracking import code_version

    return {"sluice": code_version()} | {name: found for name in OWN_VERSIONS if (found := installed(name))}


def installed(name: str) -> str | None:
    """The installed version of a distribution; None where there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def bench_table(benchmark: str, title: str, command: str, parts: list[Part], **more: Any) -> BenchTable:
    """A benchmark's result, on this machine with these versions unless `more` replaces these facts or adds others."""
    facts: dict[str, Any] = {"machine": this_machine(), "versions": own_versions()} | more
    return BenchTable(benchmark=benchmark, title=title, command=command, parts=parts, **facts)
