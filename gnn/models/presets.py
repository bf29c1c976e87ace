"""Sizes of model by name."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from gnn.errors import InputError

PRESETS = MappingProxyType(
    {
        "small": {"channels": 32, "layers": 2, "correlation": 3, "edge_l_max": 3, "hidden_l_max": 0},
        "default": {"channels": 64, "layers": 2, "correlation": 3, "edge_l_max": 3, "hidden_l_max": 0},
        "accurate": {"channels": 128, "layers": 2, "correlation": 3, "edge_l_max": 3, "hidden_l_max": 1},
    }
)
"""Fields of ModelConfig that a preset sets; elements, scales and references come from the data."""


def preset_fields(name: str) -> dict[str, Any]:
    """The fields of a preset.

    Raises:
        InputError: there is no such preset.
    """
    if name not in PRESETS:
        raise InputError(f"model preset '{name}' is unknown; choose one of {', '.join(PRESETS)}")
    return dict(PRESETS[name])
