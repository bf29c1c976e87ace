"""MLflow's own accounts: the home's password names the administrator. No file of ours holds a password."""

from __future__ import annotations

import secrets
from pathlib import Path

from pydantic import SecretStr

from flows.services.secrets import credentials
from flows.settings import Home
from gnn.files import write_text

DATABASE_NAME, SETTINGS_NAME, ADMINISTRATOR_NAME = "mlflow-auth.db", "mlflow-auth.ini", "mlflow-administrator"


def database_of(home: Home) -> Path:
    """Where MLflow keeps the accounts, with hashes of their passwords."""
    return home.services.resolve() / DATABASE_NAME


def accounts_environment(home: Home, auth: SecretStr) -> dict[str, str]:
    """What an MLflow server with accounts gets."""
    path = home.services.resolve() / SETTINGS_NAME
    lines = ["[mlflow]", "default_permission = EDIT", f"database_uri = sqlite:///{database_of(home)}"]
    write_text(path, "\n".join(lines) + "\n")
    user, password = credentials(auth)
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(path),
        "MLFLOW_AUTH_ADMIN_USERNAME": user,
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_urlsafe(32),
    }


def settle_administrator(home: Home, auth: SecretStr) -> None:
    """Let the home's password be the one that counts, before a server starts; one of another name goes.

    MLflow makes an administrator that is missing, and leaves the password of one that is there as it was.
    """
    user, password = credentials(auth)
    known = home.services / ADMINISTRATOR_NAME
    before = known.read_text(encoding="utf-8") if known.is_file() else user
    if database_of(home).is_file():
        from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

        store = SqlAlchemyStore()
        store.init_db(f"sqlite:///{database_of(home)}")
        if store.has_user(user):
            store.update_user(user, password=password, is_admin=True)
        if before != user and store.has_user(before):
            store.delete_user(before)
    write_text(known, user)
