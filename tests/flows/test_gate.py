"""The gate: suites, challengers, champions, and the page of a version; on a real store with real trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from ase.io import write
from emt_cells import labelled_cells
from tiny_network import TINY
from typer.testing import CliRunner

from flows import gate, registry
from flows.cli.main import app
from flows.gate import partial_to
from flows.settings import Home
from flows.suites import Suite, frozen_ids, read_suite
from flows.tracking import connect
from flows.unchanged import nothing_new
from flows.version_page import LONGEST, description
from gnn.errors import InputError, SluiceError
from gnn.files import write_text
from gnn.training.config import make_config

pytestmark = [pytest.mark.slow, pytest.mark.server]


def ingest_more(home: Home, n: int, seed: int) -> None:
    from flows.ingest import ingest

    path = home.root / f"cells-{seed}.xyz"
    write(path, labelled_cells(n, seed), format="extxyz")
    ingest([str(path)], "cells", home, theory="emt/ase")


def configuration(**changes: Any) -> Any:
    base = {"data": {"datasets": ["cells"], "cutoff": 4.0, "split_by": "structure"}, "preset": "small", "model": TINY}
    return make_config(
        {**base, "epochs": 4, "batch": {"max_atoms": 64}, "register_as": "copper", "device": "cpu", **changes}
    )


def trained(home: Home, **changes: Any) -> registry.RegisteredModel:
    from flows.train import train

    version = train(configuration(**changes), home, "threads", show=False).model_version
    return registry.lookup(f"copper/{version}", home)[0]


def tags_of(home: Home, version: str) -> dict[str, str]:
    return dict(connect(home).get_model_version("copper", version).tags)


def suite_of(home: Home) -> Suite:
    found = read_suite("copper", home)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory, prefect_server: str) -> Home:
    """A home with a champion (version 1), a worse challenger (2) and a better one that took its place (3)."""
    home = Home(tmp_path_factory.mktemp("gated"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        ingest_more(home, 40, 0)
        trained(home)
        trained(home, epochs=1)
        trained(home, epochs=30)
    return home


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch, gated: Home) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("SLUICE_HOME", str(gated.root))


def test_only_the_better_version_is_champion(gated: Home) -> None:
    first, second, third = registry.list_models(gated, "copper")
    assert [m.aliases for m in (first, second, third)] == [(), (), ("champion",)]
    assert tags_of(gated, "1")["gate.reason"] == gate.FIRST
    assert tags_of(gated, "2")["gate"] == "challenger"
    assert tags_of(gated, "2")["gate.reason"].startswith("does not beat version 1: errors are ")
    assert tags_of(gated, "3")["gate.reason"].startswith("beats version 1: errors are 0.")


def test_the_suite_is_the_first_test_split_and_never_changes(gated: Home) -> None:
    suite = suite_of(gated)
    assert suite.manifest.n_structures == 4
    assert len(suite.structure_ids()) == 4
    assert [item.dataset for item in suite.manifest.inputs] == ["cells"]
    assert {tags_of(gated, v)["suite"] for v in "123"} == {suite.manifest.digest}
    assert len(list(suite.graphs(4.0))) == 4


def test_a_changed_suite_is_refused(gated: Home, tmp_path: Path) -> None:
    suite = suite_of(gated)
    rows = tmp_path / "suite.parquet"
    rows.write_bytes(suite.rows_path.read_bytes() + b"x")
    with pytest.raises(SluiceError, match="frozen was"):
        list(Suite(tmp_path, suite.manifest).graphs(4.0))


def test_promotion_by_hand_asks_the_suite(gated: Home) -> None:
    refused = CliRunner().invoke(app, ["models", "promote", "copper", "2"])
    assert refused.exit_code == 1
    assert "copper version 2 stays challenger: it does not beat version 3" in refused.stderr
    without = CliRunner().invoke(app, ["models", "promote", "copper/2", "--force"])
    assert without.exit_code == 2
    assert "--reason" in without.stderr
    assert registry.find("copper", gated).version == "3"


def test_what_was_trained_on_unknown_data_does_not_win(gated: Home, tmp_path: Path) -> None:
    folder = registry.resolve("copper/2", gated)
    assert partial_to(suite_of(gated), folder, gated) is None
    elsewhere = partial_to(suite_of(gated), folder, Home(tmp_path))
    assert elsewhere is not None and elsewhere.startswith("may have learnt from the suite: what it was trained on (")


def test_forcing_keeps_the_reason_and_can_be_undone(gated: Home) -> None:
    done = CliRunner().invoke(app, ["models", "promote", "copper", "2", "--force", "--reason", "for the paper"])
    assert done.exit_code == 0, done.output
    assert tags_of(gated, "2")["gate.reason"] == "forced: for the paper"
    assert registry.find("copper", gated).version == "2"
    back = gate.promote("copper/3", gated)
    assert back.champion
    assert back.reason.startswith("beats version 2")
    assert registry.find("copper", gated).version == "3"


def test_other_aliases_just_move(gated: Home) -> None:
    assert CliRunner().invoke(app, ["models", "promote", "copper/1", "--alias", "paper"]).exit_code == 0
    assert registry.find("copper@paper", gated).version == "1"


def test_the_page_shows_card_metrics_cost_and_plots(gated: Home) -> None:
    client = connect(gated)
    version = client.get_model_version("copper", "3")
    assert "**Gate:** " in version.description
    assert "# copper" in version.description
    assert "| element Al | 4 | " in version.description
    assert "| theory emt/ase | 4 | " in version.description
    assert "get-artifact?path=plots%2Fsuite_energy.png" in version.description
    assert float(version.tags["cost.cpu_s"]) > 0
    assert version.tags["data"] == "cells@0"
    logged = client.get_logged_model(version.tags["model_id"])
    names = {metric.key for metric in logged.metrics}
    assert {"suite/energy_mae_mev_per_atom", "suite/element/Al/force_mae_mev_per_angstrom"} <= names
    assert "suite/theory/emt/ase/energy_mae_mev_per_atom" in names
    plots = {item.path for item in client.list_artifacts(version.run_id, "plots")}
    assert {"plots/suite_energy.png", "plots/suite_forces.png"} <= plots
    assert (registry.resolve("copper/3", gated) / "plots" / "suite_energy.png").is_file()


def test_a_version_is_judged_once(gated: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "measure", lambda *_: pytest.fail("measured again"))
    assert trained(gated, epochs=30).version == "3"


def test_training_rests_while_nothing_changes(gated: Home) -> None:
    assert nothing_new(configuration(epochs=30), gated) == (
        "nothing to do: the data are those of cells@0, which version 3 of copper was trained on"
    )
    assert nothing_new(configuration(epochs=31), gated) is None
    client = connect(gated)
    reason = client.get_model_version("copper", "3").tags[registry.VERDICT]
    client.delete_model_version_tag("copper", "3", registry.VERDICT)  # as after a kill before the judgement
    assert nothing_new(configuration(epochs=30), gated) is None
    client.set_model_version_tag("copper", "3", registry.VERDICT, reason)
    assert nothing_new(configuration(epochs=30, register_as="new"), gated) is None
    assert nothing_new(configuration(epochs=30, register_as=None), gated) is None
    with pytest.raises(InputError, match="no data set"):
        nothing_new(configuration(epochs=30, data={"datasets": ["none"]}), gated)


def test_new_data_never_bring_the_suite_into_training(gated: Home) -> None:
    before = set(frozen_ids("copper", gated))
    ingest_more(gated, 40, 1)
    assert nothing_new(configuration(epochs=30), gated) is None
    model = trained(gated, epochs=1, seed=3)
    folder = gated.graphs / tags_of(gated, model.version)["graph_set_id"][:16]
    rows = pq.read_table(folder / "splits.parquet").to_pylist()
    assert len(rows) == 80
    assert {row["role"] for row in rows if row["structure_id"] in before} == {"test"}
    assert set(frozen_ids("copper", gated)) == before
    assert tags_of(gated, model.version)["suite"] == suite_of(gated).manifest.digest


def test_a_long_card_still_fits_the_database() -> None:
    text = description("# card\n" + "a line of the card\n" * 1000, "it won", "| a |", ["a.png"])
    assert len(text) <= LONGEST
    assert text.startswith("**Gate:** it won.\n\n| a |")
    assert "the rest is in `README.md`" in text
    assert text.endswith("![parity on the suite](a.png)")
    wide = "| a |\n" * 1000
    assert len(description("card", "it won", wide, ["a.png"])) <= LONGEST
    almost = "x" * (LONGEST - 100)
    assert len(description("a card\n" * 100, "it won", almost, ["a.png"] * 20)) <= LONGEST


def test_a_model_without_suite_is_not_promoted_unasked(gated: Home) -> None:
    folder = registry.resolve("copper/2", gated)
    registry.register(folder, "imported", gated)
    with pytest.raises(SluiceError, match="imported has no frozen suite"):
        gate.promote("imported/1", gated)
    assert gate.promote("imported/1", gated, "known to be good", force=True).champion


def test_campaigns_pin_a_version_and_stand_on_its_page(gated: Home) -> None:
    from flows.campaigns import CampaignFolder
    from flows.screen import screen

    path = write_text(
        gated.root / "tiny.toml",
        'name = "tiny"\nmodel = "copper"\n[candidates]\nelements = ["Al", "Cu"]\nmin_elements = 2\n'
        'prototypes = ["CsCl"]\n[relaxation]\nmax_steps = 3\n[hull]\nreference = "model"\n',
    )
    screen(path, gated, "threads", show=False)
    pinned = CampaignFolder(gated, "tiny").manifest()
    assert pinned is not None
    assert (pinned.model.uri, pinned.model.version) == ("copper", "3")
    assert tags_of(gated, "3")["campaign.tiny"].startswith("COMPLETED ")
    registry.promote("copper/1", gated)
    try:
        assert screen(path, gated, "threads", show=False).model_version == "3"
    finally:
        registry.promote("copper/3", gated)
    assert "campaign.tiny" not in tags_of(gated, "1")


# ---- last, since they add versions


def champion_version(home: Home) -> str | None:
    return registry.find("copper", home).version


def test_what_has_learnt_from_the_suite_does_not_win(gated: Home) -> None:
    from flows.train import train

    other = {"data": {"datasets": ["cells"], "cutoff": 4.0, "split_by": "structure", "split_seed": 5}}
    leaky = train(configuration(register_as=None, epochs=30, **other), home=gated, cluster="threads", show=False)
    imported = registry.register(gated.absolute(leaky.checkpoint), "copper", gated)
    before = champion_version(gated)
    refused = CliRunner().invoke(app, ["models", "promote", f"copper/{imported.version}"])
    assert refused.exit_code == 1
    assert "it was trained on 4 of the suite's 4 structures, so its errors say nothing" in refused.stderr
    child = trained(gated, init=str(gated.absolute(leaky.checkpoint)), epochs=1, preset=None, model={})
    assert "was trained on 4 of the suite's 4 structures" in tags_of(gated, child.version)["gate.reason"]
    assert champion_version(gated) == before
