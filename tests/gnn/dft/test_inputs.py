"""Input sets, read back by the codes' own readers."""

from __future__ import annotations

import ast
import json
import subprocess
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import read
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymatgen.core import Structure
from pymatgen.io.vasp import Incar

from gnn.dft.gpaw import GpawSettings
from gnn.dft.inputs import (
    FORMATS,
    gpaw_settings,
    input_name,
    qe_input,
    qe_k_spacing,
    read_manifest,
    write_inputs,
)
from gnn.errors import InputError

THEORY = "pbe/gpaw-pw600-k3.6-mv0.5"


@pytest.fixture
def crystal() -> Atoms:
    """A low-symmetry ternary cell, atoms not sorted by element."""
    cell = [[3.1, 0.0, 0.2], [-0.4, 3.6, 0.0], [0.3, 0.5, 7.9]]
    fractions = [[0.01, 0.02, 0.03], [0.5, 0.48, 0.3], [0.25, 0.7, 0.55], [0.8, 0.1, 0.76]]
    return Atoms("SiLiMgSi", cell=cell, scaled_positions=fractions, pbc=True)


def same_crystal(one: Atoms, other: Atoms, tolerance: float = 1e-8) -> bool:
    """The same cell and the same atoms in it, in whatever order."""
    if not np.allclose(one.cell[:], other.cell[:], atol=tolerance):
        return False
    places = [
        sorted(zip(a.numbers, np.round(a.get_scaled_positions() % 1.0, 6).tolist(), strict=True)) for a in (one, other)
    ]
    return [z for z, _ in places[0]] == [z for z, _ in places[1]] and np.allclose(
        [p for _, p in places[0]], [p for _, p in places[1]], atol=1e-5
    )


def test_every_format_holds_the_same_crystal(crystal, tmp_path):
    write_inputs([("001-x", crystal)], tmp_path, theory=THEORY)
    vasp = Structure.from_file(tmp_path / "vasp" / "001-x" / "POSCAR").to_ase_atoms()
    qe = read(tmp_path / "qe" / "001-x" / "001-x.pwi", format="espresso-in")
    gpaw = read(tmp_path / "gpaw" / "001-x" / "structure.json")
    assert same_crystal(vasp, crystal)
    assert same_crystal(qe, crystal, 1e-6)
    assert same_crystal(gpaw, crystal)
    assert gpaw.pbc.all()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), n=st.integers(1, 6))
def test_any_crystal_comes_back(seed, n, tmp_path):
    random = np.random.default_rng(seed)
    cell = 4 * np.eye(3) + random.normal(0, 0.8, (3, 3))
    atoms = Atoms(random.choice([3, 12, 13, 14], n), cell=cell, scaled_positions=random.random((n, 3)), pbc=True)
    if abs(np.linalg.det(cell)) < 8:
        return
    write_inputs([("a", atoms)], tmp_path, ["qe", "gpaw"])
    assert same_crystal(read(tmp_path / "qe" / "a" / "a.pwi", format="espresso-in"), atoms, 1e-6)
    assert same_crystal(read(tmp_path / "gpaw" / "a" / "structure.json"), atoms)


def test_vasp_gets_the_matpes_set_without_potentials(crystal, tmp_path):
    write_inputs([("001-x", crystal)], tmp_path, ["vasp"])
    folder = tmp_path / "vasp" / "001-x"
    incar = Incar.from_file(folder / "INCAR")
    assert (incar["GGA"], incar["ENCUT"], incar["NSW"], incar["ISIF"]) == ("Pe", 680, 0, 2)
    assert (folder / "POTCAR.spec").read_text().split() == ["Li_sv", "Mg_pv", "Si"]
    assert not (folder / "POTCAR").exists()


def test_potcar_spec_is_in_the_order_of_poscar(crystal, tmp_path):
    write_inputs([("001-x", crystal)], tmp_path, ["vasp"])
    poscar = (tmp_path / "vasp" / "001-x" / "POSCAR").read_text().splitlines()
    spec = (tmp_path / "vasp" / "001-x" / "POTCAR.spec").read_text().split()
    assert [name.split("_")[0] for name in spec] == poscar[5].split()


def test_quantum_espresso_asks_for_forces_and_stress(crystal, tmp_path):
    write_inputs([("001-x", crystal)], tmp_path, ["qe"], THEORY)
    text = (tmp_path / "qe" / "001-x" / "001-x.pwi").read_text()
    assert "tprnfor          = .true." in text
    assert "tstress          = .true." in text
    assert all(f"{symbol}.upf" in text for symbol in ("Li", "Mg", "Si"))


