"""How verbs speak: results on stdout, progress on stderr, errors in one line with an exit code."""

from __future__ import annotations

import logging
import signal
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
from pydantic import BaseModel

from gnn.errors import InputError, SluiceError, one_line

P = ParamSpec("P")
R = TypeVar("R")

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a configuration value.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would happen and do nothing.")]

USER_ERROR, OUR_ERROR, INTERRUPTED = 2, 1, 130
MLFLOW_ERRORS = "mlflow.exceptions"
HTTP_ERRORS = "httpx"
SERVER_IS_SILENT = "Failed to reach API at"
SERVER_TIMED_OUT = "Timed out while attempting to connect to ephemeral Prefect API server"
"""Where MLflow's errors live, its server's absence among them; named, so that MLflow is not imported for it."""
PREFECT_TERMINATION = "TerminationSignal"
"""What Prefect makes of a SIGTERM inside a flow; named, so that Prefect is not imported for it."""


def say(text: str) -> None:
    """Progress and remarks, on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def show(result: BaseModel, as_json: bool, describe: Callable[[Any], None]) -> None:
    """Print `result` as JSON, or let `describe` print it for people."""
    if as_json:
        sys.stdout.write(result.model_dump_json() + "\n")
        sys.stdout.flush()
    else:
        describe(result)


def table(title: str, columns: list[str], rows: list[list[object]]) -> None:
    """Print a table on stdout; numbers to the right."""
    from rich.console import Console
    from rich.table import Table

    grid = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        grid.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        grid.add_row(*("" if cell is None else str(cell) for cell in row))
    Console().print(grid)


def speaks_plainly(verb: Callable[P, R]) -> Callable[P, R]:
    """Turn errors into one line on stderr and the right exit code; Ctrl-C into 130."""
    return _in_one_line(verb, "")


def goes_on(verb: Callable[P, R]) -> Callable[P, R]:
    """The same for a verb that keeps what it has done when it is stopped, and says so."""
    return _in_one_line(verb, "; the same command goes on from here")


def _in_one_line(verb: Callable[P, R], hint: str) -> Callable[P, R]:
    @wraps(verb)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        _hush_known_errors()
        try:
            return verb(*args, **kwargs)
        except InputError as error:
            say(f"error: {one_line(error)}")
            raise typer.Exit(USER_ERROR) from None
        except SluiceError as error:
            say(f"failed: {one_line(error)}")
            raise typer.Exit(OUR_ERROR) from None
        except KeyboardInterrupt:
            say(f"stopped{hint}")
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            if (known := _known_failure(error)) is None:
                raise
            say(f"failed: {known}{hint}")
            raise typer.Exit(OUR_ERROR) from None

    return run


def _known_failure(error: Exception) -> str | None:
    """What an error of the services beneath means, in a line; None where it is none of theirs."""
    if type(error).__module__ == MLFLOW_ERRORS:
        return f"MLflow: {one_line(error)}"
    if isinstance(error, RuntimeError) and SERVER_TIMED_OUT in str(error):
        return "Prefect's own server took too long to start; `sluice up` keeps one running"
    if type(error).__module__.startswith(HTTP_ERRORS) or SERVER_IS_SILENT in str(error):
        return f"the Prefect server does not answer; start it, or unset PREFECT_API_URL ({one_line(error)})"
    return None


def _hush_known_errors() -> None:
    """Keep Prefect from printing the traceback of an error that is told in one line here."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, SluiceError)


def overrides(assignments: list[str] | None) -> dict[str, Any]:
    """`a.b=c` assignments as nested dictionaries; values are read as TOML, else taken as text.

    Raises:
        InputError: an assignment has no `=`, or is of a part of what another has given a value.
    """
    nested: dict[str, Any] = {}
    for assignment in assignments or []:
        path, separator, text = assignment.partition("=")
        if not separator or not path:
            raise InputError(f"--set {assignment!r} is not of the form a.b=c")
        *parents, leaf = path.strip().split(".")
        target = nested
        for parent in parents:
            target = target.setdefault(parent, {})
            if not isinstance(target, dict):
                raise InputError(f"--set {assignment!r}: {parent} has a value already")
        target[leaf] = toml_value(text.strip())
    return nested


def toml_value(text: str) -> Any:
    """A TOML value, or the text itself where it is none."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


@contextmanager
def terminating_like_interrupt() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C, so that a batch system's stop leaves resumable state too."""

    def interrupt(*_: object) -> None:
        # not by SIGINT: a shell lets background jobs ignore it
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except BaseException as error:
        if type(error).__name__ == PREFECT_TERMINATION:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
