"""VASP's files, on small ones written here: both energies, units, signs, the theory, and files cut short."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from ase.units import GPa

from gnn.files import file_sha256
from gnn.structures.cards import generic_card
from gnn.structures.readers import UnreadableFile, read_records
from gnn.structures.readers.vasp import _converged_in_outcar, theory_of

VASPRUN = """<?xml version="1.0" encoding="ISO-8859-1"?>
<modeling>
 <incar>
  <i name="ENCUT">{encut}</i>
  {tags}
 </incar>
 <kpoints><varray name="kpointlist"><v> 0 0 0 </v></varray><varray name="weights"><v> 1.0 </v></varray></kpoints>
 <parameters><separator name="electronic"><i name="NELECT"> 8 </i></separator></parameters>
 <atominfo>
  <atoms>2</atoms><types>1</types>
  <array name="atoms"><set><rc><c>Si</c><c>1</c></rc><rc><c>Si</c><c>1</c></rc></set></array>
  <array name="atomtypes"><set><rc><c>2</c><c>Si</c><c>28.085</c><c>4.0</c><c>PAW_PBE Si</c></rc></set></array>
 </atominfo>
 <structure name="initialpos">{structure}</structure>
 {steps}
 <structure name="finalpos">{structure}</structure>
</modeling>
"""
STRUCTURE = """
  <crystal><varray name="basis"><v> 0 2.7 2.7 </v><v> 2.7 0 2.7 </v><v> 2.7 2.7 0 </v></varray></crystal>
  <varray name="positions"><v> 0 0 0 </v><v> 0.26 0.25 0.25 </v></varray>
"""
STEP = """
 <calculation>
  <scstep><energy><i name="e_fr_energy"> {free} </i><i name="e_wo_entrp"> {free} </i>
   <i name="e_0_energy"> {zero} </i></energy></scstep>
  <structure>{structure}</structure>
  <varray name="forces"><v> 0.5 -0.1 0.0 </v><v> -0.5 0.1 0.0 </v></varray>
  <varray name="stress"><v> 10 1 2 </v><v> 1 20 3 </v><v> 2 3 30 </v></varray>
  <energy><i name="e_fr_energy"> {free} </i><i name="e_wo_entrp"> {free} </i><i name="e_0_energy"> 0.0 </i></energy>
 </calculation>
