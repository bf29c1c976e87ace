"""What a training is told: typed, documented, readable from TOML. None means "taken from the data"."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gnn.errors import InputError
from gnn.files import digest
from gnn.graphs.graph_set import Split
from gnn.graphs.outliers import OutlierRule
from gnn.graphs.splits import DEFAULT_HELPER_SHARE

Decay = Annotated[float, Field(ge=0, lt=1)]
LossKind = Literal["huber", "mse", "mae", "norm"]
PresetName = Literal["small", "default", "accurate"]

NOT_IN_DIGEST = {"device", "threads", "register_as", "checkpoint_s", "data", "committee", "experiment"}
"""Fields that do not change what is trained; data enters the digest as the graph set's id, committee as seeds."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataConfig(_Section):
    """Which data, and how it is divided; the part that `sluice preprocess` needs."""

    datasets: list[str] = Field(default_factory=list, description="lake data sets, NAME or NAME@VERSION")
    helpers: list[str] = Field(
        default_factory=list, description="data sets that are only trained on, as labels of a cheaper level of theory"
    )
    helper_share: float = Field(
        default=DEFAULT_HELPER_SHARE, gt=0, lt=1, description="largest part of a pass that helpers make"
    )
    cutoff: float | None = Field(default=None, gt=0, le=20, description="Å; None: the preset's")
    split: dict[Split, float] | None = Field(default=None, description="train/valid/test, fractions or counts")
    split_by: Literal["group", "structure"] | None = Field(default=None, description="what a split keeps together")
    split_seed: int = Field(default=0, description="seed of the split")
    outliers: OutlierRule | None = Field(default=None, description="labels beyond which a structure is left out")
    train_on_elements: bool = Field(
        default=False, description="structures of one element stay in training: formation energies refer to them"
    )

    @property
    def sources(self) -> list[str]:
        """All data sets that are read."""
        return [*self.datasets, *self.helpers]


class OptimiserConfig(_Section):
    """Muon for the network's matrices and AdamW for the rest, or AdamW for all, with gradient clipping."""

    kind: Literal["muon", "adamw"] = Field(default="muon", description="muon: orthogonal steps of the matrices")
    radial: Literal["muon", "adamw"] | None = Field(
        default=None, description="of radial networks; None: by the data, adamw for molecules in motion"
    )
    lr: float | None = Field(default=None, gt=0, description="peak learning rate")
    weight_decay: float = Field(default=1e-6, ge=0, description="decoupled; on weight matrices only")
    betas: tuple[Decay, Decay] = Field(default=(0.9, 0.999), description="decay of the first and second moments")
    amsgrad: bool = Field(default=True, description="keep the maximum of the second moment")
    momentum: float = Field(default=0.95, ge=0, lt=1, description="of Muon")
    clip: float = Field(default=2.0, gt=0, description="largest norm of the gradient, in running norms")

    @model_validator(mode="after")
    def _muon_has_the_others_too(self) -> OptimiserConfig:
        if self.kind == "adamw" and self.radial == "muon":
            raise ValueError("radial = 'muon' needs kind = 'muon'")
        return self


class ScheduleConfig(_Section):
    """What changes with progress, which runs from 0 to 1 over the whole budget."""

    warmup: float = Field(default=0.02, ge=0, lt=1, description="part of the budget with a rising rate")
    decay: Literal["cosine", "linear"] = Field(default="cosine", description="shape of the fall after the warm-up")
    final: float = Field(default=0.0001, gt=0, le=1, description="rate at the end, as part of the peak")
    helpers_leave: float = Field(
        default=1.0, gt=0, le=1, description="part of the budget after which helpers are trained on no more; 1: never"
    )


class BatchConfig(_Section):
    """Structures are packed into batches by size."""

    max_atoms: int | None = Field(default=None, ge=1, description="atoms a batch; a larger structure is one by itself")
    max_edges: int | None = Field(default=None, ge=1, description="directed edges a batch")
    valid_factor: int = Field(default=4, ge=1, description="evaluation batches hold this many times as many atoms")


class EmaConfig(_Section):
    """Exponential moving average of the weights; it is what is evaluated and kept."""

    decay: float | None = Field(default=None, ge=0, lt=1, description="largest; None: 0.99 growing to 0.999")


class TermConfig(_Section):
    """One term of the loss, on errors in units of the data's own scale."""

    weight: float = Field(default=1.0, ge=0, description="weight at the beginning")
    late_weight: float | None = Field(default=None, ge=0, description="weight after the hand-over; None: the same")
    kind: LossKind = Field(default="huber", description="huber, mse, mae; norm: Huber of a vector's length")
    delta: float = Field(default=0.1, gt=0, description="where Huber turns from square to linear")

    @property
    def is_off(self) -> bool:
        """Whether it weighs nothing from beginning to end."""
        return self.weight == 0 and not self.late_weight


class EnergyTerm(TermConfig):
    """Energies per atom: light until the forces are learnt, then heavy; the heavier, the more they tell beside forces.

    Where only the first weight is given, the late one follows it; 0 leaves energies out. What is None is filled in by
    `gnn.training.energy_weights` before anything is trained.
    """

    weight: float | None = Field(  # type: ignore[assignment]
        default=None, ge=0, description="weight at the beginning; None: by the data, 10 to 40"
    )
    late_weight: float | None = Field(
        default=None, ge=0, description="weight after the hand-over; None: ten times the weight"
    )


class ForceTerm(TermConfig):
    """Forces: the length of the error, so that no direction is preferred."""

    weight: float = Field(default=10.0, ge=0, description="weight at the beginning")
    kind: LossKind = Field(default="norm", description="huber, mse, mae; norm: Huber of a vector's length")


