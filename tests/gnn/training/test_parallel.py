"""Two processes that train together do what one with the double batch does."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from gnn.errors import InputError
from gnn.structures.properties import PropertySpec
from gnn.training.config import make_config
from gnn.training.evaluation import Accumulator
from gnn.training.loop import Trainer, train
from gnn.training.losses import Scales, Wanted, label_masks
from gnn.training.parallel import Alone, add_up_gradients, own_device, replicas
from gnn.training.resolve import resolve
from gnn.training.state import read_state
from gnn.training.step import EagerStep
from gnn.training.tracker import NullTracker

SCRIPT = """
import importlib.util, json, os, signal, sys
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
torch.distributed.init_process_group("gloo")
for text in sys.argv[3:]:
    job = json.loads(text)
    def stop(progress):
        if progress.step == job["stop_at"]:
            os.kill(os.getpid(), signal.SIGKILL)
    recipe = resolve(make_config(job["config"]), data.graph_set)
    train(recipe, data, Path(sys.argv[2]) / job["name"], progress=stop)
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def run_two(tmp_path: Path) -> Callable[..., list[int]]:
    """A maker of two connected processes that train one job after the other; gives their exit codes."""

    def launch(*jobs: str) -> list[int]:
        helpers = Path(__file__).with_name("conftest.py")
        command = [sys.executable, "-c", SCRIPT, str(helpers), str(tmp_path), *jobs]
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        shared |= {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        each = [
            subprocess.Popen(command, env=os.environ | shared | {"RANK": str(k), "LOCAL_RANK": str(k)})
            for k in range(2)
        ]
        first = each[0].wait()
        if first != 0:
            each[1].kill()
        return [first, each[1].wait()]

    return launch


@pytest.fixture
def job(tiny_config: Callable[..., Any]) -> Callable[..., str]:
    import json

    def make(name: str, max_atoms: int, stop_at: int = -1, **changes: Any) -> str:
        config = tiny_config(devices=2, batch={"max_atoms": max_atoms}, dtype="float64", **changes)
        return json.dumps({"name": name, "config": config.model_dump(mode="json"), "stop_at": stop_at})

    return make


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    state = read_state(folder)
    assert state is not None
    return {k: v for k, v in load_file(folder / state.tensors).items() if k.startswith(("weights.", "ema."))}


@pytest.mark.slow
def test_two_processes_equal_one_with_the_double_batch_and_survive_a_kill(
    copper: Any, tiny_recipe: Callable[..., Any], job: Callable[..., str], run_two: Callable[..., Any], tmp_path: Path
) -> None:
    muon = {"kind": "muon", "lr": 0.02}
    # 16 structures of 4 atoms: 8 batches of 2; then 3 batches of 6, 6 and 4, the last without a partner
    assert run_two(job("even", 8), job("odd", 24, optimiser=muon)) == [0, 0]
    for name, double, changes in (("even", 16, {}), ("odd", 48, {"optimiser": muon})):
        recipe = tiny_recipe(batch={"max_atoms": double}, dtype="float64", **changes)
        alone = train(recipe, copper, tmp_path / f"{name}-alone")
        together = read_state(tmp_path / name)
        assert together is not None
        assert together.finished
        assert (together.step, together.structures) == (alone.steps, alone.structures)
        expected, found = (final_weights(tmp_path / folder) for folder in (f"{name}-alone", name))
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-6, atol=1e-8)
        for mine, theirs in zip(together.curve, alone.curve, strict=True):
            assert mine.train == pytest.approx(theirs.train, rel=1e-5)
            assert mine.valid == pytest.approx(theirs.valid, rel=1e-5)

    cut = job("cut", 8, stop_at=6, checkpoint_s=1e-9)
    assert run_two(cut)[0] == -signal.SIGKILL
    assert run_two(job("cut", 8, checkpoint_s=1e-9)) == [0, 0]
    resumed, whole = final_weights(tmp_path / "cut"), final_weights(tmp_path / "even")
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)
    assert read_state(tmp_path / "cut").resumes == 1


