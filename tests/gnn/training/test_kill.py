"""kill -9 at any moment, then the same call: the same weights, bit for bit, and no finished step repeated."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from gnn.training.state import read_state

SCRIPT = """
import importlib.util, json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
spec = importlib.util.spec_from_file_location("helpers", sys.argv[1])
helpers = importlib.util.module_from_spec(spec); sys.modules["helpers"] = helpers; spec.loader.exec_module(helpers)
from gnn.graphs.graph import graph_of_atoms
from gnn.training.config import make_config
from gnn.training.loop import train
from gnn.training.resolve import resolve
graphs = [graph_of_atoms(a, helpers.CUTOFF, "copper", helpers.THEORY) for a in helpers.labelled_copper(24)]
held = {"valid": graphs[:4], "test": graphs[4:8], "train": graphs[8:]}
data = helpers.MemoryData(helpers.make_graph_set(held, {}), held)
recipe = resolve(make_config(json.loads(sys.argv[3])), data.graph_set)
train(recipe, data, Path(sys.argv[2]), progress=lambda p: print(p.step, flush=True))
print("done", flush=True)
"""


@pytest.fixture
def start(tmp_path: Path, tiny_config: Callable[..., Any]) -> Callable[..., subprocess.Popen[str]]:
    """A maker of training processes that print each step."""
    config = tiny_config(epochs=6, checkpoint_s=1e-3).model_dump_json()
    helpers = Path(__file__).with_name("conftest.py")

    def launch(folder: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SCRIPT, str(helpers), str(folder), config]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)

    return launch


def steps_until(process: subprocess.Popen[str], last: int) -> list[int]:
    """Read steps until one is `last` or the process ends."""
    seen = []
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "done":
            break
        seen.append(int(line))
        if seen[-1] >= last:
            break
    return seen


@pytest.mark.slow
def test_killed_twice_it_ends_with_the_same_weights(tmp_path: Path, start: Callable[..., Any]) -> None:
    whole = start(tmp_path / "whole")
    all_steps = steps_until(whole, 10**9)
    assert whole.wait() == 0

    folder = tmp_path / "killed"
    seen: list[int] = []
    for stop_at in (5, 13):
        process = start(folder)
        seen += steps_until(process, stop_at)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert process.stdout is not None
        seen += [int(line) for line in process.stdout if line.strip().isdigit()]
        time.sleep(0.05)
    last = start(folder)
    resumed = steps_until(last, 10**9)
    assert last.wait() == 0

    expected, found = (read_state(path) for path in (tmp_path / "whole", folder))
    assert expected is not None
    assert found is not None
    assert found.resumes == 2
    assert (found.step, found.structures) == (expected.step, expected.structures)
    assert [record.train for record in found.curve] == [record.train for record in expected.curve]
    assert [record.valid for record in found.curve] == [record.valid for record in expected.curve]
    mine, theirs = load_file(folder / found.tensors), load_file(tmp_path / "whole" / expected.tensors)
    assert all(mine[name].equal(theirs[name]) for name in theirs)
    # of finished steps at most those since the last written state ran again
    assert resumed[0] > 12
    assert len(seen) + len(resumed) <= len(all_steps) + 4
