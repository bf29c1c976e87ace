"""Tables of a TOML file as typed values by their names."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from gnn.errors import InputError, named, one_line
from gnn.overlay import merged

Named = TypeVar("Named", bound=BaseModel)
LIKE = "like"


def read_named(path: Path, kind: type[Named]) -> dict[str, Named]:
    """Every table of the file as a `kind`, whose field `name` is the table's.

    A table may say `like = "OTHER"`: it is laid over that one.

    Raises:
        InputError: the file is not such tables, or one is like another that is not there.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        return {name: kind(name=name, **laid_over(table, tables)) for name, table in tables.items()}
    except (tomllib.TOMLDecodeError, ValidationError, TypeError) as error:
        what = f"{kind.__name__.lower()}s"
        raise InputError(f"{path} is not a table of {what}: {one_line(error)}") from None


def laid_over(table: dict[str, Any], tables: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A table over the one that it is like.

    Raises:
        InputError: there is no such table.
    """
    if LIKE not in table:
        return table
    return merged(named("table", table[LIKE], tables), {key: value for key, value in table.items() if key != LIKE})
