"""The checkpoint folder: whole, or refused with the reason."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from gnn.errors import InputError
from gnn.files import file_sha256
from gnn.models.config import ModelConfig
from gnn.models.element_weights import ElementWeights
from gnn.models.model import Model, build_model
from gnn.training.card import model_card
from gnn.training.checkpoint import (
    Calibration,
    CheckpointManifest,
    member_tensors,
    read_checkpoint,
    read_header,
    read_manifest,
    write_checkpoint,
)


@pytest.fixture(scope="module")
def members(request: pytest.FixtureRequest) -> list[Model]:
    config = ModelConfig(
        elements=["Al", "Cu"], cutoff=4.0, channels=4, layers=1, correlation=2, edge_l_max=1, n_radial=4,
        radial_hidden=[8], theories=["emt/ase"], references={"emt/ase": {"Al": -1.0, "Cu": -2.0}},
    )  # fmt: skip
    return [build_model(config, seed=seed) for seed in (0, 1)]


@pytest.fixture
def checkpoint(members: list[Model], copper: Any, tmp_path: Path) -> Path:
    errors = {"n_structures": 4, "energy_mae_mev_per_atom": 3.21, "force_mae_mev_per_angstrom": 55.5}
    folder = tmp_path / "checkpoint"
    write_checkpoint(
        folder, members, name="copper", graph_set=copper.graph_set, metrics={"test": errors},
        training={"minutes": 5.0}, cost={"cpu_s": 12.0}, calibration=Calibration(energy_scale=2.0, n=40), code="abc",
        trained_on=["a GPU"],
    )  # fmt: skip
    return folder


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "model.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the weights and make the manifest agree with the new file, as a forger would."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)

    def agree(values: dict[str, Any]) -> None:
        values["sha256"] = file_sha256(path)
        values["tensors"] = {name: info.model_dump() for name, info in read_header(path).items()}

    change_manifest(folder, agree)


def test_what_is_written_is_read(checkpoint: Path, members: list[Model]) -> None:
    manifest, found = read_checkpoint(checkpoint)
    assert manifest.members == 2
    assert manifest.elements == ["Al", "Cu"]
    assert manifest.data.inputs[0].licence == "CC-BY-4.0"
    assert manifest.calibration == Calibration(energy_scale=2.0, n=40)
    for mine, theirs in zip(members, found, strict=True):
        assert mine.config == theirs.config
        assert not theirs.training
        for name, value in mine.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name])


def test_same_numbers_after_reading(checkpoint: Path, members: list[Model], copper: Any) -> None:
    batch = next(copper.batches("test", max_atoms=16))
    _, found = read_checkpoint(checkpoint)
    before, after = members[1].predict(batch), found[1].predict(batch)
    assert torch.equal(before.energy, after.energy)
    assert torch.equal(before.forces, after.forces)


def test_only_the_three_files(checkpoint: Path) -> None:
    assert sorted(path.name for path in checkpoint.iterdir()) == ["README.md", "model.json", "model.safetensors"]
    assert not list(checkpoint.parent.glob(".*"))


def test_an_older_one_is_replaced(checkpoint: Path, members: list[Model], copper: Any) -> None:
    (checkpoint / "stray.txt").write_text("x")
    write_checkpoint(checkpoint, members[:1], name="copper", graph_set=copper.graph_set)
    assert read_manifest(checkpoint).members == 1
    assert not (checkpoint / "stray.txt").exists()


def test_double_weights_stay_double(members: list[Model], copper: Any, tmp_path: Path) -> None:
    double = build_model(members[0].config).double()
    write_checkpoint(tmp_path / "d", [double], name="d", graph_set=copper.graph_set)
    found = read_checkpoint(tmp_path / "d")[1][0]
    assert {value.dtype for value in found.parameters()} == {torch.float64}


def test_members_of_two_architectures_are_refused(members: list[Model], copper: Any, tmp_path: Path) -> None:
    other = build_model(members[0].config.model_copy(update={"channels": 8}))
    with pytest.raises(ValueError, match="share their architecture"):
        write_checkpoint(tmp_path / "x", [members[0], other], name="x", graph_set=copper.graph_set)


def test_the_card_says_what_a_stranger_needs(checkpoint: Path) -> None:
    card = (checkpoint / "README.md").read_text()
    for needed in (
        "copper",
        "CC-BY-4.0",
        "emt/ase",
        "Al, Cu",
        "3.21",
        "5 minutes on a GPU",
        "55.5",
        "Intended use",
        "load(",
        "positive = tension",
    ):
        assert needed in card


@pytest.mark.parametrize(
    ("groups", "warned"), [(1, "of 1 group only"), (8, "of 8 groups only"), (9, None), (None, None)]
)
def test_the_card_warns_of_an_interval_from_few_groups(
    checkpoint: Path, groups: int | None, warned: str | None
) -> None:
    calibration = Calibration(energy_scale=1.0, n=100, interval_90=1.7, groups=groups)
    manifest = read_manifest(checkpoint).model_copy(update={"calibration": calibration})
    card = model_card(manifest.model_dump(mode="json"))
    assert "1.7 times it is the half width of a 90 % interval" in card
    assert (warned in card) if warned else ("only: of structures unlike" not in card)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["energy", "forces"], None),
        (["gap"], "use only its properties"),
        (["forces"], "energies of different structures cannot be compared"),
    ],
)
def test_the_card_says_what_a_model_without_energies_is_good_for(
    checkpoint: Path, labels: list[str], said: str | None
) -> None:
    manifest = read_manifest(checkpoint).model_dump(mode="json")
    manifest["data"]["labels"] = labels
    card = model_card(manifest)
    assert said in card if said else "without energies" not in card


@pytest.mark.parametrize(
    ("labels", "knows", "kinds"),
    [
        (None, True, {"emt/ase": "energy"}),
        (["energy"], True, {"emt/ase": "energy"}),
        (["forces"], True, {}),
        (["gap"], False, {}),
    ],
)
def test_only_what_was_learnt_from_is_known(
    members: list[Model], copper: Any, tmp_path: Path, labels: list[str] | None, knows: bool, kinds: dict[str, str]
) -> None:
    graph_set = copper.graph_set.model_copy(update={"energy_kinds": {"emt/ase": "energy"}})
    write_checkpoint(tmp_path / "c", members[:1], name="c", graph_set=graph_set, labels=labels)
    manifest = read_manifest(tmp_path / "c")
    assert manifest.knows_energies == knows
    assert manifest.data.energy_kinds == kinds
    assert manifest.data.labels == (labels or ["energy", "forces", "stress"])


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_missing_file_is_named(checkpoint: Path, name: str) -> None:
    (checkpoint / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        read_checkpoint(checkpoint)


def test_changed_weights_are_noticed(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 0x40
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match="sha256"):
        read_checkpoint(checkpoint)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_cut_off_weights_are_noticed(checkpoint: Path, kept: int) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"cut off|damaged"):
        read_checkpoint(checkpoint)


def test_a_header_that_promises_terabytes_takes_no_memory(checkpoint: Path) -> None:
    header = json.dumps({"w": {"dtype": "F64", "shape": [10**6, 10**6], "data_offsets": [0, 8 * 10**12]}}).encode()
    (checkpoint / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(InputError, match="cut off or damaged"):
        read_checkpoint(checkpoint)


@pytest.mark.parametrize(
    ("field", "value"), [("channels", 10**9), ("readout_hidden", 10**9), ("layers", 10**6), ("n_radial", 10**8)]
)
def test_an_architecture_larger_than_its_weights_takes_no_memory(checkpoint: Path, field: str, value: int) -> None:
    change_manifest(checkpoint, lambda values: values["model"].update({field: value}))
    with pytest.raises(InputError, match=f"model.{field}"):
        read_checkpoint(checkpoint)


@pytest.mark.parametrize("family", ["ace", "tensor"])
@pytest.mark.parametrize(
    "changes",
    [
        {"element_rank": 100},
        {"element_rank": 10**6},
        {"layers": 100, "n_radial": 1, "radial_hidden": [1]},
        {"layers": 12, "radial_hidden": [1500, 1500]},
        {"readout_hidden": 90_000, "channels": 64, "layers": 9},
        {"radial_hidden": [2] * 100},
    ],
)
def test_what_can_be_trained_can_be_read(copper: Any, tmp_path: Path, family: Any, changes: dict[str, Any]) -> None:
    small = {"channels": 2, "correlation": 1, "n_radial": 2, "radial_hidden": [2]}
    own = {"edge_l_max": 0} if family == "ace" else {}
    config = ModelConfig(elements=["Al", "Cu"], family=family, cutoff=4.0, **(small | own | changes))
    write_checkpoint(tmp_path / "c", [build_model(config)], name="c", graph_set=copper.graph_set)
    assert read_checkpoint(tmp_path / "c")[1][0].config == config


def test_another_schema_version_is_refused(checkpoint: Path) -> None:
    change_manifest(checkpoint, lambda values: values.update(schema_version=99))
    with pytest.raises(InputError, match="schema version 99; this program reads 1 and 2"):
        read_checkpoint(checkpoint)


def test_tables_of_elements_of_the_first_version_are_what_they_were(
    checkpoint: Path, members: list[Model], copper: Any
) -> None:
    """The first version holds the tables themselves."""
    tables = {
        f"member.{k}.{name}.element": part.table().detach()
        for k, model in enumerate(members)
        for name, part in model.named_modules()
        if isinstance(part, ElementWeights)
    }
    assert tables
    change_tensors(checkpoint, lambda tensors: tensors.update(tables))
    change_manifest(checkpoint, lambda values: values.update(schema_version=1))
    batch = next(copper.batches("train", max_atoms=10_000, shuffle=False))
    for found, model in zip(read_checkpoint(checkpoint)[1], members, strict=True):
        known, expected = found.predict(batch), model.predict(batch)
        torch.testing.assert_close(known.energy, expected.energy, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(known.forces, expected.forces, rtol=1e-5, atol=1e-5)


def test_unknown_keys_are_refused(checkpoint: Path) -> None:
    change_manifest(checkpoint, lambda values: values.update(entry_point="os.system"))
    with pytest.raises(InputError, match="entry_point"):
        read_checkpoint(checkpoint)


def test_an_unknown_family_is_refused(checkpoint: Path) -> None:
    change_manifest(checkpoint, lambda values: values["model"].update(family="os.system"))
    with pytest.raises(InputError, match="family"):
        read_checkpoint(checkpoint)


def test_a_manifest_that_contradicts_itself_is_refused(checkpoint: Path) -> None:
    change_manifest(checkpoint, lambda values: values.update(elements=["Cu", "Al"]))
    with pytest.raises(InputError, match=r"elements differs from model\.elements"):
        read_checkpoint(checkpoint)


@pytest.mark.parametrize("text", ["", "[1", "null", "[]", "{}", "\x00", "[" * 100_000])
def test_a_manifest_that_is_no_manifest_is_refused(checkpoint: Path, text: str) -> None:
    (checkpoint / "model.json").write_text(text)
    with pytest.raises(InputError):
        read_checkpoint(checkpoint)


def test_forged_weights_of_another_shape_are_refused(checkpoint: Path) -> None:
    name = next(n for n in load_file(checkpoint / "model.safetensors") if n.startswith("member.0."))
    change_tensors(checkpoint, lambda tensors: tensors.update({name: torch.zeros(3, 3, 3)}))
    with pytest.raises(InputError, match="shape"):
        read_checkpoint(checkpoint)


def test_missing_and_superfluous_tensors_are_named(checkpoint: Path) -> None:
    copy = checkpoint.with_name("copy")
    shutil.copytree(checkpoint, copy)
    change_tensors(checkpoint, lambda tensors: tensors.update({"member.1.extra": torch.zeros(1)}))
    with pytest.raises(InputError, match=r"member\.1\.extra is not of this network"):
        read_checkpoint(checkpoint)
    name = sorted(load_file(copy / "model.safetensors"))[0]
    change_tensors(copy, lambda tensors: tensors.pop(name))
    with pytest.raises(InputError, match="is missing"):
        read_checkpoint(copy)


def test_a_manifest_of_other_tensors_is_refused(checkpoint: Path) -> None:
    change_manifest(checkpoint, lambda values: values["tensors"].popitem())
    with pytest.raises(InputError, match="does not belong to it"):
        read_checkpoint(checkpoint)


def test_weights_that_are_not_finite_are_refused(checkpoint: Path) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors[next(iter(sorted(tensors)))].fill_(float("inf"))

    change_tensors(checkpoint, spoil)
    with pytest.raises(InputError, match="not finite"):
        read_checkpoint(checkpoint)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_of_the_weights_is_refused(checkpoint: Path, where: float, bit: int) -> None:
    path = checkpoint / "model.safetensors"
    whole = path.read_bytes()
    content = bytearray(whole)
    content[int(where * len(content))] ^= 1 << bit
    path.write_bytes(bytes(content))
    try:
        with pytest.raises(InputError):
            read_checkpoint(checkpoint)
    finally:
        path.write_bytes(whole)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_a_changed_byte_of_the_manifest_is_refused_or_harmless(checkpoint: Path, where: float, byte: int) -> None:
    path = checkpoint / "model.json"
    whole = path.read_bytes()
    content = bytearray(whole)
    content[int(where * len(content))] = byte
    path.write_bytes(bytes(content))
    try:
        manifest, models = read_checkpoint(checkpoint)
    except InputError:
        return
    finally:
        path.write_bytes(whole)
    assert isinstance(manifest, CheckpointManifest)
    assert len(models) == manifest.members


def test_names_of_tensors(members: list[Model]) -> None:
    names = set(member_tensors(members))
    assert {name.split(".")[1] for name in names} == {"0", "1"}
    assert all(name.startswith("member.") for name in names)
