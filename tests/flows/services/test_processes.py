"""Real programs: started apart from the terminal, known by their mark, ended with all descendants."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from flows.services import processes

NEST = """
import subprocess, sys, time
leaf = "import time; time.sleep(600)"
begin = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {!r}], start_new_session=True)"
middle = begin.format(leaf) + "; time.sleep(600)"
subprocess.Popen([sys.executable, "-c", middle])
print("nest", flush=True)
time.sleep(600)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""


def start(script: str, token: str, folder: Path) -> int:
    return processes.start_detached([sys.executable, "-c", script], dict(os.environ), token, folder / "x.log", folder)


@pytest.fixture
def token(request: pytest.FixtureRequest) -> str:
    found = f"token-of-{request.node.name}-{os.getpid()}"
    request.addfinalizer(lambda: processes.stop(None, found, grace_s=0.1))
    return found


def test_a_program_stands_apart_from_the_terminal(tmp_path: Path, token: str, until: Callable[..., None]) -> None:
    pid = start("print('hello', flush=True); import time; time.sleep(600)", token, tmp_path)
    log = tmp_path / "x.log"
    until(lambda: "hello" in log.read_text())
    assert os.getsid(pid) == pid != os.getsid(0)
    assert Path(f"/proc/{pid}/fd/0").readlink() == Path("/dev/null")
    assert oct(log.stat().st_mode)[-3:] == "600"
    assert processes.is_alive(pid, token)
    assert not processes.is_alive(pid, "another")
    assert not processes.is_alive(None, token)


def test_all_descendants_end_even_those_that_left_the_session(
    tmp_path: Path, token: str, until: Callable[..., None]
) -> None:
    pid = start(NEST, token, tmp_path)
    until(lambda: len(processes.family(token)) == 3)
    assert processes.stop(pid, token) == 3
    assert processes.family(token) == []
    assert not processes.is_alive(pid, token)


def test_descendants_of_a_killed_program_are_found(tmp_path: Path, token: str, until: Callable[..., None]) -> None:
    pid = start(NEST, token, tmp_path)
    until(lambda: len(processes.family(token)) == 3)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not processes.is_alive(pid, token))
    assert len(processes.family(token)) == 2
    assert processes.stop(pid, token) == 2
    assert processes.family(token) == []


def test_who_does_not_listen_is_ended_by_force(
    tmp_path: Path, token: str, until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "FAMILY_GRACE_S", 0.2)
    pid = start(STUBBORN, token, tmp_path)
    until(lambda: "deaf" in (tmp_path / "x.log").read_text())
    assert processes.stop(pid, token, grace_s=0.2) == 1
    assert processes.family(token) == []


def test_nobody_else_is_touched(tmp_path: Path, token: str, until: Callable[..., None]) -> None:
    other = f"{token}-other"
    theirs = start("import time; time.sleep(600)", other, tmp_path)
    try:
        until(lambda: processes.is_alive(theirs, other))
        assert processes.stop(theirs, token) == 0  # a number that belongs to another program by now
        assert processes.is_alive(theirs, other)
    finally:
        processes.stop(theirs, other, grace_s=0.5)


def test_memory_and_logs(tmp_path: Path, token: str, until: Callable[..., None]) -> None:
    start(NEST, token, tmp_path)
    until(lambda: len(processes.family(token)) == 3)
    count, megabytes = processes.memory_mb(token)
    assert count == 3
    assert 5 < megabytes < 500
    assert processes.memory_mb("nobody") == (0, 0.0)


def test_earlier_logs_are_kept_a_while(tmp_path: Path, token: str, until: Callable[..., None]) -> None:
    log = tmp_path / "x.log"
    for number in range(6):
        pid = start(f"print({number})", token, tmp_path)
        until(lambda pid=pid: not psutil.pid_exists(pid) or not processes.is_alive(pid, token))
        until(lambda: log.read_text() != "")
    assert log.read_text() == "5\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.log", "x.log.1", "x.log.2", "x.log.3"]
    assert (tmp_path / "x.log.3").read_text() == "2\n"


def test_last_lines(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"one\n\n two \nthree\nfo\xffur\n")
    assert processes.last_lines(tmp_path / "log", 2) == "three | fo\ufffdur"
    assert processes.last_lines(tmp_path / "none") == ""
