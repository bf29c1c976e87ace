"""The page of all results that `--json` prints, made from their types: `python -m flows.cli.result_reference`."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator

from pydantic.fields import FieldInfo

from flows.cli import results
from flows.cli.results import Result
from gnn.training import metrics

HEAD = """# What `--json` prints

One object on stdout and nothing else there. Types are those of Python, `null` is `None`; a field may be added, and is
changed or taken away only with another `schema_version`. Made from the types by `python -m flows.cli.result_reference`.
"""
MODULE = re.compile(r"\b(?:[a-z_]+\.)+(?=[A-Z])")
"""What comes before the name of a class in an annotation."""


def page() -> str:
    """Markdown: a section a result, in the order of the source."""
    return "\n".join([HEAD, *(section(kind) for kind in kinds())])


def kinds() -> Iterator[type]:
    """All results, and the errors that some of them hold."""
    own = [kind for _, kind in inspect.getmembers(results, inspect.isclass) if kind.__module__ == results.__name__]
    held = [kind for _, kind in inspect.getmembers(metrics, inspect.isclass) if kind.__module__ == metrics.__name__]
    for found in (own, held):
        yield from sorted((kind for kind in found if kind is not Result), key=lambda k: inspect.getsourcelines(k)[1])


def section(kind: type) -> str:
    """One result: what it is, then a row a field."""
    fields = getattr(kind, "model_fields", {})
    rows = [f"| `{name}` | {shown(field.annotation)} | {meaning(name, field)} |" for name, field in fields.items()]
    lines = [f"## {kind.__name__}", "", inspect.cleandoc(kind.__doc__ or ""), "", "| field | type | meaning |"]
    return "\n".join([*lines, "| --- | --- | --- |", *rows, ""])


def meaning(name: str, field: FieldInfo) -> str:
    """What a field says; the version of a schema is told as it is."""
    return str(field.default) if name == "schema_version" else field.description or ""


def shown(annotation: object) -> str:
    """A type as Markdown, without the modules of its classes."""
    is_plain = isinstance(annotation, type) and not getattr(annotation, "__args__", ())
    text = getattr(annotation, "__name__", "") if is_plain else str(annotation)
    return f"`{MODULE.sub('', text)}`".replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(page())
