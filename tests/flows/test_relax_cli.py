"""`sluice relax`: every structure comes out, wrong input is one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.constraints import FixCartesian
from typer.testing import CliRunner, Result

from flows.cli.main import app
from flows.cli.results import RelaxResult
from flows.relax import frame, open_potential
from flows.settings import Home
from flows.structure_files import read_structures, unlabelled
from flows.structure_journal import Keep, StructureJournal, in_extxyz
from gnn.errors import InputError
from gnn.simulation.relax import Relaxed, relax_many


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["relax", *map(str, arguments)])


@pytest.fixture
def crystals(tmp_path: Path) -> Path:
    """Two that relax, one of an element EMT does not know, one molecule."""
    path = tmp_path / "in.extxyz"
    ase.io.write(path, [bulk("Al", a=4.2), bulk("Mg"), bulk("Cu", a=3.5, cubic=True), molecule("CO")])
    return path


@pytest.mark.usefixtures("home")
def test_all_structures_come_out_in_order_with_their_labels(crystals: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.extxyz"
    result = run("foreign:emt", crystals, "-o", output, "--json")
    assert result.exit_code == 0
    summary = RelaxResult.model_validate(json.loads(result.stdout))
    assert (summary.n_structures, summary.converged, summary.failed) == (4, 3, 1)
    assert summary.reasons == {"elements": 1}
    frames = ase.io.read(output, ":")
    assert [str(atoms.symbols) for atoms in frames] == ["Al", "Mg2", "Cu4", "OC"]
    assert [bool(atoms.info["converged"]) for atoms in frames] == [True, False, True, True]
    assert frames[1].info["reason"] == "the potential has never seen Mg"
    assert frames[2].info["steps"] > 0
    assert frames[2].get_stress() == pytest.approx(np.zeros(6), abs=0.01)
    assert np.abs(frames[3].get_forces()).max() < 0.05


@pytest.mark.usefixtures("home")
def test_people_get_a_sentence(crystals: Path, tmp_path: Path) -> None:
    result = run("foreign:emt", crystals, "-o", tmp_path / "out.xyz", "--no-cell", "--fmax", "0.01")
    assert result.exit_code == 0
    assert "3 of 4 converged, 1 elements in" in result.stdout
    assert ase.io.read(tmp_path / "out.xyz", 0).cell.volume == pytest.approx(bulk("Al", a=4.2).cell.volume)


@pytest.mark.usefixtures("home")
def test_a_name_with_an_at_sign_is_a_name(crystals: Path, tmp_path: Path) -> None:
    named = crystals.rename(crystals.with_name("a@2.extxyz"))
    assert run("foreign:emt", named, "-o", tmp_path / "out.extxyz").exit_code == 0


@pytest.mark.usefixtures("home")
def test_the_input_is_not_overwritten(crystals: Path) -> None:
    before = crystals.read_bytes()
    result = run("foreign:emt", crystals, "-o", crystals.parent / "." / crystals.name)
    assert result.exit_code == 2
    assert "is the input; choose another name" in result.stderr
    assert crystals.read_bytes() == before


@pytest.mark.usefixtures("home")
def test_a_precision_that_is_none_is_refused_of_foreign_models_too(crystals: Path, tmp_path: Path) -> None:
    result = run("foreign:emt", crystals, "-o", tmp_path / "out.extxyz", "--dtype", "float16")
    assert result.exit_code == 2
    assert "dtype 'float16' is not known" in result.stderr


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("model", "file", "output", "message"),
    [
        ("foreign:emt", "missing.cif", "out.extxyz", "there is no file"),
        ("foreign:emt", "bad.cif", "out.extxyz", "ASE cannot read"),
        ("foreign:nope", "in.extxyz", "out.extxyz", "no foreign potential 'nope'; there are"),
        ("foreign:emt", "in.extxyz", "out.cif", "choose a name that ends in .extxyz or .xyz"),
        ("nothing-registered", "in.extxyz", "out.extxyz", "nothing-registered"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(
    crystals: Path, tmp_path: Path, model: str, file: str, output: str, message: str
) -> None:
    (tmp_path / "bad.cif").write_text("this is no crystal")
    result = run(model, crystals.with_name(file), "-o", tmp_path / output)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / output).exists()


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("option", [("--fmax", "-1"), ("--max-steps", "-5"), ("--optimiser", "newton")])
def test_settings_that_make_no_sense(crystals: Path, tmp_path: Path, option: tuple[str, str]) -> None:
    result = run("foreign:emt", crystals, "-o", tmp_path / "out.extxyz", *option)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")


@pytest.mark.usefixtures("home")
def test_nothing_relaxed_is_a_failure(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "in.extxyz", [bulk("Mg")])
    result = run("foreign:emt", tmp_path / "in.extxyz", "-o", tmp_path / "out.extxyz")
    assert result.exit_code == 1
    assert "no structure could be relaxed" in result.stderr
    assert len(ase.io.read(tmp_path / "out.extxyz", ":")) == 1


def test_a_foreign_potentials_theory_is_fixed(home: Home) -> None:
    assert open_potential("foreign:emt", home, theory="emt/ase").theory == "emt/ase"
    with pytest.raises(InputError, match="energies of emt/ase, not of pbe"):
        open_potential("foreign:emt", home, theory="pbe")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.extxyz").write_text("")
    with pytest.raises(InputError, match=r"empty\.extxyz"):
        read_structures(tmp_path / "empty.extxyz")


def test_any_format_ase_reads(tmp_path: Path) -> None:
    for name in ("POSCAR", "a.cif", "a.traj", "a.xyz"):
        ase.io.write(tmp_path / name, bulk("Cu", cubic=True))
        assert len(read_structures(tmp_path / name)[0]) == 4


def test_a_stress_of_six_numbers_does_not_stand_in_the_way(tmp_path: Path) -> None:
    line = 'Lattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3 energy=-1 stress="1 2 3 4 5 6" q=1'
    (tmp_path / "six.xyz").write_text(f"1\n{line}\nFe 0 0 0\n")
    (found,) = read_structures(tmp_path / "six.xyz")
    assert found.info == {"q": 1}, "without labels"


def test_a_frame_says_how_it_went(home: Home) -> None:
    potential = open_potential("foreign:emt", home)
    done = frame(relax_many([bulk("Cu", a=3.5)], potential)[0])
    assert done.info["converged"]
    assert done.info["fmax"] < 0.05
    assert "reason" not in done.info


@pytest.mark.usefixtures("home")
def test_what_came_with_a_structure_does_not_stand_in_the_way(tmp_path: Path) -> None:
    known = bulk("Cu", a=3.5)
    known.info = {"energy": -3.0, "note": "two\nlines", "reason": "not converged after 1 steps", "uncertainty": 0.1}
    known.set_array("forces", np.ones((1, 3)))
    known.set_array("born", np.ones((1, 3, 3)))
    ase.io.write(tmp_path / "in.traj", [known, bulk("Al", a=4.2)])
    output = tmp_path / "out.extxyz"
    result = run("foreign:emt", tmp_path / "in.traj", "-o", output)
    assert result.exit_code == 0, result.stderr
    first, second = ase.io.read(output, ":")
    assert first.info["note"] == "two lines"
    assert not {"reason", "uncertainty", "born"} & (first.info.keys() | first.arrays.keys())
    assert first.get_potential_energy() == pytest.approx(0, abs=0.1)
    assert second.info["converged"]


@pytest.mark.usefixtures("home")
def test_held_atoms_are_held_in_what_is_written(tmp_path: Path) -> None:
    slab = fcc111("Cu", (1, 1, 3), vacuum=5.0)
    slab.set_constraint(FixCartesian([0], mask=(True, True, True)))
    ase.io.write(tmp_path / "in.extxyz", slab)
    for source, target in (("in", "out"), ("out", "again")):
        result = run("foreign:emt", tmp_path / f"{source}.extxyz", "-o", tmp_path / f"{target}.extxyz")
        assert result.exit_code == 0, result.stderr
        found = ase.io.read(tmp_path / f"{target}.extxyz")
        assert [constraint.index.tolist() for constraint in found.constraints] == [[0]]
        np.testing.assert_allclose(found.positions[0], slab.positions[0])


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("output", ["folder.xyz", "in.extxyz/x.extxyz"])
def test_an_output_that_cannot_be_written_is_told_at_once(crystals: Path, tmp_path: Path, output: str) -> None:
    (tmp_path / "folder.xyz").mkdir()
    result = run("foreign:emt", crystals, "-o", tmp_path / output)
    assert result.exit_code == 2
    assert output in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(("device", "said"), [("nonsense", "device 'nonsense' is not known"), ("cuda:99", "cuda:99")])
def test_a_foreign_model_has_a_device_too(crystals: Path, tmp_path: Path, device: str, said: str) -> None:
    result = run("foreign:emt", crystals, "-o", tmp_path / "out.extxyz", "--device", device)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert said in result.stderr


def test_what_ase_does_not_know_is_read_by_the_readers(tmp_path: Path) -> None:
    from pymatgen.io.ase import AseAtomsAdaptor
    from pymatgen.io.cif import CifWriter

    structure = AseAtomsAdaptor.get_structure(bulk("Al"))
    (tmp_path / "a.json").write_text(json.dumps([structure.as_dict()] * 2))
    (tmp_path / "a.csv").write_text('id,cif\n1,"{}"\n'.format(str(CifWriter(structure)).replace('"', '""')))
    assert [len(read_structures(tmp_path / name)) for name in ("a.json", "a.csv")] == [2, 1]
    (tmp_path / "a.csv").write_text("id,cif\n1,nothing\n")
    with pytest.raises(InputError, match=r"a\.csv, structure 0 cannot be read"):
        read_structures(tmp_path / "a.csv")


def test_labels_under_names_of_other_packages_are_left_out() -> None:
    """They are of the geometry before; the charge of the whole is not."""
    atoms = bulk("Cu", a=3.5, cubic=True)
    atoms.info = {"REF_energy": -14.9, "dft_virial": np.eye(3), "charge": 1, "config_type": "bulk", 3: "no name"}
    atoms.arrays["REF_forces"] = np.ones((4, 3))
    atoms.arrays["residuenames"] = np.array(["", "", "", ""])
    atoms.arrays["site"] = np.array(["a", "b", "c", "d"])
    kept = unlabelled(atoms)
    assert kept.info == {"charge": 1, "config_type": "bulk"}
    assert kept.arrays.keys() == {"numbers", "positions", "site"}
    (read,) = ase.io.read(StringIO(in_extxyz([kept])), ":", format="extxyz")
    assert read.arrays["site"].tolist() == ["a", "b", "c", "d"]


@pytest.mark.usefixtures("home")
def test_a_link_stays_a_link(crystals: Path, tmp_path: Path) -> None:
    (tmp_path / "real.extxyz").write_text("old")
    (tmp_path / "out.extxyz").symlink_to(tmp_path / "real.extxyz")
    assert run("foreign:emt", crystals, "-o", tmp_path / "out.extxyz").exit_code == 0
    assert (tmp_path / "out.extxyz").is_symlink()
    assert len(ase.io.read(tmp_path / "real.extxyz", ":")) == 4


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many structures each relaxation was given."""
    import flows.relax

    given: list[int] = []

    def counting(structures: list[Atoms], *args: Any) -> list[Relaxed]:
        given.append(len(structures))
        return relax_many(structures, *args)

    monkeypatch.setattr(flows.relax, "relax_many", counting)
    return given


