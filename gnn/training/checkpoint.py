"""The checkpoint: a folder of weights, manifest and model card. Reading it executes nothing that it contains."""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from gnn import __version__
from gnn.errors import InputError
from gnn.files import file_sha256, fsync_folder, write_text
from gnn.graphs.graph_set import GraphSet, LakeInput
from gnn.models.config import MAX_DEPTH, ModelConfig
from gnn.models.element_weights import ElementWeights
from gnn.models.model import Model, build_model
from gnn.training.card import model_card
from gnn.training.config import describe_validation

CHECKPOINT_VERSION = 2
FIRST_VERSION = 1
"""In which the weights of element tables are the tables themselves, not what is mixed into them."""
WEIGHTS_NAME, MANIFEST_NAME, CARD_NAME = "model.safetensors", "model.json", "README.md"
MAX_MANIFEST_BYTES = 64 << 20
MAX_HEADER_BYTES = 64 << 20
SLACK, SMALL_MODEL = 8, 1 << 22
"""A network may not want matrices of more than this many times the file's numbers, or than a small model's."""
UNITS = {"energy": "eV", "length": "Å", "force": "eV/Å", "stress": "eV/Å^3, positive = tension, xx yy zz yz xz xy"}
SpreadKind = Literal["committee", "last_layer"]
MEMBER, WHITENING_NAME = "member.", "calibration.whitening"
DTYPE_BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "I64": 8, "I32": 4, "BOOL": 1}


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TensorInfo(_Model):
    """Shape and safetensors type name of one tensor."""

    shape: list[int]
    dtype: Literal["F64", "F32", "BF16", "F16", "I64", "I32", "BOOL"]


class Producer(_Model):
    """What wrote the checkpoint."""

    sluice: str
    torch: str
    code: str | None = Field(None, description="commit of the source tree, where known")
    created: str
    trained_on: list[str] = Field(default_factory=list, description="processors or GPUs")


class Calibration(_Model):
    """How a spread becomes an error: uncertainty = energy_scale · spread, fitted on the validation split.

    The spread is that of the members' energies, or of one network's last layer (`gnn.training.last_layer`). Nine of
    ten errors lie within interval_90 · uncertainty.
    """

    energy_scale: float = Field(gt=0)
    n: int = Field(description="structures it was fitted on")
    kind: SpreadKind = "committee"
    ridge: float | None = Field(None, description="of the last layer's covariance, as part of its mean diagonal")
    interval_90: float | None = Field(None, gt=0, description="half width of a 90 % interval over the uncertainty")
    groups: int | None = Field(None, description="groups these structures belong to")
    test_coverage_90: float | None = Field(default=None, ge=0, le=1, description="part of the test errors within it")


class DataSummary(_Model):
    """The data a model was trained on."""

    graph_set_id: str
    inputs: list[LakeInput]
    split_counts: dict[str, int]
    split_seed: int
    reference_sources: dict[str, dict[str, str]] = Field(default_factory=dict)
    energy_kinds: dict[str, Literal["energy", "free_energy"]] = Field(default_factory=dict)
    elements: list[str] | None = Field(None, description="of this data; a model may know more from its --init")
    labels: list[str] | None = Field(None, description="what it learnt from: energy, forces, stress, properties")
    theories: list[str] | None = Field(None, description="levels of theory of this data but those only helpers bring")
    before: list[str] = Field(default_factory=list, description="graph sets of the models it was started from")

    @property
    def graph_sets(self) -> list[str]:
        """Every graph set that its weights have learnt from, its own first."""
        return [self.graph_set_id, *self.before]


