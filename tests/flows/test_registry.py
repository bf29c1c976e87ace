"""The registry, on a real embedded store."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flows.registry import export, find, list_models, parse_reference, promote, register, registered_names, resolve
from flows.settings import Home
from flows.tracking import connect
from gnn.errors import InputError, SluiceError
from gnn.graphs.graph_set import GraphSet, LakeInput, Statistics, TheoryReferences
from gnn.models.config import ModelConfig
from gnn.models.model import build_model
from gnn.training.checkpoint import read_checkpoint, write_checkpoint


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def make_checkpoint(folder: Path, seed: int, split: str = "test") -> Path:
    config = ModelConfig(
        elements=["Cu"], cutoff=4.0, channels=2, layers=1, correlation=1, edge_l_max=0, n_radial=2, radial_hidden=[2],
        theories=["emt/ase"],
    )  # fmt: skip
    graph_set = GraphSet(
        graph_set_id="ab" * 32, builder_version=1, cutoff=4.0, theories=["emt/ase"], elements=["Cu"], shards=[],
        inputs=[LakeInput(dataset="copper", version=2, content_digest="c" * 64)],
        split_seed=0, split_counts={"train": 8}, splits_path="splits.parquet",
        statistics=Statistics(
            n_structures=8, n_atoms=8, n_edges=8, mean_neighbours=1.0, energy_rms=1.0, force_rms=1.0, stress_rms=None
        ),
        references={"emt/ase": TheoryReferences(energies={"Cu": 0.0}, source={"Cu": "fitted"})},
        rows_in=8, reference_rows=0, dropped={},
    )  # fmt: skip
    errors = {"n_structures": 4, "energy_mae_mev_per_atom": 1.5, "by_element": {}, "properties": {}}
    model = build_model(config, seed=seed)
    write_checkpoint(folder, [model], name="copper", graph_set=graph_set, metrics={split: errors})
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with two versions of `copper` and one of `other`."""
    home = Home(tmp_path_factory.mktemp("registered"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for name, seed in (("copper", 0), ("copper", 1), ("other", 2)):
            register(make_checkpoint(home.models / f"{name}-{seed}", seed), name, home)
    return home


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("models:/a@best", ("a", "best", None)),
        ("models:/a/3", ("a", None, "3")),
        ("models:/a", ("a", "champion", None)),
        ("a-b_c.1", ("a-b_c.1", "champion", None)),
        ("a@x", ("a", "x", None)),
        ("a/12", ("a", None, "12")),
    ],
)
def test_references(text: str, found: tuple[str, str | None, str | None]) -> None:
    reference = parse_reference(text)
    assert (reference.name, reference.alias, reference.version) == found


@pytest.mark.parametrize("text", ["", "a@", "a/", "a/b", "a/1@x", "../x", "models:/", "/tmp/no/such", "a b"])
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(InputError, match="no checkpoint folder and no model name"):
        parse_reference(text)


