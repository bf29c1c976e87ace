"""The campaign that tests screen: intermetallics of three metals on a few prototypes."""

from __future__ import annotations

from collections.abc import Sequence


def metals_campaign(
    model: str = "foreign:emt",
    relaxation: Sequence[str] = ("max_steps = 100",),
    filters: Sequence[str] = ("max_hull_distance = 0.5",),
    formats: str = '["qe"]',
    shard_atoms: int = 20,
) -> str:
    """The text of its file; `relaxation` and `filters` are the lines of these tables."""
    lines = [
        'name = "metals"',
        f'model = "{model}"',
        "[candidates]",
        'elements = ["Al", "Cu", "Ni"]',
        "min_elements = 2",
        'prototypes = ["CsCl", "L1_0", "L1_2"]',
        "[relaxation]",
        *relaxation,
        "[filters]",
        *filters,
        "[hull]",
        'reference = "model"',
        "[selection]",
        "budget = 4",
        "[handoff]",
        f"formats = {formats}",
        "[shards]",
        f"atoms = {shard_atoms}",
    ]
    return "\n".join(lines) + "\n"
