"""Sizes of model by name; why products end at order 2: docs/decisions/0022-order-two.md."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from gnn.errors import named

ACE_PRESETS = MappingProxyType(
    {
        "small": {"channels": 32, "layers": 2, "correlation": 2, "edge_l_max": 3, "hidden_l_max": 1},
        "default": {"channels": 64, "layers": 2, "correlation": 2, "edge_l_max": 3, "hidden_l_max": 1},
        "accurate": {"channels": 128, "layers": 2, "correlation": 2, "edge_l_max": 3, "hidden_l_max": 2},
    }
)
TENSOR_PRESETS = MappingProxyType(
    {
        "small": {"channels": 32, "layers": 2, "correlation": 2},
        "default": {"channels": 64, "layers": 2, "correlation": 2},
        "accurate": {"channels": 128, "layers": 2, "correlation": 2},
    }
)
PRESETS = MappingProxyType({"ace": ACE_PRESETS, "tensor": TENSOR_PRESETS})
"""By family and name, the fields of ModelConfig that a preset sets; elements, scales and references are the data's."""


def preset_fields(name: str, family: str = "ace") -> dict[str, Any]:
    """The fields of a preset, the family among them.

    Raises:
        InputError: there is no such family or preset.
    """
    return {"family": family, **named("model preset", name, named("model.family", family, PRESETS))}
