"""The live bars of a training on stderr, one a member."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from gnn.training.outcome import Progress

PROGRESS_NAME = "progress.json"
FILE_EVERY_S, LINE_EVERY_S = 1.0, 30.0
SHORT = {
    "energy_mae_mev_per_atom": ("E", "meV/atom"),
    "force_mae_mev_per_angstrom": ("F", "meV/Å"),
    "stress_mae_gpa": ("S", "GPa"),
}


def progress_to_file(folder: Path) -> Callable[[Progress], None]:
    """A callback that leaves the latest progress in `folder`, for a parent process to show."""
    written = [0.0]

    def write(progress: Progress) -> None:
        now = time.monotonic()
        if now - written[0] >= FILE_EVERY_S:
            written[0] = now
            temporary = folder / f"{PROGRESS_NAME}.part"
            temporary.write_text(json.dumps(asdict(progress)), encoding="utf-8")
            temporary.replace(folder / PROGRESS_NAME)

    return write


def read_progress(folder: Path) -> Progress | None:
    """What `progress_to_file` left; None where there is nothing yet."""
    from gnn.training.outcome import Progress

    try:
        return Progress(**json.loads((folder / PROGRESS_NAME).read_text(encoding="utf-8")))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def described(progress: Progress) -> str:
    """Loss, validation errors and learning rate in one line."""
    parts = [f"epoch {progress.epoch}", f"step {progress.step}"]
    if (loss := progress.train.get("loss")) is not None:
        parts.append(f"loss {loss:.3g}")
    for name, (symbol, unit) in SHORT.items():
        if (value := progress.valid.get(name)) is not None:
            parts.append(f"{symbol} {value:.3g} {unit}")
    others = [n for n in progress.valid if n.endswith("_mae") and n not in SHORT]
    parts += [f"{name.removesuffix('_mae')} {progress.valid[name]:.3g}" for name in others]
    return "  ".join([*parts, f"lr {progress.lr:.1e}"])


def remaining(progress: Progress) -> str:
    """Time that is left, by what the part done has taken."""
    if progress.progress <= 0.002:
        return "?"
    seconds = progress.elapsed_s * (1.0 / progress.progress - 1.0)
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"


class TrainingBars:
    """Bars where stderr is a terminal, a line now and then where it is not; silent where `enabled` is False."""

    def __init__(self, members: int, enabled: bool = True) -> None:
        self.enabled = enabled
        self.members = members
        self._bars: Bars | None = None
        self._tasks: list[TaskID] = []
        self._line_at = [time.monotonic()] * members

    def __enter__(self) -> TrainingBars:
        if self.enabled and sys.stderr.isatty():
            self._bars = _bars()
            self._bars.start()
            names = ["training"] if self.members == 1 else [f"member {k}" for k in range(self.members)]
            self._tasks = [self._bars.add_task(name, total=1.0, text="", left="?") for name in names]
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def update(self, member: int, progress: Progress) -> None:
        """Show where a member stands."""
        if self._bars is not None:
            left = remaining(progress)
            task = self._tasks[member]
            self._bars.update(task, completed=progress.progress, text=described(progress), left=left)
        elif self.enabled and time.monotonic() - self._line_at[member] > LINE_EVERY_S:
            self._line_at[member] = time.monotonic()
            name = "" if self.members == 1 else f"member {member}  "
            sys.stderr.write(f"{name}{progress.progress:4.0%}  {described(progress)}  {remaining(progress)} left\n")
            sys.stderr.flush()


def _bars() -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns: list[Any] = [
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        TextColumn("{task.fields[left]} left"),
        TextColumn("{task.fields[text]}"),
    ]
    return Progress(*columns, console=Console(stderr=True), refresh_per_second=4)
