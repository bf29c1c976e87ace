"""Commands and environments of the real services, without starting them."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from pydantic import SecretStr

from flows.services.config import ServiceSettings
from flows.services.database import databases
from flows.services.programs import Setting, client_environment, describe_start, programs
from flows.services.tls import make_certificate, tls_environment, tls_folder
from flows.settings import Home
from gnn.errors import InputError

PASSWORD = "hunter2-Sesame!"
URL = SecretStr(f"postgresql://sluice:{PASSWORD.replace('!', '%21')}@db.example.org:5433/lab")


@pytest.fixture
def wide(home: Home) -> Setting:
    settings = ServiceSettings(host="0.0.0.0", address="atoms.example.org", workers=3)
    return Setting(home, settings, SecretStr(f"ann:{PASSWORD}"), databases(URL))


def test_on_loopback_everything_binds_there(home: Home) -> None:
    for program in programs(Setting(home, ServiceSettings())).values():
        assert "0.0.0.0" not in " ".join(program.command)
        assert "atoms" not in program.url
        if program.name != "worker":
            assert "127.0.0.1" in " ".join(program.command)


def test_no_secret_in_commands_or_records(wide: Setting) -> None:
    for program in programs(wide).values():
        record = describe_start(program, "token", 1, wide.home).model_dump_json()
        for word in (PASSWORD, PASSWORD.replace("!", "%21")):
            assert word not in " ".join(program.command)
            assert word not in record


def test_who_gets_which_secret(wide: Setting) -> None:
    def holders(word: str) -> set[str]:
        return {p.name for p in programs(wide).values() if any(word in value for value in p.environment.values())}

    assert holders(PASSWORD) == {"prefect", "mlflow", "worker"}
    assert holders("%21@db.example.org") == {"prefect", "mlflow"}


def test_secrets_of_the_shell_are_not_handed_on(wide: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_DATABASE_URL", "postgresql://x:yyyy@z/")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://others:1")
    monkeypatch.setenv("PREFECT_API_URL", "http://others:2/api")
    for program in programs(wide).values():
        assert "SLUICE_DATABASE_URL" not in program.environment
        assert not any("others" in value for value in program.environment.values())


def test_pages_are_told_their_own_address(home: Home) -> None:
    settings = ServiceSettings(prefect_port=4317)
    environment = programs(Setting(home, settings))["prefect"].environment
    assert environment["PREFECT_SERVER_UI_API_URL"] == "http://127.0.0.1:4317/api"
    assert environment["PREFECT_API_URL"] == "http://127.0.0.1:4317/api"


def test_databases_lie_under_the_home_or_on_postgres(home: Home, wide: Setting) -> None:
    own = programs(Setting(home, ServiceSettings()))
    assert str(home.services) in own["prefect"].environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"]
    assert own["mlflow"].environment["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{home.mlruns / 'mlflow.db'}"
    theirs = programs(wide)
    assert theirs["prefect"].environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"].startswith("postgresql+asyncpg://")
    assert theirs["mlflow"].environment["MLFLOW_BACKEND_STORE_URI"].endswith("@db.example.org:5433/lab_mlflow")


@pytest.mark.parametrize("url", ["mysql://a:hunter22@b/c", "hunter22", "postgresql:///nohost", ""])
def test_what_is_no_url_of_postgres_is_not_shown(url: str) -> None:
    with pytest.raises(InputError, match="no URL of PostgreSQL") as caught:
        databases(SecretStr(url))
    assert "hunter22" not in str(caught.value)


def test_beyond_loopback_all_want_proof(wide: Setting) -> None:
    found = programs(wide)
    assert "PREFECT_SERVER_API_AUTH_STRING" in found["prefect"].environment
    assert found["mlflow"].command[-2:] == ["--app-name", "basic-auth"]
    assert found["mlflow"].environment["MLFLOW_AUTH_ADMIN_USERNAME"] == "ann"
    assert found["dask"].command[-2:] == ["--protocol", "tls"]
    for name in ("dask", "dask-workers", "worker"):
        assert found[name].environment["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] == "true"
    hosts = found["mlflow"].command[found["mlflow"].command.index("--allowed-hosts") + 1]
    assert "atoms.example.org:5000" in hosts
    origins = found["mlflow"].command[found["mlflow"].command.index("--cors-allowed-origins") + 1]
    assert "http://atoms.example.org:5000" in origins.split(",")
    assert "*" not in hosts


def test_the_token_of_a_program_is_not_written_over(wide: Setting) -> None:
    """By setproctitle, which rewrites what /proc shows of a process; its own word for leaving the environment alone."""
    assert {program.environment["SPT_NOENV"] for program in programs(wide).values()} == {"1"}


def test_accounts_of_mlflow_hold_no_password(wide: Setting) -> None:
    path = Path(programs(wide)["mlflow"].environment["MLFLOW_AUTH_CONFIG_PATH"])
    assert PASSWORD not in path.read_text()


def test_clients_get_what_they_need(home: Home, wide: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "intranet")
    plain = client_environment(Setting(home, ServiceSettings()))
    assert plain["SLUICE_CLUSTER"] == "tcp://127.0.0.1:8786"
    assert plain["NO_PROXY"] == "intranet,127.0.0.1,localhost"
    assert not [name for name in plain if "PASSWORD" in name or "AUTH" in name]
    found = client_environment(wide)
    assert found["PREFECT_API_AUTH_STRING"] == f"ann:{PASSWORD}"
    assert (found["MLFLOW_TRACKING_USERNAME"], found["MLFLOW_TRACKING_PASSWORD"]) == ("ann", PASSWORD)
    assert found["SLUICE_CLUSTER"] == "tls://atoms.example.org:8786"


def test_the_certificate_is_made_once_and_private(home: Home) -> None:
    folder = make_certificate(home)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    make_certificate(home)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(tls_folder(home).stat().st_mode) == 0o700
    assert set(before) == {"dask.crt", "dask.key"}
    assert all(Path(value).is_file() for name, value in tls_environment(home).items() if "TLS" in name)


@pytest.mark.slow
def test_dask_takes_the_certificate_and_refuses_who_has_none(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import Client, LocalCluster, Security

    folder = make_certificate(home)
    crt, key = str(folder / "dask.crt"), str(folder / "dask.key")
    proof = Security(
        require_encryption=True, tls_ca_file=crt, tls_scheduler_cert=crt, tls_scheduler_key=key,
        tls_worker_cert=crt, tls_worker_key=key, tls_client_cert=crt, tls_client_key=key,
    )  # fmt: skip
    other = make_certificate(Home(home.root / "other"))
    stranger = Security(
        require_encryption=True, tls_ca_file=crt,
        tls_client_cert=str(other / "dask.crt"), tls_client_key=str(other / "dask.key"),
    )  # fmt: skip
    quiet = {"processes": False, "dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=1, security=proof, protocol="tls", host="127.0.0.1", **quiet) as cluster:
        with Client(cluster.scheduler_address, security=proof, timeout=10) as client:
            assert client.submit(sum, [1, 2]).result() == 3
        with pytest.raises(OSError, match=r"."):
            Client(cluster.scheduler_address, security=stranger, timeout=2)
