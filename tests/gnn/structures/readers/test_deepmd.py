"""DeePMD systems, npy and raw."""

from __future__ import annotations

import numpy as np
import pytest
from deepmd_system import write_system
from records import assert_same

from gnn.errors import InputError
from gnn.structures.readers import UnreadableFile, read_records
from gnn.structures.readers.sources import source_sha256


@pytest.mark.parametrize("kind", ["npy", "raw"])
def test_deepmd(tmp_path, frames, card, read_all, kind):
    folder = write_system(tmp_path / "data_0", frames, kind)
    records = read_all(folder, card)
    assert len(records) == 5
    for record, atoms in zip(records, frames, strict=True):
        assert_same(record, atoms)
    assert {record.group for record in records} == {f"{tmp_path.name}/data_0#{source_sha256(folder)[:8]}"}


def test_deepmd_elements_from_the_card(tmp_path, frames, card, read_all):
    folder = write_system(tmp_path / "d", frames, "raw", type_map=False)
    with pytest.raises(InputError, match="write type_map = "):
        read_all(folder, card)
    assert read_all(folder, card.model_copy(update={"type_map": ("Ge",)}))[0].formula == "Ge"


def test_deepmd_without_periodicity(tmp_path, frames, card, read_all):
    folder = write_system(tmp_path / "d", frames, "npy", virial=False)
    (folder / "set.000" / "box.npy").unlink()
    with pytest.raises(UnreadableFile, match="box is missing"):
        read_all(folder, card)
    (folder / "nopbc").touch()
    assert not read_all(folder, card)[0].pbc.any()


def test_places_without_an_atom_are_left_out(tmp_path, frames, card, read_all):
    """Frames of several sizes in one file: their last places are filled up."""
    folder = write_system(tmp_path / "d", frames, "npy")
    n, types = len(frames[0]), np.zeros((len(frames), len(frames[0])), dtype=int)
    types[:, -1] = -1
    np.save(folder / "set.000" / "real_atom_types.npy", types)
    for record, atoms in zip(read_all(folder, card), frames, strict=True):
        assert len(record.numbers) == n - 1
        assert record.positions == pytest.approx(atoms.positions[:-1], abs=1e-5)
        assert record.forces == pytest.approx(atoms.calc.results["forces"][:-1], abs=1e-5)
    types[2, 0] = 7
    np.save(folder / "set.000" / "real_atom_types.npy", types)
    kinds = [getattr(record, "code", "kept") for record in read_records(folder, card)]
    assert kinds == ["kept", "kept", "unknown-element", "kept", "kept"]


@pytest.mark.parametrize("kind", ["npy", "raw"])
def test_damaged_deepmd_costs_the_system(tmp_path, frames, card, kind):
    folder = write_system(tmp_path / "d", frames, kind)
    path = next(folder.rglob(f"energy.{kind}"))
    content = path.read_bytes()
    path.write_bytes(content[: -len(content) // 3])
    with pytest.raises(UnreadableFile):
        list(read_records(folder, card))
    path.unlink()
    next(folder.rglob(f"coord.{kind}")).unlink()
    with pytest.raises(UnreadableFile, match="coord"):
        list(read_records(folder, card))


def test_a_box_that_is_none_costs_its_frames(tmp_path, frames, card):
    folder = write_system(tmp_path / "d", frames, "npy")
    np.save(folder / "set.000" / "box.npy", np.full((len(frames), 3), 5.0))
    reasons = {record.reason for record in read_records(folder, card)}
    assert reasons == {"array-length: box has 3 numbers where 9 are due"}


def test_a_set_without_frames(tmp_path, frames, card, read_all):
    folder = write_system(tmp_path / "d", frames, "npy")
    (folder / "set.001").mkdir()
    for path in (folder / "set.000").iterdir():
        np.save(folder / "set.001" / path.name, np.load(path)[:0])
    assert len(read_all(folder, card)) == len(frames)
    (folder / "set.000").rename(tmp_path / "away")
    with pytest.raises(UnreadableFile, match="d: a system without frames"):
        list(read_records(folder, card))


def test_empty_lines_are_no_frames(tmp_path, frames, card, read_all):
    folder = write_system(tmp_path / "d", frames, "raw")
    for name in ("coord", "box", "energy"):
        path = folder / f"{name}.raw"
        path.write_text(path.read_text().rstrip("\n") + "\n\n")
    assert len(read_all(folder, card)) == len(frames)
