"""A campaign: what its TOML file may say."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from gnn.errors import InputError
from gnn.files import digest
from gnn.overlay import merged
from gnn.screening.derivatives import LARGEST, PARENTS
from gnn.screening.prototypes import PROTOTYPES
from gnn.structures.record import symbol_number

Model = TypeVar("Model", bound=BaseModel)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SAME_VOLUME = 0.01
"""Share by which volumes of one crystal may differ where cells stay as they are."""


class Part(BaseModel):
    """The base of a campaign's tables: frozen, and unknown keys are refused. `false` switches an optional limit off."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _false_is_none(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        optional = {name for name, field in cls.model_fields.items() if type(None) in get_args(field.annotation)}
        return {key: None if value is False and key in optional else value for key, value in values.items()}

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        parts = value if isinstance(value, list | tuple) else [value]
        flags = [part for part in parts if isinstance(part, bool)]
        if flags and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError(f"{str(flags[0]).lower()} cannot stand here")
        return value


class DerivativeSpec(Part):
    """A family of derivative superstructures: all orderings of `n_elements` elements on the parents' sites."""

    parents: list[str] = Field(default=list(PARENTS), description="of fcc, bcc, hcp, diamond")
    n_elements: list[Annotated[int, Field(ge=1)]] = Field(
        default=[2], description="how many different elements an arrangement has"
    )
    min_sites: int = Field(default=2, ge=1, description="sites of the smallest cell")
    max_sites: int = Field(default=4, ge=1, le=LARGEST, description="sites of the largest cell")

    @field_validator("parents")
    @classmethod
    def _known_parents(cls, parents: list[str]) -> list[str]:
        if unknown := [name for name in parents if name not in PARENTS]:
            raise ValueError(f"unknown parent {unknown[0]!r}; known: {', '.join(PARENTS)}")
        return parents

    @model_validator(mode="after")
    def _is_a_range(self) -> DerivativeSpec:
        if self.min_sites > self.max_sites:
            raise ValueError(f"min_sites = {self.min_sites} is above max_sites = {self.max_sites}")
        return self


class CandidateSpec(Part):
    """Where candidates come from, and which of them are let in."""

    elements: list[str] = Field(default=[], description="elements to decorate prototypes and derivatives with")
    systems: list[str] = Field(
        default=[], description="chemical systems to decorate, as 'Li-Al'; empty = every combination of `elements`"
    )
    min_elements: int = Field(default=1, ge=1, description="fewest different elements of a candidate")
    max_elements: int = Field(default=4, ge=1, description="most different elements of a candidate")
    max_atoms: int = Field(default=200, ge=1, description="most atoms in a candidate's cell")
    exclude: list[str] = Field(default=[], description="elements that no candidate may hold")
    charge_neutral: bool = Field(
        default=False, description="only compositions that common oxidation states can make neutral"
    )
    prototypes: list[str] = Field(default=[], description="names of prototypes, or ['all']")
    derivatives: list[DerivativeSpec] = Field(default=[], description="families of derivative superstructures")
    files: list[str] = Field(default=[], description="structure files, relative to the campaign file")
    datasets: list[str] = Field(default=[], description="lake data sets that are candidates, NAME or NAME@3")
    volume: Literal["elements", "lake"] = Field(
        default="elements",
        description="first volume of a decoration: from elemental volumes, or atomic volumes fitted to the hull's data",
    )
    volume_scale: float = Field(default=1.0, gt=0.3, lt=3.0, description="factor on the first volume of a decoration")

    @field_validator("elements", "exclude")
    @classmethod
    def _known_elements(cls, elements: list[str]) -> list[str]:
        for symbol in elements:
            symbol_number(symbol)
        return refuse_twice(elements)

    @field_validator("systems")
    @classmethod
    def _known_systems(cls, systems: list[str]) -> list[str]:
        for system in systems:
            for symbol in refuse_twice(system.split("-")):
                symbol_number(symbol)
        refuse_twice(["-".join(sorted(system.split("-"))) for system in systems])
        return systems

    @field_validator("datasets")
    @classmethod
    def _once(cls, references: list[str]) -> list[str]:
        refuse_twice([reference.partition("@")[0] for reference in references])
        return references

    @field_validator("prototypes")
    @classmethod
    def _known_prototypes(cls, names: list[str]) -> list[str]:
        if unknown := [name for name in names if name != "all" and name not in PROTOTYPES]:
            raise ValueError(f"unknown prototype {unknown[0]!r}; known: all, {', '.join(PROTOTYPES)}")
        return names

    @model_validator(mode="after")
    def _is_a_range(self) -> CandidateSpec:
        if self.min_elements > self.max_elements:
            raise ValueError(f"min_elements = {self.min_elements} is above max_elements = {self.max_elements}")
        return self

    @model_validator(mode="after")
    def _has_a_source(self) -> CandidateSpec:
        if not (self.prototypes or self.derivatives or self.files or self.datasets):
            raise ValueError("no source of candidates: give prototypes, derivatives, files or datasets")
        if (self.prototypes or self.derivatives) and not (self.elements or self.systems):
            raise ValueError("prototypes and derivatives need `elements` or `systems`")
        return self


