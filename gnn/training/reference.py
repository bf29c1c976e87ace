"""The table of all configuration fields, made from the types: what docs/guide/train.md shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from gnn.training.config import TrainConfig


def field_table(config: type[BaseModel] = TrainConfig) -> str:
    """Markdown: one row a field, with its default and its meaning."""
    lines = ["| field | default | meaning |", "| --- | --- | --- |"]
    lines += [f"| `{name}` | {default} | {meaning} |" for name, default, meaning in rows(config)]
    return "\n".join(lines) + "\n"


def rows(
    config: type[BaseModel], prefix: str = "", defaults: BaseModel | None = None
) -> Iterator[tuple[str, str, str]]:
    """Name, default and meaning of every field; sections are opened, and one's own defaults win over its type's."""
    for name, field in config.model_fields.items():
        default = getattr(defaults, name) if defaults is not None else field.get_default(call_default_factory=True)
        section = _section(field.annotation)
        if section is not None and isinstance(default, section):
            yield from rows(section, f"{prefix}{name}.", default)
        else:
            yield f"{prefix}{name}", _shown(default), field.description or ""


def _section(annotation: Any) -> type[BaseModel] | None:
    kinds = [annotation, *get_args(annotation)]
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _shown(default: Any) -> str:
    if default is PydanticUndefined or default is None:
        return "–"
    return f"`{default!r}`" if isinstance(default, str | tuple) else str(default) or "–"