def test_quantum_espresso_follows_the_theory_key():
    system = qe_input(GpawSettings.from_theory(THEORY))["system"]
    assert system["smearing"] == "mv"
    assert system["degauss"] == pytest.approx(0.5 / 13.605693, rel=1e-4)
    assert system["ecutrho"] == 8 * system["ecutwfc"]
    hard = qe_input(GpawSettings(cutoff_ev=1400))["system"]
    assert hard["ecutwfc"] == pytest.approx(1400 / 13.605693, rel=1e-4)


def test_quantum_espresso_polarises_the_spins_of_magnetic_elements(crystal, tmp_path):
    iron_oxide = bulk("FeO", "rocksalt", a=4.33)
    manifest = write_inputs([("feo", iron_oxide), ("x", crystal)], tmp_path)
    magnetic, plain = ((tmp_path / "qe" / name / f"{name}.pwi").read_text() for name in ("feo", "x"))
    of = {line.split()[0]: float(line.split()[-1]) for line in magnetic.splitlines() if "magnetization" in line}
    species = magnetic[magnetic.index("ATOMIC_SPECIES") :].splitlines()[1:3]
    assert "nspin            = 2" in magnetic
    assert [line.split()[0] for line in species] == ["Fe", "O"]
    assert of == {"starting_magnetization(1)": 0.4, "starting_magnetization(2)": 0.0}
    assert "nspin" not in plain and "magnetization" not in plain
    assert Incar.from_file(tmp_path / "vasp" / "feo" / "INCAR")["ISPIN"] == 2
    assert [note for note in manifest.notes if "spins" in note] == [
        "gpaw: computes with paired spins, which feo may not have"
    ]
    assert "qe: spin-polarised, from ferromagnetic moments, for feo" in manifest.notes


def test_k_points_are_as_dense_as_gpaws(tmp_path):
    """GPAW: N ≥ density × 2π / a; ASE's Quantum ESPRESSO writer: N = floor(1 / (a × spacing)) + 1."""
    a = 4.05
    write_inputs([("al", bulk("Al", cubic=True, a=a))], tmp_path, ["qe"], THEORY)
    lines = (tmp_path / "qe" / "al" / "al.pwi").read_text().splitlines()
    grid = [int(number) for number in lines[lines.index("K_POINTS automatic") + 1].split()[:3]]
    assert min(grid) >= 3.6 * 2 * np.pi / a
    assert qe_k_spacing(None) == 0.04


def test_the_gpaw_script_has_exactly_the_settings(crystal, tmp_path):
    key = "pbesol/gpaw-pw450-k3.5-fd0.1"
    write_inputs([("001-x", crystal)], tmp_path, ["gpaw"], key)
    script = ast.parse((tmp_path / "gpaw" / "001-x" / "run.py").read_text())
    call = next(n for n in ast.walk(script) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "GPAW")
    arguments = {keyword.arg: keyword.value for keyword in call.keywords}
    assert arguments["mode"].args[0].value == 450
    assert ast.literal_eval(arguments["xc"]) == "PBEsol"
    assert ast.literal_eval(arguments["kpts"]) == {"density": 3.5, "even": True}
    assert ast.literal_eval(arguments["occupations"]) == {"name": "fermi-dirac", "width": 0.1}
    assert key in ast.get_docstring(script)


@pytest.mark.dft
def test_the_gpaw_script_runs(tmp_path):
    pytest.importorskip("gpaw")
    write_inputs([("li", bulk("Li", "bcc", a=3.4))], tmp_path, ["gpaw"], "pbe/gpaw-pw150-k1-fd0.2")
    subprocess.run([sys.executable, str(tmp_path / "gpaw" / "li" / "run.py")], check=True, capture_output=True)
    labelled = read(tmp_path / "gpaw" / "li" / "result.extxyz")
    assert labelled.get_forces().shape == (1, 3)
    assert labelled.get_stress().shape == (6,)


@pytest.mark.parametrize("theory", ["pbe/vasp-matpes", "pbe/gpaw-pw600-k4", "scan/gpaw-pw600-k3.6-mv0.5"])
def test_a_theory_that_does_not_tell_gpaws_settings_is_noted(theory, crystal, tmp_path):
    manifest = write_inputs([("001-x", crystal)], tmp_path, ["gpaw"], theory)
    assert any(f"{theory} does not tell GPAW's settings" in note for note in manifest.notes)
    assert GpawSettings().theory in (tmp_path / "gpaw" / "001-x" / "run.py").read_text()


