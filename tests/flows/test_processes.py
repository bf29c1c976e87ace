"""Processes that train together: they end with their parent, and say why they failed."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flows import processes
from gnn.errors import SluiceError


def test_a_program_does_not_outlive_its_block(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as output, pytest.raises(KeyboardInterrupt):  # noqa: SIM117
        with processes.ended([sys.executable, "-c", "import time; time.sleep(60)"], output) as program:
            started = time.monotonic()
            raise KeyboardInterrupt
    assert program.poll() is not None
    assert time.monotonic() - started < 15


def test_a_failure_has_the_words_of_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "print('x'); raise ValueError('no such file')"
    real = processes.ended

    def replaced(command: list[str], output: Any) -> Any:
        assert command[1:4] == ["-m", "torch.distributed.run", "--standalone"]
        return real([sys.executable, "-c", script], output)

    monkeypatch.setattr(processes, "ended", replaced)
    with pytest.raises(SluiceError, match="in 3 processes failed: ValueError: no such file"):
        processes.run_processes({"config": "{}"}, tmp_path, 3)
    assert (tmp_path / processes.JOB_NAME).is_file()
