from pathlib import Path

import pytest

from gnn.errors import InputError
from gnn.screening.campaign import CampaignSpec, FilterSpec, read_campaign

MINIMAL = """
name = "c"
model = "m"
[candidates]
elements = ["Al", "Cu"]
prototypes = ["CsCl"]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "c.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_minimal_campaign(tmp_path: Path) -> None:
    spec = read_campaign(write(tmp_path, MINIMAL))
    assert (spec.name, spec.model, spec.hull.reference, spec.selection.budget) == ("c", "m", "dft", 20)
    assert spec.path("x.cif") == tmp_path / "x.cif"


def test_changes_go_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL)
    spec = read_campaign(path, {"selection": {"budget": 3}, "model": "other"})
    assert (spec.model, spec.selection.budget, spec.candidates.prototypes) == ("other", 3, ["CsCl"])
    assert spec.spec_digest != read_campaign(path).spec_digest


def test_the_digest_forgets_where_the_file_lies(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert (
        read_campaign(write(tmp_path, MINIMAL)).spec_digest == read_campaign(write(tmp_path / "a", MINIMAL)).spec_digest
    )


def test_false_switches_a_limit_off(tmp_path: Path) -> None:
    text = MINIMAL + "[filters]\nmax_hull_distance = false\nvolume_ratio = false\n[selection]\nmax_per_formula = false"
    spec = read_campaign(write(tmp_path, text))
    assert spec.filters.max_hull_distance is None
    assert spec.filters.volume_ratio is None
    assert spec.selection.max_per_formula is None
    assert FilterSpec.model_validate({"require_convergence": False}).require_convergence is False
    assert FilterSpec.model_validate({"novel_only": True, "max_hull_distance": -0.05}).max_hull_distance == -0.05


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = 'c'", r"model: Field required and 1 more"),
        (MINIMAL.replace('"c"', '"a/b"'), r"name: 'a/b' cannot name a folder.*\(got 'a/b'\)"),
        (MINIMAL.replace("CsCl", "CsI"), r"candidates.prototypes: unknown prototype 'CsI'; known: all, fcc"),
        (MINIMAL.replace('"Cu"', '"Xx"'), r"candidates.elements: unknown element 'Xx'"),
        (MINIMAL.replace('["Al", "Cu"]', '["Al", "Cu", "Al"]'), r"candidates.elements: Al stands twice"),
        (MINIMAL.replace('elements = ["Al", "Cu"]', 'systems = ["Al-Cu", "Cu-Al"]'), r"systems: Al-Cu stands twice"),
        (MINIMAL.replace('elements = ["Al", "Cu"]', 'systems = ["Al-Al"]'), r"systems: Al stands twice"),
        (MINIMAL + 'datasets = ["a", "a"]', r"candidates.datasets: a stands twice"),
        (MINIMAL + 'datasets = ["a", "a@0"]', r"candidates.datasets: a stands twice \(got \['a', 'a@0'\]\)"),
        (MINIMAL + "[selection]\nkappa = nan", r"selection.kappa: Input should be a finite number"),
        (MINIMAL + "colour = 1", r"candidates.colour: Extra inputs are not permitted \(got 1\)"),
        (
            MINIMAL + "[selection]\nbudget = 0",
            r"selection.budget: Input should be greater than or equal to 1 \(got 0\)",
        ),
        (MINIMAL + "[hull]\nreference = 'mp'", r"hull.reference: Input should be 'dft' or 'model' \(got 'mp'\)"),
        (MINIMAL.replace('prototypes = ["CsCl"]', ""), r"candidates: no source of candidates"),
        (MINIMAL.replace('elements = ["Al", "Cu"]', ""), r"need `elements` or `systems`"),
        (MINIMAL + "[[candidates.derivatives]]\nparents = ['sc']", r"derivatives.0.parents: unknown parent 'sc'"),
        (MINIMAL + "[filters]\nmax_hull_distance = true", r"filters.max_hull_distance: true cannot stand here"),
        (MINIMAL + "[filters]\nmin_distance = false", r"filters.min_distance: false cannot stand here"),
        (MINIMAL + "[filters]\nvolume_ratio = [true, 3.0]", r"filters.volume_ratio: true cannot stand here"),
        (MINIMAL + "[selection]\nbudget = true", r"selection.budget: true cannot stand here \(got True\)"),
        (
            MINIMAL + "[filters]\nvolume_ratio = [3.0, 0.3]",
            r"filters.volume_ratio: the first must be at least 0 and bel",
        ),
        (
            MINIMAL + "[filters]\nmax_uncertainty = -1",
            r"filters.max_uncertainty: Input should be greater than or equal",
        ),
        (
            MINIMAL + "[filters]\nmax_formation_energy = -5",
            r"filters.max_formation_energy: Input should be greater than",
        ),
        (MINIMAL + "min_elements = 3\nmax_elements = 2", r"candidates: min_elements = 3 is above max_elements = 2"),
        (MINIMAL + "min_elements = 5", r"candidates: min_elements = 5 is above max_elements = 4"),
        (MINIMAL + "[[candidates.derivatives]]\nmin_sites = 5", r"derivatives.0: min_sites = 5 is above max_sites = 4"),
        (
            MINIMAL + "[[candidates.derivatives]]\nn_elements = [0]",
            r"derivatives.0.n_elements.0: Input should be greater",
        ),
        ("name = ", r"is not TOML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_campaign(write(tmp_path, text))


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/people/ada")
    spec = read_campaign(write(tmp_path, MINIMAL))
    assert spec.path("a.xyz") == tmp_path / "a.xyz"
    assert spec.path("/data/a.xyz") == Path("/data/a.xyz")
    assert spec.path("~/a.xyz") == Path("/people/ada/a.xyz")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no campaign file"):
        read_campaign(tmp_path / "none.toml")


def test_every_field_is_documented() -> None:
    def undocumented(model: type, path: str) -> list[str]:
        found = []
        for name, field in model.model_fields.items():
            inner = field.annotation
            if hasattr(inner, "model_fields"):
                found += undocumented(inner, f"{path}{name}.")
            elif not field.description:
                found.append(path + name)
        return found

    assert undocumented(CampaignSpec, "") == []


def test_the_demos_campaign_is_valid(repository: Path) -> None:
    spec = read_campaign(repository / "datasets" / "sample" / "campaign.toml")
    assert spec.selection.budget == 20
    assert spec.hull.reference == "dft"
