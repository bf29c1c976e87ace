import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms
from ase.build import bulk
from ase.formula import Formula

from gnn.errors import InputError
from gnn.screening.campaign import CandidateSpec, DedupeSpec
from gnn.screening.candidates import Candidate, decorated_prototypes
from gnn.screening.known import KnownCompound, known_outcomes, read_known
from gnn.screening.prototypes import PROTOTYPES

ANTIFLUORITE = "prototype = 'antifluorite'\nelements = ['Mg', 'Si']"
MG2SI = KnownCompound(formula="Mg2Si", prototype="antifluorite", elements=["Mg", "Si"], citation="x")


@pytest.fixture
def candidates() -> list[Candidate]:
    return list(
        decorated_prototypes(CandidateSpec(elements=["Mg", "Si"], prototypes=["fluorite", "antifluorite", "CsCl"]))
    )


def outcome_rows(candidates: list[Candidate], **special: dict[str, Any]) -> dict[str, dict[str, Any]]:
    plain = {
        "shortlisted": False,
        "rank": None,
        "hull_distance": None,
        "stage_dropped": "sane",
        "reason": "bad",
        "duplicate_of": None,
    }
    return {
        c.candidate_id: {"candidate_id": c.candidate_id, **plain, **special.get(c.candidate_id, {})} for c in candidates
    }


def of(candidates: list[Candidate], source: str) -> str:
    return next(c.candidate_id for c in candidates if c.source == source)


def test_a_shortlisted_compound_is_found(candidates: list[Candidate]) -> None:
    name = of(candidates, "prototype:antifluorite:Mg-Si")
    rows = outcome_rows(
        candidates, **{name: {"shortlisted": True, "rank": 2, "hull_distance": 0.01, "stage_dropped": None}}
    )
    # the same crystal stands twice among the candidates; the other is its duplicate
    rows[of(candidates, "prototype:fluorite:Si-Mg")] |= {"duplicate_of": name}
    (outcome,) = known_outcomes([MG2SI], candidates, rows, DedupeSpec())
    assert (outcome.found, outcome.rank, outcome.candidate_id, outcome.hull_distance) == (True, 2, name, 0.01)


def test_a_duplicate_leads_to_who_stands_for_it(candidates: list[Candidate]) -> None:
    first, second = of(candidates, "prototype:antifluorite:Mg-Si"), of(candidates, "prototype:fluorite:Si-Mg")
    rows = outcome_rows(
        candidates, **{first: {"duplicate_of": second}, second: {"rank": 7, "stage_dropped": "shortlist"}}
    )
    (outcome,) = known_outcomes([MG2SI], candidates, rows, DedupeSpec())
    assert (outcome.candidate_id, outcome.rank, outcome.found) == (second, 7, False)
    assert "dropped at shortlist: bad" in outcome.comment


def test_what_is_no_candidate_is_missed(candidates: list[Candidate]) -> None:
    compounds = [
        KnownCompound(formula="LiAl", prototype="NaTl", elements=["Li", "Al"], citation="x"),
        KnownCompound(formula="MgSi", prototype="rocksalt", elements=["Mg", "Si"], citation="x"),
        KnownCompound(formula="SiMg", structure_type="unknown, 40 atoms", citation="x"),
    ]
    rows = outcome_rows(candidates)
    outcomes = known_outcomes(compounds, candidates, rows, DedupeSpec())
    assert [outcome.found for outcome in outcomes] == [False] * 3
    assert "no candidate has this formula" in outcomes[0].comment
    assert "its structure is not among the candidates" in outcomes[1].comment
    assert "its structure (unknown, 40 atoms) is no candidate" in outcomes[2].comment
    assert outcomes[2].candidate_id is not None


def test_a_candidate_that_could_not_be_is_compared_with_nothing() -> None:
    """A flat cell would break the matcher, a thin one keep it busy for ever; a sound one behind them is found."""
    flat = Atoms("AlCu", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0]], cell=[[3, 0, 0], [0, 3, 0], [3, 3, 0]], pbc=True)
    thin = Atoms("AlCu", positions=[[0, 0, 0], [1.5, 1.5, 0]], cell=[3, 3, 1e-6], pbc=True)
    broken = [Candidate.of(flat, None, "flat"), Candidate.of(thin, None, "thin")]
    sound = Candidate.of(bulk("AlCu", "cesiumchloride", a=3.0), None, "sound")
    known = KnownCompound(formula="AlCu", prototype="CsCl", elements=["Al", "Cu"], citation="x")
    (missed,) = known_outcomes([known], broken, outcome_rows(broken), DedupeSpec())
    assert missed.candidate_id is None
    assert "2 of its formula could not be compared, the first dropped at sane: bad" in missed.comment
    rows = outcome_rows([*broken, sound], **{sound.candidate_id: {"stage_dropped": "near_hull"}})
    (found,) = known_outcomes([known], [*broken, sound], rows, DedupeSpec())
    assert (found.candidate_id, found.comment) == (sound.candidate_id, "stable; dropped at near_hull: bad")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *(
            (
                f"formula = '{formula}'\ncitation = 'x'",
                f"'{re.escape(formula)}' is no formula; write elements and whole",
            )
            for formula in ("Li3.75Si", "AlCu ", "AlCu2 (hp)", "Al1-xCux", "Al0", "")
        ),
        ("formula = 'Xx2Al'\ncitation = 'x'", "unknown element 'Xx'"),
        ("formula = 'Mg2Si'", r"k\.toml: compound\.0\.citation: Field required"),
        ("formula = 'MgSi'\ncitation = 'x'\n" + ANTIFLUORITE, "antifluorite of Mg-Si is not MgSi"),
        ("formula = 'MgSi'\ncitation = 'x'\nprototype = 'none'", "unknown prototype 'none'"),
        ("formula = 'MgSi'\ncitation = 'x'\nprototype = 'CsCl'", "CsCl has 2 sites to name elements for"),
        ("]", "is not TOML"),
    ],
)
def test_wrong_tables(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "k.toml").write_text("[[compound]]\n" + text)
    with pytest.raises(InputError, match=message):
        read_known(tmp_path / "k.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("compound = 5", r"k\.toml: compound: Input should be a valid list \(got 5\)"),
        ("[compound]\nformula = 'Mg2Si'\ncitation = 'x'", "compound: Input should be a valid list"),
        ("[[compounds]]\nformula = 'Mg2Si'\ncitation = 'x'", "compounds: Extra inputs are not permitted"),
        (
            "[[compound]]\nformula = 'Mg2Si'\ncitation = 'x'\n[[compound]]\nformula = 'LiAl'\ncitation = 5",
            r"compound\.1\.citation: Input should be a valid string \(got 5\)",
        ),
    ],
)
def test_tables_of_another_form(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "k.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_known(tmp_path / "k.toml")


def test_an_empty_table_knows_nothing(tmp_path: Path) -> None:
    (tmp_path / "k.toml").write_text("")
    assert read_known(tmp_path / "k.toml") == []


def test_a_missing_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no table of known compounds"):
        read_known(tmp_path / "none.toml")


def test_the_shipped_table(repository: Path, crystal: Callable[..., Any]) -> None:
    compounds = read_known(repository / "datasets" / "sample" / "known_compounds.toml")
    assert {"Mg2Si", "LiAl", "LiAlSi"} <= {compound.formula for compound in compounds}
    for compound in compounds:
        assert compound.citation
        assert compound.prototype is None or compound.prototype in PROTOTYPES
        assert set(Formula(compound.formula).count()) <= {"Li", "Mg", "Al", "Si"}
