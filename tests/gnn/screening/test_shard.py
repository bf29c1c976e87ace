import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from gnn.errors import InputError, SluiceError
from gnn.potentials.foreign import CalculatorPotential, emt
from gnn.potentials.potential import AtomsPrediction
from gnn.screening.campaign import CampaignSpec
from gnn.screening.candidates import Candidate
from gnn.screening.manifest import ModelPin
from gnn.screening.shard import (
    RESULT_SCHEMA,
    CampaignCancelledError,
    merged_results,
    read_manifest,
    read_results,
    run_shard,
    work_digest,
)
from gnn.screening.tables import write_rows

MakeSpec = Callable[..., CampaignSpec]
MakeCandidate = Callable[..., Candidate]


@pytest.fixture
def rows(candidate: MakeCandidate) -> list[Candidate]:
    """Strained fcc metals."""
    found = []
    for k, symbol in enumerate(("Al", "Cu", "Ni", "Ag", "Au", "Pd")):
        atoms = bulk(symbol, cubic=True)
        atoms.set_cell(atoms.cell[:] * (1.02 + 0.005 * k), scale_atoms=True)
        atoms.rattle(0.05, seed=k)
        found.append(candidate(atoms, symbol))
    return found


def refuse() -> CalculatorPotential:
    raise AssertionError("nothing should be computed")


def journal_ids(folder: Path, index: int = 0) -> list[str]:
    lines = (folder / f"shard-{index:04d}.part.jsonl").read_text().splitlines()
    return [json.loads(line)["candidate_id"] for line in lines[1:]]


def test_every_structure_has_a_result(
    make_spec: MakeSpec, emt_pin: ModelPin, rows: list[Candidate], tmp_path: Path
) -> None:
    seen: list[str] = []
    manifest = run_shard(make_spec(), rows, tmp_path, 0, emt_pin, emt, lambda row: seen.append(row["candidate_id"]))
    assert (manifest.structures, manifest.computed, manifest.reused, manifest.failed) == (6, 6, 0, 0)
    results = read_results(tmp_path, 0)
    assert [row["candidate_id"] for row in results] == [row.candidate_id for row in rows]
    assert sorted(seen) == sorted(journal_ids(tmp_path)) == sorted(row.candidate_id for row in rows)
    assert all(row["converged"] and row["uncertainty"] is None for row in results)


def test_energies_are_the_potentials(
    make_spec: MakeSpec, emt_pin: ModelPin, rows: list[Candidate], tmp_path: Path
) -> None:
    run_shard(make_spec(), rows, tmp_path, 0, emt_pin, emt)
    for row, result in zip(rows, read_results(tmp_path, 0), strict=True):
        atoms = Atoms(
            row.numbers, np.reshape(result["positions"], (-1, 3)), cell=np.reshape(result["cell"], (3, 3)), pbc=True
        )
        atoms.calc = EMT()
        energy = atoms.get_potential_energy(force_consistent=True) / len(atoms)
        assert result["energy_per_atom"] == pytest.approx(energy, abs=1e-9)


def test_a_sealed_shard_is_not_computed_again(
    make_spec: MakeSpec, emt_pin: ModelPin, rows: list[Candidate], tmp_path: Path
) -> None:
    first = run_shard(make_spec(), rows, tmp_path, 0, emt_pin, emt)
    again = run_shard(make_spec(), rows, tmp_path, 0, emt_pin, refuse)
    assert (again.computed, again.reused, again.sha256) == (0, 6, first.sha256)


def test_a_lost_table_is_sealed_from_the_journal(
    make_spec: MakeSpec, emt_pin: ModelPin, rows: list[Candidate], tmp_path: Path
) -> None:
    first = run_shard(make_spec(), rows, tmp_path, 0, emt_pin, emt)
    (tmp_path / first.path).write_bytes(b"damaged")
    again = run_shard(make_spec(), rows, tmp_path, 0, emt_pin, refuse)
    assert (again.computed, again.reused, again.sha256) == (0, 6, first.sha256)


@pytest.mark.parametrize("text", [b"{", b"{}", b"\xff"])
def test_a_damaged_manifest_is_written_anew_from_the_journal(
    make_spec: MakeSpec, emt_pin: ModelPin, rows: list[Candidate], tmp_path: Path, text: bytes
) -> None:
    first = run_shard(make_spec(), rows, tmp_path, 0, emt_pin, emt)
    (tmp_path / "shard-0000.json").write_bytes(text)
    assert read_manifest(tmp_path, 0) is None
    again = run_shard(make_spec(), rows, tmp_path, 0, emt_pin, refuse)
    assert (again.computed, again.reused, again.sha256) == (0, 6, first.sha256)


