"""The administrator of MLflow is who the home's password says, on MLflow's own store."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from flows.services.accounts import accounts_environment, database_of, settle_administrator
from flows.settings import Home

FIRST, SECOND = "the-first-password", "the-second-password"


@pytest.fixture
def accounts(home: Home) -> Any:
    """MLflow's accounts after a first start as ann."""
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

    settle_administrator(home, SecretStr(f"ann:{FIRST}"))
    store = SqlAlchemyStore()
    store.init_db(f"sqlite:///{database_of(home)}")
    store.create_user("ann", FIRST, is_admin=True)  # as MLflow does where there is nobody
    store.create_user("bob", FIRST)
    return store


def test_a_new_password_takes_the_place_of_the_old(home: Home, accounts: Any) -> None:
    settle_administrator(home, SecretStr(f"ann:{SECOND}"))
    assert accounts.authenticate_user("ann", SECOND)
    assert not accounts.authenticate_user("ann", FIRST)


def test_an_administrator_of_another_name_takes_the_place_of_the_old(home: Home, accounts: Any) -> None:
    settle_administrator(home, SecretStr(f"eve:{SECOND}"))
    assert not accounts.has_user("ann")
    assert accounts.authenticate_user("bob", FIRST)
    settle_administrator(home, SecretStr(f"bob:{SECOND}"))
    assert accounts.get_user("bob").is_admin
    assert accounts.authenticate_user("bob", SECOND)


def test_no_file_of_ours_holds_a_password(home: Home) -> None:
    auth = SecretStr(f"ann:{FIRST}")
    accounts_environment(home, auth)
    settle_administrator(home, auth)
    assert all(FIRST not in path.read_text() for path in home.services.iterdir())
