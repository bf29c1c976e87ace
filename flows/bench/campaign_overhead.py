"""What a shard costs beside its work: wall time outside `run_shard`, growth of the server's database, files, memory.

    python -m flows.bench.campaign_overhead --candidates 100000 --shards 50

Candidates are single points by ASE's EMT, cut by hand so that nothing but shards is measured: Prefect tasks, Dask, the
journal's lock, the result's file. One shard at a time, so that what is outside is what a shard adds. With
PREFECT_API_URL unset the flow starts a server of its own, whose start is measured apart by an empty run before.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase.build import bulk

from flows.settings import Home, apply_quiet_defaults
from gnn.cost import peak_memory_mb
from gnn.screening.campaign import CampaignSpec, parse_campaign
from gnn.screening.candidates import Candidate
from gnn.screening.ledger import Ledger
from gnn.screening.plan import Plan
from gnn.screening.preparation import Prepared, keep_prepared
from gnn.screening.shelf import ShelfBuilder

METALS = ("Al", "Cu", "Ag", "Au", "Ni", "Pd", "Pt")
NAME = "overhead"


def candidates(count: int) -> Iterator[Candidate]:
    """Two-atom cells, each with a volume of its own."""
    for number in range(count):
        first, second = METALS[number % 7], METALS[(number // 7) % 7]
        atoms = bulk("Cu", "fcc", a=3.6).repeat((2, 1, 1))
        atoms.symbols[:] = [first, second]
        atoms.set_cell(atoms.cell[:] * (0.98 + 0.06 * number / count), scale_atoms=True)
        cell = np.asarray(atoms.cell[:], dtype=float)
        yield Candidate(atoms.numbers, atoms.positions, cell, None, f"{NAME}#{number}")


def spec_of() -> CampaignSpec:
    """A campaign of single points."""
    content = {
        "name": NAME,
        "model": "foreign:emt",
        "candidates": {"elements": list(METALS), "prototypes": ["CsCl"]},
        "relaxation": {"mode": "none"},
        "hull": {"reference": "model"},
    }
    return parse_campaign(content, NAME)


def prepared_by_hand(rows: Iterable[Candidate], n_shards: int, scratch: Path) -> Prepared:
    """Candidates dealt to shards in turn."""
    builder = ShelfBuilder(scratch)
    for row in rows:
        builder.add(row)
    shelf = builder.shelf()
    plan = Plan(shelf.names, [], (np.arange(len(shelf.names)) % n_shards).astype(np.int32))
    return Prepared(shelf.candidates, {}, Ledger(shelf.names), plan, {}, {}, {}, frozenset(METALS))


def measure(home: Home, count: int, n_shards: int) -> dict[str, Any]:
    """Run the shards of a campaign, and what they cost."""
    from prefect import flow

    from flows.campaigns import CampaignFolder
    from flows.cluster import dask_client
    from flows.screen import begin, relax_shards

    folder = CampaignFolder(home, NAME)
    campaign = begin(folder, spec_of(), None)
    by_hand = prepared_by_hand(candidates(count), n_shards, folder.shards)
    ready = keep_prepared(by_hand, folder.shards, "by hand")
    database = _database()
    before = (database.stat().st_size if database.is_file() else 0, peak_memory_mb())

    @flow(name="overhead")
    def run() -> tuple[float, list[Any]]:
        with dask_client("threads", workers=1) as client:
            started = time.perf_counter()
            outcomes = relax_shards(campaign, ready, client, show=False)
            return time.perf_counter() - started, outcomes

    wall_s, outcomes = run()
    manifests = [outcome.manifest for outcome in outcomes if outcome.manifest is not None]
    inside = sum(manifest["wall_s"] for manifest in manifests)
    files = [path for path in folder.shards.iterdir() if path.name.startswith("shard-")]
    results = list((home.root / ".sluice" / "prefect-results").iterdir())
    return {
        "candidates": sum(manifest["structures"] for manifest in manifests),
        "shards": len(manifests),
        "wall_s": round(wall_s, 2),
        "wall_s_in_run_shard": round(inside, 2),
        "overhead_s_a_shard": round((wall_s - inside) / n_shards, 3),
        "files_a_shard": (len(files) + len(results)) / n_shards,
        "database_growth_mb": round((database.stat().st_size - before[0]) / 1e6, 2) if database.is_file() else None,
        "peak_memory_mb_before": round(before[1]),
        "peak_memory_mb_after": round(peak_memory_mb()),
        "load": round(os.getloadavg()[0], 1),
    }


def _database() -> Path:
    """The SQLite database of a server on this machine."""
    return Path(os.environ.get("PREFECT_HOME", str(Path.home() / ".prefect"))) / "prefect.db"


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, default=100_000)
    parser.add_argument("--shards", type=int, default=50)
    options = parser.parse_args()
    apply_quiet_defaults()
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("PREFECT_HOME", f"{folder}/prefect")
        warm = measure(Home(Path(folder) / "warm"), options.shards, options.shards)
        found = measure(Home(Path(folder) / "home"), options.candidates, options.shards)
    sys.stdout.write(json.dumps({"first": warm, "run": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
