"""How far the shards of a stage are, on stderr: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

    from flows.shards import ShardOutcome

LINE_EVERY_S = 30.0


class ShardBar:
    """A context manager whose `update` takes each outcome; silent where `show` is False."""

    def __init__(self, stage: str, total: int, show: bool = True) -> None:
        self.stage = stage
        self.total = total
        self.show = show
        self.done = 0
        self.failed = 0
        self.cached = 0
        self._bar: Progress | None = None
        self._line_at = time.monotonic()

    def __enter__(self) -> ShardBar:
        if self.show and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn(), TimeRemainingColumn(),
            )  # fmt: skip
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._bar.add_task(self.stage, total=self.total)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, outcome: ShardOutcome) -> None:
        """Count a shard that ended."""
        self.done += 1
        self.failed += outcome.error is not None
        self.cached += outcome.cached
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self.done, description=self.told())
        elif self.show and time.monotonic() - self._line_at > LINE_EVERY_S:
            self._line_at = time.monotonic()
            sys.stderr.write(f"{self.told()} {self.done}/{self.total} shards\n")
            sys.stderr.flush()

    def told(self) -> str:
        """The stage, and how many shards were reused or failed."""
        parts = [f"{self.cached} reused"] * bool(self.cached) + [f"{self.failed} failed"] * bool(self.failed)
        return f"{self.stage} ({', '.join(parts)})" if parts else self.stage
