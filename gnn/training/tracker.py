"""Where a training tells of itself; flows implements it with MLflow."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol


class Tracker(Protocol):
    """Receives parameters, curves, files and tags of one training."""

    def params(self, values: dict[str, Any]) -> None:
        """Remember what was asked for."""
        ...

    def metrics(self, values: dict[str, float], step: int) -> None:
        """Add one point to each named curve."""
        ...

    def artifact(self, path: Path, folder: str = "") -> None:
        """Keep a copy of a file or folder."""
        ...

    def tags(self, values: dict[str, str]) -> None:
        """Attach labels."""
        ...


class NullTracker:
    """Remembers nothing."""

    def params(self, values: dict[str, Any]) -> None:
        """Ignore `values`."""

    def metrics(self, values: dict[str, float], step: int) -> None:
        """Ignore `values`."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """Ignore `path`."""

    def tags(self, values: dict[str, str]) -> None:
        """Ignore `values`."""


class CurveFile:
    """Appends curves to a JSON-lines file: what a member in another process leaves for its parent to log."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def params(self, values: dict[str, Any]) -> None:
        """Ignore `values`: the parent knows them."""

    def metrics(self, values: dict[str, float], step: int) -> None:
        """Append one line."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as stream:
            stream.write(_end_of_torn_line(stream) + json.dumps({"step": step, "metrics": values}).encode() + b"\n")

    def artifact(self, path: Path, folder: str = "") -> None:
        """Ignore `path`: it lies in the run folder already."""

    def tags(self, values: dict[str, str]) -> None:
        """Ignore `values`."""

    def replay(self, tracker: Tracker, prefix: str = "") -> None:
        """Give every curve to `tracker`; of points written twice (after a crash) the last counts."""
        if not self.path.exists():
            return
        points: dict[int, dict[str, float]] = {}
        for line in self.path.read_bytes().splitlines():
            with suppress(ValueError):  # of a torn line
                point = json.loads(line)
                points[int(point["step"])] = point["metrics"]
        for step, values in sorted(points.items()):
            tracker.metrics({prefix + name: value for name, value in values.items()}, step)


def _end_of_torn_line(stream: BinaryIO) -> bytes:
    """What must come before a new line where the last write was cut off."""
    if stream.tell() == 0:
        return b""
    stream.seek(-1, os.SEEK_END)
    return b"" if stream.read(1) == b"\n" else b"\n"