class CheckpointManifest(_Model):
    """model.json: everything about a checkpoint but its weights."""

    schema_version: int = CHECKPOINT_VERSION
    name: str
    model: ModelConfig
    members: int = Field(ge=1, le=1024)
    elements: list[str]
    cutoff: float
    theories: list[str]
    units: dict[str, str]
    calibration: Calibration | None = None
    graph_set_id: str
    data: DataSummary
    metrics: dict[str, Any] = Field(default_factory=dict, description="split -> errors")
    training: dict[str, Any] = Field(default_factory=dict, description="the configuration that was trained")
    taken: dict[str, int | float | str | None] = Field(
        default_factory=dict, description="what was trained with where a configuration may be silent"
    )
    cost: dict[str, float] = Field(default_factory=dict, description="cpu_s, wall_s, peak_memory_mb, …")
    producer: Producer
    sha256: str = Field(description="of model.safetensors")
    tensors: dict[str, TensorInfo]

    @property
    def knows_energies(self) -> bool:
        """Whether its energies were ever trained, by energies or by their derivatives; else only its properties were.

        Checkpoints that do not say what they were trained on count as trained.
        """
        return self.data.labels is None or not {"energy", "forces", "stress"}.isdisjoint(self.data.labels)

    def elements_at(self, theory: str) -> frozenset[str]:
        """Elements that it knows at a level of theory: without a reference energy there, an energy says nothing.

        All of them, where the theory has no reference energies at all.
        """
        referenced = self.model.references.get(theory)
        return frozenset(self.elements if not referenced else set(self.elements) & set(referenced))

    @property
    def usual_theory(self) -> str | None:
        """The level of theory meant where none is named: the only one of the data proper; None if there are more."""
        own = self.data.theories or self.theories
        return own[0] if len(own) == 1 else None

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> CheckpointManifest:
        for name in ("elements", "cutoff", "theories"):
            if getattr(self, name) != getattr(self.model, name):
                raise ValueError(f"{name} differs from model.{name}")
        return self


def write_checkpoint(
    folder: Path,
    models: Sequence[Model],
    *,
    name: str,
    graph_set: GraphSet,
    metrics: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    taken: dict[str, int | float | str | None] | None = None,
    cost: dict[str, float] | None = None,
    calibration: Calibration | None = None,
    whitening: Tensor | None = None,
    code: str | None = None,
    trained_on: Sequence[str] = (),
    before: Sequence[str] = (),
    labels: Sequence[str] | None = None,
) -> CheckpointManifest:
    """Write a whole checkpoint beside `folder`, then move it into place; an older one there is replaced.

    `whitening` (theories, D, D) is what `LastLayer` needs beside a calibration of the kind `last_layer`; `before` are
    the graph sets of the models that the training was started from; `labels` are what was learnt from, None: all
    that the data have.

    Raises:
        ValueError: the members differ in architecture.
    """
    config = models[0].config
    if any(model.config != config for model in models):
        raise ValueError("members of one checkpoint must share their architecture")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    tensors = member_tensors(models)
    if whitening is not None:
        tensors[WHITENING_NAME] = whitening.detach().cpu().contiguous()
    save_file(tensors, temporary / WEIGHTS_NAME, metadata={"format": "pt"})
    manifest = CheckpointManifest(
        name=name,
        model=config,
        members=len(models),
        elements=config.elements,
        cutoff=config.cutoff,
        theories=config.theories,
        units=UNITS,
        calibration=calibration,
        graph_set_id=graph_set.graph_set_id,
        data=data_summary(graph_set, before, labels),
        metrics=metrics or {},
        training=training or {},
        taken=taken or {},
        cost=cost or {},
        producer=producer(code, trained_on),
        sha256=file_sha256(temporary / WEIGHTS_NAME),
        tensors=read_header(temporary / WEIGHTS_NAME),
    )
    write_text(temporary / MANIFEST_NAME, manifest.model_dump_json(indent=1))
    write_text(temporary / CARD_NAME, model_card(manifest.model_dump(mode="json")))
    _replace_folder(temporary, folder)
    return manifest


def _replace_folder(temporary: Path, folder: Path) -> None:
    for path in temporary.iterdir():
        with path.open("rb+") as stream:
            os.fsync(stream.fileno())
    if folder.exists():
        shutil.rmtree(folder)
    temporary.rename(folder)
    fsync_folder(folder.parent)


def member_tensors(models: Sequence[Model]) -> dict[str, Tensor]:
    """State of every member under `member.K.`, on the CPU, contiguous."""
    return {
        f"{MEMBER}{k}.{name}": value.detach().cpu().contiguous().clone()
        for k, model in enumerate(models)
        for name, value in model.state_dict().items()
    }


