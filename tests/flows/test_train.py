"""The train flow from a file of labels to a calculator, and its command line."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.io import write
from emt_cells import labelled_cells
from tiny_network import TINY
from typer.testing import CliRunner

from flows.cli.main import app
from flows.settings import Home
from gnn.errors import InputError


@pytest.fixture(scope="module")
def lake_home(tmp_path_factory: pytest.TempPathFactory, prefect_server: str) -> Home:
    """A home whose lake holds forty labelled cells."""
    from flows.ingest import ingest

    home = Home(tmp_path_factory.mktemp("river"))
    path = home.root / "cells.xyz"
    write(path, labelled_cells(40, 0), format="extxyz")
    ingest([str(path)], "cells", home, theory="emt/ase")
    write(home.root / "near.xyz", labelled_cells(30, 7), format="extxyz")
    ingest([str(home.root / "near.xyz")], "near-cells", home, theory="emt/cheap")
    return home


@pytest.fixture
def config() -> Callable[..., Any]:
    from gnn.training.config import make_config

    def make(**changes: Any) -> Any:
        base = {
            "data": {"datasets": ["cells"], "cutoff": 4.0, "split_by": "structure"},
            "preset": "small",
            "model": TINY,
            "device": "cpu",
            "epochs": 3,
        }
        return make_config(base | changes)

    return make


@pytest.fixture(autouse=True)
def _at_home(lake_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_HOME", str(lake_home.root))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.mark.slow
@pytest.mark.server
def test_from_labels_to_a_calculator(lake_home: Home, config: Callable[..., Any]) -> None:
    from flows import load
    from flows.evaluate import evaluate
    from flows.tracking import connect
    from flows.train import train

    result = train(config(register_as="alloys"), lake_home, cluster="threads", show=False)
    assert (result.model, result.model_version) == ("alloys", "1")
    assert result.epochs == 3
    assert result.metrics["test"]["n_structures"] > 0

    run = connect(lake_home).get_run(result.run_id)
    assert run.data.params["optimiser.amsgrad"] == "True"
    assert run.data.tags["data"].startswith("cells@")
    assert {"train/loss", "valid/force_mae_mev_per_angstrom", "cost/cpu_s"} <= run.data.metrics.keys()
    client = connect(lake_home)
    assert {f.path for f in client.list_artifacts(result.run_id)} >= {"parity", "environment.txt", "config.json"}
    assert {f.path for f in client.list_artifacts(result.run_id, "parity")} >= {"parity/test_energy.png"}

    found = evaluate("alloys", "cells", lake_home)
    expected = result.metrics["test"]["force_mae_mev_per_angstrom"]
    assert found.force_mae_mev_per_angstrom == pytest.approx(expected, rel=1e-4)
    assert found.data.endswith("(test split)")

    atoms = labelled_cells(1, 7)[0]
    atoms.calc = load("models:/alloys@champion").calculator()
    assert np.isfinite(atoms.get_potential_energy())
    assert atoms.get_forces().shape == (4, 3)


@pytest.mark.slow
@pytest.mark.server
def test_a_checkpoint_tells_what_the_configuration_left_open(lake_home: Home, config: Callable[..., Any]) -> None:
    from flows.tracking import connect
    from flows.train import train
    from gnn.training.checkpoint import read_manifest

    result = train(config(epochs=1), lake_home, cluster="threads", show=False)
    folder = lake_home.root / result.checkpoint
    taken = read_manifest(folder).taken
    assert taken["batch.max_atoms"] == 128
    assert taken["losses.energy.late_weight"] == pytest.approx(10 * taken["losses.energy.weight"])
    assert f"optimiser.lr = {taken['optimiser.lr']:.4g}" in (folder / "README.md").read_text(encoding="utf-8")
    params = connect(lake_home).get_run(result.run_id).data.params
    assert {params[f"resolved.{name}"] for name in taken} == {str(value) for value in taken.values()}

    again = train(config(epochs=1, optimiser={"lr": taken["optimiser.lr"]}), lake_home, cluster="threads", show=False)
    assert read_manifest(lake_home.root / again.checkpoint).taken == taken


@pytest.mark.slow
@pytest.mark.server
def test_the_same_call_again_repeats_nothing(lake_home: Home, config: Callable[..., Any]) -> None:
    from flows.train import train

    first = train(config(register_as="twice"), lake_home, cluster="threads", show=False)
    states = {path: path.stat().st_mtime_ns for path in lake_home.models.rglob("state.json")}
    again = train(config(register_as="twice"), lake_home, cluster="threads", show=False)
    assert {path: path.stat().st_mtime_ns for path in lake_home.models.rglob("state.json")} == states
    assert (again.sha256, again.model_version, again.run_id) == (first.sha256, first.model_version, first.run_id)


@pytest.mark.slow
@pytest.mark.server
def test_what_an_error_at_the_end_left_out_is_made_good(
    lake_home: Home, config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that is written and finished, but not told to the tracker."""
    from flows import train as flow
    from flows.tracking import connect
    from gnn.training.parity import read_parity

    def broken(*_: Any) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(flow, "keep_parity", broken)
        with pytest.raises(OSError, match="no space"):
            flow.train(config(seed=11), lake_home, show=False)
    result = flow.train(config(seed=11), lake_home, show=False)
    assert read_parity(lake_home.absolute(result.checkpoint))
    client = connect(lake_home)
    run = client.get_run(result.run_id)
    assert run.info.status == "FINISHED"
    assert any(name.startswith("valid_final/") for name in run.data.metrics)
    assert client.list_artifacts(result.run_id, "checkpoint")
    assert flow.train(config(seed=11), lake_home, show=False).run_id == result.run_id


