"""Configuration and what the data decide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
import torch

from gnn.errors import InputError
from gnn.graphs.graph_set import PropertyStatistics
from gnn.structures.properties import PropertySpec
from gnn.training.config import make_config, read_config, run_digest
from gnn.training.finetune import Start
from gnn.training.loop import train
from gnn.training.resolve import DEFAULT_LR, check_overrides, cutoff_of, deviation, energy_scale, resolve
from gnn.training.tracker import CurveFile


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "train.toml"
    path.write_text('preset = "small"\nminutes = 5\n[data]\ndatasets = ["a@3"]\n[optimiser]\nlr = 1e-2\n')
    config = make_config(read_config(path))
    assert config.data.datasets == ["a@3"]
    assert config.optimiser.lr == 0.01
    assert config.optimiser.amsgrad


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"optimizer": {}}, "optimizer"),
        ({"optimiser": {"lr": -1}}, r"optimiser\.lr.*-1"),
        ({"optimiser": {"betas": (1.5, 0.9)}}, r"optimiser\.betas.*1\.5"),
        ({"epochs": 3, "minutes": 2}, "give one budget"),
        ({"losses": {"handover": (0.9, 0.1)}}, "must rise"),
        ({"preset": "huge"}, "preset"),
        ({"init": "a", "preset": "small"}, "preset: the architecture of --init cannot be changed"),
        ({"init": "a", "model": {"layers": 1}}, "model.layers: the architecture of --init cannot be changed"),
        ({"committee": 0}, "committee"),
        ({"optimiser": {"clip": inf}}, r"optimiser\.clip: .* finite number \(given inf\)"),
        ({"optimiser": {"lr": inf}}, r"optimiser\.lr: .* finite"),
        ({"optimiser": {"weight_decay": nan}}, r"optimiser\.weight_decay: .* finite"),
        ({"losses": {"forces": {"delta": inf}}}, r"losses\.forces\.delta: .* finite"),
        ({"losses": {"energy": {"weight": inf}}}, r"losses\.energy\.weight: .* finite"),
        ({"losses": {"properties": {"gap": {"late_weight": inf}}}}, r"losses\.properties\.gap\.late_weight: .* finite"),
        ({"losses": {"handover": (0.5, nan)}}, r"losses\.handover\.1: .* finite"),
        ({"data": {"split": {"train": inf}}}, r"data\.split\.train: .* finite"),
        ({"data": {"outliers": {"max_force": inf}}}, r"data\.outliers\.max_force: .* finite"),
        ({"minutes": inf}, "minutes: .* finite"),
        ({"checkpoint_s": inf}, "checkpoint_s: .* finite"),
    ],
)
def test_mistakes_are_named(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        make_config(values)


def test_a_file_that_is_not_there_or_not_toml(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no configuration file"):
        read_config(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("= 3")
    with pytest.raises(InputError, match="is not TOML"):
        read_config(tmp_path / "bad.toml")


def test_one_changed_field_of_a_term_leaves_the_others() -> None:
    losses = make_config({"losses": {"forces": {"weight": 3.0}, "energy": {"delta": 0.5}}}).losses
    assert (losses.forces.weight, losses.forces.kind) == (3.0, "norm")
    assert (losses.energy.weight, losses.energy.late_weight, losses.energy.delta) == (None, None, 0.5)


def test_the_digest_knows_what_matters() -> None:
    base = make_config({"epochs": 3})
    same = [{"device": "cpu"}, {"threads": 2}, {"register_as": "x"}, {"checkpoint_s": 1.0}, {"experiment": "y"}]
    for change in same:
        assert run_digest(base.model_copy(update=change), "g", None, {}) == run_digest(base, "g", None, {})
    for change in ({"seed": 1}, {"epochs": 4}, {"dtype": "float64"}):
        assert run_digest(base.model_copy(update=change), "g", None, {}) != run_digest(base, "g", None, {})
    assert run_digest(base, "h", None, {}) != run_digest(base, "g", None, {})
    assert run_digest(base, "g", "sha", {}) != run_digest(base, "g", None, {})


def test_another_versions_presets_are_another_training(
    copper: Any, tiny_config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = resolve(tiny_config(optimiser={}), copper.graph_set).header
    monkeypatch.setitem(DEFAULT_LR, "muon", 1e-5)
    assert resolve(tiny_config(optimiser={}), copper.graph_set).header != before


def test_defaults_come_from_the_data(copper: Any, tiny_config: Callable[..., Any]) -> None:
    recipe = resolve(tiny_config(batch={}), copper.graph_set)
    assert recipe.model.elements == ["Al", "Cu"]
    assert recipe.model.cutoff == 4.0
    assert recipe.model.energy_scale == copper.graph_set.statistics.force_rms
    assert recipe.model.mean_neighbours == copper.graph_set.statistics.mean_neighbours
    assert recipe.max_atoms == 128
    assert recipe.wanted.forces
    assert recipe.wanted.stress
    assert "16 training" in recipe.remarks[0]
    assert cutoff_of(make_config({"epochs": 1, "data": {"cutoff": 4.5}})) == 4.5


def test_forces_that_symmetry_forbids_set_no_scale(copper: Any, tiny_config: Callable[..., Any]) -> None:
    def scale(energy: float | None, force: float | None) -> float:
        seen = copper.graph_set.statistics.model_copy(update={"energy_rms": energy, "force_rms": force})
        return energy_scale(copper.graph_set.model_copy(update={"statistics": seen}))

    assert [scale(0.3, 1e-5), scale(0.3, 0.5), scale(0.3, None), scale(None, None)] == [0.3, 0.5, 0.3, 1.0]


def test_what_the_data_decide_cannot_be_set(copper: Any, tiny_config: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match=r"model\.cutoff follows from the data"):
        resolve(tiny_config(model={"cutoff": 3.0}), copper.graph_set)
    with pytest.raises(InputError, match="chanels"):
        resolve(tiny_config(model={"chanels": 3}), copper.graph_set)
    with pytest.raises(InputError, match=r"model: layers: .* less than or equal to 100 \(given 101\)"):
        check_overrides(tiny_config(model={"layers": 101}))
    with pytest.raises(InputError, match="radial_hidden") as caught:
        check_overrides(tiny_config(model={"radial_hidden": [2] * 10**5}))
    assert len(str(caught.value)) < 300


def test_data_of_properties_alone_train_their_head(
    copper: Any, make_data: Callable[..., Any], tiny_config: Callable[..., Any], run_folder: Path
) -> None:
    spec = PropertySpec(unit="eV/atom")
    graphs = [
        replace(g, energy=None, forces=None, stress=None, properties={"formation_energy": 0.2 * (13 in g.numbers)})
        for part in ("valid", "test", "train")
        for g in copper.held[part]
    ]
    data = make_data(graphs, {"formation_energy": spec})
    recipe = resolve(tiny_config(epochs=60, optimiser={"lr": 0.02}), data.graph_set)
    assert not recipe.wanted.forces
    assert recipe.model.energy_scale == 1.0
    assert recipe.model.property_scales["formation_energy"].std == pytest.approx(0.1, rel=0.1)
    outcome = train(recipe, data, run_folder)
    assert set(outcome.curve[-1].train) == {"loss", "property_formation_energy"}
    assert outcome.metrics["formation_energy_mae"] < 0.05


def test_a_property_is_learnt_in_a_unit_that_makes_it_tiny(
    copper: Any, make_data: Callable[..., Any], tiny_config: Callable[..., Any], run_folder: Path
) -> None:
    unit = 1e-23
    graphs = [
        replace(g, energy=None, forces=None, stress=None, properties={"moment": unit * (13 in g.numbers)})
        for part in ("valid", "test", "train")
        for g in copper.held[part]
    ]
    data = make_data(graphs, {"moment": PropertySpec(unit="J/T")})
    recipe = resolve(tiny_config(epochs=40, optimiser={"lr": 0.02}), data.graph_set)
    assert train(recipe, data, run_folder).metrics["moment_mae"] < 0.25 * unit


@pytest.mark.parametrize(
    ("mean", "std", "expected"),
    [
        (2.0, 0.5, 0.5),
        (1e-9, 1e-12, 1e-12),
        (1e-20, 0.0, 1e-20),
        (-5.0, 1e-15, 5.0),
        (0.0, 0.0, 1.0),
        (0.0, 1e-30, 1e-30),
    ],
)
def test_the_deviation_of_a_property(mean: float, std: float, expected: float) -> None:
    assert deviation(PropertyStatistics(n=3, mean=mean, std=std)) == expected


def test_a_property_without_labels_gets_no_head(copper: Any, tiny_config: Callable[..., Any]) -> None:
    found = {"gap": PropertyStatistics(n=0, mean=0.0, std=0.0)}
    statistics = copper.graph_set.statistics.model_copy(update={"properties": found})
    update = {"properties": {"gap": PropertySpec(unit="eV")}, "statistics": statistics}
    assert resolve(tiny_config(), copper.graph_set.model_copy(update=update)).model.properties == {}


def test_a_property_that_weighs_nothing_is_not_trained_nor_offered(
    copper: Any, tiny_config: Callable[..., Any], make_data: Callable[..., Any], run_folder: Path
) -> None:
    spec = PropertySpec(unit="eV")
    graphs = [replace(g, properties={"gap": 1.0, "width": 0.1 * k}) for k, g in enumerate(copper.held["train"])]
    data = make_data(graphs, {"gap": spec, "width": spec})
    losses = {"properties": {"gap": {"weight": 0.0}}}
    recipe = resolve(tiny_config(epochs=1, losses=losses), data.graph_set)
    assert list(recipe.model.properties) == ["width"]
    assert "property_gap" not in train(recipe, data, run_folder).curve[-1].train
    rising = {"properties": {"gap": {"weight": 0.0, "late_weight": 1.0}}}
    assert "gap" in resolve(tiny_config(losses=rising), data.graph_set).model.properties
    with pytest.raises(InputError, match=r"losses.properties.gapp: .* no such property; they have gap, width"):
        resolve(tiny_config(losses={"properties": {"gapp": {"weight": 2.0}}}), data.graph_set)


def test_what_weighs_nothing_is_not_learnt_and_something_must_be(
    copper: Any, tiny_config: Callable[..., Any], make_data: Callable[..., Any]
) -> None:
    off = {name: {"weight": 0.0} for name in ("energy", "forces", "stress")}
    with pytest.raises(InputError, match="nothing to learn: of energy, forces, stress every loss weighs 0"):
        resolve(tiny_config(losses=off), copper.graph_set)
    rising = off | {"forces": {"weight": 0.0, "late_weight": 1.0}}
    assert resolve(tiny_config(losses=rising), copper.graph_set).labels == ("forces",)
    graphs = [replace(g, properties={"gap": 0.1 * k}) for k, g in enumerate(copper.held["train"])]
    data = make_data(graphs, {"gap": PropertySpec(unit="eV")})
    assert resolve(tiny_config(), data.graph_set).labels == ("energy", "forces", "stress", "gap")
    assert resolve(tiny_config(losses=off), data.graph_set).labels == ("gap",)
    with pytest.raises(InputError, match="of energy, forces, stress, gap every loss weighs 0"):
        resolve(tiny_config(losses=off | {"properties": {"gap": {"weight": 0.0}}}), data.graph_set)


def test_a_start_gives_its_weights(copper: Any, tiny_config: Callable[..., Any], run_folder: Path) -> None:
    first = train(resolve(tiny_config(epochs=8), copper.graph_set), copper, run_folder)
    weights = dict(first.model.named_parameters())
    start = Start(first.model.config, "sha", weights)
    again = train(
        resolve(tiny_config(epochs=1, model={}, optimiser={"lr": 1e-9}), copper.graph_set, start),
        copper, run_folder.with_name("again"),
    )  # fmt: skip
    for name, value in again.model.named_parameters():
        torch.testing.assert_close(value, weights[name], rtol=1e-5, atol=1e-6)


def test_curves_survive_a_torn_line_and_repeated_points(tmp_path: Path) -> None:
    class Heard:
        def __init__(self) -> None:
            self.points: list[tuple[int, dict[str, float]]] = []

        def metrics(self, values: dict[str, float], step: int) -> None:
            self.points.append((step, values))

    curves = CurveFile(tmp_path / "curves.jsonl")
    curves.metrics({"loss": 2.0}, 10)
    curves.metrics({"loss": 1.0}, 20)
    curves.metrics({"loss": 1.0}, 20)
    with curves.path.open("a") as stream:
        stream.write('{"step": 30, "met')
    heard = Heard()
    curves.replay(heard, "member_1/")
    assert heard.points == [(10, {"member_1/loss": 2.0}), (20, {"member_1/loss": 1.0})]
    curves.metrics({"loss": 0.5}, 30)
    again = Heard()
    curves.replay(again)
    assert again.points == [(10, {"loss": 2.0}), (20, {"loss": 1.0}), (30, {"loss": 0.5})]


def test_two_theories_train_together(copper: Any, tiny_config: Callable[..., Any], run_folder: Path) -> None:
    from gnn.training.evaluation import evaluate

    def shifted(index: int, graph: Any) -> Any:
        return replace(graph, theory="other/code", energy=graph.energy + 7.0 * graph.n_atoms) if index % 2 else graph

    held = {split: [shifted(i, g) for i, g in enumerate(graphs)] for split, graphs in copper.held.items()}
    references = copper.graph_set.references["emt/ase"]
    other = references.model_copy(update={"energies": {e: v + 7.0 for e, v in references.energies.items()}})
    update = {"theories": ["emt/ase", "other/code"], "references": {"emt/ase": references, "other/code": other}}
    data = replace(copper, held=held, graph_set=copper.graph_set.model_copy(update=update))
    outcome = train(resolve(tiny_config(epochs=25), data.graph_set), data, run_folder)
    found = evaluate([outcome.model], data.batches("valid", max_atoms=100)).metrics.by_theory
    assert set(found) == {"emt/ase", "other/code"}
    assert all(errors.energy_mae_mev_per_atom < 1000 for errors in found.values())