def data_summary(graph_set: GraphSet, before: Sequence[str] = (), labels: Sequence[str] | None = None) -> DataSummary:
    """What a checkpoint says of its data; `labels` is what was learnt from, None: all that there are."""
    learnt = graph_set.statistics.labels if labels is None else list(labels)
    return DataSummary(
        graph_set_id=graph_set.graph_set_id,
        inputs=graph_set.inputs,
        split_counts={str(split): n for split, n in graph_set.split_counts.items()},
        split_seed=graph_set.split_seed,
        reference_sources={t: {e: str(s) for e, s in r.source.items()} for t, r in graph_set.references.items()},
        energy_kinds=dict(graph_set.energy_kinds) if "energy" in learnt else {},
        elements=list(graph_set.elements),
        labels=learnt,
        theories=graph_set.own_theories,
        before=list(before),
    )


def producer(code: str | None, trained_on: Sequence[str] = ()) -> Producer:
    """The running program, the time, and where the training ran."""
    return Producer(
        sluice=__version__,
        torch=str(torch.__version__),
        code=code,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        trained_on=list(trained_on),
    )


def read_manifest(folder: Path) -> CheckpointManifest:
    """model.json of a checkpoint folder, checked; the weights are not touched.

    Raises:
        InputError: no checkpoint there, or a manifest that cannot be used; the message says why.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise InputError(f"no checkpoint in {folder}: {MANIFEST_NAME} is missing")
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise InputError(f"{path} has {path.stat().st_size} bytes: not a manifest")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version not in (FIRST_VERSION, CHECKPOINT_VERSION):
        raise InputError(
            f"{path} has schema version {version!r}; this program reads {FIRST_VERSION} and {CHECKPOINT_VERSION}"
        )
    try:
        return CheckpointManifest.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{path}: {describe_validation(error)}") from None


def read_checkpoint(folder: Path) -> tuple[CheckpointManifest, list[Model]]:
    """Manifest and members of a checkpoint, every byte checked before any network is built.

    Raises:
        InputError: a file is missing, truncated, changed, or does not fit its manifest; the message says which.
    """
    manifest = read_manifest(folder)
    path = folder / WEIGHTS_NAME
    if not path.is_file():
        raise InputError(f"no weights in {folder}: {WEIGHTS_NAME} is missing")
    compare_tensors(path, read_header(path), manifest.tensors)
    check_size(path, manifest)
    if (found := file_sha256(path)) != manifest.sha256:
        raise InputError(f"{path} has sha256 {found[:16]}…, its manifest says {manifest.sha256[:16]}…: it was changed")
    tensors = load_file(path)
    check_whitening(path, manifest, tensors.pop(WHITENING_NAME, None))
    for name in sorted(tensors):
        if not name.startswith(MEMBER):
            raise InputError(f"{path} has a tensor {name} that this program does not know")
    return manifest, [build_member(path, manifest, tensors, k) for k in range(manifest.members)]


def read_whitening(folder: Path) -> Tensor | None:
    """The matrices (theories, D, D) of the last layer's uncertainty; None where there are none.

    Trusts a folder that `read_checkpoint` has just read.
    """
    with safe_open(folder / WEIGHTS_NAME, "pt") as tensors:
        return tensors.get_tensor(WHITENING_NAME) if WHITENING_NAME in tensors.keys() else None  # noqa: SIM118


def check_whitening(path: Path, manifest: CheckpointManifest, whitening: Tensor | None) -> None:
    """Refuse a calibration of the last layer without its matrices, or with matrices that cannot be its.

    Raises:
        InputError: they are missing, of another shape, or hold non-finite numbers.
    """
    needed = manifest.calibration is not None and manifest.calibration.kind == "last_layer"
    if whitening is None:
        if needed:
            raise InputError(f"{path} lacks the tensor {WHITENING_NAME} that its calibration needs")
        return
    size = manifest.model.channels * (manifest.model.layers - 1) + manifest.model.readout_hidden
    expected = [len(manifest.theories), size, size]
    if list(whitening.shape) != expected or whitening.dtype != torch.float64:
        raise InputError(f"{path}: {WHITENING_NAME} is {list(whitening.shape)}, should be float64 {expected}")
    if not bool(torch.isfinite(whitening).all()):
        raise InputError(f"{path}: {WHITENING_NAME} holds numbers that are not finite")


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Names, shapes and types in a safetensors file, read from its header alone and held against the file's size.

    Raises:
        InputError: it is not a whole safetensors file.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
            raise InputError(f"{path} is not a safetensors file or is cut off ({size} bytes)")
        text = stream.read(length)
    try:
        entries = json.loads(text)
        entries.pop("__metadata__", None)
        tensors = {n: TensorInfo(shape=e["shape"], dtype=e["dtype"]) for n, e in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{path} has a damaged header") from None
    expected = 8 + length + sum(n_bytes(info) for info in tensors.values())
    if expected != size:
        raise InputError(f"{path} has {size} bytes, its header describes {expected}: it is cut off or damaged")
    return tensors


def n_bytes(info: TensorInfo) -> int:
    """Bytes of one tensor."""
    return DTYPE_BYTES[info.dtype] * math.prod(info.shape)


def compare_tensors(path: Path, found: dict[str, TensorInfo], expected: dict[str, TensorInfo]) -> None:
    """Raise InputError naming the first tensor that is missing, superfluous, or of another shape or type."""
    for name in sorted(set(expected) - set(found)):
        raise InputError(f"{path} lacks the tensor {name}")
    for name in sorted(set(found) - set(expected)):
        raise InputError(f"{path} has a tensor {name} that does not belong to it")
    for name in sorted(found):
        if found[name] != expected[name]:
            was, wanted = found[name], expected[name]
            raise InputError(f"{path}: {name} is {was.dtype}{was.shape}, should be {wanted.dtype}{wanted.shape}")


def check_size(path: Path, manifest: CheckpointManifest) -> None:
    """Refuse an architecture that is larger than the weights in the file, before its memory is taken.

    Every width of a network is an axis of one of its tensors, so none can exceed the longest axis by much; and no
    matrix between two widths can hold more numbers than the whole file.
    """
    longest = max((max(info.shape, default=1) for info in manifest.tensors.values()), default=0)
    config, wide, deep = manifest.model, max(longest, 64), min(len(manifest.tensors), MAX_DEPTH)
    limits = [
        ("channels", config.channels, wide),
        ("edge_channels", config.message_channels, wide),
        ("radial_hidden", max(config.radial_hidden), wide),
        ("readout_hidden", config.readout_hidden, wide),
        ("element_rank", config.rank, wide),
        ("n_radial", config.n_radial, wide),
        ("layers", config.layers, deep),
        ("radial_hidden", len(config.radial_hidden), deep),
    ]
    for name, size, limit in limits:
        if size > limit:
            raise InputError(f"{path} is too small for model.{name} = {size}: its manifest was changed")
    total = sum(math.prod(info.shape) for info in manifest.tensors.values())
    if largest_matrices(config) > max(SLACK * total, SMALL_MODEL):
        raise InputError(f"{path} is too small for the widths of its network: its manifest was changed")


def largest_matrices(config: ModelConfig) -> int:
    """Numbers in the largest weight matrix between two neighbouring widths, or in those that every layer has one of."""
    radial = [config.n_radial, *config.radial_hidden, config.message_channels]
    once = [*pairwise(radial), (config.channels, config.readout_hidden)]
    in_layers = [(config.channels, config.channels), (config.channels, config.message_channels)]
    in_layers.append((config.channels, config.rank))
    return max(*(a * b for a, b in once), *(a * b * config.layers for a, b in in_layers))


def build_member(path: Path, manifest: CheckpointManifest, tensors: dict[str, Tensor], k: int) -> Model:
    """Member `k` with its weights, in evaluation mode.

    Raises:
        InputError: the tensors are not those of the architecture, or hold non-finite numbers.
    """
    model = build_model(manifest.model)
    start = f"{MEMBER}{k}."
    own = {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
    expected = model.state_dict()
    for name in sorted(expected.keys() ^ own.keys()):
        raise InputError(f"{path}: tensor {start}{name} is {'missing' if name in expected else 'not of this network'}")
    for name, value in own.items():
        if value.shape != expected[name].shape:
            raise InputError(f"{path}: {start}{name} has shape {list(value.shape)}, not {list(expected[name].shape)}")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise InputError(f"{path}: {start}{name} holds numbers that are not finite")
    dtypes = {value.dtype for value in own.values() if value.is_floating_point()}
    if torch.float64 in dtypes and torch.float32 not in dtypes:
        model = model.double()
    model.load_state_dict(own)
    if manifest.schema_version == FIRST_VERSION:
        unmix_tables(model)
    return model.eval()


def unmix_tables(model: Model) -> None:
    """Weights of the first version in the form of the second: the tables of elements stay what they are."""
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, ElementWeights):
                part.element.copy_(part.element_of(part.element))