@pytest.mark.parametrize("finished", [1, 3, 5])
def test_an_interrupted_shard_goes_on(
    make_spec: MakeSpec, emt_pin: ModelPin, rows: list[Candidate], tmp_path: Path, finished: int
) -> None:
    left = [finished]

    def interrupt(_: dict[str, Any]) -> None:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_shard(make_spec(), rows, tmp_path, 0, emt_pin, emt, interrupt)
    before = journal_ids(tmp_path)
    assert len(before) == finished
    manifest = run_shard(make_spec(), rows, tmp_path, 0, emt_pin, emt)
    assert (manifest.computed, manifest.reused) == (6 - finished, finished)
    after = journal_ids(tmp_path)
    assert after[:finished] == before
    assert len(set(after)) == len(after) == 6


def test_a_torn_last_line_costs_that_structure_only(
    make_spec: MakeSpec, emt_pin: ModelPin, rows: list[Candidate], tmp_path: Path
) -> None:
    first = run_shard(make_spec(), rows, tmp_path, 0, emt_pin, emt)
    journal = tmp_path / "shard-0000.part.jsonl"
    journal.write_bytes(journal.read_bytes()[:-40])
    (tmp_path / "shard-0000.json").unlink()
    again = run_shard(make_spec(), rows, tmp_path, 0, emt_pin, emt)
    assert (again.computed, again.reused) == (1, 5)
    assert first.ids_digest == again.ids_digest


def test_cancelling_stops_the_shard_and_keeps_the_journal(
    make_spec: MakeSpec, emt_pin: ModelPin, rows: list[Candidate], tmp_path: Path
) -> None:
    def cancel(_: dict[str, Any]) -> None:
        raise CampaignCancelledError("stop")

    for mode in ("cell", "none"):
        with pytest.raises(CampaignCancelledError):
            run_shard(make_spec(relaxation={"mode": mode}), rows, tmp_path / mode, 0, emt_pin, emt, cancel)
        assert len(journal_ids(tmp_path / mode)) == 1


class Poisoned(EMT):
    """EMT that breaks on palladium."""

    def calculate(self, atoms: Any = None, *args: Any, **kwargs: Any) -> None:
        if "Pd" in atoms.get_chemical_symbols():
            raise RuntimeError("palladium is poison")
        super().calculate(atoms, *args, **kwargs)


def poisoned() -> CalculatorPotential:
    return CalculatorPotential(Poisoned, "emt/ase", emt().elements)


@pytest.mark.parametrize("mode", ["cell", "positions", "none"])
def test_one_poisonous_structure_is_recorded_with_its_reason(
    make_spec: MakeSpec, emt_pin: ModelPin, rows: list[Candidate], tmp_path: Path, mode: str
) -> None:
    manifest = run_shard(make_spec(relaxation={"mode": mode}), rows, tmp_path, 0, emt_pin, poisoned)
    assert (manifest.computed, manifest.failed) == (6, 1)
    results = {rows[k].source: row for k, row in enumerate(read_results(tmp_path, 0))}
    assert "palladium is poison" in results["Pd"]["reason"]
    assert results["Pd"]["energy_per_atom"] is None
    assert all(row["converged"] for symbol, row in results.items() if symbol != "Pd")


class Broken(CalculatorPotential):
    """A potential whose batches fail as a whole when they hold palladium."""

    def predict(self, batch: Any) -> Any:
        if 46 in batch.numbers.tolist():
            raise MemoryError("the batch broke")
        return super().predict(batch)


def test_a_broken_batch_does_not_take_the_others_along(
    make_spec: MakeSpec, emt_pin: ModelPin, rows: list[Candidate], tmp_path: Path
) -> None:
    manifest = run_shard(make_spec(), rows, tmp_path, 0, emt_pin, lambda: Broken(EMT, "emt/ase", emt().elements))
    assert (manifest.structures, manifest.failed) == (6, 1)
    assert len(set(journal_ids(tmp_path))) == 6


@pytest.mark.parametrize("mode", ["positions", "none"])
def test_other_modes_keep_the_cell(
    make_spec: MakeSpec, emt_pin: ModelPin, rows: list[Candidate], tmp_path: Path, mode: str
) -> None:
    run_shard(make_spec(relaxation={"mode": mode, "fmax": 0.005}), rows, tmp_path, 0, emt_pin, emt)
    for row, result in zip(rows, read_results(tmp_path, 0), strict=True):
        assert np.allclose(np.reshape(result["cell"], (3, 3)), row.cell)
        assert np.allclose(np.reshape(result["positions"], (-1, 3)), row.positions) == (mode == "none")