"""


def vasprun(path, energies=((-10.25, -10.2),), encut="500.0", tags=""):
    steps = "".join(STEP.format(free=free, zero=zero, structure=STRUCTURE) for free, zero in energies)
    path.write_text(VASPRUN.format(encut=encut, tags=tags, structure=STRUCTURE, steps=steps))
    return path


def test_both_energies_forces_and_the_sign_of_the_stress(tmp_path, read_all):
    record = read_all(vasprun(tmp_path / "vasprun.xml"), generic_card("x"))[0]
    assert record.free_energy == pytest.approx(-10.25), "consistent with the forces"
    assert record.energy == pytest.approx(-10.2), "extrapolated to zero smearing"
    assert record.training_energy == record.free_energy
    assert np.allclose(record.forces, [[0.5, -0.1, 0], [-0.5, 0.1, 0]])
    assert np.allclose(record.stress, -np.array([10, 20, 30, 3, 2, 1]) * 0.1 * GPa)
    assert record.theory == "pbe/vasp-pw500"


def test_all_ionic_steps_are_one_group(tmp_path, read_all):
    path = vasprun(tmp_path / "vasprun.xml", [(-10.0, -9.9), (-10.5, -10.4), (-10.6, -10.5)])
    records = read_all(path, generic_card("x"))
    assert [record.free_energy for record in records] == [-10.0, -10.5, -10.6]
    assert {record.group for record in records} == {f"{tmp_path.name}/vasprun.xml#{file_sha256(path)[:8]}"}


def test_compressed(tmp_path, read_all):
    path = vasprun(tmp_path / "vasprun.xml")
    packed = tmp_path / "vasprun.xml.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_all(packed, generic_card("x"))[0].energy == pytest.approx(-10.2)


def test_the_theory_of_a_card_wins_over_the_derived_one_and_that_of_the_command_line_does_not(tmp_path, read_all):
    path = vasprun(tmp_path / "vasprun.xml")
    assert read_all(path, generic_card("x", "my/pbe"))[0].theory == "my/pbe"
    assert read_all(path, generic_card("x").with_theory("my/pbe"))[0].theory == "pbe/vasp-pw500"


def test_an_electronic_loop_that_ran_to_its_limit_is_flagged(tmp_path, read_all):
    """The steps here have one electronic iteration each."""
    path = vasprun(tmp_path / "vasprun.xml", tags='<i type="int" name="NELM"> 1</i>')
    assert read_all(path, generic_card("x"))[0].flags == ("scf-unconverged",)
    vasprun(path, tags='<i type="int" name="NELM"> 2</i>')
    assert read_all(path, generic_card("x"))[0].flags == ()


def test_outcar_convergence(tmp_path):
    path = tmp_path / "OUTCAR"
    end = " FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)\n"
    path.write_text(f"---- aborting loop because EDIFF is reached ----\n{end}---- Iteration\n{end}")
    assert _converged_in_outcar(path) == [True, False]


def test_a_profile_behind_the_end_of_an_outcar(tmp_path):
    profile = "   routine                        0.213093                            415   2\n" * 200
    path = tmp_path / "OUTCAR"
    path.write_text(f" General timing and accounting informations for this job:\n{profile}")
    with pytest.raises(UnreadableFile) as caught:
        list(read_records(path, generic_card("x")))
    assert "truncated" not in str(caught.value), "it has its end, though no step"


@pytest.mark.parametrize("keep", [0.3, 0.7, 0.95])
def test_a_run_that_was_cut_short_costs_the_file(tmp_path, keep):
    """ASE would give the steps before the cut, or the bare structure, without a word."""
    path = vasprun(tmp_path / "vasprun.xml", [(-10.0, -9.9), (-10.5, -10.4)])
    text = path.read_text()
    path.write_text(text[: int(keep * len(text))])
    with pytest.raises(UnreadableFile, match="truncated"):
        list(read_records(path, generic_card("x")))


def test_a_run_without_a_finished_step_costs_the_file(tmp_path):
    with pytest.raises(UnreadableFile):
        list(read_records(vasprun(tmp_path / "vasprun.xml", []), generic_card("x")))


def test_broken_xml_with_an_end_costs_the_file(tmp_path):
    path = vasprun(tmp_path / "vasprun.xml")
    path.write_text(path.read_text().replace("</atominfo>", "<oops>"))
    with pytest.raises(UnreadableFile):
        list(read_records(path, generic_card("x")))


@pytest.mark.parametrize(
    ("text", "theory"),
    [
        ('<i name="ENCUT"> 520.0</i><i type="string" name="GGA">PE</i>', "pbe/vasp-pw520"),
        ('<i name="ENCUT"> 700.0</i><i type="string" name="GGA"> Ps</i>', "pbesol/vasp-pw700"),
        ('<i name="ENMAX"> 400.0</i><i name="GGA">--</i> PAW_PBE Si', "pbe/vasp-pw400"),
        ('<i name="ENCUT">520</i><i type="string" name="METAGGA"> R2SCAN</i>', "r2scan/vasp-pw520"),
        ('<i name="ENCUT">520</i><i name="GGA">PE</i><i type="logical" name="LDAU"> T </i>', "pbe+u/vasp-pw520"),
        ('<i name="ENCUT">520</i><i name="LHFCALC"> T </i><i name="HFSCREEN">0.2</i>', "hse06/vasp-pw520"),
        ('<i name="ENCUT">520</i><i name="LHFCALC"> T </i>', "pbe0/vasp-pw520"),
        ('<i name="ENCUT">520</i><i name="GGA">PE</i><i name="IVDW"> 12 </i>', "pbe+ivdw12/vasp-pw520"),
        ("   ENCUT  =  500.0 eV  36.75 Ry\n   GGA     =    --    GGA type\n TITEL = PAW_PBE Hf", "pbe/vasp-pw500"),
        (
            "   ENCUT  =  500.0 eV\n METAGGA = SCAN  LMAXTAU\n   METAGGA=      F    non-selfconsistent",
            "scan/vasp-pw500",
        ),
        ("   ENCUT  =  300.0 eV\n   GGA     =    RP    GGA type", "rpbe/vasp-pw300"),
        ("   ENCUT  =  300.0 eV\n TITEL = PAW Si", "lda/vasp-pw300"),
        ("   ENCUT  =  520.0 eV\n PAW_PBE\n LDA+U is selected, type is set to LDAUTYPE =  2", "pbe+u/vasp-pw520"),
        ('<i name="ENCUT">520</i><i name="GGA">PE</i><i name="METAGGA">MS2</i>', "ms2/vasp-pw520"),
        ('<i name="ENCUT">520</i><i name="GGA">BF</i>', "gga-bf/vasp-pw520"),
        ('<i name="ENCUT">520</i><i name="GGA">RE</i><i name="LUSE_VDW"> T </i>', "revpbe+vdw/vasp-pw520"),
        ('<i name="ENCUT">520</i><i name="GGA">B3</i><i name="LHFCALC"> T </i>', "gga-b3-hf0.25/vasp-pw520"),
        (
            '<i name="ENCUT">520</i><i name="GGA">PE</i><i name="LHFCALC"> T </i><i name="AEXX">1.0</i>',
            "pbe-hf1/vasp-pw520",
        ),
        (
            '<i name="ENCUT">520</i><i name="GGA">PS</i><i name="LHFCALC"> T </i><i name="HFSCREEN">0.2</i>',
            "pbesol-hf0.25-screen0.2/vasp-pw520",
        ),
        ("nothing of the kind", None),
    ],
)
def test_theories(text, theory):
    assert theory_of(text) == theory
