"""Structured logs: one JSON object a line, with the ids of campaign, shard and structure."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

LOGGERS = ("gnn", "flows")
IDS = ("campaign", "shard", "structure")


@dataclass(frozen=True)
class LogFile:
    """A file of log lines, and the ids that each of them carries."""

    path: Path
    ids: dict[str, Any]


_open: ContextVar[tuple[LogFile, ...]] = ContextVar("open log files", default=())
"""Files that take what this thread logs: shards may share a process."""


class ToFiles(logging.Handler):
    """Appends records to the files of their thread; what it cannot write, for want of space, is lost without a word."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line a file."""
        for file in _open.get():
            try:
                with file.path.open("a", encoding="utf-8") as stream:
                    stream.write(line_of(record, file.ids))
            except OSError:
                continue


class Onward(logging.Handler):
    """Passes on to the root what is loud enough for it: files take more than the terminal shows.

    A record with `is_told` stays in the files: who meets the error says it.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Pass on."""
        root = logging.getLogger()
        if record.levelno >= root.level and not getattr(record, "is_told", False):
            root.handle(record)


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
    _attend()
    token = _open.set((*_open.get(), LogFile(path, ids)))
    try:
        yield
    finally:
        _open.reset(token)


@cache
def _attend() -> None:
    """Hear what Sluice's loggers say, from INFO on, for the rest of the process."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))
        logger.propagate = False
        logger.addHandler(ToFiles())
        logger.addHandler(Onward())
