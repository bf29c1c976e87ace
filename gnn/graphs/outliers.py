"""Which sound but wild structures are not trained on."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field, field_validator

DEFAULT_FLAGS = ("high-energy", "implausible", "large-stress", "scf-unconverged")


class OutlierRule(BaseModel):
    """What is dropped, and counted under its reason; everything else is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    max_force: float | None = Field(
        default=50.0,
        ge=0,
        description="eV/Å; a structure with a larger force on any atom is dropped as large-force: wild trial steps of"
        " relaxations have hundreds, violent molecular dynamics stays below 50. 0 keeps all",
    )
    drop_flags: tuple[str, ...] = Field(
        default=DEFAULT_FLAGS, description="flags of the lake that drop a structure; the part before a colon counts"
    )

    @field_validator("max_force")
    @classmethod
    def _zero_is_none(cls, largest: float | None) -> float | None:
        return largest or None


def outlier_reason(flags: Iterable[str], max_force: float | None, rule: OutlierRule) -> str | None:
    """Why a structure is dropped, as the code that is counted; None if it is kept.

    `max_force` is its largest force (eV/Å), None where it has no forces.
    """
    if rule.max_force is not None and max_force is not None and max_force > rule.max_force:
        return "large-force"
    codes = {flag.partition(":")[0] for flag in flags}
    return next((code for code in rule.drop_flags if code in codes), None)