def refuse_twice(names: list[str]) -> list[str]:
    """The names, if none stands twice: candidates would."""
    if twice := sorted(name for name in set(names) if names.count(name) > 1):
        raise ValueError(f"{twice[0]} stands twice")
    return names


class DedupeSpec(Part):
    """When two structures count as the same: pymatgen's StructureMatcher with these tolerances."""

    ltol: float = Field(default=0.1, gt=0, description="fractional tolerance of cell lengths")
    stol: float = Field(default=0.15, gt=0, description="tolerance of sites, in units of the mean atomic spacing")
    angle_tol: float = Field(default=3.0, gt=0, description="tolerance of cell angles in degrees")


class RelaxationSpec(Part):
    """How candidates are relaxed."""

    mode: Literal["cell", "positions", "none"] = Field(
        default="cell", description="what moves: cell and positions, positions, or nothing"
    )
    follow: Literal["mean", "first"] = Field(
        default="mean",
        description="whose forces: the mean of a committee, or its first member's, at a fraction of the cost but "
        "prone to fall into holes that only this member has",
    )
    fmax: float = Field(default=0.05, gt=0, description="eV/Å, of atoms and of the cell by the same measure")
    max_steps: int = Field(default=300, ge=1, description="steps after which a structure counts as not converged")
    max_atoms: int = Field(default=512, ge=1, description="atoms of one batch")

    @property
    def volume_window(self) -> float | None:
        """Share by which volumes of one crystal may differ; None where every cell relaxes to its own."""
        return None if self.mode == "cell" else SAME_VOLUME


class FilterSpec(Part):
    """What a candidate must satisfy; null switches a limit off."""

    min_distance: float = Field(default=0.5, ge=0, description="least distance in units of the sum of covalent radii")
    volume_ratio: tuple[float, float] | None = Field(
        default=(0.3, 3.0), description="volume over the sum of elemental volumes, before and after relaxation"
    )
    require_convergence: bool = Field(default=True, description="drop what did not converge")
    max_uncertainty: float | None = Field(default=0.5, ge=0, description="eV/atom; potentials without uncertainty pass")
    max_formation_energy: float | None = Field(
        default=5.0, ge=0, description="eV/atom of either sign; beyond it a prediction is no physics"
    )
    max_hull_distance: float | None = Field(default=0.1, description="eV/atom above the reference hull")
    novel_only: bool = Field(default=False, description="drop structures that the hull's data sets hold")

    @field_validator("volume_ratio")
    @classmethod
    def _is_a_range(cls, ratio: tuple[float, float] | None) -> tuple[float, float] | None:
        if ratio is not None and not 0 <= ratio[0] < ratio[1]:
            raise ValueError("the first must be at least 0 and below the second")
        return ratio


class HullSpec(Part):
    """What hull distances and formation energies are measured against."""

    reference: Literal["dft", "model"] = Field(
        default="dft",
        description="dft: the lake's entries of the model's theory, fixed; model: these and the elements by the model",
    )
    datasets: list[str] = Field(
        default=[], description="lake data sets, NAME or NAME@3; empty = all that hold the theory"
    )


