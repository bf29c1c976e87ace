"""What a flow run shows on its page in Prefect: progress, tables, and where the report lies. Nothing outside a run."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prefect.context import FlowRunContext

logger = logging.getLogger(__name__)

EVERY_S = 5.0


def in_a_run() -> bool:
    """Whether a flow run is there to show anything."""
    return FlowRunContext.get() is not None


def key_of(*parts: str) -> str:
    """An artifact's key: lower case letters, numbers and dashes."""
    return "-".join("".join(c if c.isalnum() else "-" for c in part.lower()).strip("-") for part in parts)


def _shown(show: Callable[[], Any]) -> Any:
    """What `show` gives; a page that cannot be written is no reason for work to fail."""
    if not in_a_run():
        return None
    try:
        return show()
    except Exception as error:  # noqa: BLE001 (the server may be gone; its absence is told elsewhere)
        logger.warning("no artifact: %s: %s", type(error).__name__, error)
        return None


class Progress:
    """How much of a stage is done, in percent, as one artifact that is kept up to date."""

    def __init__(self, stage: str, name: str, total: int) -> None:
        self.total = total
        self.done = 0
        self._told_at = time.monotonic()
        self._id = _shown(lambda: _create_progress(key_of(stage, name), f"{stage} {name}: shards"))

    def advance(self) -> None:
        """One more is done; told now and then, and at the end."""
        self.done += 1
        due = self.done == self.total or time.monotonic() - self._told_at > EVERY_S
        if self._id is not None and due:
            self._told_at = time.monotonic()
            _shown(lambda: _update_progress(self._id, 100.0 * self.done / self.total))


def _create_progress(key: str, description: str) -> Any:
    from prefect.artifacts import create_progress_artifact

    return create_progress_artifact(progress=0.0, key=key, description=description)


def _update_progress(artifact_id: Any, percent: float) -> Any:
    from prefect.artifacts import update_progress_artifact

    return update_progress_artifact(artifact_id, progress=percent)


def show_table(name: str, rows: Sequence[dict[str, Any]], title: str) -> None:
    """Show rows as a table."""
    from prefect.artifacts import create_table_artifact

    if rows:
        _shown(lambda: create_table_artifact(table=list(rows), key=key_of(name), description=title))


def show_link(name: str, path: Path, text: str) -> None:
    """Show where a file lies."""
    from prefect.artifacts import create_link_artifact

    _shown(lambda: create_link_artifact(link=path.resolve().as_uri(), link_text=text, key=key_of(name)))
