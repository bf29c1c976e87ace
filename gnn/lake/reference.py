"""Names of data sets, and `NAME@VERSION` for one of their versions."""

from __future__ import annotations

import re

from gnn.errors import InputError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
VERSION = re.compile(r"[0-9]{1,18}")
"""Longer numbers would not fit the lake's own."""


def check_name(dataset: str) -> str:
    """`dataset`, if it can name a data set.

    Raises:
        InputError: it cannot.
    """
    if not NAME.fullmatch(dataset):
        raise InputError(
            f"{dataset!r} cannot name a data set; use letters, digits, '.', '_' and '-', a letter or digit first"
        )
    return dataset


def parse_reference(reference: str) -> tuple[str, int | None]:
    """Name and version of `NAME@3`; the version is None (the newest) in plain `NAME`.

    Raises:
        InputError: neither.
    """
    name, separator, version = reference.partition("@")
    if separator and not VERSION.fullmatch(version):
        raise InputError(f"{reference!r}: the version after '@' must be a number, as in {name or 'NAME'}@3")
    return check_name(name), int(version) if separator else None