@pytest.mark.usefixtures("home")
def test_a_stopped_command_goes_on_where_it_was(
    crystals: Path, tmp_path: Path, counted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, output = tmp_path / "whole.extxyz", tmp_path / "out.extxyz"
    assert run("foreign:emt", crystals, "-o", whole, "--max-atoms", "4").exit_code == 0
    keep = StructureJournal.keeping

    @contextmanager
    def stopping(self: StructureJournal) -> Iterator[Keep]:
        with keep(self) as append:

            def stop_after_two(index: int, frames: list[Atoms], facts: dict[str, Any]) -> None:
                if len(self.finished()) == 2:
                    raise KeyboardInterrupt
                append(index, frames, facts)

            yield stop_after_two

    with monkeypatch.context() as patched:
        patched.setattr(StructureJournal, "keeping", stopping)
        stopped = run("foreign:emt", crystals, "-o", output, "--max-atoms", "4")
    assert stopped.exit_code == 130
    assert "the same command goes on from here" in stopped.stderr
    assert not output.exists()
    other = run("foreign:emt", crystals, "-o", output, "--fmax", "0.01")
    assert other.exit_code == 2
    assert "out.extxyz.part holds records of other work" in other.stderr
    assert run("foreign:emt", crystals, "-o", output, "--max-atoms", "4", "--json").exit_code == 0
    assert counted == [4, 4, 2]
    assert output.read_text() == whole.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.extxyz", "out.extxyz", "whole.extxyz"]


@pytest.mark.usefixtures("home")
def test_a_damaged_line_costs_its_structure(crystals: Path, tmp_path: Path, counted: list[int]) -> None:
    output = tmp_path / "out.extxyz"
    assert run("foreign:emt", crystals, "-o", output).exit_code == 0
    text = output.read_text()
    part = tmp_path / "out.extxyz.part"
    kept: list[bytes] = []
    write = StructureJournal.write

    def keeping_the_part(self: StructureJournal) -> list[dict[str, Any]]:
        kept.append(part.read_bytes())
        return write(self)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(StructureJournal, "write", keeping_the_part)
        run("foreign:emt", crystals, "-o", output)
    header, first, *rest = kept[0].splitlines(keepends=True)
    part.write_bytes(b"".join([header, first[:40] + b"\n", *rest]))
    assert run("foreign:emt", crystals, "-o", output).exit_code == 0
    assert counted == [4, 4, 1]
    assert output.read_text() == text
