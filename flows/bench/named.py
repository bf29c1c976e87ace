"""Tables of a TOML file as typed values by their names."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from gnn.errors import InputError

Named = TypeVar("Named", bound=BaseModel)


def read_named(path: Path, kind: type[Named]) -> dict[str, Named]:
    """Every table of the file as a `kind`, whose field `name` is the table's.

    Raises:
        InputError: the file is not such tables.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        return {name: kind(name=name, **table) for name, table in tables.items()}
    except (tomllib.TOMLDecodeError, ValidationError, TypeError) as error:
        what = f"{kind.__name__.lower()}s"
        raise InputError(f"{path} is not a table of {what}: {' '.join(str(error).split())}") from None
