"""The full state of a training on disk: every kill leaves either the state before or the state after a write.

`state.json` names its tensor file and that file's sha256, and is replaced atomically after the tensor file is durable;
so it is the pointer, and a tensor file that it does not name is litter.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gnn.errors import InputError, SluiceError
from gnn.files import file_sha256, write_atomically, write_text

STATE_VERSION = 1
STATE_NAME = "state.json"
MOMENTS = ("step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum")


class EpochRecord(BaseModel):
    """One point of the curves: a finished epoch or a validation inside one."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")

    epoch: int
    step: int
    elapsed_s: float
    progress: float
    train: dict[str, float]
    valid: dict[str, float] = Field(default_factory=dict)
    lr: float

    def curves(self) -> dict[str, float]:
        """The record as names of curves."""
        return {
            **{f"train/{name}": value for name, value in self.train.items()},
            **{f"valid/{name}": value for name, value in self.valid.items()},
            "lr": self.lr,
            "epoch": float(self.epoch),
            "elapsed_s": self.elapsed_s,
        }


class TrainState(BaseModel):
    """Where a training stands, beside its tensors. `header` says what it belongs to (digest of config and data)."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")

    version: int = STATE_VERSION
    header: str
    epoch: int = 0
    seen: int = 0
    batch: int = 0
    step: int = 0
    bad_steps: int = 0
    consecutive_bad: int = 0
    gradient_norm: float | None = None
    structures: int = 0
    elapsed_s: float = 0.0
    cpu_s: float = 0.0
    validation_s: float = 0.0
    compiling_s: float = 0.0
    resumes: int = 0
    trained_on: list[str] = Field(default_factory=list, description="processors or GPUs, in the order they came")
    untaught_metrics: dict[str, float] | None = Field(
        default=None, description="validation errors without a network; None: not looked at"
    )
    best_score: float | None = None
    best_epoch: int | None = None
    best_metrics: dict[str, float] = Field(default_factory=dict)
    sums: dict[str, float] = Field(default_factory=dict)
    counts: dict[str, int] = Field(default_factory=dict)
    curve: list[EpochRecord] = Field(default_factory=list)
    finished: bool = False
    saves: int = 0
    tensors: str = ""
    sha256: str = ""


def save_state(folder: Path, state: TrainState, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors, then the state that names them, then drop older tensor files."""
    state.saves += 1
    name = f"state-{state.saves:06d}.safetensors"
    contiguous = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    path = write_atomically(folder / name, lambda temporary: save_file(contiguous, temporary))
    state.tensors, state.sha256 = name, file_sha256(path)
    write_text(folder / STATE_NAME, state.model_dump_json())
    for old in folder.glob("state-*.safetensors"):
        if old.name != name:
            old.unlink(missing_ok=True)


def load_state(folder: Path, header: str) -> tuple[TrainState, dict[str, Tensor]] | None:
    """The state in `folder`, or None where there is none.

    Raises:
        InputError: it belongs to another training, or to another version of the program.
        SluiceError: its tensor file is missing or damaged.
    """
    state = read_state(folder)
    if state is None:
        return None
    if state.header != header:
        raise InputError(f"{folder} holds another training (its header differs); remove it or use another folder")
    path = folder / state.tensors
    if not path.is_file() or file_sha256(path) != state.sha256:
        raise SluiceError(f"{path} is missing or damaged; remove {folder} to train anew")
    return state, load_file(path)


def read_state(folder: Path) -> TrainState | None:
    """`state.json` alone, without its tensors; None where there is none.

    Raises:
        InputError: it cannot be read as a state of this version.
    """
    path = folder / STATE_NAME
    if not path.is_file():
        return None
    try:
        state = TrainState.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise InputError(
            f"{path} is not a training state; remove {folder} to train anew ({error.error_count()} faults)"
        ) from None
    if state.version != STATE_VERSION:
        raise InputError(f"{path} has version {state.version}, this program writes {STATE_VERSION}; remove {folder}")
    return state


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names with `prefix.` before them."""
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def section(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that `prefixed` gave, under their own names."""
    start = f"{prefix}."
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}


def optimiser_tensors(optimiser: torch.optim.Optimizer, names: dict[int, str]) -> dict[str, Tensor]:
    """Moments and step counters as `NAME.MOMENT`; `names` maps id(parameter) to its name."""
    return {
        f"{names[id(parameter)]}.{moment}": value
        for parameter, moments in optimiser.state.items()
        for moment, value in moments.items()
    }


def restore_optimiser(
    optimiser: torch.optim.Optimizer, parameters: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Put moments back, each on its parameter's device, and step counters on the CPU."""
    for name, parameter in parameters.items():
        found = {m: tensors[f"{name}.{m}"] for m in MOMENTS if f"{name}.{m}" in tensors}
        if found:
            optimiser.state[parameter] = {
                # a step counter on the device would be waited for in every step
                m: value if m == "step" else value.to(parameter.device)
                for m, value in found.items()
            }