def test_gpaw_settings_of_keys():
    assert gpaw_settings(THEORY) == GpawSettings()
    assert gpaw_settings(None) is gpaw_settings("pbe/vasp") is None
    assert gpaw_settings("pbe/gpaw-pw600-k4") is gpaw_settings("pbe/gpaw-pw0-k3.6-mv0.5") is None


def test_the_manifest_lists_every_file_that_is_there(crystal, tmp_path):
    manifest = write_inputs([("001-x", crystal), ("002-Si", bulk("Si"))], tmp_path, theory=THEORY)
    assert [entry.name for entry in manifest.structures] == ["001-x", "002-Si"]
    assert not any(entry.failed for entry in manifest.structures)
    for entry in manifest.structures:
        assert sorted(entry.files) == sorted(FORMATS)
        assert all((tmp_path / file).is_file() for files in entry.files.values() for file in files)
    listed = {file for entry in manifest.structures for files in entry.files.values() for file in files}
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found - listed == {"inputs.json", *(f"{name}/README.md" for name in FORMATS)}
    assert read_manifest(tmp_path) == manifest
    json.loads((tmp_path / "inputs.json").read_text())


@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_a_damaged_manifest_is_written_anew(tmp_path, text):
    write_inputs([("001-Si", bulk("Si"))], tmp_path, ["qe"])
    (tmp_path / "inputs.json").write_text(text)
    write_inputs([("001-Al", bulk("Al"))], tmp_path, ["qe"])
    assert [entry.name for entry in read_manifest(tmp_path).structures] == ["001-Al"]


def test_what_cannot_be_written_is_counted_with_its_reason(tmp_path):
    odd = Atoms("Og", cell=[5, 5, 5], pbc=True)
    manifest = write_inputs([("001-Og", odd), ("002-N2", molecule("N2")), ("003-Si", bulk("Si"))], tmp_path)
    og, n2, si = manifest.structures
    assert "Og" in og.failed["vasp"]
    assert set(n2.failed) == set(FORMATS)
    assert "not periodic" in n2.failed["qe"]
    assert not si.failed
    assert sum(bool(entry.failed) for entry in manifest.structures) == 2


def test_a_readme_says_where_potentials_come_from(crystal, tmp_path):
    write_inputs([("001-x", crystal)], tmp_path)
    assert "SSSP" in (tmp_path / "qe" / "README.md").read_text()
    assert "POTCAR" in (tmp_path / "vasp" / "README.md").read_text()
    assert "sluice label" in (tmp_path / "gpaw" / "README.md").read_text()


def test_an_earlier_shortlist_is_cleared_but_results_stay(crystal, tmp_path):
    write_inputs([("001-x", crystal), ("002-Si", bulk("Si"))], tmp_path)
    (tmp_path / "gpaw" / "002-Si" / "result.extxyz").write_text("precious")
    write_inputs([("001-Al", bulk("Al"))], tmp_path)
    assert not (tmp_path / "vasp" / "001-x").exists()
    assert not (tmp_path / "qe" / "002-Si").exists()
    assert [path.name for path in (tmp_path / "gpaw" / "002-Si").iterdir()] == ["result.extxyz"]
    assert (tmp_path / "vasp" / "001-Al" / "POSCAR").is_file()


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "x\n"])
def test_a_name_that_could_leave_the_folder_is_refused(name, crystal, tmp_path):
    with pytest.raises(InputError, match="cannot name a folder"):
        write_inputs([(name, crystal)], tmp_path)


def test_a_name_given_twice_is_refused(crystal, tmp_path):
    with pytest.raises(InputError, match="share the name 'a'"):
        write_inputs([("a", crystal), ("b", crystal), ("a", crystal)], tmp_path)


def test_an_unknown_format_is_refused(crystal, tmp_path):
    with pytest.raises(InputError, match="'castep'; known: vasp, qe, gpaw"):
        write_inputs([("a", crystal)], tmp_path, ["vasp", "castep"])


def test_names_of_ranked_candidates():
    assert input_name(7, "Li2MgSi") == "007-Li2MgSi"
    assert input_name(1234, "A/B") == "1234-A_B"
