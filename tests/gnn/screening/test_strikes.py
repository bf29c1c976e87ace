"""A structure that kills its process is found and set aside; a node that is taken away costs nobody anything."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk

from gnn.screening.campaign import CampaignSpec
from gnn.screening.candidates import Candidate
from gnn.screening.manifest import ModelPin
from gnn.screening.shard import read_manifest, read_results
from gnn.screening.strikes import DEATHS, ENDING, FORGIVEN, GROUP, Strikes, stopped_on_purpose


class Death(BaseException):
    """The process is gone: nothing is tidied up."""


@pytest.fixture
def rows(candidate: Callable[..., Candidate]) -> list[Candidate]:
    return [candidate(bulk("Al", a=4.0 + 0.001 * k), str(k)) for k in range(3 * GROUP)]


def one_life(path: Path, rows: list[Candidate], done: dict[str, str], deadly: set[str]) -> bool:
    """Compute until a deadly structure comes up; False if the process died."""
    strikes = Strikes.after(path, done)
    reasons = strikes.deadly()
    done.update(reasons)
    todo = [row for row in rows if row.candidate_id not in done]
    for group in strikes.groups(todo):
        if deadly & {row.candidate_id for row in group}:
            return False
        done.update({row.candidate_id: "computed" for row in group})
    path.unlink(missing_ok=True)
    return True


@pytest.mark.parametrize("places", [(0,), (50,), (95,), (3, 70), (10, 11)])
def test_deadly_structures_are_found(rows: list[Candidate], tmp_path: Path, places: tuple[int, ...]) -> None:
    deadly = {rows[place].candidate_id for place in places}
    done: dict[str, str] = {}
    deaths = 0
    while not one_life(tmp_path / "at.json", rows, done, deadly):
        deaths += 1
        assert deaths < 20
    assert set(done) == {row.candidate_id for row in rows}
    assert {name for name, how in done.items() if how != "computed"} == deadly
    assert deaths <= FORGIVEN + 1 + len(places) * (DEATHS + 1)


def test_a_life_without_deaths_leaves_no_note(rows: list[Candidate], tmp_path: Path) -> None:
    done: dict[str, str] = {}
    assert one_life(tmp_path / "at.json", rows, done, set())
    assert list(tmp_path.iterdir()) == []


def test_one_death_is_forgiven(rows: list[Candidate], tmp_path: Path) -> None:
    path = tmp_path / "at.json"
    first = Strikes.after(path, {})
    assert [len(group) for group in first.groups(rows)] == [len(rows)]
    second = Strikes.after(path, {})
    assert second.deaths == 1
    assert [len(group) for group in second.groups(rows)] == [len(rows)]
    third = Strikes.after(path, {})
    assert [len(group) for group in third.groups(rows)] == [GROUP] * 3


def test_nodes_that_are_taken_away_set_nobody_aside(rows: list[Candidate], tmp_path: Path) -> None:
    path = tmp_path / "at.json"
    for life in range(12):
        strikes = Strikes.after(path, {})
        for number, _ in enumerate(strikes.groups(rows)):
            if number == life:
                break
        assert strikes.deadly() == {}


def test_the_death_that_is_forgiven_may_be_over_the_last_structure(rows: list[Candidate], tmp_path: Path) -> None:
    path = tmp_path / "at.json"
    found = []
    for _ in range(FORGIVEN + DEATHS + 1):
        strikes = Strikes.after(path, {})
        found.append(bool(strikes.deadly()))
        next(strikes.groups(rows[:1]))
    assert found == [False] * (FORGIVEN + DEATHS) + [True]


def test_a_stop_on_purpose_leaves_the_notes_of_earlier_deaths_only(rows: list[Candidate], tmp_path: Path) -> None:
    paths = [tmp_path / f"shard-000{k}{ENDING}" for k in range(3)]
    for path in paths[:2]:
        next(Strikes.after(path, {}).groups(rows))
    with pytest.raises(KeyboardInterrupt), stopped_on_purpose(tmp_path):
        for path in paths[1:]:  # taken up, and at work when it is stopped
            next(Strikes.after(path, {}).groups(rows))
        raise KeyboardInterrupt
    assert [path.exists() for path in paths] == [True, False, False]
    with pytest.raises(ValueError, match="failed"), stopped_on_purpose(tmp_path):
        next(Strikes.after(paths[2], {}).groups(rows))
        raise ValueError("failed")
    assert paths[2].exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"at": []}'])
def test_a_note_that_cannot_be_read_tells_nothing(tmp_path: Path, content: str) -> None:
    path = tmp_path / "at.json"
    path.write_text(content)
    assert Strikes.after(path, {}).deaths == 0


def test_an_error_leaves_no_note(tmp_path: Path, rows: list[Candidate]) -> None:
    strikes = Strikes.after(tmp_path / "at.json", {})
    with pytest.raises(ValueError, match="caught"), strikes.noted():
        for _ in strikes.groups(rows):
            raise ValueError("caught")
    assert list(tmp_path.iterdir()) == []


SCRIPT = textwrap.dedent(
    """
    import json, os, signal, sys
    from pathlib import Path
    from gnn.potentials.foreign import CalculatorPotential
    from gnn.screening.campaign import CampaignSpec
    from gnn.screening.manifest import ModelPin
    from gnn.screening.shard import run_shard
    from gnn.screening.tables import candidate_of_row
    from ase.calculators.emt import EMT

    class Killer(CalculatorPotential):
        def predict(self, batch):
            if 28 in batch.numbers:
                os.kill(os.getpid(), signal.SIGSEGV)
            return super().predict(batch)

    work = json.loads(Path(sys.argv[1]).read_text())
    rows = [candidate_of_row(row) for row in work["rows"]]
    pin, spec = ModelPin(**work["pin"]), CampaignSpec(**work["spec"])
    run_shard(spec, rows, Path(sys.argv[2]), 0, pin, lambda: Killer(EMT, "emt/ase"))
    """
)


@pytest.mark.slow
def test_a_segmentation_fault(
    make_spec: Callable[..., CampaignSpec], emt_pin: ModelPin, candidate: Callable[..., Candidate], tmp_path: Path
) -> None:
    """A real process that dies of signal 11 over nickel, started again until the shard is done."""
    rows = [candidate(bulk(symbol, cubic=True), symbol) for symbol in ("Al", "Cu", "Ni", "Ag")]
    work = {"rows": [as_row(row) for row in rows], "pin": emt_pin.model_dump(), "spec": make_spec().model_dump()}
    (tmp_path / "work.json").write_text(json.dumps(work))
    (tmp_path / "go.py").write_text(SCRIPT)
    folder = tmp_path / "shards"
    codes = []
    while read_manifest(folder, 0) is None and len(codes) < 10:
        command = [sys.executable, str(tmp_path / "go.py"), str(tmp_path / "work.json"), str(folder)]
        codes.append(subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False).returncode)
    assert codes[:-1] == [-signal.SIGSEGV] * (len(codes) - 1)
    assert codes[-1] == 0
    outcomes = {row.source: row for row in rows}
    found = {row["candidate_id"]: row for row in read_results(folder, 0)}
    assert found[outcomes["Ni"].candidate_id]["reason"] == "the process died over it 2 times"
    assert sum(row["outcome"] == "error" for row in found.values()) == 1
    assert not list(folder.glob("*.at.json"))


def as_row(row: Candidate) -> dict[str, Any]:
    return {
        "numbers": row.numbers.tolist(),
        "positions": row.positions.ravel().tolist(),
        "cell": row.cell.ravel().tolist(),
        "prototype": row.prototype,
        "source": row.source,
    }