def test_an_empty_registry_says_so_without_mlflow(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing is registered"):
        resolve("models:/a@champion", Home(tmp_path))
    assert list_models(Home(tmp_path)) == []
    assert not (tmp_path / "mlruns").exists()


def test_a_folder_is_itself(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", 0)
    assert resolve(str(folder), Home(tmp_path)) == folder
    (folder / "model.json").unlink()
    with pytest.raises(InputError, match=r"model\.json is missing"):
        resolve(str(folder), Home(tmp_path))


@pytest.mark.slow
def test_versions_and_aliases(store: Home) -> None:
    first, second = list_models(store, "copper")
    assert (first.version, first.aliases) == ("1", ("champion",))
    assert (second.version, second.aliases) == ("2", ())
    assert first.metrics == {"n_structures": 4.0, "energy_mae_mev_per_atom": 1.5}
    assert first.judged_on == "test"
    assert [m.name for m in list_models(store)] == ["copper", "copper", "other"]


@pytest.mark.slow
def test_errors_on_the_validation_split_are_not_called_test_errors(tmp_path: Path) -> None:
    home = Home(tmp_path)
    found = register(make_checkpoint(home.models / "only", 3, split="valid"), "only", home)
    assert (found.judged_on, found.metrics["energy_mae_mev_per_atom"]) == ("valid", 1.5)


@pytest.mark.slow
def test_a_name_that_was_left_without_champion_gets_one(tmp_path: Path) -> None:
    """As after a kill between making the first version and crowning it."""
    home = Home(tmp_path)
    folder = make_checkpoint(home.models / "only", 3)
    register(folder, "only", home)
    connect(home).delete_registered_model_alias("only", "champion")
    assert register(folder, "only", home).aliases == ("champion",)


@pytest.mark.slow
def test_all_names_are_listed_however_many(tmp_path: Path) -> None:
    home = Home(tmp_path)
    register(make_checkpoint(home.models / "only", 3), "only", home)
    client = connect(home)
    for number in range(120):
        client.create_registered_model(f"empty-{number:03d}")
    assert len(registered_names(home)) == 121


@pytest.mark.slow
def test_every_way_of_naming_leads_to_the_registered_bytes(store: Home) -> None:
    for uri in ("models:/copper@champion", "models:/copper/1", "copper", "copper/1"):
        found = find(uri, store)
        assert (found.name, found.version) == ("copper", "1")
        assert read_checkpoint(found.path)[0].sha256 == found.sha256
    assert find("copper/2", store).sha256 != find("copper/1", store).sha256


@pytest.mark.slow
def test_a_data_folder_does_not_hide_the_model_of_its_name(
    store: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data" / "copper").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "data")
    assert find("copper", store).name == "copper"


@pytest.mark.slow
def test_mistakes_list_what_there_is(store: Home) -> None:
    with pytest.raises(InputError, match="there are: copper, other"):
        resolve("copepr", store)
    with pytest.raises(InputError, match=r"no alias 'best'; it has versions 1, 2 and aliases champion"):
        resolve("copper@best", store)
    with pytest.raises(InputError, match="no version 9"):
        resolve("models:/copper/9", store)
    with pytest.raises(InputError, match="there are: copper, other"):
        list_models(store, "none")
    with pytest.raises(InputError, match="use letters"):
        register(store.models / "copper-0", "a/b", store)


@pytest.mark.slow
def test_the_same_weights_are_registered_once(store: Home) -> None:
    assert register(store.models / "copper-1", "copper", store).version == "2"
    assert len(list_models(store, "copper")) == 2


@pytest.mark.slow
def test_promotion_moves_the_champion(store: Home) -> None:
    assert promote("other/1", store, "blessed").aliases == ("blessed", "champion")
    assert resolve("other@blessed", store) == resolve("other/1", store)
    with pytest.raises(InputError, match="no version 3"):
        promote("other/3", store)


@pytest.mark.slow
def test_export_then_import_keeps_every_byte(store: Home, tmp_path: Path) -> None:
    target = export("copper/2", tmp_path / "out", store)
    assert read_checkpoint(target)[0].sha256 == find("copper/2", store).sha256
    with pytest.raises(InputError, match="exists already"):
        export("copper/2", target, store)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        export("copper/2", tmp_path / "file" / "out", store)


@pytest.mark.slow
def test_changed_files_are_noticed(store: Home, tmp_path: Path) -> None:
    moved = Home(tmp_path / "moved")
    shutil.copytree(store.root, moved.root)
    weights = next(path for path in moved.mlruns.rglob("model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00\x01")
    broken = [uri for uri in ("copper/1", "copper/2", "other/1") if _is_refused(uri, moved)]
    assert len(broken) == 1  # the copy reads its own files, not those of the original
    assert not any(_is_refused(uri, store) for uri in ("copper/1", "copper/2", "other/1"))


@pytest.mark.slow
def test_files_that_are_gone_are_told(store: Home, tmp_path: Path) -> None:
    bare = Home(tmp_path / "bare")
    shutil.copytree(store.root, bare.root)
    shutil.rmtree(bare.mlruns / "artifacts")
    with pytest.raises(SluiceError, match="files of the registered model are gone"):
        resolve("copper/1", bare)


@pytest.mark.slow
def test_experiments_with_a_path_of_their_own_still_resolve(tmp_path: Path) -> None:
    """Homes of earlier versions name their files by absolute paths; they may have been moved since."""
    old = Home(tmp_path / "old")
    client = connect(old)
    client.create_experiment("sluice", artifact_location=(old.mlruns / "artifacts" / "sluice").as_uri())
    register(make_checkpoint(old.models / "c", 5), "copper", old)
    assert find("copper", old).path.is_relative_to(old.mlruns)
    moved = Home(tmp_path / "new")
    shutil.move(old.root, moved.root)
    assert find("copper", moved).path.is_relative_to(moved.mlruns)


def _is_refused(uri: str, home: Home) -> bool:
    try:
        resolve(uri, home)
    except SluiceError:
        return True
    return False
