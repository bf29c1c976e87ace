"""A campaign and a training by the real command, which faults disturb, and how two final tables are compared."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine_room import Room, wait_until
from metals import metals_campaign
from screened import rows_of
from tiny_network import TINY_MODEL

from flows.settings import Home

SAME_ENERGY = 1e-4
"""eV/atom within which a disturbed relaxation is the same."""

CAMPAIGN = metals_campaign(
    "foreign:patient", relaxation=("max_steps = 40", "max_atoms = 8"), formats="[]", shard_atoms=16
)

TRAINING = f"""
preset = "small"
device = "cpu"
minutes = 1.0
register_as = "metals"
[data]
datasets = ["cells"]
cutoff = 4.0
split_by = "structure"
{TINY_MODEL}"""


@dataclass
class Campaign:
    """The campaign `metals` in a home of its own, run by the real command."""

    room: Room
    home: Home
    file: Path

    @property
    def folder(self) -> Path:
        return self.home.campaigns / "metals"

    def launch(self, cluster: str = "threads", pause_s: float = 0.0, name: str = "flow", **environment: str) -> None:
        """Start `sluice screen`."""
        options = ("--cluster", cluster, *(("--workers", "2") if ":" not in cluster else ()))
        command = ("sluice", "screen", str(self.file), "--json", *options)
        self.room.start(name, *command, SLUICE_HOME=str(self.home.root), PAUSE_S=str(pause_s), **environment)

    def run(self, cluster: str = "threads", **environment: str) -> dict[str, Any]:
        """Run it to its end, which must be good; what the command printed."""
        self.launch(cluster, **environment)
        assert self.room.wait("flow") == 0, self.room.log("flow")
        found: dict[str, Any] = self.room.output("flow")
        return found

    def records(self) -> list[dict[str, Any]]:
        """Whole records of all journals."""
        found = []
        for path in sorted((self.folder / "shards").glob("*.part.jsonl")):
            content = path.read_bytes()
            found += [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()[1:]]
        return found

    def wait_for_records(self, count: int, name: str = "flow") -> list[dict[str, Any]]:
        """Wait until so many structures are journalled while the flow still runs."""

        def enough() -> list[dict[str, Any]]:
            assert self.room.processes[name].poll() is None, self.room.log(name)
            found = self.records()
            return found if len(found) >= count else []

        found: list[dict[str, Any]] = wait_until(enough, f"{count} records: {self.room.log(name)}")
        return found

    def rows(self) -> dict[str, dict[str, Any]]:
        """The final table by candidate."""
        rows = rows_of(self.home)
        assert len({row["candidate_id"] for row in rows}) == len(rows)
        return {row["candidate_id"]: row for row in rows}


@dataclass
class Training:
    """A training of a minute in a home of its own, by the real command, tracked by a server."""

    room: Room
    home: Home
    file: Path

    def launch(self, url: str) -> None:
        """Start `sluice train`."""
        command = ("sluice", "train", str(self.file), "--json")
        self.room.start("flow", *command, SLUICE_HOME=str(self.home.root), MLFLOW_TRACKING_URI=url)

    def states(self) -> list[Path]:
        """Where its state is saved."""
        return list(self.home.root.rglob("state.json"))

    def wait_for_state(self) -> None:
        """Wait until it saved its state for the first time."""
        wait_until(lambda: self.states() or not self.room.runs("flow"), "the first saved state")
        assert self.room.runs("flow"), self.room.log("flow")

    def curve(self) -> list[int]:
        """The steps of its points so far."""
        (state,) = self.states()
        return [point["step"] for point in json.loads(state.read_text())["curve"]]

    def judge(self, url: str) -> dict[str, int]:
        """Wait for a good end; every point must have come to the server at `url` once, and the model be registered."""
        from mlflow import MlflowClient

        assert self.room.wait("flow") == 0, self.room.log("flow")
        assert "points wait" in self.room.whole_log("flow")
        result, expected = self.room.output("flow"), self.curve()
        client = MlflowClient(tracking_uri=url, registry_uri=url)
        assert client.get_run(result["run_id"]).info.status == "FINISHED"
        steps = [point.step for point in client.get_metric_history(result["run_id"], "lr")]
        assert steps == expected
        assert client.get_model_version("metals", result["model_version"]).tags["sha256"] == result["sha256"]
        lost, twice = len(set(expected) - set(steps)), len(steps) - len(set(steps))
        return {"structures": len(expected), "before": 0, "lost": lost, "twice": twice, "missing": lost}


def assert_same(campaign: Campaign, calm: Campaign) -> None:
    """The two final tables say the same; which of equal candidates is on the shortlist may differ."""
    found, expected = campaign.rows(), calm.rows()
    assert found.keys() == expected.keys()
    for name, row in expected.items():
        other = found[name]
        assert other["converged"] == row["converged"], name
        assert (other["energy_per_atom"] is None) == (row["energy_per_atom"] is None), name
        if row["energy_per_atom"] is not None:
            assert abs(other["energy_per_atom"] - row["energy_per_atom"]) < SAME_ENERGY, name
    assert funnel(campaign) == funnel(calm)
    for one, other in zip(scores(campaign), scores(calm), strict=True):
        assert abs(one - other) < SAME_ENERGY


def funnel(campaign: Campaign) -> list[tuple[str, int, int]]:
    stages = json.loads((campaign.folder / "manifest.json").read_text())["funnel"]
    return [(stage["stage"], stage["n_in"], stage["n_out"]) for stage in stages]


def scores(campaign: Campaign) -> list[float]:
    """Scores of the shortlist, the best first."""
    return sorted(row["score"] for row in campaign.rows().values() if row["shortlisted"])
