"""Where a training tells of itself; flows implements it with MLflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol


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
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step, "metrics": values}) + "\n")

    def artifact(self, path: Path, folder: str = "") -> None:
        """Ignore `path`: it lies in the run folder already."""

    def tags(self, values: dict[str, str]) -> None:
        """Ignore `values`."""

    def replay(self, tracker: Tracker, prefix: str = "") -> None:
        """Give every curve to `tracker`; of points written twice (after a crash) the last counts."""
        if not self.path.exists():
            return
        points: dict[int, dict[str, float]] = {}
        for line in self.path.read_text(encoding="utf-8").splitlines():
            if line.endswith("}"):
                point = json.loads(line)
                points[int(point["step"])] = point["metrics"]
        for step, values in sorted(points.items()):
            tracker.metrics({prefix + name: value for name, value in values.items()}, step)