class Committee(CalculatorPotential):
    """Two EMTs, one of them 0.1 eV/atom higher; the lead is the lower, and counts how often it is asked for."""

    leads = 0

    def __init__(self) -> None:
        super().__init__(EMT, "emt/ase", emt().elements, frozenset({"energy", "forces", "stress", "uncertainty"}))

    def lead(self) -> CalculatorPotential:
        Committee.leads += 1
        return emt()

    def predict_atoms(self, atoms_list: Any, max_atoms: int = 512) -> list[AtomsPrediction]:
        plain = emt().predict_atoms(atoms_list, max_atoms)
        return [
            replace(p, energy=p.energy + 0.05 * len(atoms), uncertainty=0.05)
            for p, atoms in zip(plain, atoms_list, strict=True)
        ]


@pytest.mark.parametrize("follow", ["mean", "first"])
def test_a_committee_gives_mean_and_spread(
    make_spec: MakeSpec, emt_pin: ModelPin, rows: list[Candidate], tmp_path: Path, follow: str
) -> None:
    before = Committee.leads
    run_shard(make_spec(), rows, tmp_path / "one", 0, emt_pin, emt)
    run_shard(make_spec(relaxation={"follow": follow}), rows, tmp_path / "two", 0, emt_pin, Committee)
    assert (Committee.leads > before) == (follow == "first")
    for alone, together in zip(read_results(tmp_path / "one", 0), read_results(tmp_path / "two", 0), strict=True):
        assert together["energy_per_atom"] == pytest.approx(alone["energy_per_atom"] + 0.05)
        assert together["uncertainty"] == 0.05
        assert together["steps"] == alone["steps"]


def test_a_journal_of_other_work_is_refused(
    make_spec: MakeSpec, emt_pin: ModelPin, rows: list[Candidate], tmp_path: Path
) -> None:
    run_shard(make_spec(), rows, tmp_path, 0, emt_pin, emt)
    with pytest.raises(InputError, match="records of other work"):
        run_shard(make_spec(relaxation={"fmax": 0.01}), rows, tmp_path, 0, emt_pin, emt)
    with pytest.raises(InputError, match="records of other work"):
        run_shard(make_spec(), rows[:-1], tmp_path, 0, emt_pin, emt)


def test_a_potential_without_forces_cannot_relax(
    make_spec: MakeSpec, emt_pin: ModelPin, rows: list[Candidate], tmp_path: Path
) -> None:
    def energies_only() -> CalculatorPotential:
        return CalculatorPotential(EMT, "emt/ase", emt().elements, provides=frozenset({"energy"}))

    with pytest.raises(InputError, match="gives no forces"):
        run_shard(make_spec(), rows, tmp_path / "a", 0, emt_pin, energies_only)
    manifest = run_shard(make_spec(relaxation={"mode": "none"}), rows, tmp_path / "b", 0, emt_pin, energies_only)
    assert manifest.failed == 0


def test_the_work_digest_sees_model_and_relaxation_only(make_spec: MakeSpec, emt_pin: ModelPin) -> None:
    base = work_digest(make_spec(), emt_pin)
    assert work_digest(make_spec(selection={"budget": 3}, filters={"max_hull_distance": 0.5}), emt_pin) == base
    assert work_digest(make_spec(relaxation={"max_steps": 7}), emt_pin) != base
    assert work_digest(make_spec(), emt_pin.model_copy(update={"sha256": "1" * 64})) != base


def plan_of(rows: list[Candidate]) -> dict[int, list[str]]:
    return {0: [row.candidate_id for row in rows[:3]], 1: [row.candidate_id for row in rows[3:]]}


@pytest.fixture
def two_shards(make_spec: MakeSpec, emt_pin: ModelPin, rows: list[Candidate], tmp_path: Path) -> Path:
    run_shard(make_spec(), rows[:3], tmp_path, 0, emt_pin, emt)
    run_shard(make_spec(), rows[3:], tmp_path, 1, emt_pin, emt)
    return tmp_path


def test_merging_gives_everyone_once(
    two_shards: Path, make_spec: MakeSpec, emt_pin: ModelPin, rows: list[Candidate]
) -> None:
    merged = merged_results(two_shards, plan_of(rows), work_digest(make_spec(), emt_pin))
    assert sorted(merged) == sorted(row.candidate_id for row in rows)


def test_merging_leaves_out_what_is_not_sealed(
    two_shards: Path, make_spec: MakeSpec, emt_pin: ModelPin, rows: list[Candidate]
) -> None:
    (two_shards / "shard-0001.json").unlink()
    assert len(merged_results(two_shards, plan_of(rows), work_digest(make_spec(), emt_pin))) == 3
    with pytest.raises(SluiceError, match=r"shard 1 in .* is not finished"):
        read_results(two_shards, 1)


def reseal(folder: Path, index: int, results: list[dict[str, Any]]) -> None:
    from gnn.files import file_sha256

    path = write_rows(folder / f"shard-{index:04d}.parquet", results, RESULT_SCHEMA)
    manifest_path = folder / f"shard-{index:04d}.json"
    manifest = json.loads(manifest_path.read_text())
    manifest_path.write_text(json.dumps({**manifest, "sha256": file_sha256(path)}))


