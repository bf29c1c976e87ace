"""What a person sees while a training runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flows import progress as module
from flows.progress import TrainingBars, described, progress_to_file, read_progress, remaining
from gnn.training.outcome import Progress

HALF = Progress(
    epoch=3, step=40, progress=0.5, elapsed_s=90.0, lr=0.01, train={"loss": 0.1234},
    valid={"energy_mae_mev_per_atom": 5.43, "force_mae_mev_per_angstrom": 45.6, "gap_mae": 0.31, "gap_rmse": 0.5},
)  # fmt: skip


def test_one_line_says_loss_and_errors() -> None:
    line = described(HALF)
    assert line == "epoch 3  step 40  loss 0.123  E 5.43 meV/atom  F 45.6 meV/Å  gap 0.31  lr 1.0e-02"


def test_time_left() -> None:
    assert remaining(HALF) == "1:30"
    assert remaining(replace(HALF, progress=0.0)) == "?"


def test_a_member_tells_its_parent_by_a_file(tmp_path: Path) -> None:
    assert read_progress(tmp_path) is None
    progress_to_file(tmp_path)(HALF)
    assert read_progress(tmp_path) == HALF
    (tmp_path / "progress.json").write_text('{"epo')
    assert read_progress(tmp_path) is None


def test_without_a_terminal_each_member_has_its_own_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINE_EVERY_S", -1.0)
    with TrainingBars(2) as bars:
        bars.update(0, HALF)
        bars.update(1, HALF)
    out, err = capsys.readouterr()
    assert out == ""
    assert [line[:14] for line in err.splitlines()] == ["member 0   50%", "member 1   50%"]


def test_it_can_be_silent(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINE_EVERY_S", -1.0)
    with TrainingBars(1, enabled=False) as bars:
        bars.update(0, HALF)
    assert capsys.readouterr().err == ""
