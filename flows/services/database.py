"""One PostgreSQL server for both Prefect and MLflow: a database each, made where they are missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import SecretStr

from flows.services.secrets import DATABASE, redacted
from gnn.errors import InputError, one_line

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

DEFAULT_NAME = "sluice"
PREFECT_DRIVER, MLFLOW_DRIVER = "postgresql+asyncpg", "postgresql+psycopg"
CONNECT_TIMEOUT_S = 10


@dataclass(frozen=True)
class Databases:
    """The URLs that the two servers get; with their passwords, so only for environments."""

    prefect: SecretStr
    mlflow: SecretStr


def databases(url: SecretStr) -> Databases:
    """URLs of the two databases on the server that `url` names: NAME_prefect and NAME_mlflow (NAME from its path).

    Raises:
        InputError: it is no URL of PostgreSQL; the message does not show it.
    """
    parsed = _parsed(url)
    name = parsed.database or DEFAULT_NAME

    def text(driver: str, suffix: str) -> SecretStr:
        changed = parsed.set(drivername=driver, database=f"{name}_{suffix}")
        return SecretStr(changed.render_as_string(hide_password=False))

    return Databases(text(PREFECT_DRIVER, "prefect"), text(MLFLOW_DRIVER, "mlflow"))


def _parsed(url: SecretStr) -> URL:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url.get_secret_value())
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is None or parsed.get_backend_name() not in ("postgresql", "postgres") or not parsed.host:
        raise InputError(f"{DATABASE} is no URL of PostgreSQL; write postgresql://USER:PASSWORD@HOST:5432/NAME")
    return parsed


def make_databases(url: SecretStr) -> None:
    """Create the two databases that are missing.

    Raises:
        InputError: no driver is installed, or the server refuses; the message shows no password.
    """
    try:
        import psycopg
        from psycopg import sql
    except ImportError:
        raise InputError("PostgreSQL needs its driver: pip install 'sluice-materials[postgres]'") from None
    parsed = _parsed(url)
    name = parsed.database or DEFAULT_NAME
    try:
        with psycopg.connect(**_connection(parsed), connect_timeout=CONNECT_TIMEOUT_S, autocommit=True) as connection:
            for database in (f"{name}_prefect", f"{name}_mlflow"):
                found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database]).fetchone()
                if found is None:
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
    except psycopg.Error as error:
        told = redacted(one_line(error), [parsed.password or "", url.get_secret_value()])
        raise InputError(f"PostgreSQL at {parsed.host} cannot be used: {told}") from None


def _connection(parsed: URL) -> dict[str, object]:
    """How to reach the server's own database, which is always there."""
    return {
        "host": parsed.host,
        "port": parsed.port or 5432,
        "user": parsed.username,
        "password": parsed.password,
        "dbname": "postgres",
    }
