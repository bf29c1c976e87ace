"""One training in several processes on this machine: `torchrun` starts them, each runs this module's `main`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gnn.errors import SluiceError
from gnn.files import write_text

JOB_NAME, LOG_NAME = "job.json", "processes.log"
STOP_S = 20.0
"""Seconds that stopped processes have to end by themselves."""
ERROR_LINES = 3


def run_processes(job: dict[str, Any], folder: Path, devices: int) -> None:
    """Train the job (the arguments of `flows.members.train_in_folder`) in `devices` processes until it is finished.

    Raises:
        SluiceError: a process failed; the message has the end of what it said.
    """
    path, log = write_text(folder / JOB_NAME, json.dumps(job)), folder / LOG_NAME
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}"]
    with (
        log.open("w", encoding="utf-8") as output,
        ended([*torchrun, "-m", "flows.processes", str(path)], output) as it,
    ):
        code = it.wait()
    if code != 0:
        raise SluiceError(f"training in {devices} processes failed: {last_error(log)} (all of it in {log})")


@contextmanager
def ended(command: Sequence[str], output: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A running program that does not outlive the block."""
    # a flows.py in the current folder is not ours
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)  # noqa: S603
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def last_error(log: Path) -> str:
    """The last lines that name an error, in one."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    named = [line for line in lines if "Error:" in line and "ChildFailedError" not in line]
    return " / ".join((named or lines)[-ERROR_LINES:]) or "it said nothing"


def main(arguments: Sequence[str] | None = None) -> None:
    """The body of each process: train the job in the file that is the one argument."""
    from flows.members import train_in_folder

    (path,) = sys.argv[1:] if arguments is None else arguments
    train_in_folder(**json.loads(Path(path).read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
