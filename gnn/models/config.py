"""The architecture of a model: what is written into model.json and read back to rebuild it."""

from __future__ import annotations

from math import isfinite
from typing import Annotated, Any, Literal

from ase.data import atomic_numbers
from pydantic import BaseModel, ConfigDict, Field, model_validator

from gnn.structures.properties import PropertyName, PropertySpec

Positive = Annotated[int, Field(gt=0)]
MAX_DEPTH = 100
"""Layers that no sound network exceeds."""
MAX_DEGREE = 4
"""Highest degree of the spherical harmonics that are written out."""
TENSOR_DEGREE = 2
"""Degree of the features of the `tensor` family: that of a 3 x 3 matrix."""


class PropertyScale(BaseModel):
    """Mean and standard deviation of a property's targets, in its unit (per atom where it is extensive)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float = 0.0
    std: float = Field(default=1.0, gt=0)


class ModelConfig(BaseModel):
    """Everything that fixes the shape and the meaning of a model's weights.

    Raises:
        pydantic.ValidationError: a value is out of range, an element is unknown, or an energy of one is not finite.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: Literal["ace", "tensor"] = "ace"
    """The network: `ace` = body-ordered equivariant message passing, `tensor` = Cartesian rank-2 tensors, faster."""
    elements: Annotated[list[str], Field(min_length=1)]
    """Chemical symbols the model knows, in the order of its weights."""
    cutoff: Annotated[float, Field(gt=0)] = 5.0
    """Radius in Å within which atoms see each other."""
    channels: Positive = 64
    """Features an atom carries for each spherical component."""
    edge_channels: Positive | None = None
    """Radial functions of the density of bonds; None = `channels`, for `tensor` half of them."""
    layers: Annotated[int, Field(gt=0, le=MAX_DEPTH)] = 2
    """Rounds of message passing; information travels `layers` cutoffs (`tensor`: one more)."""
    correlation: Literal[1, 2, 3] = 3
    """Order of the products of the density: 1, 2, 3 = pair, triplet, quadruplet operators."""
    edge_l_max: Annotated[int, Field(ge=0, le=MAX_DEGREE)] = 3
    """Highest degree of the spherical harmonics of the bonds and of the density; 3, for `tensor` 4 (at least 2)."""
    hidden_l_max: Literal[0, 1, 2] = 0
    """Highest degree of the features passed between layers: scalars, vectors, rank-2 tensors; always 2 for `tensor`.
    A single `ace` layer passes nothing on."""
    n_radial: Positive = 8
    """Bessel functions of the distance."""
    envelope_power: Annotated[int, Field(ge=3)] = 5
    """Power p of the polynomial envelope; the energy has two continuous derivatives at the cutoff."""
    radial_hidden: Annotated[list[Positive], Field(min_length=1, max_length=MAX_DEPTH)] = [64, 64]
    """Widths of the radial network's hidden layers."""
    element_rank: Positive = 16
    """Rank of the element dependence of the product weights, at most the number of elements."""
    readout_hidden: Positive = 16
    """Width of the last layer's readout and of the property heads."""
    mean_neighbours: Annotated[float, Field(gt=0)] = 16.0
    """Mean number of neighbours in the training set: the density is divided by its root."""
    theories: Annotated[list[str], Field(min_length=1)] = ["default"]
    """Levels of theory, in the order of `Batch.theory`; each has its own readout and reference energies."""
    references: dict[str, dict[str, float]] = {}
    """Reference energy in eV by theory and element; an element that is not named has none (0)."""
    bonding: dict[str, dict[str, float]] = {}
    """What bonded atoms have beside their reference in the mean (eV), where that is a free atom; as `references`."""
    energy_scale: Annotated[float, Field(gt=0)] = 1.0
    """eV per unit of the network's energy: the RMS force of the training set in eV/Å."""
    properties: dict[PropertyName, PropertySpec] = {}
    """Scalar properties with a head of their own."""
    property_scales: dict[str, PropertyScale] = {}
    """Scale of each property's targets; mean 0 and deviation 1 where none is given."""
    property_shifts: bool = False
    """Property heads have a shift by theory, which they always have where there are several theories."""
    zbl: bool = False
    """Add the Ziegler–Biersack–Littmark core repulsion between close atoms."""

    @model_validator(mode="before")
    @classmethod
    def _family_fields(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("family") != "tensor":
            return values
        if values.get("hidden_l_max", TENSOR_DEGREE) != TENSOR_DEGREE:
            raise ValueError(
                f"hidden_l_max: the tensor family always has degree {TENSOR_DEGREE}, not {values['hidden_l_max']}"
            )
        return {"edge_l_max": MAX_DEGREE, "hidden_l_max": TENSOR_DEGREE, "radial_hidden": [64]} | values

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        unknown = [symbol for symbol in self.elements if atomic_numbers.get(symbol, 0) < 1]
        if unknown:
            raise ValueError(f"elements: {', '.join(unknown)} is no chemical symbol")
        for name, values in (("elements", self.elements), ("theories", self.theories)):
            if len(set(values)) != len(values):
                raise ValueError(f"{name}: a name stands twice in {values}")
        strangers = sorted((set(self.references) | set(self.bonding)) - set(self.theories))
        if strangers:
            raise ValueError(f"references, bonding: {', '.join(strangers)} is not among the theories {self.theories}")
        energies = [row for of in (self.references, self.bonding) for row in of.values()]
        unheard = sorted({symbol for row in energies for symbol in row if atomic_numbers.get(symbol, 0) < 1})
        if unheard:
            raise ValueError(f"references, bonding: {', '.join(unheard)} is no chemical symbol")
        if not all(isfinite(value) for row in energies for value in row.values()):
            raise ValueError("references, bonding: an energy is not finite")
        homeless = sorted(set(self.property_scales) - set(self.properties))
        if homeless:
            raise ValueError(f"property_scales: {', '.join(homeless)} is not among the properties")
        if self.hidden_l_max > self.edge_l_max:
            raise ValueError(f"hidden_l_max {self.hidden_l_max} exceeds edge_l_max {self.edge_l_max}")
        return self

    @property
    def numbers(self) -> list[int]:
        """Atomic numbers of `elements`, in their order."""
        return [atomic_numbers[symbol] for symbol in self.elements]

    def by_theory(self, energies: dict[str, dict[str, float]]) -> list[list[float]]:
        """`references` or `bonding` as a row a theory, a column an element; 0 where nothing is named."""
        return [[energies.get(theory, {}).get(element, 0.0) for element in self.elements] for theory in self.theories]

    @property
    def shifts_properties(self) -> bool:
        """Whether a level of theory has a say in its properties."""
        return self.property_shifts or len(self.theories) > 1

    @property
    def rank(self) -> int:
        """Rank of the element dependence, which cannot exceed the number of elements."""
        return min(self.element_rank, len(self.elements))

    @property
    def message_channels(self) -> int:
        """Radial functions of the density of bonds."""
        usual = self.channels if self.family == "ace" else max(1, self.channels // 2)
        return self.edge_channels or usual