@pytest.mark.slow
@pytest.mark.server
def test_a_committee_is_one_checkpoint(lake_home: Home, config: Callable[..., Any]) -> None:
    from flows.train import train
    from gnn.training.checkpoint import read_checkpoint

    result = train(config(committee=2, epochs=2), lake_home, cluster="threads", show=False)
    manifest, members = read_checkpoint(lake_home.absolute(result.checkpoint))
    assert manifest.members == 2
    weights = [dict(member.named_parameters()) for member in members]
    assert any(not weights[0][name].equal(weights[1][name]) for name in weights[0])
    assert result.model is None
    assert manifest.cost["steps"] == result.steps


@pytest.mark.slow
@pytest.mark.server
def test_members_in_one_process_train_one_after_another(
    lake_home: Home, config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.train import train
    from gnn.training import loop

    train_one, inside, together = loop.train, [], []

    def watched(*args: Any) -> Any:
        inside.append(args)
        together.append(len(inside))
        time.sleep(0.3)
        try:
            return train_one(*args)
        finally:
            inside.pop()

    monkeypatch.setattr(loop, "train", watched)
    train(config(committee=3, epochs=1), lake_home, cluster="threads", show=False)
    assert set(together) == {1}


@pytest.mark.slow
@pytest.mark.server
def test_evaluate_equals_a_loop_over_the_calculator(
    lake_home: Home, config: Callable[..., Any], tmp_path: Path
) -> None:
    from flows.evaluate import evaluate
    from flows.train import train
    from gnn.potentials.load import load

    folder = lake_home.absolute(train(config(), lake_home, cluster="threads", show=False).checkpoint)
    structures = labelled_cells(5, 3)
    write(tmp_path / "new.xyz", structures, format="extxyz")
    found = evaluate(str(folder), str(tmp_path / "new.xyz"), lake_home, max_atoms=9)
    calculator = load(folder).calculator()
    energy, forces = [], []
    for atoms in structures:
        copy = atoms.copy()
        copy.calc = calculator
        energy.append((copy.get_potential_energy() - atoms.calc.results["energy"]) / len(atoms))
        forces.append(copy.get_forces() - atoms.calc.results["forces"])
    assert found.n_structures == 5
    assert found.energy_mae_mev_per_atom == pytest.approx(1e3 * np.abs(energy).mean(), rel=1e-3)
    assert found.force_rmse_mev_per_angstrom == pytest.approx(1e3 * np.sqrt(np.square(forces).mean()), rel=1e-3)


@pytest.mark.slow
@pytest.mark.server
def test_what_the_model_does_not_know_is_skipped_and_counted(
    lake_home: Home, config: Callable[..., Any], tmp_path: Path
) -> None:
    from flows.evaluate import evaluate
    from flows.train import train

    folder = str(lake_home.absolute(train(config(), lake_home, cluster="threads", show=False).checkpoint))
    write(tmp_path / "mixed.xyz", labelled_cells(2, 4) + labelled_cells(3, 5, ("Cu", "Ni")), format="extxyz")
    found = evaluate(folder, str(tmp_path / "mixed.xyz"), lake_home)
    assert (found.n_structures, found.skipped) == (2, {"unknown element Ni": 3})
    with pytest.raises(InputError, match="unknown theory other"):
        evaluate(folder, str(tmp_path / "mixed.xyz"), lake_home, theory="other")
    with pytest.raises(InputError, match="neither a file nor a data set"):
        evaluate(folder, "nothing", lake_home)


@pytest.mark.slow
@pytest.mark.server
def test_fine_tuning_starts_where_the_model_is(lake_home: Home, config: Callable[..., Any]) -> None:
    from flows.train import train

    first = train(config(epochs=6), lake_home, cluster="threads", show=False)
    start = str(lake_home.absolute(first.checkpoint))
    tuned = train(
        config(epochs=1, init=start, preset=None, model={}, optimiser={"lr": 1e-5}),
        lake_home,
        cluster="threads",
        show=False,
    )
    mine, theirs = (r.metrics["valid"]["force_mae_mev_per_angstrom"] for r in (tuned, first))
    assert mine == pytest.approx(theirs, rel=0.05)


@pytest.mark.slow
@pytest.mark.server
def test_it_is_told_if_the_start_has_learnt_from_the_test_split(lake_home: Home, config: Callable[..., Any]) -> None:
    from flows.members import make_plan
    from flows.train import preprocessed, remarks_on_start, train

    first = train(config(), lake_home, cluster="threads", show=False)

    def remarks(**data: Any) -> list[str]:
        start = {"init": str(lake_home.absolute(first.checkpoint)), "preset": None, "model": {}}
        fine = config(**start, data={"datasets": ["cells"], "cutoff": 4.0, "split_by": "structure", **data})
        plan = make_plan(fine, lake_home, preprocessed(fine, lake_home, "threads", False), "threads")
        assert plan.before == (first.graph_set_id,)
        return remarks_on_start(plan, lake_home)

    assert remarks() == []
    assert remarks(split_seed=5) == ["--init was trained on 4 of the 4 test structures: errors on them flatter"]


def test_the_command_line_names_mistakes(tmp_path: Path) -> None:
    run = CliRunner()
    odd = ("--set", "model.family=tensor", "--set", "model.hidden_l_max=0")
    cases = {
        "no budget": ["train", "--dataset", "cells"],
        "no data": ["train", "--minutes", "1"],
        "no configuration file": ["train", str(tmp_path / "no.toml")],
        "not of the form": ["train", "--dataset", "cells", "--minutes", "1", "--set", "oops"],
        "optimiser.lr": ["train", "--dataset", "cells", "--minutes", "1", "--set", "optimiser.lr=-1"],
        "is not of the form train=450": ["train", "--dataset", "cells", "--minutes", "1", "--split", "half"],
        "is none of": ["evaluate", "m", "cells", "--split", "half"],
        "no data set 'celsl' in": ["train", "--dataset", "celsl", "--minutes", "1"],
        "use letters": ["train", "--dataset", "cells", "--minutes", "1", "--register", "a/b"],
        "model: chanels": ["train", "--dataset", "cells", "--minutes", "1", "--set", "model.chanels=3"],
        "follows from the data": ["train", "--dataset", "cells", "--minutes", "1", "--set", "model.cutoff=3"],
        "device 'abacus'": ["train", "--dataset", "cells", "--minutes", "1", "--device", "abacus"],
        "no checkpoint folder": ["train", "--dataset", "cells", "--minutes", "1", "--init", "a/b/c"],
        "no data set 'celsl'": ["train", "--dataset", "celsl", "--minutes", "1", "--dry-run"],
        "no data set 'xbt'": ["train", "--dataset", "cells", "--helper", "xbt", "--minutes", "1", "--dry-run"],
        "cells, cells: a data set is named twice": [
            "train",
            "--dataset",
            "cells",
            "--helper",
            "cells",
            "--minutes",
            "1",
            "--dry-run",
        ],
        "minutes": ["train", "--dataset", "cells", "--minutes", "inf", "--dry-run"],
        "experiment": ["train", "--dataset", "cells", "--minutes", "1", "--set", "experiment=", "--dry-run"],
        "seed": ["train", "--dataset", "cells", "--minutes", "1", "--seed", "9" * 23, "--dry-run"],
        "always has degree 2": ["train", "--dataset", "cells", "--minutes", "1", "--dry-run", *odd],
    }
    for words, arguments in cases.items():
        result = run.invoke(app, arguments)
        assert result.exit_code == 2, (arguments, result.output)
        assert words in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.slow
@pytest.mark.server
def test_helpers_are_trained_on_and_nothing_else(lake_home: Home, config: Callable[..., Any]) -> None:
    from flows import load
    from flows.train import train

    data = {
        "datasets": ["cells"],
        "cutoff": 4.0,
        "split_by": "structure",
        "split": {"train": 6, "valid": 4, "test": 30},
    }
    alone = train(config(data=data), lake_home, cluster="threads", show=False)
    helped = train(config(data=data | {"helpers": ["near-cells"]}), lake_home, cluster="threads", show=False)
    assert helped.sha256 != alone.sha256
    for split in ("valid", "test"):
        assert helped.metrics[split]["n_structures"] == alone.metrics[split]["n_structures"]
    assert helped.steps > alone.steps
    potential = load(str(lake_home.absolute(helped.checkpoint)))
    assert potential.theory == "emt/ase"
    assert potential.manifest.theories == ["emt/ase", "emt/cheap"]
    alone_again = config(data=data, preset=None, model={}, init=str(lake_home.absolute(helped.checkpoint)), epochs=1)
    last = load(str(lake_home.absolute(train(alone_again, lake_home, cluster="threads", show=False).checkpoint)))
    assert (last.theory, last.manifest.theories) == ("emt/ase", ["emt/ase"])


def test_options_win_over_the_file_and_set_over_both(tmp_path: Path) -> None:
    from flows.cli.output import overrides
    from flows.cli.train import configuration

    path = tmp_path / "c.toml"
    path.write_text('epochs = 7\npreset = "small"\n[data]\ndatasets = ["a"]\n[optimiser]\nlr = 0.5\n')
    options = {"data": {"datasets": ["b"]}, "minutes": 2.0, "preset": None}
    config = configuration(path, options, overrides(["optimiser.lr=0.25", "seed=9"]))
    assert config.data.datasets == ["b"]
    assert (config.minutes, config.epochs, config.preset, config.seed) == (2.0, None, "small", 9)
    assert config.optimiser.lr == 0.25


def test_what_was_not_learnt_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    from flows.cli.results import TrainResult
    from flows.cli.train import describe

    result = TrainResult(
        model=None, model_version=None, checkpoint="c", sha256="0", run_id=None, graph_set_id="0", epochs=1, steps=2,
        metrics={}, unlearnt=["force_mae_mev_per_angstrom", "gap_mae"], cpu_s=1.0, wall_s=1.0,
    )  # fmt: skip
    describe(result)
    assert "not learnt: force MAE, meV/Å, gap_mae:" in " ".join(capsys.readouterr().err.split())
    describe(result.model_copy(update={"unlearnt": []}))
    assert "not learnt" not in capsys.readouterr().err


def test_two_budgets_are_refused() -> None:
    from flows.cli.train import configuration

    with pytest.raises(InputError, match="epochs and minutes are both given"):
        configuration(None, {"data": {"datasets": ["a"]}, "minutes": 2.0, "epochs": 3}, {})


def test_a_dry_run_does_nothing(lake_home: Home) -> None:
    before = sorted(lake_home.root.rglob("*"))
    arguments = ["train", "--dataset", "cells", "--helper", "near-cells", "--minutes", "3", "--committee", "2"]
    arguments += ["--dry-run", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["config"]["committee"] == 2
    assert any("would use cells@" in remark for remark in found["remarks"])
    assert any("with the help of near-cells@" in remark for remark in found["remarks"])
    assert sorted(lake_home.root.rglob("*")) == before


def test_time_is_shared_where_members_outnumber_cores() -> None:
    from flows.members import member_configs
    from gnn.training.config import make_config

    configs = member_configs(make_config({"minutes": 6, "committee": 3, "seed": 5}), 2, "local")
    assert [c.minutes for c in configs] == [3.0, 3.0, 3.0]
    assert [c.seed for c in configs] == [5, 6, 7]
    assert {c.threads for c in configs} == {1}
    together = member_configs(make_config({"minutes": 6, "committee": 2}), 4, "local")
    assert [(c.minutes, c.threads) for c in together] == [(6.0, 2), (6.0, 2)]
    in_turn = member_configs(make_config({"minutes": 6, "committee": 3}), 4, "threads")
    assert [(c.minutes, c.threads) for c in in_turn] == [(2.0, 4), (2.0, 4), (2.0, 4)]


def test_members_train_on_gpus_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.members import member_configs
    from gnn.training.config import make_config

    monkeypatch.setattr("flows.gpus.local_gpus", lambda: ["0", "1"])
    on_gpus = member_configs(make_config({"minutes": 6, "committee": 4}), 8, "local")
    assert [(c.minutes, c.threads) for c in on_gpus] == [(3.0, 4)] * 4
    on_cores = member_configs(make_config({"minutes": 6, "committee": 4, "device": "cpu"}), 8, "local")
    assert [(c.minutes, c.threads) for c in on_cores] == [(6.0, 2)] * 4


def test_cpu_time_is_each_members_own() -> None:
    from flows.members import member_configs
    from gnn.training.config import make_config

    config = make_config({"minutes": 6, "committee": 3, "clock": "cpu"})
    for cluster in ("local", "threads", "tcp://127.0.0.1:8786"):
        assert [c.minutes for c in member_configs(config, 2, cluster)] == [6, 6, 6]


@pytest.mark.long
@pytest.mark.server
def test_two_processes_train_what_one_with_double_batches_does(lake_home: Home, config: Callable[..., Any]) -> None:
    from flows.train import train

    together = train(config(devices=2, batch={"max_atoms": 8}), lake_home, cluster="threads", show=False)
    alone = train(config(batch={"max_atoms": 16}), lake_home, cluster="threads", show=False)
    assert together.steps == alone.steps
    assert together.sha256 != alone.sha256
    mine, theirs = (r.metrics["test"]["force_mae_mev_per_angstrom"] for r in (together, alone))
    assert mine == pytest.approx(theirs, rel=1e-3)
