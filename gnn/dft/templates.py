"""Texts that go with input sets: the GPAW script and a README for each code."""

from __future__ import annotations

GPAW_SCRIPT = '''"""{name}: energy, forces and stress at {theory}.

Run: python run.py; it leaves result.extxyz and gpaw.log beside itself.
"""

from pathlib import Path

from ase.io import read, write
from gpaw import GPAW, PW

here = Path(__file__).resolve().parent
atoms = read(here / "structure.json")
atoms.calc = GPAW(
    mode=PW({cutoff_ev}),
    xc={xc},
    kpts={{"density": {k_density}, "even": True}},
    occupations={{"name": {smearing}, "width": {smearing_ev}}},
    txt=str(here / "gpaw.log"),
)
atoms.get_potential_energy()
atoms.get_forces()
atoms.get_stress()
write(here / "result.extxyz", atoms)
'''

VASP_README = """# VASP inputs

One folder a candidate, named rank-formula: pymatgen's `MatPESStaticSet` (PBE), with `ISIF = 2` for the stress.

`POTCAR.spec` names one potential a line, in the order of `POSCAR`. Join them from your own licensed library:

    cd 001-XY
    for p in $(cat POTCAR.spec); do cat "$VASP_PP/$p/POTCAR"; done > POTCAR

Results come back into the lake with

    sluice ingest */vasprun.xml --dataset NAME

at the level of theory that VASP's settings tell, `pbe/vasp-pw680`. Where your data have another name for it, give a
card that says so: `theory = "KEY"`.
"""

QE_README = """# Quantum ESPRESSO inputs

One folder a candidate, named rank-formula: a static `pw.x` calculation with forces (`tprnfor`) and stress (`tstress`).

The inputs name pseudopotentials `ELEMENT.upf` in `./pseudo`. Take a verified library, for example SSSP Efficiency (PBE)
from the Materials Cloud (https://www.materialscloud.org/discover/sssp), and link each file under that name:

    mkdir -p pseudo && ln -s /path/to/SSSP/Si.pbe-n-rrkjus_psl.1.0.0.UPF pseudo/Si.upf
    pw.x -in NAME.pwi > NAME.pwo

`ecutwfc` and `ecutrho` (Ry) must not be below what the library lists for the hardest element; raise them if so.

Results come back into the lake with

    sluice ingest */*.pwo --dataset NAME --theory pbe/qe-sssp
"""

GPAW_README = """# GPAW scripts

One folder a candidate, named rank-formula. `python run.py` computes energy, forces and stress at the theory that the
script names, and writes `result.extxyz` and `gpaw.log` beside itself. Where GPAW is installed here,
`sluice label CAMPAIGN --engine gpaw` does the same and puts the results into the lake.

Results come back into the lake with

    sluice ingest */result.extxyz --dataset NAME --theory KEY      (the key stands in run.py)
"""

README_OF: dict[str, str] = {"vasp": VASP_README, "qe": QE_README, "gpaw": GPAW_README}