def test_parts_of_a_batch_add_up_to_the_whole(copper: Any, tiny_recipe: Callable[..., Any]) -> None:
    from gnn.models.model import build_model

    recipe = tiny_recipe(dtype="float64")
    model = build_model(recipe.model).double()
    step = EagerStep(model, recipe.config.losses, Scales(), Wanted(True, True))
    whole = next(copper.batches("train", 48, shuffle=False))
    assert whole.n_structures == 12
    parts = list(copper.batches("train", 24, shuffle=False))[:2]
    counts = {name: float(mask.sum()) for name, mask in label_masks(whole, Wanted(True, True)).items()}
    together = step(whole, 0.3, None)
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    found = [step(part, 0.3, counts) for part in parts]
    for name, value in together.items():
        torch.testing.assert_close(found[0][name] + found[1][name], value)
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_a_parameter_that_no_process_has_a_gradient_for_keeps_none() -> None:
    here, there, nowhere = parameters = [torch.ones(2, requires_grad=True) for _ in range(3)]
    here.grad = torch.full((2,), 3.0)
    loss = torch.tensor(2.0)

    class Two(Alone):
        """This process and one that has a gradient of the second parameter alone."""

        def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
            theirs = [torch.zeros(2), torch.full((2,), 5.0), torch.zeros(2), torch.tensor([0.0, 1.0, 0.0]), loss]
            for mine, other in zip(tensors, theirs, strict=True):
                mine += other

    add_up_gradients(Two(), parameters, [loss])
    assert here.grad.tolist() == [3.0, 3.0]
    assert there.grad is not None
    assert there.grad.tolist() == [5.0, 5.0]
    assert nowhere.grad is None
    assert float(loss) == 4.0


def test_a_step_without_labels_of_a_property_leaves_its_head_as_one_process_does(
    copper: Any, make_data: Callable[..., Any], tiny_config: Callable[..., Any], tmp_path: Path
) -> None:
    graphs = [replace(g, properties={"gap": 0.1 * k} if k < 12 else {}) for k, g in enumerate(copper.held["train"])]
    data = make_data(graphs, {"gap": PropertySpec(unit="eV")})
    recipe = resolve(tiny_config(), data.graph_set)
    labelled, unlabelled = (data._collate(part) for part in (graphs[:4], graphs[12:]))
    found = []
    for shared in (False, True):
        trainer = Trainer(recipe, data, tmp_path / f"{shared}", NullTracker(), None)
        for batch in (labelled, unlabelled):
            before = {n: p.detach().clone() for n, p in trainer.parameters.items() if n.startswith("property_heads")}
            counts = {name: float(mask.sum()) for name, mask in label_masks(batch, recipe.wanted).items()}
            trainer._descend(batch, counts if shared else None)
        assert all(torch.equal(trainer.parameters[name], value) for name, value in before.items())
        found.append({name: value.detach() for name, value in trainer.parameters.items()})
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value)


def test_sums_of_parts_of_a_set_give_its_errors(copper: Any, tiny_recipe: Callable[..., Any]) -> None:
    from gnn.models.model import build_model

    model = build_model(tiny_recipe().model)

    def accumulated(start: int, stride: int) -> Accumulator:
        accumulator = Accumulator(model.config.theories, {})
        for batch in copper.batches("valid", 4, shuffle=False, start=start, stride=stride):
            accumulator.add(batch, model.predict(batch))
        return accumulator

    whole, first, second = accumulated(0, 1), accumulated(0, 2), accumulated(1, 2)
    first.replace_totals([a + b for a, b in zip(first.totals(), second.totals(), strict=True)])
    assert first.result().headline() == pytest.approx(whole.result().headline())
    assert first.result().metrics.n_structures == whole.result().metrics.n_structures


def test_one_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with replicas("cpu") as (processes, device):
        assert isinstance(processes, Alone)
        assert device.type == "cpu"
        assert processes.summed([1.0, 2.0]) == [1.0, 2.0]
    assert own_device("cpu", 3).type == "cpu"


def test_processes_that_were_not_started_are_missed(
    copper: Any, tiny_recipe: Callable[..., Any], run_folder: Path
) -> None:
    with pytest.raises(InputError, match="devices = 2, but 1 process"):
        train(tiny_recipe(devices=2), copper, run_folder)
    with pytest.raises(InputError, match="devices or committee"):
        make_config({"epochs": 1, "devices": 2, "committee": 2})
    for several in ("devices", "committee"):
        with pytest.raises(InputError, match="a device of its own; give cuda, not cuda:1"):
            make_config({"epochs": 1, several: 2, "device": "cuda:1"})
