"""How many structures of a campaign are finished, on stderr: the journals are counted while shards run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

POLL_S = 0.5


class JournalCounter:
    """Counts records of a folder's journals, reading only what was appended since the last count."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[Path, int] = {}
        self._lines: dict[Path, int] = {}

    def count(self) -> int:
        """Records finished so far, headers aside."""
        for path in self.folder.glob("shard-*.part.jsonl"):
            self._catch_up(path)
        return sum(max(0, lines - 1) for lines in self._lines.values())

    def _catch_up(self, path: Path) -> None:
        start = self._read.get(path, 0)
        if path.stat().st_size < start:
            # a torn tail was cut off
            start, self._lines[path] = 0, 0
        with path.open("rb") as stream:
            stream.seek(start)
            added = stream.read()
        self._read[path] = start + len(added)
        self._lines[path] = self._lines.get(path, 0) + added.count(b"\n")


@contextmanager
def watching(folder: Path, total: int, show: bool) -> Iterator[None]:
    """A progress bar on stderr that counts finished structures in the journals."""
    if not show:
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    stop, counter = Event(), JournalCounter(folder)
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("relaxing", total=total)

        def poll() -> None:
            while not stop.wait(POLL_S):
                bar.update(task, completed=counter.count())

        thread = Thread(target=poll, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            bar.update(task, completed=counter.count())