class SelectionSpec(Part):
    """How the budget of DFT calculations is spent."""

    budget: int = Field(default=20, ge=1, description="candidates on the shortlist")
    kappa: float = Field(
        default=0.5,
        description="score = hull distance - kappa x uncertainty: positive favours the uncertain, negative the sure",
    )
    exploration: float = Field(default=0.0, ge=0, le=1, description="share of the budget for the most uncertain")
    max_per_formula: int | None = Field(default=2, ge=1, description="candidates of one reduced formula")
    max_per_prototype: int | None = Field(default=None, ge=1, description="candidates of one prototype")
    max_per_system: int | None = Field(default=None, ge=1, description="candidates of one chemical system")


class HandoffSpec(Part):
    """What is written for the shortlist."""

    formats: list[Literal["vasp", "qe", "gpaw"]] = Field(default=["vasp", "qe", "gpaw"], description="DFT input sets")


class ShardSpec(Part):
    """How the work is cut."""

    atoms: int | None = Field(default=None, ge=1, description="atoms a shard; empty = by the number of workers")


class CampaignSpec(Part):
    """A screening campaign. Paths in it are relative to the campaign file's folder (`base`)."""

    name: str = Field(description="letters, digits, '.', '_', '-': the campaign's folder")
    model: str = Field(description="models:/NAME@alias, models:/NAME/3, NAME, a checkpoint folder, or foreign:NAME")
    theory: str | None = Field(default=None, description="for models of several theories: the one to predict")
    known_compounds: str | None = Field(default=None, description="TOML table of compounds whose rank is reported")
    candidates: CandidateSpec
    dedupe: DedupeSpec = DedupeSpec()
    relaxation: RelaxationSpec = RelaxationSpec()
    filters: FilterSpec = FilterSpec()
    hull: HullSpec = HullSpec()
    selection: SelectionSpec = SelectionSpec()
    handoff: HandoffSpec = HandoffSpec()
    shards: ShardSpec = ShardSpec()
    base: str = Field(default="", description="folder that relative paths start from; set when the file is read")

    @field_validator("name")
    @classmethod
    def _is_a_folder_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot name a folder; use letters, digits, '.', '_', '-'")
        return name

    @cached_property
    def spec_digest(self) -> str:
        """sha256 of everything that changes results; where the file lies does not enter."""
        return digest(self.model_dump(mode="json", exclude={"base"}))

    def path(self, name: str) -> Path:
        """`name` taken relative to the campaign file."""
        return Path(self.base or ".") / Path(name).expanduser()


def read_campaign(path: Path, changes: Mapping[str, Any] | None = None) -> CampaignSpec:
    """The campaign of a TOML file, with `changes` (nested tables) laid over it.

    Raises:
        InputError: no such file, not TOML, or a field is unknown or has a value that cannot be.
    """
    if not path.is_file():
        raise InputError(f"no campaign file {path}; give the path of a TOML file")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}") from None
    return parse_campaign({**merged(content, changes or {}), "base": str(path.resolve().parent)}, str(path))


def parse_campaign(content: Mapping[str, Any], where: str) -> CampaignSpec:
    """The campaign that `content` describes; `where` is named in errors.

    Raises:
        InputError: a field is unknown, missing or has a value that cannot be.
    """
    try:
        return CampaignSpec.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{where}: {first_mistake(error, 'campaign')}") from None


def read_kept(path: Path, kind: type[Model]) -> Model:
    """What a file that Sluice wrote into a campaign's folder holds.

    Raises:
        InputError: it is damaged.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise InputError(
            f"{path} is damaged ({first_mistake(error, 'the file')}); bring it back, or start the campaign anew from"
            " its file with --fresh"
        ) from None


def first_mistake(error: ValidationError, whole: str) -> str:
    """The first mistake in a line: field (`whole` where it is none's), what is wrong, the value, how many more."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"]) or whole
    is_telling = first["type"] not in ("missing", "json_invalid") and not isinstance(first["input"], dict)
    value = f" (got {first['input']!r})" if is_telling else ""
    more = f" and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    return f"{field}: {first['msg'].removeprefix('Value error, ')}{value}{more}"
