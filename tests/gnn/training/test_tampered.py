"""Checkpoints forged with care, manifest and digest in agreement: refused, at once and without memory for them."""

from __future__ import annotations

import json
import resource
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gnn.errors import InputError
from gnn.files import file_sha256
from gnn.models.config import ModelConfig
from gnn.models.model import build_model
from gnn.training.checkpoint import read_checkpoint, read_header, write_checkpoint

LONG = 40_000


@pytest.fixture
def checkpoint(copper: Any, tmp_path: Path) -> Path:
    config = ModelConfig(
        elements=["Cu"], cutoff=4.0, channels=2, layers=1, correlation=1, edge_l_max=0, n_radial=2, radial_hidden=[2],
        theories=["emt/ase"],
    )  # fmt: skip
    folder = tmp_path / "checkpoint"
    write_checkpoint(folder, [build_model(config)], name="copper", graph_set=copper.graph_set)
    return folder


def forge(folder: Path, tensors: dict[str, torch.Tensor], **model: Any) -> None:
    """Add tensors and change the architecture, and make everything agree again."""
    path = folder / "model.safetensors"
    save_file({**load_file(path), **tensors}, path)
    manifest = json.loads((folder / "model.json").read_text())
    manifest["model"] |= model
    manifest["sha256"] = file_sha256(path)
    manifest["tensors"] = {name: info.model_dump() for name, info in read_header(path).items()}
    (folder / "model.json").write_text(json.dumps(manifest))


def raw(folder: Path, header: Any, data: bytes = b"") -> None:
    """A safetensors file with this header, and a manifest that names its digest."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    manifest = json.loads((folder / "model.json").read_text())
    manifest["sha256"] = file_sha256(path)
    (folder / "model.json").write_text(json.dumps(manifest))


def refused(folder: Path, match: str) -> None:
    """Refused with a reason, and without a gigabyte for it."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=match):
        read_checkpoint(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # kB


@pytest.mark.parametrize("field", ["channels", "edge_channels", "readout_hidden", "element_rank", "n_radial"])
def test_one_long_tensor_buys_no_wide_network(checkpoint: Path, field: str) -> None:
    """A width within the longest axis, so that the network would take its square: 6 GB and more."""
    forge(checkpoint, {"member.0.pad": torch.zeros(LONG)}, **{field: LONG})
    refused(checkpoint, r"member\.0\.|too small for the widths")


@pytest.mark.parametrize("change", [{"layers": 90}, {"radial_hidden": [2] * 90}, {"radial_hidden": [2] * 100_000}])
def test_many_empty_tensors_buy_no_deep_network(checkpoint: Path, change: dict[str, Any]) -> None:
    forge(checkpoint, {f"member.0.pad{n}": torch.zeros(0) for n in range(200)}, **change)
    refused(checkpoint, r"member\.0\.|radial_hidden")


def test_more_members_than_weights(checkpoint: Path) -> None:
    manifest = json.loads((checkpoint / "model.json").read_text())
    manifest["members"] = 1024
    (checkpoint / "model.json").write_text(json.dumps(manifest))
    refused(checkpoint, r"lacks the tensor member\.1|member\.1\..* is missing")


def test_an_extra_tensor_of_the_forger(checkpoint: Path) -> None:
    forge(checkpoint, {"member.0.hook": torch.zeros(1)})
    refused(checkpoint, r"member\.0\.hook is not of this network")


@pytest.mark.parametrize(
    "header",
    [
        {"w": {"dtype": "F32", "shape": [-2, -2], "data_offsets": [0, 16]}},
        {"w": {"dtype": "F32", "shape": [2.5], "data_offsets": [0, 10]}},
        {"w": {"dtype": "F32", "shape": "4", "data_offsets": [0, 16]}},
        {"w": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 16]}},
        {"w": {"dtype": "OBJECT", "shape": [4], "data_offsets": [0, 16]}},
        {"w": {"dtype": "F32", "shape": [4]}},
        {"w": None},
        {"../../w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}},
        [],
        b"[" * 100_000,
        b"\x80\x04\x95",
    ],
)
def test_headers_that_no_writer_makes(checkpoint: Path, header: Any) -> None:
    raw(checkpoint, header, b"\0" * 16)
    refused(checkpoint, r"model\.safetensors")


def test_a_pickle_in_place_of_weights_is_not_opened(checkpoint: Path, tmp_path: Path) -> None:
    import pickle

    class Trap:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return (Path.touch, (tmp_path / "sprung",))

    for content in (pickle.dumps(Trap()), struct.pack("<Q", 40) + pickle.dumps(Trap())):
        (checkpoint / "model.safetensors").write_bytes(content)
        with pytest.raises(InputError):
            read_checkpoint(checkpoint)
    torch.save({"w": Trap()}, checkpoint / "model.safetensors")
    with pytest.raises(InputError):
        read_checkpoint(checkpoint)
    assert not (tmp_path / "sprung").exists()


def test_a_link_out_of_the_folder_is_read_as_what_it_is(checkpoint: Path, tmp_path: Path) -> None:
    """A link to a file of others: its bytes are not those that were registered."""
    (tmp_path / "other").write_bytes(b"secret" * 100)
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "model.safetensors").symlink_to(tmp_path / "other")
    with pytest.raises(InputError) as caught:
        read_checkpoint(checkpoint)
    assert "secret" not in str(caught.value)
