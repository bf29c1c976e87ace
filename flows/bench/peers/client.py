"""A worker as a subprocess: one process a model, so that its memory is its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from flows.bench.peers.environments import PEERS, Peer, require
from gnn.errors import SluiceError

FOLDER = Path(__file__).resolve().parent
OWN = "sluice"
"""The name of our own networks among the contenders."""
TUNED = {
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
"""One thread, and glibc keeps what is freed: the same for every contender."""
SAID_LINES = 6


class Worker:
    """A running worker, asked by `ask`."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        with log.open("w", encoding="utf-8") as stream:
            self.process = subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stream, text=True, env=environment
            )

    def ask(self, **request: Any) -> dict[str, Any]:
        """One request's answer.

        Raises:
            SluiceError: the worker died; the message is the end of what it said.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise SluiceError(f"{self.name} failed at {request.get('do')!r}: {self.last_words()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def last_words(self) -> str:
        """The end of what a dying worker wrote on stderr."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=10)
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return " | ".join(line.strip() for line in lines[-SAID_LINES:]) or "it said nothing"

    def close(self) -> None:
        """End the worker."""
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):  # what a dead worker was last asked is still in the pipe
                self.process.stdin.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def command_of(contender: str, peers_home: Path) -> list[str]:
    """How a contender's worker is started: ours by this interpreter, a peer's by its own.

    Raises:
        InputError: the peer is not installed.
    """
    if contender == OWN:
        return [sys.executable, "-m", "flows.bench.own_worker"]
    peer: Peer = PEERS[contender]
    return [str(require(peer, peers_home)), "-m", f"workers.{peer.worker}"]


def environment_of(contender: str) -> dict[str, str]:
    """The tuned environment; peers find the workers' folder and nothing of ours."""
    base = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return base | TUNED | ({} if contender == OWN else {"PYTHONPATH": str(FOLDER)})


@contextmanager
def worker(contender: str, peers_home: Path) -> Iterator[Worker]:
    """A worker of our own networks (`sluice`) or of a peer while the block runs."""
    command = command_of(contender, peers_home)
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as scratch:
        started = Worker(contender, command, environment_of(contender), Path(scratch) / "stderr.txt")
        try:
            yield started
        finally:
            started.close()
