"""The typed architecture."""

from __future__ import annotations

from itertools import pairwise

import pytest
from pydantic import ValidationError

from gnn.errors import InputError
from gnn.models.config import ModelConfig
from gnn.models.presets import PRESETS, preset_fields
from gnn.structures.properties import PropertySpec


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"elements": []}, "elements"),
        ({"elements": ["H", "Qq"]}, "Qq"),
        ({"elements": ["H", "H"]}, "twice"),
        ({"correlation": 4}, "correlation"),
        ({"hidden_l_max": 3}, "hidden_l_max"),
        ({"hidden_l_max": 2, "edge_l_max": 1}, "exceeds"),
        ({"edge_l_max": 5}, "edge_l_max"),
        ({"cutoff": 0.0}, "cutoff"),
        ({"channels": 0}, "channels"),
        ({"layers": 101}, "layers"),
        ({"radial_hidden": [8] * 101}, "radial_hidden"),
        ({"references": {"pbe": {"H": 0.0}}}, "pbe"),
        ({"references": {"default": {"Zz": 0.0}}}, "Zz"),
        ({"bonding": {"default": {"H": float("nan")}}}, "not finite"),
        ({"properties": {"gap.pbe": {"unit": "eV"}}}, "gap.pbe"),
        ({"properties": {"": {"unit": "eV"}}}, "properties"),
        ({"property_scales": {"gap": {"mean": 1.0}}}, "gap"),
        ({"widht": 3}, "widht"),
        ({"family": "gap"}, "family"),
        ({"family": "tensor", "hidden_l_max": 1}, "hidden_l_max: the tensor family always has degree 2, not 1"),
        ({"family": "tensor", "edge_l_max": 1}, "exceeds"),
    ],
)
def test_mistakes_are_named(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ModelConfig.model_validate({"elements": ["H", "C"]} | changes)


def test_survives_json() -> None:
    config = ModelConfig(
        elements=["Li", "Al"],
        theories=["pbe"],
        references={"pbe": {"Li": -1.5}},
        properties={"gap": PropertySpec(unit="eV")},
    )
    assert ModelConfig.model_validate_json(config.model_dump_json()) == config


def test_numbers_keep_the_order_of_elements() -> None:
    assert ModelConfig(elements=["Si", "H"]).numbers == [14, 1]


@pytest.mark.parametrize("family", PRESETS)
def test_presets_are_valid_and_grow(family: str) -> None:
    assert list(PRESETS[family]) == ["small", "default", "accurate"]
    built = [ModelConfig(elements=["H"], **preset_fields(name, family)) for name in PRESETS[family]]
    assert [config.family for config in built] == [family] * 3
    assert built[0].channels < built[1].channels < built[2].channels


def test_unknown_family_lists_the_known() -> None:
    with pytest.raises(InputError, match="ace, tensor"):
        preset_fields("small", "gap")


def test_tensor_features_have_one_degree() -> None:
    config = ModelConfig(elements=["H"], family="tensor")
    assert (config.edge_l_max, config.hidden_l_max) == (4, 2)
    assert ModelConfig.model_validate_json(config.model_dump_json()) == config


def test_radial_functions_of_a_message_follow_the_channels() -> None:
    assert [ModelConfig(elements=["H"], family=family).message_channels for family in ("ace", "tensor")] == [64, 32]
    assert ModelConfig(elements=["H"], family="tensor", edge_channels=5).message_channels == 5


def test_the_rank_is_at_most_the_number_of_elements() -> None:
    assert ModelConfig(elements=["H", "C"], element_rank=100).rank == 2
    assert ModelConfig(elements=["H", "C"], element_rank=1).rank == 1


def test_unknown_preset_lists_the_known() -> None:
    with pytest.raises(InputError, match="small, default, accurate"):
        preset_fields("huge")


def test_every_field_is_documented() -> None:
    import ast
    import inspect

    from gnn.models import config

    body = next(n for n in ast.parse(inspect.getsource(config)).body if getattr(n, "name", "") == "ModelConfig").body
    for field, after in pairwise(body):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(after, ast.Expr), ast.unparse(field)
