"""Errors on formulas that a training did not see: `python -m flows.bench.sample_formulas [--minutes M] [--set A.B=C]`.

For choosing data and training without a look at the truth part: seven formulas of the training part are held out in its
place. Everything goes to a home of its own; a finished training is not repeated.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from flows.cli.output import overrides
from flows.demo import CARD, NETWORK, sample_file
from flows.settings import Home, find_home
from gnn.overlay import merged
from gnn.structures.atoms import record_to_atoms
from gnn.structures.record import RECORD_SCHEMA, Record, records_to_table, reduced_formula, table_to_records

if TYPE_CHECKING:
    from gnn.potentials.load import CheckpointPotential

HELD_OUT = frozenset({"AlLi3", "MgSi", "AlSi", "AlMg2Si", "LiMg2", "Al2LiMg", "LiSi3"})
"""Binaries of five of the six pairs of elements, and two ternaries; chosen before any training without them."""
SEEN, UNSEEN = "formulas-seen", "formulas-unseen"
SEVERAL = 4
"""Labels of a crystal that are taken to embrace its minimum."""


def divided(records: Iterable[Record]) -> dict[str, list[Record]]:
    """What is trained on, and what is held out."""
    parts: dict[str, list[Record]] = {SEEN: [], UNSEEN: []}
    for record in records:
        parts[UNSEEN if reduced_formula(record.numbers) in HELD_OUT else SEEN].append(record)
    return parts


def minima(records: Iterable[Record]) -> list[Record]:
    """The lowest label of each crystal that has several."""
    crystals: dict[str | None, list[Record]] = {}
    for record in records:
        crystals.setdefault(record.group, []).append(record)
    return [min(found, key=energy_per_atom) for found in crystals.values() if len(found) >= SEVERAL]


def energy_per_atom(record: Record) -> float:
    """eV/atom; inf without an energy."""
    return math.inf if record.energy is None else record.energy / record.n_atoms


def bring(home: Home, parts: dict[str, list[Record]]) -> None:
    """Both parts into the lake of `home`."""
    from flows.ingest import ingest

    for name, records in parts.items():
        file = home.root / f"{name}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(records_to_table(records), file)
        ingest([str(file)], name, home, card=CARD)


def relaxed_error(potential: CheckpointPotential, records: Sequence[Record]) -> float:
    """Mean error in meV/atom of the energies that relaxations from DFT's lowest labels end at."""
    from flows.demo import FMAX
    from gnn.simulation.relax import RelaxSettings, relax_many

    lowest = minima(records)
    relaxed = relax_many([record_to_atoms(record) for record in lowest], potential, RelaxSettings(fmax=FMAX))
    found = np.array([math.inf if r.energy is None else r.energy / len(r.atoms) for r in relaxed])
    return 1e3 * float(np.mean(np.abs(found - [energy_per_atom(record) for record in lowest])))


def errors(home: Home, unseen: Sequence[Record], changes: dict[str, Any]) -> dict[str, float | None]:
    """Train one network as the demo does, with `changes`; errors on its validation split and on the unseen formulas."""
    from flows.evaluate import evaluate
    from flows.train import train
    from gnn.potentials.load import load
    from gnn.training.config import make_config

    base = {
        "data": {"datasets": [SEEN], "train_on_elements": True, "split": {"train": 0.94, "valid": 0.06}},
        **NETWORK,
        "threads": 1,
        "clock": "cpu",
    }
    trained = train(make_config(merged(base, changes)), home, cluster="threads", show=False)
    checkpoint = home.absolute(trained.checkpoint)
    found = evaluate(str(checkpoint), UNSEEN, home, device="cpu")
    return {
        "valid energy MAE, meV/atom": trained.metrics["valid"].get("energy_mae_mev_per_atom"),
        "unseen energy MAE, meV/atom": found.energy_mae_mev_per_atom,
        "unseen relaxed energy MAE, meV/atom": relaxed_error(load(checkpoint), unseen),
        "unseen force MAE, meV/Å": found.force_mae_mev_per_angstrom,
    }


def main() -> None:
    """Train and print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="CPU minutes of the training")
    parser.add_argument("--set", action="append", metavar="A.B=C", help="overrides a configuration value")
    parser.add_argument("--home", type=Path, help="default HOME/benchmarks/formulas")
    arguments = parser.parse_args()
    home = Home(arguments.home or find_home().root / "benchmarks" / "formulas")
    parts = divided(table_to_records(pq.read_table(sample_file("sample.parquet"), schema=RECORD_SCHEMA)))
    bring(home, parts)
    found = errors(home, parts[UNSEEN], merged({"minutes": arguments.minutes}, overrides(arguments.set)))
    sys.stdout.write(", ".join(f"{name} {value:.1f}" for name, value in found.items() if value is not None) + "\n")


if __name__ == "__main__":
    main()
