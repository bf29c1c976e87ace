"""Muon: steps that are orthogonal matrices, on the right weights, resumable."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gnn.models.model import build_model
from gnn.training.config import OptimiserConfig
from gnn.training.loop import train
from gnn.training.muon import Muon, orthogonalised
from gnn.training.optimiser import make_optimiser
from gnn.training.outcome import Progress
from gnn.training.resolve import with_radial_optimiser

MUON = {"kind": "muon", "lr": 0.02}


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 40), st.integers(2, 40), st.floats(1e-6, 1e6), st.integers(0, 1000))
def test_singular_values_come_near_one_and_directions_stay(n: int, m: int, size: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    matrix = size * torch.randn(n, m, generator=generator, dtype=torch.float64)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    found = u.mT @ orthogonalised(matrix) @ vh.mT
    values = found.diagonal()
    large = s > 0.05 * s.max()
    assert bool(((values[large] > 0.5) & (values[large] < 1.3)).all())
    torch.testing.assert_close(found, values.diag(), atol=1e-8, rtol=0)


def test_batches_are_matrix_by_matrix_and_zero_stays_zero() -> None:
    batch = torch.randn(3, 5, 4)
    torch.testing.assert_close(orthogonalised(batch)[1], orthogonalised(batch[1]))
    assert not orthogonalised(torch.zeros(4, 4)).any()


def test_a_step_has_the_entries_of_an_adam_step() -> None:
    weight = torch.nn.Parameter(torch.zeros(64, 64))
    weight.grad = torch.randn(64, 64)
    Muon([weight], lr=0.1).step()
    assert float(weight.detach().square().mean().sqrt()) == pytest.approx(0.2 * 0.1, rel=0.25)


def test_weight_decay_is_decoupled() -> None:
    weight = torch.nn.Parameter(torch.ones(4, 4))
    weight.grad = torch.zeros(4, 4)
    Muon([weight], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(weight.detach(), torch.full((4, 4), 0.95))


def test_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match="for matrices"):
        Muon([torch.nn.Parameter(torch.zeros(4))], lr=0.1)


@pytest.mark.parametrize("radial", ["muon", "adamw"])
@pytest.mark.parametrize(("family", "matrix"), [("ace", "layers.0.scalar"), ("tensor", "embedding.bonds")])
def test_tables_of_elements_and_readouts_stay_with_adam(
    tiny_recipe: Callable[..., Any], family: str, matrix: str, radial: str
) -> None:
    recipe = tiny_recipe(optimiser=MUON | {"radial": radial}, model={"family": family})
    model = build_model(recipe.model)
    optimiser = make_optimiser(model, recipe.config, 0.02)
    held = [[p for group in part.param_groups for p in group["params"]] for part in optimiser.parts]
    by_muon = {id(parameter) for parameter in held[1]}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in by_muon}
    assert f"network.{matrix}.weight" in names
    assert ("network.radial.out.weight" in names) == (radial == "muon")
    assert not any("element" in name or "vector" in name or name.startswith("energy_head") for name in names)
    assert sorted(id(p) for part in held for p in part) == sorted(id(p) for p in model.parameters())


def test_radial_networks_go_by_what_energies_tell(copper: Any) -> None:
    def radial(energy: float | None, **settings: Any) -> str | None:
        found = copper.graph_set.statistics.model_copy(update={"energy_rms": energy, "force_rms": 1.0})
        return with_radial_optimiser(OptimiserConfig(**settings), found).radial

    assert [radial(0.01), radial(0.2), radial(None)] == ["adamw", "muon", "muon"]
    assert radial(0.01, radial="muon") == "muon"
    assert radial(2.0, kind="adamw") == "adamw"
    with pytest.raises(ValueError, match="needs kind = 'muon'"):
        OptimiserConfig(kind="adamw", radial="muon")


def test_it_learns(copper: Any, tiny_recipe: Callable[..., Any], run_folder: Path) -> None:
    outcome = train(tiny_recipe(epochs=12, optimiser=MUON), copper, run_folder)
    assert outcome.curve[-1].train["loss"] < 0.7 * outcome.curve[0].train["loss"]


def test_stopped_it_ends_with_the_same_weights(copper: Any, tiny_recipe: Callable[..., Any], tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        if progress.step == 6:
            raise KeyboardInterrupt

    recipe = tiny_recipe(optimiser=MUON, checkpoint_s=1e-9)
    whole = train(recipe, copper, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(recipe, copper, tmp_path / "cut", progress=stop)
    resumed = train(recipe, copper, tmp_path / "cut")
    for mine, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
