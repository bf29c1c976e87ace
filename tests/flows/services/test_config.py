"""Settings of the services and their secrets."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from flows.services.config import ServiceSettings, is_loopback, read_settings
from flows.services.secrets import credentials, redacted, secret, without_secrets
from flows.settings import Home
from gnn.errors import InputError


def test_defaults_are_loopback_and_usual_ports() -> None:
    settings = ServiceSettings()
    assert not settings.is_wide
    assert settings.prefect_url == "http://127.0.0.1:4200/api"
    assert settings.mlflow_url == "http://127.0.0.1:5000"
    assert settings.dask_address == "tcp://127.0.0.1:8786"
    assert settings.dask_workers >= 1
    assert settings.auth() is None


def test_file_environment_and_command_line_in_rising_order(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    (home.root / "sluice.toml").write_text("[services]\nprefect_port = 1\nmlflow_port = 2\ndask_port = 3\n")
    monkeypatch.setenv("SLUICE_SERVICES_MLFLOW_PORT", "12")
    monkeypatch.setenv("SLUICE_SERVICES_DASK_PORT", "13")
    settings = read_settings(home, {"dask_port": 23, "host": None})
    assert (settings.prefect_port, settings.mlflow_port, settings.dask_port) == (1, 12, 23)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[services]\nprefect_prt = 1", "prefect_prt"),
        ("[services]\nprefect_port = 70000", "prefect_port"),
        ("[services]\nworkers = 0", "workers"),
        ("[services]\nhost = '::1'", "::1 is an IPv6 address"),
        ("[services]\nprefect_port = 5000", "must differ"),
        ("services = 3", "is no table"),
        ("[services", "is not TOML"),
    ],
)
def test_mistakes_are_named(home: Home, text: str, told: str) -> None:
    (home.root / "sluice.toml").write_text(text)
    with pytest.raises(InputError, match=told):
        read_settings(home, {})


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.3.2.1"])
def test_hosts_that_only_this_machine_reaches(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "node7", "example.org", ""])
def test_hosts_that_others_reach_need_a_password(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_loopback(host)
    settings = ServiceSettings(host=host)
    with pytest.raises(InputError, match="password is needed: set SLUICE_AUTH"):
        settings.auth()
    assert settings.dask_address.startswith("tls://")
    monkeypatch.setenv("SLUICE_AUTH", "ann:hunter22")
    assert settings.auth() == SecretStr("ann:hunter22")


def test_a_name_for_others(home: Home) -> None:
    settings = read_settings(home, {"host": "0.0.0.0", "address": "atoms.example.org"})
    assert settings.prefect_url == "http://atoms.example.org:4200/api"
    assert ServiceSettings(host="0.0.0.0").reached_at not in ("0.0.0.0", "")


def test_secrets_come_from_the_environment_or_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert secret("SLUICE_AUTH") is None
    (tmp_path / "one").write_text("ann:from-settings\n")
    (tmp_path / "two").write_text("ann:from-variable\n")
    assert secret("SLUICE_AUTH", tmp_path / "one") == SecretStr("ann:from-settings")
    monkeypatch.setenv("SLUICE_AUTH_FILE", str(tmp_path / "two"))
    assert secret("SLUICE_AUTH", tmp_path / "one") == SecretStr("ann:from-variable")
    monkeypatch.setenv("SLUICE_AUTH", "ann:itself")
    assert secret("SLUICE_AUTH") == SecretStr("ann:itself")


@pytest.mark.parametrize("content", [None, "", "  \n"])
def test_a_secret_that_cannot_be_read(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match="the secret SLUICE_AUTH"):
        secret("SLUICE_AUTH", path)


def test_files_with_secrets_are_remembered_by_absolute_path(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    (home.root / "sluice.toml").write_text('[services]\nauth_file = "keys/auth"\n')
    assert read_settings(home, {}).auth_file == home.root / "keys" / "auth"
    (home.root / "sluice.toml").write_text('[services]\nauth_file = "~/auth"\n')
    assert read_settings(home, {}).auth_file == Path.home() / "auth"
    monkeypatch.setenv("SLUICE_AUTH_FILE", "/elsewhere/auth")
    assert read_settings(home, {}).auth_file == Path("/elsewhere/auth")


@pytest.mark.parametrize("text", ["ann", "ann:", ":hunter22", ""])
def test_malformed_credentials_are_not_shown(text: str) -> None:
    with pytest.raises(InputError, match="not of the form USER:PASSWORD") as caught:
        credentials(SecretStr(text))
    assert not text or text not in str(caught.value).replace("USER:PASSWORD", "")


def test_children_get_no_secret_they_do_not_need() -> None:
    assert without_secrets({"SLUICE_AUTH": "a:b", "SLUICE_DATABASE_URL": "c", "PATH": "d"}) == {"PATH": "d"}


@given(before=st.text(), value=st.text(min_size=4), after=st.text())
def test_redacted_text_holds_no_secret(before: str, value: str, after: str) -> None:
    from flows.services.secrets import HIDDEN

    hidden = redacted(before + value + after, [value])
    assert value not in hidden or value in HIDDEN or value in before + HIDDEN + after or HIDDEN[0] in value


def test_longer_secrets_are_hidden_first() -> None:
    assert redacted("ann:hunter22 hunter22 ann", ["hunter22", "ann:hunter22"]) == "********** ********** ann"
