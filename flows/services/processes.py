"""Programs that outlive the terminal, and their descendants, known by a token in the environment they inherit."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

MARK = "SLUICE_SERVICE"
TERM_GRACE_S, FAMILY_GRACE_S, KILL_GRACE_S = 20.0, 5.0, 5.0
POLL_S = 0.1
KEPT_LOGS = 3


def start_detached(command: Sequence[str], environment: dict[str, str], token: str, log: Path, cwd: Path) -> int:
    """Start a program in its own session, away from the terminal, its output in `log`; its process id."""
    _keep_older(log)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = subprocess.Popen(  # noqa: S603
            list(command),
            env={**environment, MARK: token},
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            cwd=cwd,
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
    return process.pid


def _keep_older(log: Path) -> None:
    """Number the logs of earlier starts, and forget the oldest."""
    for number in range(KEPT_LOGS - 1, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        if older.exists():
            older.replace(log.with_name(f"{log.name}.{number + 1}"))
    if log.exists():
        log.replace(log.with_name(f"{log.name}.1"))


def carries(process: psutil.Process, token: str) -> bool:
    """Whether a living process was started under `token`; a number that was given to another program since is not."""
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return bool(process.environ().get(MARK) == token)
    except (psutil.Error, OSError):
        return False


def is_alive(pid: int | None, token: str) -> bool:
    """Whether the program that was started as `pid` under `token` still runs."""
    if pid is None or not psutil.pid_exists(pid):
        return False
    try:
        return carries(psutil.Process(pid), token)
    except psutil.Error:
        return False


def family(token: str) -> list[psutil.Process]:
    """Every living process that was started under `token`, in whatever way its ancestors ended."""
    return [process for process in psutil.process_iter() if carries(process, token)]


def memory_mb(token: str) -> tuple[int, float]:
    """How many processes carry `token`, and their resident memory in MB (shared pages counted in each)."""
    total, count = 0, 0
    for process in family(token):
        try:
            total += process.memory_info().rss
            count += 1
        except psutil.Error:
            continue
    return count, round(total / 1e6, 1)


def stop(pid: int | None, token: str, grace_s: float = TERM_GRACE_S) -> int:
    """End a program and all its descendants: first itself, then what it left, at last by force. How many there were."""
    members = family(token)
    leader = [process for process in members if process.pid == pid]
    _signal(leader, force=False)
    _wait(lambda: bool(leader) and carries(leader[0], token), grace_s)
    _signal(family(token), force=False)
    _wait(lambda: bool(family(token)), FAMILY_GRACE_S)
    _signal(family(token), force=True)
    _wait(lambda: bool(family(token)), KILL_GRACE_S)
    return len(members)


def _signal(processes: Sequence[psutil.Process], force: bool) -> None:
    for process in processes:
        try:
            process.kill() if force else process.terminate()
        except psutil.NoSuchProcess:
            continue


def _wait(still: Callable[[], bool], seconds: float) -> None:
    """Wait while `still` holds, at most `seconds`."""
    deadline = time.monotonic() + seconds
    while still() and time.monotonic() < deadline:
        time.sleep(POLL_S)


def last_lines(log: Path, count: int = 3) -> str:
    """The end of a log, for an error message."""
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except FileNotFoundError:
        return ""
    return " | ".join(lines[-count:])
