"""Whether a home keeps its runs and models on PostgreSQL: then its own SQLite files are not them."""

from __future__ import annotations

from pathlib import Path

from flows.services.secrets import DATABASE, FILE_SUFFIX
from flows.settings import Home
from gnn.errors import InputError


def postgres_mark(home: Home) -> Path:
    """An empty file that is there once `sluice up` has used PostgreSQL."""
    return home.services / "on-postgresql"


def refuse_lost_store(home: Home) -> None:
    """Do nothing if the home's own SQLite files are its store.

    Raises:
        InputError: the store is on PostgreSQL, so that SQLite would begin a second one.
    """
    try:
        lost = postgres_mark(home).exists()
    except PermissionError:
        raise InputError(f"the services of this home are another user's: {home.services} cannot be read") from None
    if lost:
        raise InputError(
            f"this home keeps its runs and models on PostgreSQL: run `sluice up` with {DATABASE} or "
            f"{DATABASE}{FILE_SUFFIX} set (or remove {postgres_mark(home)} to begin anew in SQLite)"
        )
