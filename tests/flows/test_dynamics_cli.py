"""`sluice md`: frames of every structure, those that fail told, wrong input one line."""

from __future__ import annotations

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from typer.testing import CliRunner, Result

from flows.cli.main import app
from flows.cli.results import DynamicsResult


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["md", *map(str, arguments)])


@pytest.fixture
def crystals(tmp_path: Path) -> Path:
    """Two that move, between them one of an element EMT does not know."""
    path = tmp_path / "in.extxyz"
    ase.io.write(path, [bulk("Al", cubic=True), bulk("Mg"), molecule("CO")])
    return path


@pytest.mark.usefixtures("home")
def test_frames_come_out_path_by_path(crystals: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.extxyz"
    result = run("foreign:emt", crystals, "-o", output, "--steps", "20", "--every", "10", "--json")
    assert result.exit_code == 0
    summary = DynamicsResult.model_validate(json.loads(result.stdout))
    assert (summary.n_structures, summary.n_frames, summary.failed) == (3, 4, 1)
    assert summary.reasons == {"elements": 1}
    assert [(lost.path, lost.failure) for lost in summary.lost] == [(1, "elements")]
    assert "1 of 3 structures were given up (1 elements)" in result.stderr
    assert "structure 1: the potential has never seen Mg" in result.stderr
    frames = ase.io.read(output, ":")
    assert [(frame.info["path"], frame.info["step"]) for frame in frames] == [(0, 10), (0, 20), (2, 10), (2, 20)]
    assert [str(frame.symbols) for frame in frames] == ["Al4", "Al4", "OC", "OC"]
    assert np.abs(frames[0].positions - bulk("Al", cubic=True).positions).max() > 1e-3
    assert np.isfinite(frames[1].get_forces()).all()


@pytest.mark.usefixtures("home")
def test_the_last_step_is_written(crystals: Path, tmp_path: Path) -> None:
    run("foreign:emt", crystals, "-o", tmp_path / "out.extxyz", "--steps", "10", "--every", "4")
    frames = ase.io.read(tmp_path / "out.extxyz", ":")
    assert [(frame.info["path"], frame.info["step"]) for frame in frames] == [
        (p, s) for p in (0, 2) for s in (4, 8, 10)
    ]


@pytest.mark.usefixtures("home")
def test_a_seed_is_a_path(crystals: Path, tmp_path: Path) -> None:
    ends = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        output = tmp_path / f"{name}.extxyz"
        run("foreign:emt", crystals, "-o", output, "--steps", "5", "--every", "5", "--seed", str(seed))
        ends.append(ase.io.read(output, 0).positions)
    np.testing.assert_array_equal(ends[0], ends[1])
    assert np.abs(ends[0] - ends[2]).max() > 1e-4


@pytest.mark.usefixtures("home")
def test_nothing_moved_is_a_failure(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "in.extxyz", bulk("Mg"))
    result = run("foreign:emt", tmp_path / "in.extxyz", "-o", tmp_path / "out.extxyz")
    assert result.exit_code == 1
    assert "1 of 1 structures were given up (1 elements)" in result.stderr


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--temperature", "-5"], "temperature -5 K"),
        (["--temperature", "nan"], "temperature nan K"),
        (["--steps", "5"], "every 100 must be from 1 to steps 5"),
        (["-o", "out.cif"], "choose a name that ends in .extxyz or .xyz"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(crystals: Path, tmp_path: Path, options: list[str], message: str) -> None:
    result = run("foreign:emt", crystals, "-o", tmp_path / "out.extxyz", *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out.extxyz").exists()


@pytest.mark.usefixtures("home")
def test_paths_that_are_finished_are_not_moved_again(
    crystals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed command goes on, and ends in what it would have ended in."""
    import flows.dynamics

    words = ["--steps", "6", "--every", "3", "--max-atoms", "2"]
    assert run("foreign:emt", crystals, "-o", tmp_path / "whole.extxyz", *words).exit_code == 0
    frames_of = flows.dynamics.frames_of

    def stopping(number: int, *args: object) -> list[Atoms]:
        if number == 2:
            raise KeyboardInterrupt
        return frames_of(number, *args)

    with monkeypatch.context() as patched:
        patched.setattr(flows.dynamics, "frames_of", stopping)
        assert run("foreign:emt", crystals, "-o", tmp_path / "out.extxyz", *words).exit_code == 130
    result = run("foreign:emt", crystals, "-o", tmp_path / "out.extxyz", *words, "--json")
    summary = DynamicsResult.model_validate(json.loads(result.stdout))
    assert (summary.n_structures, summary.n_frames, summary.failed) == (3, 4, 1)
    assert (tmp_path / "out.extxyz").read_text() == (tmp_path / "whole.extxyz").read_text()


@pytest.mark.usefixtures("home")
def test_what_cannot_move_is_given_up_at_the_start(tmp_path: Path) -> None:
    wild, weightless = bulk("Cu"), bulk("Cu")
    wild.set_momenta([[np.nan, 0.0, 0.0]])
    weightless.set_masses([0.0])
    ase.io.write(tmp_path / "in.extxyz", [wild, weightless, bulk("Cu")])
    result = run("foreign:emt", tmp_path / "in.extxyz", "-o", tmp_path / "out.extxyz", "--steps", "2", "--every", "1")
    assert result.exit_code == 0
    assert "structure 0: momenta are not finite" in result.stderr
    assert "structure 1: a mass is not a positive number" in result.stderr
    assert [frame.info["path"] for frame in ase.io.read(tmp_path / "out.extxyz", ":")] == [2, 2]
