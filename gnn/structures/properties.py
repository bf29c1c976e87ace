"""Declared targets beyond energy, forces and stress."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

PropertyName = Annotated[str, Field(pattern=r"^[^\s.]+$")]
"""Without dots, which part names in configurations, and without blanks."""


class PropertySpec(BaseModel):
    """A declared target: its unit, level, and whether it grows with the system."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    unit: str
    level: Literal["structure", "atom"] = "structure"
    extensive: bool = False
