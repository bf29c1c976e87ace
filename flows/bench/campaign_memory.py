"""What a campaign's flow holds in memory while it prepares, merges and concludes: peaks of two sizes, and their slope.

    python -m flows.bench.campaign_memory --candidates 10000 100000

Candidates are half-Heusler compounds of as many elements as it takes; nothing is relaxed: every shard is sealed with
the start as its end and an energy drawn from a hash. Each size is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from math import comb
from pathlib import Path
from typing import Any

from ase.data import chemical_symbols

from gnn.cost import Meter, peak_memory_mb
from gnn.files import file_sha256, write_text
from gnn.lake.table import Lake
from gnn.screening.campaign import CampaignSpec, parse_campaign
from gnn.screening.candidates import Candidate, candidates_digest
from gnn.screening.conclude import conclude
from gnn.screening.final import write_tables
from gnn.screening.gather import Inputs
from gnn.screening.hull import HullEntry, ReferenceHull
from gnn.screening.manifest import ModelPin
from gnn.screening.prepare import prepared
from gnn.screening.shard import RESULT_SCHEMA, ShardManifest, merged_results, shard_name, work_digest
from gnn.screening.tables import geometry_columns, write_rows

PERIODS = ((3, 9), (11, 17), (19, 35), (37, 53), (72, 84))
ELEMENTS = [chemical_symbols[number] for first, past in PERIODS for number in range(first, past)]
DECORATIONS = 6
"""Half-Heusler compounds of three elements."""


def spec_of(count: int) -> CampaignSpec:
    """A campaign of about `count` candidates in shards of 2 000 cells."""
    chosen = next(n for n in range(3, len(ELEMENTS) + 1) if DECORATIONS * comb(n, 3) >= count or n == len(ELEMENTS))
    content = {
        "name": "memory",
        "model": "foreign:none",
        "candidates": {"elements": ELEMENTS[:chosen], "prototypes": ["half-Heusler"], "min_elements": 3},
        "relaxation": {"mode": "none"},
        "filters": {"max_hull_distance": 0.05},
        "hull": {"reference": "dft"},
        "shards": {"atoms": 6000},
    }
    return parse_campaign(content, "memory")


def result_of(candidate: Candidate) -> dict[str, Any]:
    """A result as a shard has it."""
    geometry = geometry_columns(candidate)
    return {
        "candidate_id": candidate.candidate_id,
        "energy_per_atom": -0.1 + int(candidate.candidate_id[:4], 16) / 65536,
        "uncertainty": 0.01,
        "converged": True,
        "outcome": "converged",
        "reason": None,
        "steps": 0,
        "fmax": 0.0,
        "cpu_s": 0.0,
        "positions": geometry["positions"],
        "cell": geometry["cell"],
    }


def seal(folder: Path, index: int, rows: list[Candidate], work: str) -> None:
    """A shard as if it had been computed."""
    path = write_rows(folder / f"{shard_name(index)}.parquet", map(result_of, rows), RESULT_SCHEMA)
    manifest = ShardManifest(
        index=index, work_digest=work, ids_digest=candidates_digest(rows), structures=len(rows), computed=len(rows),
        reused=0, failed=0, cpu_s=0.0, wall_s=0.0, path=path.name, sha256=file_sha256(path),
    )  # fmt: skip
    write_text(folder / f"{shard_name(index)}.json", manifest.model_dump_json())


def measure(folder: Path, count: int) -> dict[str, Any]:
    """Peaks of memory by stage, in MB, with what the process had before."""
    spec = spec_of(count)
    pin = ModelPin(uri="none", version=None, sha256="0" * 64, path=None, theory="none", elements=ELEMENTS)
    hull = ReferenceHull([HullEntry(((symbol, 1.0),), 0.0, symbol, "none", "none") for symbol in ELEMENTS])
    meters = {name: Meter() for name in ("prepare", "read_again", "conclude")}
    before = peak_memory_mb()
    with meters["prepare"]:
        inputs = Inputs(Lake(folder / "lake"), {}, pin)
        ready = prepared(spec, inputs, folder / "shards", workers=2)
    work = work_digest(spec, pin)
    for index in ready.plan:
        seal(folder / "shards", index, ready.rows(index), work)
    n_candidates = len(ready.ledger.ids)
    del ready
    with meters["read_again"]:
        ready = prepared(spec, inputs, folder / "shards", workers=2)
    with meters["conclude"]:
        results = merged_results(folder / "shards", ready.plan, work)
        conclusion = conclude(spec, ready, results, hull, pin.theory)
        write_tables(folder, conclusion.rows, conclusion.shortlist)
    return {
        "candidates": n_candidates,
        "shards": len(ready.plan),
        "before_mb": round(before),
        **{f"{name}_mb": round(meter.peak_memory_mb) for name, meter in meters.items()},
        **{f"{name}_cpu_s": round(meter.cpu_s, 1) for name, meter in meters.items()},
        "funnel": {stage.stage: stage.n_out for stage in conclusion.ledger.stages},
        "shortlist": conclusion.shortlist[:3],
    }


def main() -> None:
    """Measure each size in its own process, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--inside", action="store_true", help="measure the first size in this process")
    options = parser.parse_args()
    if options.inside:
        with tempfile.TemporaryDirectory() as folder:
            sys.stdout.write(json.dumps(measure(Path(folder), options.candidates[0])))
        return
    found = [_apart(count) for count in options.candidates]
    slopes = {}
    for stage in ("prepare", "read_again", "conclude"):
        grown = found[-1][f"{stage}_mb"] - found[0][f"{stage}_mb"]
        slopes[stage] = round(1e6 * grown / max(1, found[-1]["candidates"] - found[0]["candidates"]))
    sys.stdout.write(json.dumps({"runs": found, "bytes_a_candidate": slopes}, indent=1) + "\n")


def _apart(count: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "flows.bench.campaign_memory", "--inside", "--candidates", str(count)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
