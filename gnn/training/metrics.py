"""Errors of a model as numbers for people: evaluations, model cards, registry and command line speak of these."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class GroupMetrics(BaseModel):
    """Errors of one theory, or of the structures (forces: the atoms) of one element; None where nothing is labelled.

    The mean error keeps its sign, predicted minus labelled: as large as the MAE, it says that all energies are shifted.
    """

    model_config = ConfigDict(frozen=True)

    n_structures: int
    energy_mae_mev_per_atom: float | None = None
    energy_rmse_mev_per_atom: float | None = None
    energy_mean_error_mev_per_atom: float | None = None
    force_mae_mev_per_angstrom: float | None = None
    force_rmse_mev_per_angstrom: float | None = None
    stress_mae_gpa: float | None = None


class PropertyMetrics(BaseModel):
    """Errors of one property in its own unit over `n` structures or atoms."""

    model_config = ConfigDict(frozen=True)

    unit: str
    n: int
    mae: float
    rmse: float


class Metrics(BaseModel):
    """All errors of a model on a set; energies per atom and per structure, forces by component, stress by component."""

    model_config = ConfigDict(frozen=True)

    n_structures: int
    n_atoms: int
    energy_mae_mev_per_atom: float | None = None
    energy_rmse_mev_per_atom: float | None = None
    energy_mean_error_mev_per_atom: float | None = None
    energy_rmse_mev: float | None = None
    force_mae_mev_per_angstrom: float | None = None
    force_rmse_mev_per_angstrom: float | None = None
    stress_mae_gpa: float | None = None
    properties: dict[str, PropertyMetrics] = Field(default_factory=dict)
    by_theory: dict[str, GroupMetrics] = Field(default_factory=dict)
    by_element: dict[str, GroupMetrics] = Field(default_factory=dict)

    def headline(self) -> dict[str, float]:
        """The errors of the whole set as flat numbers; what is not labelled is absent."""
        names = GroupMetrics.model_fields.keys() | {"energy_rmse_mev"}
        flat = {name: getattr(self, name) for name in sorted(names - {"n_structures"})}
        for name, errors in self.properties.items():
            flat[f"{name}_mae"], flat[f"{name}_rmse"] = errors.mae, errors.rmse
        return {name: float(value) for name, value in flat.items() if value is not None}
