import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gnn.training.clipping import clip_gradients, running_norm

norms = st.floats(1e-6, 1e6)


def with_gradient(*values: float) -> list[torch.Tensor]:
    parameters = [torch.zeros(1, dtype=torch.float64, requires_grad=True) for _ in values]
    for parameter, value in zip(parameters, values, strict=True):
        parameter.grad = torch.full_like(parameter, value)
    return parameters


@given(norm=norms, running=norms, largest=st.floats(1.0, 10.0))
def test_no_gradient_is_longer_than_so_many_running_norms(norm: float, running: float, largest: float) -> None:
    parameters = with_gradient(0.6 * norm, 0.8 * norm)
    assert clip_gradients(parameters, running, largest) == pytest.approx(norm)
    kept = math.hypot(*(float(parameter.grad) for parameter in parameters if parameter.grad is not None))
    assert kept == pytest.approx(min(norm, largest * running), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("running", [None, 0.0])
def test_nothing_is_clipped_before_a_norm_is_known(running: float | None) -> None:
    (parameter,) = with_gradient(1e6)
    assert clip_gradients([parameter], running, 2.0) == 1e6
    assert parameter.grad is not None and float(parameter.grad) == 1e6
    assert running_norm(running, 5.0, 2.0, step=3) == 5.0


@given(usual=norms, step=st.integers(0, 10_000))
def test_one_exploding_batch_hardly_raises_the_limit(usual: float, step: int) -> None:
    after = running_norm(usual, 1e9 * usual, largest=2.0, step=step)
    assert usual <= after <= 1.91 * usual
    assert running_norm(usual, 1e9 * usual, largest=2.0, step=1000) == pytest.approx(1.01 * usual)


def test_the_running_norm_follows_a_falling_one() -> None:
    running: float | None = None
    for step in range(3000):
        running = running_norm(running, 100.0 * 0.995**step, largest=2.0, step=step)
    assert running is not None and running < 3 * 100.0 * 0.995**3000
