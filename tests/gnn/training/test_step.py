"""A compiled step has the eager step's gradient, for every size and loss, or says why it is not compiled."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gnn.models.model import Model, build_model
from gnn.models.network import FAMILIES
from gnn.models.program import CompileWarning
from gnn.training.config import TrainConfig
from gnn.training.loop import train
from gnn.training.losses import Scales, Wanted
from gnn.training.step import CompiledStep, EagerStep, Step, make_step

BOTH = Wanted(forces=True, stress=True)
WEIGHED = {"energy": {"weight": 1.0, "late_weight": 10.0}}


def as_it_is(graph: Any) -> Any:
    """Stands for a compiler: the traced graph itself."""
    return graph


@pytest.fixture
def model(tiny_recipe: Callable[..., Any]) -> Model:
    return build_model(tiny_recipe().model, seed=1)


@pytest.fixture(params=FAMILIES)
def of_any_family(request: pytest.FixtureRequest, tiny_recipe: Callable[..., Any]) -> Model:
    return build_model(tiny_recipe().model.model_copy(update={"family": request.param, "edge_l_max": 2}), seed=1)


def gradient(step: Step, model: Model, batch: Any) -> tuple[dict[str, Tensor], list[Tensor]]:
    model.zero_grad()
    losses = step(batch, 0.7, None)
    return losses, [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]


def assert_same_gradient(compiled: Step, eager: Step, model: Model, batch: Any) -> None:
    mine, plain = gradient(compiled, model, batch), gradient(eager, model, batch)
    assert mine[0].keys() == plain[0].keys()
    for name, value in plain[0].items():
        torch.testing.assert_close(mine[0][name], value, rtol=1e-4, atol=1e-6)
    for own, other in zip(mine[1], plain[1], strict=True):
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-5)


def test_one_trace_serves_batches_of_all_sizes(
    of_any_family: Model, copper: Any, tiny_config: Callable[..., TrainConfig]
) -> None:
    model, losses = of_any_family, tiny_config(losses=WEIGHED).losses
    with warnings.catch_warnings():
        warnings.simplefilter("error", CompileWarning)
        compiled = CompiledStep(model, losses, Scales(), BOTH, as_it_is)
        for max_atoms in (16, 4, 48):
            batch = next(copper.batches("train", max_atoms))
            assert_same_gradient(compiled, EagerStep(model, losses, Scales(), BOTH), model, batch)
    assert compiled.is_checked


def test_a_batch_without_labels_proves_nothing(
    model: Model, copper: Any, tiny_config: Callable[..., TrainConfig]
) -> None:
    batch = next(copper.batches("train", 16))
    masks = {
        name: torch.zeros_like(getattr(batch.labels, name)) for name in ("energy_mask", "force_mask", "stress_mask")
    }
    blank = replace(batch, labels=replace(batch.labels, **masks))
    compiled = CompiledStep(model, tiny_config(losses=WEIGHED).losses, Scales(), BOTH, as_it_is)
    assert compiled(blank, 0.7, None) == {}
    assert not compiled.is_checked
    compiled(batch, 0.7, None)
    assert compiled.is_checked


def test_the_check_leaves_gradients_as_they_were(
    model: Model, copper: Any, tiny_config: Callable[..., TrainConfig]
) -> None:
    losses, batch = tiny_config(losses=WEIGHED).losses, next(copper.batches("train", 16))
    once = gradient(EagerStep(model, losses, Scales(), BOTH), model, batch)[1]
    compiled = CompiledStep(model, losses, Scales(), BOTH, as_it_is)
    compiled(batch, 0.7, None)  # on top of the gradient that is there
    for parameter, expected in zip(model.parameters(), once, strict=True):
        found = torch.zeros_like(expected) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(found, 2 * expected, rtol=1e-3, atol=1e-5)


def test_weights_that_have_changed_are_used(model: Model, copper: Any, tiny_config: Callable[..., TrainConfig]) -> None:
    losses, batch = tiny_config(losses=WEIGHED).losses, next(copper.batches("train", 16))
    compiled = CompiledStep(model, losses, Scales(), BOTH, as_it_is)
    compiled(batch, 0.7, None)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.9)
    assert_same_gradient(compiled, EagerStep(model, losses, Scales(), BOTH), model, batch)


def test_a_program_with_another_gradient_is_not_used(
    model: Model, copper: Any, tiny_config: Callable[..., TrainConfig]
) -> None:
    losses, batch = tiny_config(losses=WEIGHED).losses, next(copper.batches("train", 16))
    wrong = CompiledStep(
        model, losses, Scales(), BOTH, lambda graph: lambda *tensors: [1.1 * found for found in graph(*tensors)]
    )
    with pytest.warns(CompileWarning, match="changes the gradient from"):
        found = gradient(wrong, model, batch)
    plain = gradient(EagerStep(model, losses, Scales(), BOTH), model, batch)
    assert all(torch.equal(mine, own) for mine, own in zip(found[1], plain[1], strict=True))


def test_a_compiler_that_fails_gives_its_reason(
    model: Model, copper: Any, tiny_config: Callable[..., TrainConfig]
) -> None:
    def broken(graph: Any) -> Any:
        raise RuntimeError("no C++ compiler\nfound")

    step = CompiledStep(model, tiny_config(losses=WEIGHED).losses, Scales(), BOTH, broken)
    with pytest.warns(CompileWarning, match="RuntimeError: no C\\+\\+ compiler found"):
        assert step(next(copper.batches("train", 16)), 0.0, None)
    assert not step.is_checked


def test_what_cannot_be_compiled_is_said_at_once(model: Model, tiny_config: Callable[..., TrainConfig]) -> None:
    losses = tiny_config(losses=WEIGHED).losses
    with pytest.warns(CompileWarning, match="neither forces nor stresses"):
        CompiledStep(model, losses, Scales(), Wanted(forces=False, stress=False))


def test_the_configuration_chooses_the_step(model: Model, tiny_config: Callable[..., TrainConfig]) -> None:
    assert isinstance(make_step(model, tiny_config(), Scales(), BOTH), EagerStep)
    assert isinstance(make_step(model, tiny_config(compile=True), Scales(), BOTH), CompiledStep)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_compiled_training_learns_what_an_eager_one_does(
    copper: Any, tiny_recipe: Callable[..., Any], tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", CompileWarning)
        compiled = train(tiny_recipe(epochs=3, compile=True), copper, tmp_path / "compiled")
    eager = train(tiny_recipe(epochs=3), copper, tmp_path / "eager")
    assert compiled.steps == eager.steps
    for mine, plain in zip(compiled.curve, eager.curve, strict=True):
        assert mine.train == pytest.approx(plain.train, rel=1e-2)
