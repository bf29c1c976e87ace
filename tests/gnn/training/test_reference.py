"""The guide shows every field as it is."""

from __future__ import annotations

from pathlib import Path

from gnn.training.config import TrainConfig
from gnn.training.reference import field_table, rows


def test_the_guide_shows_the_table(repository: Path) -> None:
    guide = (repository / "docs" / "guide" / "train.md").read_text(encoding="utf-8")
    assert field_table() in guide


def test_every_field_has_a_meaning() -> None:
    found = {name: meaning for name, _, meaning in rows(TrainConfig)}
    assert "losses.energy.late_weight" in found
    assert [name for name, meaning in found.items() if not meaning] == []
