"""VASP's vasprun.xml and OUTCAR, read by ASE; the level of theory comes from the file's own INCAR values.

ASE gives both energies: `energy` extrapolated to zero smearing (e_0_energy), `free_energy` consistent with the forces
(e_fr_energy); and stress as eV/Å³ with tension positive.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import ase.io

from gnn.structures.cards import ReadingRules
from gnn.structures.readers.ase_atoms import raw_of_atoms
from gnn.structures.readers.opening import plain_file
from gnn.structures.readers.raw import Raw, Row, UnreadableFile

FUNCTIONALS = {
    "PE": "pbe", "PS": "pbesol", "RP": "rpbe", "RE": "revpbe", "AM": "am05", "91": "pw91", "CA": "lda", "OR": "optpbe",
    "BO": "optb88", "MK": "optb86b", "ML": "vdw-df2",
}  # fmt: skip
META = {
    "SCAN": "scan",
    "R2SCAN": "r2scan",
    "RSCAN": "rscan",
    "TPSS": "tpss",
    "RTPSS": "rtpss",
    "MBJ": "mbj",
    "M06L": "m06l",
}
NO_META = ("NONE", "T", "F", ".TRUE.", ".FALSE.")
U_IN_OUTCAR = "LDA+U is selected"
UNSET = ("--", "")
TAIL_BYTES = 1 << 18
"""Behind the times an OUTCAR may have the table of a profile."""
DEFAULT_NELM = 60
HEAD_BYTES = 1 << 20
ENDS = {"vasp-xml": b"</modeling>", "vasp-out": b"General timing and accounting"}


def read_vasprun(path: Path, rules: ReadingRules) -> Iterator[Row]:
    """The ionic steps of a vasprun.xml.

    Raises:
        UnreadableFile: the file is cut short or holds no energy.
    """
    del rules
    yield from _read(path, "vasp-xml")


def read_outcar(path: Path, rules: ReadingRules) -> Iterator[Row]:
    """The ionic steps of an OUTCAR.

    Raises:
        UnreadableFile: the file is cut short or holds no energy.
    """
    del rules
    yield from _read(path, "vasp-out")


def _read(path: Path, form: str) -> Iterator[Row]:
    with plain_file(path) as plain:
        if ENDS[form] not in _tail(plain):
            raise UnreadableFile(f"{path.name}: truncated: {ENDS[form].decode()!r} is missing at its end")
        theory, converged = theory_of(_head(plain)), CONVERGED[form](plain)
        steps = 0
        for raw in _steps(plain, path, form):
            raw.theory = theory
            raw.flags = () if steps >= len(converged) or converged[steps] else ("scf-unconverged",)
            steps += 1
            yield raw
        if steps == 0:
            raise UnreadableFile(f"{path.name}: holds no finished ionic step")


def _steps(plain: Path, path: Path, form: str) -> Iterator[Raw]:
    """The ionic steps that ASE reads and that have an energy."""
    try:
        for atoms in ase.io.iread(str(plain), index=":", format=form, do_not_split_by_at_sign=True):
            raw = raw_of_atoms(atoms)
            if "energy" in raw.values:
                yield raw
    except Exception as error:
        raise UnreadableFile(f"{path.name}: {type(error).__name__}: {error}") from error


def _tail(path: Path) -> bytes:
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - TAIL_BYTES))
        return stream.read()


def _head(path: Path) -> str:
    with path.open("rb") as stream:
        return stream.read(HEAD_BYTES).decode("utf-8", errors="replace")


def theory_of(text: str) -> str | None:
    """The theory key that the beginning of a vasprun.xml or OUTCAR tells, as `pbesol/vasp-pw700`, or None.

    Functional (with +u and hybrids) and plane-wave cutoff; k-points and smearing often vary within one data set.
    """
    cutoff = _setting(text, "ENCUT") or _setting(text, "ENMAX")
    if cutoff is None:
        return None
    return f"{_functional(text)}/vasp-pw{float(cutoff):g}"


def _functional(text: str) -> str:
    # OUTCAR repeats METAGGA as a logical of another meaning
    meta = [value.upper() for value in _settings(text, "METAGGA") if value.upper() not in NO_META]
    gga = (_setting(text, "GGA") or "").upper()
    if meta:
        name = META.get(meta[-1], meta[-1].lower())
    elif gga:
        name = FUNCTIONALS.get(gga, f"gga-{gga.lower()}")
    else:
        name = _functional_of_potcar(text)
    if _is_true(text, "LHFCALC"):
        name = _hybrid(name if meta or gga else "pbe", text)
    if _is_true(text, "LUSE_VDW"):
        name += "+vdw"
    if _is_true(text, "LDAU") or U_IN_OUTCAR in text:
        name += "+u"
    dispersion = _setting(text, "IVDW")
    return name + (f"+ivdw{dispersion}" if dispersion and dispersion != "0" else "")


def _hybrid(base: str, text: str) -> str:
    """A hybrid by the name it is known by, else by what it is made of."""
    exact, screen = float(_setting(text, "AEXX") or 0.25), float(_setting(text, "HFSCREEN") or 0)
    if (base, exact) == ("pbe", 0.25) and (screen == 0 or abs(screen - 0.2) < 0.01):
        return "hse06" if screen else "pbe0"
    return f"{base}-hf{exact:g}" + (f"-screen{screen:g}" if screen else "")


def _functional_of_potcar(text: str) -> str:
    """What the potentials were made for, which VASP uses unless told otherwise."""
    if re.search(r"PAW_GGA|LEXCH\s*=\s*91", text):
        return "pw91"
    return "pbe" if "PAW_PBE" in text or re.search(r"LEXCH\s*=\s*PE", text) else "lda"


def _setting(text: str, name: str) -> str | None:
    """The value of an INCAR tag; the last one in the file, which is what VASP settled on."""
    found = _settings(text, name)
    return found[-1] if found else None


def _settings(text: str, name: str) -> list[str]:
    """Every value of an INCAR tag that is one."""
    values = re.findall(rf'name="{name}"[^>]*>\s*([^<\s]*)\s*</i>|^\s*{name}\s*=\s*(\S+)', text, re.MULTILINE)
    return [xml or plain for xml, plain in values if (xml or plain) not in UNSET]


def _is_true(text: str, name: str) -> bool:
    return (_setting(text, name) or "F").upper().lstrip(".").startswith("T")


def _converged_in_vasprun(path: Path) -> list[bool]:
    """For each ionic step whether its electronic loop ended before NELM steps."""
    limit = int(_setting(_head(path), "NELM") or DEFAULT_NELM)
    loops: list[int] = []
    with path.open("rb") as stream:
        for line in stream:
            if b"<calculation>" in line:
                loops.append(0)
            if b"<scstep>" in line and loops:
                loops[-1] += 1
    return [loop < limit for loop in loops]


def _converged_in_outcar(path: Path) -> list[bool]:
    """For each ionic step whether VASP says that its electronic loop reached EDIFF."""
    steps: list[bool] = []
    reached = False
    with path.open("rb") as stream:
        for line in stream:
            if b"aborting loop because EDIFF is reached" in line:
                reached = True
            elif b"FREE ENERGIE OF THE ION-ELECTRON SYSTEM" in line:
                steps.append(reached)
                reached = False
    return steps


CONVERGED = {"vasp-xml": _converged_in_vasprun, "vasp-out": _converged_in_outcar}