@pytest.mark.parametrize("kind", ["duplicate", "missing", "foreign"])
def test_merging_refuses_what_does_not_fit(
    two_shards: Path, make_spec: MakeSpec, emt_pin: ModelPin, rows: list[Candidate], kind: str
) -> None:
    results = read_results(two_shards, 1)
    changed = {
        "duplicate": [*results, results[0]],
        "missing": results[1:],
        "foreign": [*results, {**results[0], "candidate_id": "stranger"}],
    }[kind]
    reseal(two_shards, 1, changed)
    with pytest.raises(SluiceError, match=f"shard 1 cannot be merged: 1 {kind} structures"):
        merged_results(two_shards, plan_of(rows), work_digest(make_spec(), emt_pin))


def test_merging_refuses_a_structure_of_two_shards(
    two_shards: Path, make_spec: MakeSpec, emt_pin: ModelPin, rows: list[Candidate]
) -> None:
    plan, first = plan_of(rows), read_results(two_shards, 0)[0]
    reseal(two_shards, 1, [*read_results(two_shards, 1), first])
    plan[1] = [*plan[1], first["candidate_id"]]
    with pytest.raises(SluiceError, match=f"structure {first['candidate_id']} stands in two shards"):
        merged_results(two_shards, plan, work_digest(make_spec(), emt_pin))


def test_merging_refuses_other_work(two_shards: Path, rows: list[Candidate]) -> None:
    with pytest.raises(SluiceError, match="another model or other settings"):
        merged_results(two_shards, plan_of(rows), "0" * 64)


SLOW_SHARD = """
    import sys, time
    from pathlib import Path
    from ase.calculators.emt import EMT
    from gnn.potentials.foreign import CalculatorPotential, emt
    from gnn.screening.campaign import CampaignSpec
    from gnn.screening.manifest import ModelPin
    from gnn.screening.shard import run_shard
    from gnn.screening.tables import candidate_of_row, read_rows

    class Slow(EMT):
        def calculate(self, *args, **kwargs):
            time.sleep(float(sys.argv[2]))
            super().calculate(*args, **kwargs)

    folder = Path(sys.argv[1])
    spec = CampaignSpec.model_validate_json((folder / "spec.json").read_text())
    pin = ModelPin.model_validate_json((folder / "pin.json").read_text())
    rows = [candidate_of_row(row) for row in read_rows(folder / "rows.parquet")]
    manifest = run_shard(spec, rows, folder, 0, pin, lambda: CalculatorPotential(Slow, "emt/ase", emt().elements))
    print(manifest.model_dump_json())
"""


@pytest.mark.slow
def test_kill_9_in_the_middle(make_spec: MakeSpec, emt_pin: ModelPin, rows: list[Candidate], tmp_path: Path) -> None:
    """A killed process leaves its journal; the next one computes the rest and finds the same."""
    from gnn.screening.tables import INPUT_SCHEMA, geometry_columns

    (tmp_path / "spec.json").write_text(make_spec(relaxation={"max_atoms": 4}).model_dump_json())
    (tmp_path / "pin.json").write_text(emt_pin.model_dump_json())
    table = [
        {
            **dict.fromkeys(INPUT_SCHEMA.names),
            "candidate_id": r.candidate_id,
            "role": "candidate",
            "source": r.source,
            **geometry_columns(r),
        }
        for r in rows
    ]
    write_rows(tmp_path / "rows.parquet", table, INPUT_SCHEMA)
    script = tmp_path / "run.py"
    script.write_text(textwrap.dedent(SLOW_SHARD))
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path), "0.05"])
    journal = tmp_path / "shard-0000.part.jsonl"
    deadline = time.monotonic() + 120
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 3):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = journal_ids(tmp_path)
    assert 2 <= len(before) < 6
    assert not (tmp_path / "shard-0000.parquet").exists()
    done = subprocess.run([sys.executable, str(script), str(tmp_path), "0"], capture_output=True, text=True, check=True)
    manifest = json.loads(done.stdout.splitlines()[-1])
    assert (manifest["computed"], manifest["reused"]) == (6 - len(before), len(before))
    after = journal_ids(tmp_path)
    assert after[: len(before)] == before
    assert len(set(after)) == len(after) == 6
    reference = tmp_path / "reference"
    run_shard(make_spec(relaxation={"max_atoms": 4}), rows, reference, 0, emt_pin, emt)
    for ours, theirs in zip(read_results(tmp_path, 0), read_results(reference, 0), strict=True):
        assert ours["converged"] == theirs["converged"]
        assert ours["energy_per_atom"] == pytest.approx(theirs["energy_per_atom"], abs=1e-4)
