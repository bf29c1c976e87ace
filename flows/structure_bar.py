"""The bar on stderr of a verb that goes through a file's structures."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def structure_bar(verb: str, total: int, trouble: str) -> Iterator[Callable[[bool], None]]:
    """A bar where stderr is a terminal, nothing elsewhere; tell it of each structure whether it went well.

    Those that did not are counted beside the bar as `trouble`.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(verb),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    troubled = 0
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total)

        def advance(went_well: bool) -> None:
            nonlocal troubled
            troubled += not went_well
            bar.update(task, advance=1, description=f"{troubled} {trouble}" if troubled else "")

        yield advance
