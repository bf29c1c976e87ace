"""Secrets: from the environment or from files, never from the command line, never written anywhere by this program."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from pydantic import SecretStr

from gnn.errors import InputError

DATABASE, AUTH = "SLUICE_DATABASE_URL", "SLUICE_AUTH"
FILE_SUFFIX = "_FILE"
HIDDEN = "**********"
SHORTEST = 4


def secret(variable: str, file: Path | None = None) -> SecretStr | None:
    """The value of `variable`, else the content of the file that `variable`_FILE or `file` names, else None.

    Raises:
        InputError: the file cannot be read or is empty.
    """
    if value := os.environ.get(variable):
        return SecretStr(value)
    named = os.environ.get(variable + FILE_SUFFIX)
    path = Path(named).expanduser() if named else file
    if path is None:
        return None
    try:
        content = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the secret {variable} cannot be read from {path}: {type(error).__name__}") from None
    if not content:
        raise InputError(f"the secret {variable} in {path} is empty")
    return SecretStr(content)


def credentials(auth: SecretStr) -> tuple[str, str]:
    """User and password of `USER:PASSWORD`.

    Raises:
        InputError: it is not of that form; the message does not show it.
    """
    user, colon, password = auth.get_secret_value().partition(":")
    if not (user and colon and password):
        raise InputError(f"{AUTH} is not of the form USER:PASSWORD")
    return user, password


def without_secrets(environment: dict[str, str]) -> dict[str, str]:
    """A copy without this program's secrets."""
    return {name: value for name, value in environment.items() if name not in (DATABASE, AUTH)}


def redacted(text: str, secrets: Iterable[str]) -> str:
    """`text` with every secret hidden; too short ones would hide everything and are left."""
    for value in sorted(secrets, key=len, reverse=True):
        if len(value) >= SHORTEST:
            text = text.replace(value, HIDDEN)
    return text
