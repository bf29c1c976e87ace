"""Muon: momentum whose steps are orthogonal matrices, so that no direction of a weight matrix is left behind."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients a, b, c of X -> aX + b(XXᵀ)X + c(XXᵀ)²X (K. Jordan, kellerjordan.github.io/posts/muon, 2024)."""
ITERATIONS = 5
RMS = 0.2
"""Root mean square of an entry of a step over the learning rate, as of AdamW's steps (arXiv:2502.16982, sec. 2.2)."""


def orthogonalised(matrices: Tensor) -> Tensor:
    """U Vᵀ of M = U S Vᵀ, roughly: Newton–Schulz takes all singular values to between 0.7 and 1.2.

    Shapes: (..., n, m), each matrix by itself; zero stays zero.
    """
    a, b, c = QUINTIC
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).reshape(-1, *sorted(matrices.shape[-2:]))
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=1e-20)
    for _ in range(ITERATIONS):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).reshape(matrices.shape)


class Muon(torch.optim.Optimizer):
    """w -= lr · 0.2 √max(n, m) · orthogonalised(g + β·M), M = β·M + g (Nesterov), after decoupled weight decay.

    For weight matrices inside a network, batches of matrices included. The factor makes the entries of a step as large
    as AdamW's, so that one learning rate suits both (Liu et al., arXiv:2502.16982). State: `momentum` of each weight.

    Raises:
        ValueError: a parameter is no matrix.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        for group in self.param_groups:
            if any(parameter.ndim < 2 for parameter in group["params"]):
                raise ValueError("Muon is for matrices; give vectors to AdamW")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step of every parameter that has a gradient."""
        if closure is not None:
            raise ValueError("Muon evaluates no closure")
        for group in self.param_groups:
            alike: dict[tuple[int, ...], list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike.setdefault(tuple(parameter.shape[-2:]), []).append(parameter)
            for parameters in alike.values():
                self._update(parameters, group)

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """One step of matrices of one shape, made orthogonal in one go: one by one they cost mostly their calls."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        momenta = [self._momentum(parameter) for parameter in parameters]
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_add_(momenta, gradients)
        looking_ahead = torch._foreach_add(gradients, momenta, alpha=group["momentum"])
        matrices = torch.cat([step.reshape(-1, *step.shape[-2:]) for step in looking_ahead])
        steps = orthogonalised(matrices).split([math.prod(p.shape[:-2]) for p in parameters])
        size = RMS * math.sqrt(max(matrices.shape[-2:]))
        torch._foreach_mul_(parameters, 1.0 - group["lr"] * group["weight_decay"])
        shaped = [step.reshape(p.shape) for step, p in zip(steps, parameters, strict=True)]
        torch._foreach_add_(parameters, shaped, alpha=-group["lr"] * size)

    def _momentum(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        found: Tensor = state["momentum"]
        return found