class LossConfig(_Section):
    """Loss = sum of weighted terms; a missing label contributes nothing."""

    energy: EnergyTerm = EnergyTerm()
    forces: ForceTerm = ForceTerm()
    stress: TermConfig = TermConfig()
    properties: dict[str, TermConfig] = Field(default_factory=dict, description="weight 1, huber where not given")
    handover: tuple[float, float] = Field(default=(0.6, 0.85), description="progress from weights to late weights")

    @model_validator(mode="after")
    def _handover_rises(self) -> LossConfig:
        start, end = self.handover
        if not 0 <= start <= end <= 1:
            raise ValueError(f"handover {self.handover} must rise within 0 and 1")
        return self


class TrainConfig(_Section):
    """A whole training. Exactly one of `epochs` and `minutes` is the budget."""

    data: DataConfig = DataConfig()
    preset: PresetName | None = Field(
        default=None, description="size of the network: small, default or accurate; None: `init`'s, else default"
    )
    model: dict[str, Any] = Field(default_factory=dict, description="overrides of the preset's architecture")
    optimiser: OptimiserConfig = OptimiserConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    batch: BatchConfig = BatchConfig()
    ema: EmaConfig = EmaConfig()
    losses: LossConfig = LossConfig()
    epochs: int | None = Field(default=None, ge=1, description="budget in passes over the training split")
    minutes: float | None = Field(default=None, gt=0, description="budget in minutes of wall time, summed over resumes")
    clock: Literal["wall", "cpu"] = Field(default="wall", description="cpu: minutes are CPU time of each member")
    seed: int = Field(default=0, ge=0, lt=2**62, description="seed of weights and batch order; member K uses seed + K")
    committee: int = Field(default=1, ge=1, le=64, description="members, trained with different seeds")
    init: str | None = Field(
        default=None, description="checkpoint folder (the CLI: any model name) whose weights are the start"
    )
    dtype: Literal["float32", "float64"] = Field(default="float32", description="precision of the network")
    device: str = Field(default="auto", description="cpu, cuda, cuda:1; auto: a GPU where there is one")
    compile: bool = Field(
        default=False,
        description="energies and slopes as one compiled program: faster steps after minutes of compiling, which the "
        "budget pays for; a resumed run is then the same to rounding, not bit for bit",
    )
    replay: bool = Field(
        default=False,
        description="on a GPU, compiled steps are recorded for each size of batch and replayed: faster where batches "
        "have few sizes, as those of one molecule, and a waste of memory where they have many",
    )
    devices: int = Field(
        default=1, ge=1, description="processes that share every step, one a GPU; each takes batches of batch.max_atoms"
    )
    threads: int | None = Field(default=None, ge=1, description="torch threads a member; None: its share of cores")
    checkpoint_s: float = Field(default=45.0, gt=0, description="seconds between resumable states")
    max_bad_steps: int = Field(default=20, ge=0, description="steps with a non-finite loss before the training stops")
    register_as: str | None = Field(default=None, description="name in the model registry")
    experiment: str = Field(default="sluice", min_length=1, description="name of the tracking experiment")

    @model_validator(mode="after")
    def _one_budget(self) -> TrainConfig:
        if self.epochs is not None and self.minutes is not None:
            raise ValueError("epochs and minutes are both given; give one budget")
        return self

    @model_validator(mode="after")
    def _a_start_brings_its_architecture(self) -> TrainConfig:
        told = [*(["preset"] if self.preset else []), *(f"model.{name}" for name in sorted(self.model))]
        if self.init is not None and told:
            raise ValueError(f"{told[0]}: the architecture of --init cannot be changed; leave it out")
        return self

    @model_validator(mode="after")
    def _what_is_replayed_is_compiled(self) -> TrainConfig:
        if self.replay and not self.compile:
            raise ValueError("replay = true needs compile = true")
        return self

    @model_validator(mode="after")
    def _one_way_to_be_parallel(self) -> TrainConfig:
        if self.devices > 1 and self.committee > 1:
            raise ValueError("a committee trains one process a member; give devices or committee, not both")
        if self.in_processes and ":" in self.device:
            raise ValueError(
                f"each process takes a device of its own; give {self.device.split(':')[0]}, not {self.device}"
            )
        return self

    @property
    def in_processes(self) -> bool:
        """Whether it is trained in more processes than one, each with a device of its own."""
        return self.devices > 1 or self.committee > 1


def read_config(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        InputError: no such file, or it is not TOML.
    """
    if not path.is_file():
        raise InputError(f"no configuration file {path}")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}") from None


def make_config(values: dict[str, Any]) -> TrainConfig:
    """A checked configuration of nested tables.

    Raises:
        InputError: an unknown field or a value out of range; the message names each.
    """
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        raise InputError(f"training configuration: {describe_validation(error)}") from None


def describe_validation(error: ValidationError) -> str:
    """Pydantic's complaints in one line: `field: what (value)`; ..."""
    parts = []
    for item in error.errors():
        where = f"{'.'.join(str(part) for part in item['loc'])}: " if item["loc"] else ""
        given = "" if isinstance(item["input"], dict | BaseModel) else f" (given {item['input']!r:.100})"
        parts.append(f"{where}{item['msg'].removeprefix('Value error, ')}{given}")
    return "; ".join(parts)


def run_digest(config: TrainConfig, graph_set_id: str, init_sha256: str | None, decided: Mapping[str, Any]) -> str:
    """sha256 of all that decides the result of one member: configuration, data, initial weights.

    `decided` is what presets and defaults gave: where a new version has others, a training is another one.
    """
    content = config.model_dump(mode="json", exclude=NOT_IN_DIGEST | {"init"})
    return digest({"config": content, "graph_set_id": graph_set_id, "init": init_sha256, "taken": dict(decided)})
