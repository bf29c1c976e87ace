"""What went wrong, in words for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

Value = TypeVar("Value")


class SluiceError(Exception):
    """Work failed, through no mistake of the user's (exit code 1)."""


class InputError(SluiceError):
    """The user's input cannot be used (exit code 2).

    The message is one line: what is wrong, where, which value, and what to do.
    """


class BusyError(SluiceError):
    """Another process holds what this one needs; it may be free a little later."""


def one_line(error: BaseException) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split())


def told(error: BaseException) -> str:
    """An error's kind and message, without line breaks."""
    return f"{type(error).__name__}: {one_line(error)}"


def named(what: str, name: str, known: Mapping[str, Value]) -> Value:
    """What `known` has under a name that a user gave.

    Raises:
        InputError: nothing; the message lists what there is.
    """
    check_known(what, [name], known)
    return known[name]


def check_known(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Refuse names that are not among the known ones.

    Raises:
        InputError: the first that is not; the message lists what there is.
    """
    choices = list(known)
    for name in names:
        if name not in choices:
            raise InputError(f"{what} {name!r} is unknown; choose of {', '.join(choices)}")
