"""Files that several readers' tests begin with."""

from __future__ import annotations

from pathlib import Path

import ase.io
import pytest
from ase import Atoms


@pytest.fixture
def xyz(tmp_path: Path, frames: list[Atoms]) -> Path:
    """Labelled structures as extended XYZ."""
    path = tmp_path / "frames.xyz"
    ase.io.write(path, frames, format="extxyz")
    return path
