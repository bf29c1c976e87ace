"""Errors on formulas that a training did not see: `python -m flows.bench.sample_formulas [--minutes M] [--set A.B=C]`.

For choosing data and training without a look at the truth part: seven formulas of the training part are held out in its
place. Everything goes to a home of its own; a finished training is not repeated.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from flows.cli.output import overrides
from flows.demo import CARD, NETWORK, sample_file
from flows.settings import Home, find_home
from gnn.overlay import merged
from gnn.structures.record import RECORD_SCHEMA, Record, records_to_table, reduced_formula, table_to_records

HELD_OUT = frozenset({"AlLi3", "MgSi", "AlSi", "AlMg2Si", "LiMg2", "Al2LiMg", "LiSi3"})
"""Binaries of five of the six pairs of elements, and two ternaries; chosen before any training without them."""
SEEN, UNSEEN = "formulas-seen", "formulas-unseen"


def divided(records: Iterable[Record]) -> dict[str, list[Record]]:
    """What is trained on, and what is held out."""
    parts: dict[str, list[Record]] = {SEEN: [], UNSEEN: []}
    for record in records:
        parts[UNSEEN if reduced_formula(record.numbers) in HELD_OUT else SEEN].append(record)
    return parts


def bring(home: Home) -> None:
    """Both parts into the lake of `home`."""
    from flows.ingest import ingest

    table = pq.read_table(sample_file("sample.parquet"), schema=RECORD_SCHEMA)
    for name, records in divided(table_to_records(table)).items():
        file = home.root / f"{name}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(records_to_table(records), file)
        ingest([str(file)], name, home, card=CARD)


def errors(home: Home, changes: dict[str, Any]) -> dict[str, float | None]:
    """Train one network as the demo does, with `changes`; errors on its validation split and on the unseen formulas."""
    from flows.evaluate import evaluate
    from flows.train import train
    from gnn.training.config import make_config

    base = {
        "data": {"datasets": [SEEN], "train_on_elements": True, "split": {"train": 0.94, "valid": 0.06}},
        **NETWORK,
        "threads": 1,
        "clock": "cpu",
    }
    trained = train(make_config(merged(base, changes)), home, cluster="threads", show=False)
    unseen = evaluate(str(home.absolute(trained.checkpoint)), UNSEEN, home, device="cpu")
    return {
        "valid energy MAE, meV/atom": trained.metrics["valid"].get("energy_mae_mev_per_atom"),
        "unseen energy MAE, meV/atom": unseen.energy_mae_mev_per_atom,
        "unseen force MAE, meV/Å": unseen.force_mae_mev_per_angstrom,
    }


def main() -> None:
    """Train and print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="CPU minutes of the training")
    parser.add_argument("--set", action="append", metavar="A.B=C", help="overrides a configuration value")
    parser.add_argument("--home", type=Path, help="default HOME/benchmarks/formulas")
    arguments = parser.parse_args()
    home = Home(arguments.home or find_home().root / "benchmarks" / "formulas")
    bring(home)
    found = errors(home, merged({"minutes": arguments.minutes}, overrides(arguments.set)))
    sys.stdout.write(", ".join(f"{name} {value:.1f}" for name, value in found.items() if value is not None) + "\n")


if __name__ == "__main__":
    main()
