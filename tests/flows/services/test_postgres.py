"""PostgreSQL under both servers by one setting, on a real PostgreSQL server where one is installed."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from flows.services import processes
from flows.services.database import databases, make_databases
from flows.services.secrets import DATABASE
from flows.services.state import read_state
from flows.settings import Home
from gnn.errors import InputError

pytestmark = [pytest.mark.server, pytest.mark.timeout(900)]
PASSWORD = "hunter2 Sesame/%"
QUOTED = "hunter2%20Sesame%2F%25"


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server of its own."""
    pytest.importorskip("psycopg")
    initdb, server = _program("initdb"), _program("postgres")
    if initdb is None or server is None:
        pytest.skip("no PostgreSQL here")
    folder = Path(tempfile.mkdtemp(prefix="sluice-pg-"))
    user = _someone(folder)
    (folder / "password").write_text(PASSWORD)
    shutil.chown(folder / "password", user) if user else None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = folder / "data"
    options = ["-D", data, "-U", "ann", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}", "--no-sync"]
    subprocess.run([initdb, *options], user=user, check=True, capture_output=True, cwd=folder)
    command = [server, "-D", data, "-p", str(port), "-k", folder, "-c", "fsync=off", "-h", "127.0.0.1"]
    running = subprocess.Popen(command, user=user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
    try:
        _wait_for(port)
        yield f"postgresql://ann:{QUOTED}@127.0.0.1:{port}/lab"
    finally:
        running.terminate()
        running.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _program(name: str) -> str | None:
    """A program on the path, or where Debian keeps those that only an administrator starts."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return shutil.which(name, path=os.pathsep.join([os.environ["PATH"], *map(str, debian)]))


def _someone(folder: Path) -> str | None:
    """PostgreSQL refuses to run as root: whose name it gets instead."""
    if os.geteuid() != 0:
        return None
    name = "postgres" if any(p.pw_name == "postgres" for p in pwd.getpwall()) else "nobody"
    shutil.chown(folder, name)
    return name


def _wait_for(port: int) -> None:
    import time

    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("PostgreSQL did not start")


def names(url: str) -> set[str]:
    import psycopg

    with psycopg.connect(url.rpartition("/")[0] + "/postgres") as connection:
        return {row[0] for row in connection.execute("SELECT datname FROM pg_database").fetchall()}


def test_databases_are_made_once(postgres: str) -> None:
    make_databases(SecretStr(postgres))
    make_databases(SecretStr(postgres))
    assert {"lab_prefect", "lab_mlflow"} <= names(postgres)
    found = databases(SecretStr(postgres))
    assert QUOTED.split("%")[0] in found.prefect.get_secret_value()


def test_a_refusal_shows_no_password(postgres: str) -> None:
    wrong = postgres.replace(QUOTED, "hunter3-wrong")
    with pytest.raises(InputError, match=r"PostgreSQL at 127\.0\.0\.1 cannot be used") as caught:
        make_databases(SecretStr(wrong))
    assert "hunter" not in str(caught.value)
    with pytest.raises(InputError, match="cannot be used"):
        make_databases(SecretStr("postgresql://ann:hunter22@127.0.0.1:1/lab"))


STORE = """
import sys
from pathlib import Path
from flows.registry import find, register
from flows.services.discover import use_running
from flows.settings import Home
home = Home(Path(sys.argv[1]))
use_running(home)
if len(sys.argv) > 2:
    register(Path(sys.argv[2]), "copper", home)
print(find("copper", home).sha256)
"""


@pytest.mark.long
def test_both_servers_keep_everything_there(
    postgres: str, home: Home, ports: dict[str, int], tmp_path: Path, repository: Path
) -> None:
    import runpy

    make = runpy.run_path(str(repository / "tests" / "flows" / "test_registry.py"))["make_checkpoint"]
    checkpoint = make(tmp_path / "checkpoint", 0)
    options = [word for name, port in ports.items() for word in (f"--{name.replace('_', '-')}", str(port))]
    up = ["up", *options, "--workers", "1", "--timeout", "500"]
    with_url = {DATABASE: postgres}
    try:
        sluice(home, *up, **with_url)
        sha = run([sys.executable, "-c", STORE, str(home.root), str(checkpoint)], home).strip()
        state = read_state(home)
        assert state is not None
        check_no_secret(home, [token.token for token in state.services.values()])
        sluice(home, "down")
        assert not (home.mlruns / "mlflow.db").exists()
        done = attempt([sluice_program(), "models", "ls"], home)
        assert done.returncode == 2
        assert "keeps its runs and models on PostgreSQL" in done.stderr
        sluice(home, *up, **with_url)
        assert run([sys.executable, "-c", STORE, str(home.root)], home).strip() == sha
    finally:
        sluice(home, "down")


def check_no_secret(home: Home, tokens: list[str]) -> None:
    for path in home.root.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert PASSWORD.encode() not in content, path
            assert QUOTED.encode() not in content, path
    for token in tokens:
        for process in processes.family(token):
            words = " ".join(process.cmdline())
            assert PASSWORD not in words
            assert QUOTED not in words


def sluice_program() -> str:
    return str(Path(sys.executable).with_name("sluice"))


def sluice(home: Home, *arguments: str, **variables: str) -> Any:
    return json.loads(run([sluice_program(), *arguments, "--json"], home, **variables))


def run(command: list[str], home: Home, **variables: str) -> str:
    done = attempt(command, home, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


def attempt(command: list[str], home: Home, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SLUICE_HOME": str(home.root), **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, cwd=home.root)
