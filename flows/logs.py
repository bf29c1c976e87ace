"""Structured logs: one JSON object a line, with the ids of campaign, shard and structure."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LOGGERS = ("gnn", "flows")
IDS = ("campaign", "shard", "structure")


class JsonLines(logging.Handler):
    """Appends records of one thread to a file; what it cannot write, for want of space, is lost without a word."""

    def __init__(self, path: Path, **ids: Any) -> None:
        super().__init__(logging.INFO)
        self.path = path
        self.ids = ids
        self.thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        """Only records of the thread that opened the log: shards may share a process."""
        return record.thread == self.thread and bool(super().filter(record))

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(line_of(record, self.ids))
        except OSError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """Let the work go on: its own writing will tell if the disk is full."""
        del record


def line_of(record: logging.LogRecord, ids: dict[str, Any]) -> str:
    """A record as one line of JSON: when, how grave, who, what, and every id that is known."""
    found = {name: getattr(record, name) for name in IDS if hasattr(record, name)}
    content = {
        "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname,
        "logger": record.name,
        "message": record.getMessage(),
        **ids,
        **found,
        **getattr(record, "facts", {}),
    }
    return json.dumps(content, default=str) + "\n"


@contextmanager
def logging_to(path: Path, **ids: Any) -> Iterator[None]:
    """Send what Sluice logs in this thread to `path` as well, each line with `ids`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = JsonLines(path, **ids)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
