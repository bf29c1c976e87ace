"""Declared targets beyond energy, forces and stress."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class PropertySpec(BaseModel):
    """A declared target: its unit, level, and whether it grows with the system."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    unit: str
    level: Literal["structure", "atom"] = "structure"
    extensive: bool = False
