"""The loop: it learns, it is repeatable, and no kill changes its result."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gnn.errors import InputError, SluiceError
from gnn.graphs.batch import Batch
from gnn.machine import processor
from gnn.training import state as disk
from gnn.training.config import LossConfig
from gnn.training.loop import Trainer, train
from gnn.training.outcome import Progress
from gnn.training.selection import last_is_kept, least_errors, unlearnt, untrained_errors, validation_score
from gnn.training.step import EagerStep, Terms
from gnn.training.tracker import NullTracker


class StoppedError(Exception):
    """Stands for a kill between two steps."""


def weights(outcome: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in outcome.model.named_parameters()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_loss_falls(copper: Any, tiny_recipe: Callable[..., Any], run_folder: Path) -> None:
    outcome = train(tiny_recipe(epochs=12), copper, run_folder)
    assert outcome.curve[-1].train["loss"] < 0.7 * outcome.curve[0].train["loss"]
    assert outcome.epochs == 12
    assert outcome.structures == 12 * len(copper.held["train"])


def test_two_runs_are_bit_for_bit_the_same(copper: Any, tiny_recipe: Callable[..., Any], tmp_path: Path) -> None:
    first = train(tiny_recipe(), copper, tmp_path / "a")
    second = train(tiny_recipe(), copper, tmp_path / "b")
    assert same(weights(first), weights(second))
    assert [r.train for r in first.curve] == [r.train for r in second.curve]


@pytest.mark.parametrize("stop_at", [1, 4, 6, 7, 11])
def test_stopped_anywhere_it_ends_with_the_same_weights(
    copper: Any, tiny_recipe: Callable[..., Any], tmp_path: Path, stop_at: int
) -> None:
    whole = train(tiny_recipe(), copper, tmp_path / "whole")

    def stop(progress: Progress) -> None:
        if progress.step == stop_at:
            raise StoppedError

    recipe = tiny_recipe(checkpoint_s=1e-9)
    with pytest.raises(StoppedError):
        train(recipe, copper, tmp_path / "cut", progress=stop)
    resumed = train(recipe, copper, tmp_path / "cut")
    assert same(weights(whole), weights(resumed))
    assert resumed.structures == whole.structures
    assert [r.train for r in whole.curve] == [r.train for r in resumed.curve]
    assert [r.valid for r in whole.curve] == [r.valid for r in resumed.curve]


def test_killed_at_the_end_of_its_last_epoch_it_ends_the_same(
    copper: Any, tiny_recipe: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(checkpoint_s=1e-9)
    whole = train(recipe, copper, tmp_path / "whole")
    end_epoch = Trainer._end_epoch

    def die(trainer: Trainer) -> None:
        if trainer.state.epoch == recipe.config.epochs - 1:
            raise StoppedError
        end_epoch(trainer)

    monkeypatch.setattr(Trainer, "_end_epoch", die)
    with pytest.raises(StoppedError):
        train(recipe, copper, tmp_path / "cut")
    monkeypatch.undo()
    resumed = train(recipe, copper, tmp_path / "cut")
    assert (resumed.epochs, resumed.structures) == (whole.epochs, whole.structures)
    assert same(weights(whole), weights(resumed))
    assert [(r.epoch, r.step, r.valid) for r in whole.curve] == [(r.epoch, r.step, r.valid) for r in resumed.curve]


class HelpedData:
    """The copper cells, the first half of the training split from a helper; notes of what each batch was one."""

    def __init__(self, copper: Any) -> None:
        n = len(copper.held["train"])
        self.held = copper.held
        self.graph_set = copper.graph_set.model_copy(update={"helpers": {"near": n // 2}})
        self.alone = replace(copper, held=copper.held | {"train": 2 * copper.held["train"][n // 2 :]})
        self.all = copper
        self.helped: list[bool] = []

    def batches(self, split: str, *arguments: Any, helpers: bool = True, **options: Any) -> Iterator[Batch]:
        for batch in (self.all if helpers else self.alone).batches(split, *arguments, **options):
            if split == "train":
                self.helped.append(helpers)
            yield batch


def test_helpers_that_never_leave_are_in_every_batch(
    copper: Any, tiny_recipe: Callable[..., Any], run_folder: Path
) -> None:
    recipe, data = tiny_recipe(), HelpedData(copper)
    outcome = train(recipe, data, run_folder)
    assert all(data.helped)
    assert outcome.structures == recipe.config.epochs * data.graph_set.pass_size


@pytest.mark.parametrize("stop_at", [3, 6, 9])
def test_helpers_leave_when_told_whether_stopped_or_not(
    copper: Any, tiny_recipe: Callable[..., Any], tmp_path: Path, stop_at: int
) -> None:
    recipe = tiny_recipe(schedule={"helpers_leave": 0.5}, checkpoint_s=1e-9)
    data, cut = HelpedData(copper), HelpedData(copper)
    steps: list[Progress] = []
    whole = train(recipe, data, tmp_path / "whole", progress=steps.append)
    assert data.helped == [True, *(step.progress < 0.5 for step in steps[:-1])]
    assert 0 < sum(data.helped) < len(data.helped)

    def stop(progress: Progress) -> None:
        if progress.step == stop_at:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(recipe, cut, tmp_path / "cut", progress=stop)
    assert same(weights(whole), weights(train(recipe, cut, tmp_path / "cut")))


def test_a_kill_between_tensors_and_pointer_leaves_the_state_before(
    copper: Any, tiny_recipe: Callable[..., Any], run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(checkpoint_s=1e-9)
    write_text, calls = disk.write_text, []

    def die_third_time(path: Path, text: str) -> Path:
        calls.append(path)
        if len(calls) == 3:
            raise StoppedError
        return write_text(path, text)

    monkeypatch.setattr(disk, "write_text", die_third_time)
    with pytest.raises(StoppedError):
        train(recipe, copper, run_folder)
    monkeypatch.undo()
    assert len(list(run_folder.glob("state-*.safetensors"))) == 2
    resumed = train(recipe, copper, run_folder)
    assert same(weights(resumed), weights(train(tiny_recipe(), copper, run_folder.with_name("whole"))))
    assert len(list(run_folder.glob("state-*.safetensors"))) == 1


def test_a_finished_run_is_reused(copper: Any, tiny_recipe: Callable[..., Any], run_folder: Path) -> None:
    steps: list[int] = []
    first = train(tiny_recipe(), copper, run_folder)
    again = train(tiny_recipe(), copper, run_folder, progress=lambda p: steps.append(p.step))
    assert again.reused
    assert not steps
    assert same(weights(first), weights(again))
    assert first.trained_on == again.trained_on == (processor(),)


def test_another_configuration_is_refused_in_the_same_folder(
    copper: Any, tiny_recipe: Callable[..., Any], run_folder: Path
) -> None:
    train(tiny_recipe(), copper, run_folder)
    with pytest.raises(InputError, match="another training"):
        train(tiny_recipe(seed=1), copper, run_folder)


def test_a_damaged_state_is_refused(copper: Any, tiny_recipe: Callable[..., Any], run_folder: Path) -> None:
    train(tiny_recipe(), copper, run_folder)
    path = next(run_folder.glob("state-*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(SluiceError, match="damaged"):
        train(tiny_recipe(), copper, run_folder)


def test_a_budget_of_time_ends_in_time_with_the_final_rate(
    copper: Any, tiny_recipe: Callable[..., Any], run_folder: Path
) -> None:
    recipe = tiny_recipe(minutes=2 / 60, clock="cpu")
    outcome = train(recipe, copper, run_folder)
    assert 1.8 < outcome.elapsed_s < 2.6
    assert outcome.curve[-1].progress == pytest.approx(1.0, abs=0.05)
    assert outcome.curve[-1].lr == pytest.approx(recipe.config.schedule.final * recipe.lr, rel=0.5)
    assert outcome.metrics


def test_a_budget_of_time_without_validation_has_a_curve_of_few_points(
    copper: Any, tiny_recipe: Callable[..., Any], run_folder: Path
) -> None:
    data = replace(
        copper,
        held=copper.held | {"valid": []},
        graph_set=copper.graph_set.model_copy(update={"split_counts": copper.graph_set.split_counts | {"valid": 0}}),
    )
    outcome = train(tiny_recipe(minutes=2 / 60, clock="cpu"), data, run_folder)
    assert 3 < len(outcome.curve) <= 51 < outcome.steps
    assert outcome.metrics == {}


class CompilingStep(EagerStep):
    """An eager step whose first call takes 1.5 CPU s more, as a compiler would."""

    is_compiled = False

    def __call__(self, batch: Batch, progress: float, counts: Mapping[str, float] | None) -> Terms:
        until = time.process_time() + (0.0 if self.is_compiled else 1.5)
        while time.process_time() < until:
            pass
        self.is_compiled = True
        return super().__call__(batch, progress, counts)


def test_the_learning_rate_waits_for_the_compiler(
    copper: Any, tiny_recipe: Callable[..., Any], run_folder: Path
) -> None:
    recipe = tiny_recipe(minutes=3 / 60, clock="cpu", schedule={"warmup": 0.2})
    trainer = Trainer(recipe, copper, run_folder, NullTracker(), None)
    trainer.differentiate = CompilingStep(trainer.model, trainer.config.losses, recipe.scales, recipe.wanted)
    rates: list[float] = []
    trainer.report = lambda progress: rates.append(progress.lr)
    outcome = trainer.run()
    assert 2.8 < outcome.elapsed_s < 3.6
    assert rates[1] < 0.5 * recipe.lr
    assert max(rates) > 0.99 * recipe.lr


def test_time_counts_over_resumes(copper: Any, tiny_recipe: Callable[..., Any], run_folder: Path) -> None:
    recipe = tiny_recipe(minutes=2 / 60, clock="cpu", checkpoint_s=1e-9)

    def stop(progress: Progress) -> None:
        if progress.elapsed_s > 1.0:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(recipe, copper, run_folder, progress=stop)
    assert train(recipe, copper, run_folder).elapsed_s < 2.6


def test_a_nonfinite_loss_is_skipped_and_counted_then_stops(
    copper: Any, tiny_recipe: Callable[..., Any], run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gnn.training import step

    real, calls = step.total_loss, []

    def spoilt(*args: Any) -> torch.Tensor:
        calls.append(1)
        return real(*args) * (float("nan") if len(calls) == 2 else 1.0)

    monkeypatch.setattr(step, "total_loss", spoilt)
    outcome = train(tiny_recipe(), copper, run_folder)
    assert outcome.bad_steps == 1
    assert all(torch.isfinite(value).all() for value in outcome.model.parameters())

    monkeypatch.setattr(step, "total_loss", lambda *args: real(*args) * float("nan"))
    with pytest.raises(SluiceError, match=r"not finite 5 times.*lower optimiser.lr"):
        train(tiny_recipe(), copper, run_folder.with_name("bad"))


def test_no_budget_and_no_data_are_said(copper: Any, tiny_config: Callable[..., Any], run_folder: Path) -> None:
    from gnn.training.resolve import resolve

    with pytest.raises(InputError, match="no budget"):
        train(resolve(tiny_config(epochs=None), copper.graph_set), copper, run_folder)
    empty = copper.graph_set.model_copy(update={"split_counts": {"train": 0}})
    object.__setattr__(copper, "graph_set", empty)
    with pytest.raises(InputError, match="no training structures"):
        train(resolve(tiny_config(), empty), copper, run_folder)


def test_a_device_that_is_not_there_is_said(tiny_recipe: Callable[..., Any], copper: Any, run_folder: Path) -> None:
    with pytest.raises(InputError, match="not known"):
        train(tiny_recipe(device="abacus"), copper, run_folder)


def test_the_best_weights_are_kept(copper: Any, tiny_recipe: Callable[..., Any], run_folder: Path) -> None:
    trainer = Trainer(tiny_recipe(), copper, run_folder, NullTracker(), None)
    trainer._keep_best(1.0, {"force_mae_mev_per_angstrom": 2.0})
    best = {name: value.clone() for name, value in trainer.best.items()}
    for value in trainer.ema.weights.values():
        value.add_(1.0)
    trainer._keep_best(2.0, {})
    assert same(best, trainer.best)
    trainer._keep_best(0.5, {})
    assert not same(best, trainer.best)
    assert trainer.state.best_score == 0.5


def test_errors_that_are_no_numbers_are_never_the_best(
    copper: Any, tiny_recipe: Callable[..., Any], run_folder: Path
) -> None:
    trainer = Trainer(tiny_recipe(), copper, run_folder, NullTracker(), None)
    trainer._start_clocks()
    broken = {"energy_mae_mev_per_atom": float("nan"), "force_mae_mev_per_angstrom": 1.0}
    assert trainer._score(broken) == float("inf")
    trainer._keep_best(trainer._score(broken), broken)
    trainer._record(broken)
    trainer._save()
    found, _ = disk.load_state(run_folder, trainer.recipe.header) or pytest.fail("no state")
    assert found.best_score == float("inf")
    assert found.curve[0].valid["energy_mae_mev_per_atom"] != found.curve[0].valid["energy_mae_mev_per_atom"]
    sound = {"energy_mae_mev_per_atom": 5.0, "force_mae_mev_per_angstrom": 1.0}
    trainer._keep_best(trainer._score(sound), sound)
    trainer._keep_best(trainer._score(broken), broken)
    assert trainer.state.best_metrics == sound


def test_forces_that_are_rounding_errors_choose_nothing() -> None:
    late = {"energy_mae_mev_per_atom": 5.0, "force_mae_mev_per_angstrom": 1e-4}
    early = {"energy_mae_mev_per_atom": 100.0, "force_mae_mev_per_angstrom": 1e-6}
    assert validation_score(late) < validation_score(early)


def test_nothing_learnt_is_the_worst_that_counts() -> None:
    """Zero forces are nearly right of relaxed crystals: a network that knows their energies is better all the same."""
    untaught = {"energy_mae_mev_per_atom": 140.0, "force_mae_mev_per_angstrom": 6.0}
    fresh = {"energy_mae_mev_per_atom": 139.0, "force_mae_mev_per_angstrom": 6.5}
    learnt = {"energy_mae_mev_per_atom": 65.0, "force_mae_mev_per_angstrom": 36.0}
    assert validation_score(learnt) > validation_score(fresh)
    assert validation_score(learnt, most=untaught) < validation_score(fresh, most=untaught)
    assert validation_score({"energy_mae_mev_per_atom": float("nan")}, most=untaught) == math.inf


def test_what_was_not_learnt_is_named() -> None:
    untaught = {
        "energy_mae_mev_per_atom": 140.0,
        "force_mae_mev_per_angstrom": 6.0,
        "gap_mae": 0.5,
        "stress_mae_gpa": 0.0,
    }
    found = {"energy_mae_mev_per_atom": 65.0, "force_mae_mev_per_angstrom": 36.0, "gap_mae": 0.5, "stress_mae_gpa": 1.0}
    assert unlearnt(found, untaught) == ["force_mae_mev_per_angstrom", "gap_mae"]
    assert unlearnt(found, untaught, {"force_mae_mev_per_angstrom"}) == ["gap_mae"]
    assert unlearnt({"energy_mae_mev_per_atom": float("nan")}, untaught) == ["energy_mae_mev_per_atom"]
    assert unlearnt(found, {}) == []


def test_what_is_known_without_a_network_is_looked_at_once(
    copper: Any, tiny_recipe: Callable[..., Any], run_folder: Path
) -> None:
    trainer = Trainer(tiny_recipe(), copper, run_folder, NullTracker(), None)
    trainer._start_clocks()
    trainer._validate()
    found = trainer.state.untaught_metrics
    forces = np.concatenate([graph.forces for graph in copper.held["valid"]])
    assert found["force_mae_mev_per_angstrom"] == pytest.approx(1e3 * np.abs(forces).mean(), rel=1e-5)
    for value in trainer.parameters.values():
        value.data.add_(1.0)
    trainer._validate()
    assert trainer.state.untaught_metrics == found


def test_a_validation_split_without_labels_is_looked_at_once_too(
    copper: Any, tiny_recipe: Callable[..., Any], run_folder: Path
) -> None:
    trainer = Trainer(tiny_recipe(), copper, run_folder, NullTracker(), None)
    trainer._start_clocks()
    trainer.state.untaught_metrics = {}
    trainer._validate()
    assert trainer.state.untaught_metrics == {}


def test_score_is_the_mean_log_of_mean_absolute_errors() -> None:
    metrics = {"energy_mae_mev_per_atom": 10.0, "force_mae_mev_per_angstrom": 1000.0, "energy_rmse_mev": 1e9}
    assert validation_score(metrics) == pytest.approx(
        0.5 * (torch.tensor(10.0).log() + torch.tensor(1000.0).log()).item()
    )


def test_the_unit_of_a_property_does_not_choose() -> None:
    least = least_errors({"moment": 1e-23})
    assert validation_score({"moment_mae": 2e-24}, (), least) < validation_score({"moment_mae": 4e-24}, (), least)
    assert validation_score({"moment_mae": 0.0}, (), least) == validation_score({"moment_mae": 1e-30}, (), least)
    assert validation_score({"energy_mae_mev_per_atom": 1e-9}, (), least) == pytest.approx(math.log(0.01))


def test_what_weighs_nothing_is_not_chosen_by() -> None:
    losses = LossConfig.model_validate({"stress": {"weight": 0.0}})
    assert untrained_errors(losses) == {"stress_mae_gpa"}
    assert untrained_errors(LossConfig.model_validate({"stress": {"weight": 0.0, "late_weight": 1.0}})) == frozenset()
    metrics = {"energy_mae_mev_per_atom": 1.0, "stress_mae_gpa": 100.0}
    assert validation_score(metrics, untrained_errors(losses)) == 0.0


def test_the_last_weights_are_kept_unless_earlier_ones_were_clearly_better() -> None:
    best = float(torch.tensor(10.0).log())
    assert last_is_kept(best, best, 1000)
    assert last_is_kept(float(torch.tensor(10.3).log()), best, 100)
    assert not last_is_kept(float(torch.tensor(10.3).log()), best, 1000)
    assert not last_is_kept(float(torch.tensor(15.0).log()), best, 4)


@pytest.mark.parametrize(
    ("worse_by", "groups", "kept"), [(1.01, {}, "last"), (3.0, {}, "earlier"), (1.3, {}, "earlier"), (1.3, 1, "last")]
)
def test_an_overfitted_training_gives_its_earlier_weights(
    copper: Any, tiny_recipe: Callable[..., Any], run_folder: Path, worse_by: float, groups: Any, kept: str
) -> None:
    """Unless it is a little worse, or there is one group that is bad by accident."""
    counted = {"split_groups": {"valid": groups} if groups else {}}
    copper = replace(copper, graph_set=copper.graph_set.model_copy(update=counted))
    trainer = Trainer(tiny_recipe(), copper, run_folder, NullTracker(), None)
    trainer._start_clocks()
    trainer.state.untaught_metrics = {"energy_mae_mev_per_atom": 1e9}
    trainer._record(trainer._validate())
    earlier = {name: value.clone() for name, value in trainer.best.items()}
    for value in trainer.ema.weights.values():
        value.add_(1e-6)
    metrics = {name: worse_by * value for name, value in trainer.state.best_metrics.items()}
    trainer._record(metrics)
    trainer._prefer_last()
    assert same(earlier, trainer.best) == (kept == "earlier")
    assert (trainer.state.best_metrics == metrics) == (kept == "last")
