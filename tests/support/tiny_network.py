"""A network so small that an epoch of twenty cells takes a tenth of a second, as a training's file and as a table."""

from __future__ import annotations

import tomllib
from typing import Any

TINY_MODEL = """
[model]
channels = 4
layers = 1
correlation = 2
edge_l_max = 1
n_radial = 4
radial_hidden = [8]
"""
TINY: dict[str, Any] = tomllib.loads(TINY_MODEL)["model"]
