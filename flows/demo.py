"""The whole river on the sample set, one stage after the other, as a newcomer would type it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flows.cli.output import say
from flows.cli.results import CampaignResult, DemoResult, EvaluateResult, IngestResult, TrainResult
from flows.settings import Home
from gnn.errors import InputError
from gnn.lake.table import Lake
from gnn.screening.hull import ReferenceHull
from gnn.screening.references import counts_of, dft_hull, pinned_versions
from gnn.screening.truth import TruthCase, TruthScore, distinct, score, truth_cases
from gnn.structures.atoms import record_to_atoms
from gnn.structures.record import RECORD_SCHEMA, table_to_records

if TYPE_CHECKING:
    from gnn.potentials.load import CheckpointPotential

SAMPLE = Path(__file__).resolve().parents[1] / "datasets" / "sample"
CARD = "sluice-sample"
TRAINING, TRUTH = "sample", "sample-truth"
MODEL = "sample"
FMAX = 0.05
NETWORK = {"preset": "small", "model": {"family": "tensor", "correlation": 2}}
"""What each member of the demo's committee is, as tables of a training configuration.

Triplet operators at most: of formulas that it never saw a network of order 2 knows more, and in squeezed cells, where
densities are high, its energies do not explode (docs/results/demo.md).
"""


@dataclass
class Clock:
    """Wall seconds of each stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, what: str) -> Iterator[None]:
        """Say what begins, and note how long it took."""
        say(f"── {name}: {what}")
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 1)


def sample_file(name: str) -> Path:
    """A file of the sample set.

    Raises:
        InputError: the sample set is not beside the package.
    """
    path = SAMPLE / name
    if not path.is_file():
        raise InputError(f"the sample set is not here: {path} is missing; the demo needs a checkout of the repository")
    return path


def demo(home: Home, minutes: float, committee: int, cluster: str = "local") -> DemoResult:
    """Ingest the sample set, train on it, evaluate, screen, score against DFT, and write the report."""
    clock = Clock()
    with clock.stage("ingest", "DFT labels into the lake"):
        ingested = ingest_sample(home)
    with clock.stage("train", f"graphs, then {committee} networks for {minutes:g} minutes, tracked and registered"):
        trained = train_model(home, minutes, committee, cluster)
    with clock.stage("evaluate", "errors on formulas that the networks never saw"):
        evaluated = evaluate_model(home)
    with clock.stage("truth", "relaxations that DFT has done too, of formulas never seen"):
        truth = {name: asdict(found) for name, found in score_truth(home).items()}
    with clock.stage("screen", "candidates, relaxation, hull, selection, DFT inputs, report"):
        campaign = run_campaign(home, cluster)
    return DemoResult(
        seconds=clock.seconds,
        ingest=ingested,
        train=trained,
        evaluate=evaluated,
        campaign=campaign,
        truth=truth,
        report=campaign.paths.get("report", ""),
    )


def ingest_sample(home: Home) -> IngestResult:
    """Both parts of the sample set into the lake; the training part's counts."""
    from flows.ingest import ingest

    ingest([str(sample_file(f"{TRUTH}.parquet"))], TRUTH, home, card=CARD)
    return ingest([str(sample_file(f"{TRAINING}.parquet"))], TRAINING, home, card=CARD)


def train_model(home: Home, minutes: float, committee: int, cluster: str) -> TrainResult:
    """A committee of small networks on the training part, registered."""
    from flows.train import train
    from gnn.training.config import make_config

    config = make_config(
        {
            "data": {"datasets": [TRAINING], "train_on_elements": True},
            **NETWORK,
            "minutes": minutes,
            "committee": committee,
            "register_as": MODEL,
        }
    )
    return train(config, home, cluster=cluster)


def evaluate_model(home: Home) -> EvaluateResult:
    """Errors of the registered model on its test split."""
    from flows.evaluate import evaluate

    return evaluate(MODEL, TRAINING, home, split="test")


def run_campaign(home: Home, cluster: str) -> CampaignResult:
    """The demo's campaign: goes on, or begins anew where another model was registered since."""
    from flows.campaigns import CampaignFolder, pin_model
    from flows.screen import screen
    from gnn.screening.campaign import read_campaign

    file = sample_file("campaign.toml")
    spec = read_campaign(file)
    folder = CampaignFolder(home, spec.name)
    known = folder.manifest() if folder.exists() else None
    is_outdated = known is not None and known.model.sha256 != pin_model(spec, home).sha256
    return screen(file, home, cluster=cluster, fresh=is_outdated)


def score_truth(home: Home) -> dict[str, TruthScore]:
    """Formation energies against DFT: "relaxed" by the model from where DFT started, and "at_dft_geometry"."""
    from flows.registry import resolve
    from gnn.potentials.load import load

    potential: CheckpointPotential = load(resolve(MODEL, home))
    labelled = table_to_records(pq.read_table(sample_file(f"{TRUTH}.parquet"), schema=RECORD_SCHEMA))
    cases = distinct(truth_cases(labelled))
    hull = elemental_hull(Lake(home.lake), potential)
    true = np.array([_formation_energy(hull, case.end.numbers, case.end.energy) for case in cases])
    return {
        "relaxed": score(np.array(_after_relaxing(potential, hull, cases)), true),
        "at_dft_geometry": score(np.array(_at_dft_geometry(potential, hull, cases)), true),
    }


def elemental_hull(lake: Lake, potential: CheckpointPotential) -> ReferenceHull:
    """DFT's energies in the lake at the model's level of theory, which formation energies refer to."""
    versions = pinned_versions(lake, [TRAINING], potential.theory)
    return dft_hull(lake, versions, potential.theory, potential.elements)[0]


def _formation_energy(hull: ReferenceHull, numbers: NDArray[np.int64], energy: float | None) -> float:
    """eV/atom of a total energy in eV."""
    if energy is None:
        raise InputError(f"a relaxation of {TRUTH} has no energy; remove it from {TRUTH}.parquet")
    return hull.formation_energy(counts_of(numbers), energy / len(numbers))


def _at_dft_geometry(potential: CheckpointPotential, hull: ReferenceHull, cases: list[TruthCase]) -> list[float]:
    predictions = potential.energies_only().predict_atoms([record_to_atoms(case.end) for case in cases])
    return [
        _formation_energy(hull, case.end.numbers, prediction.energy)
        for case, prediction in zip(cases, predictions, strict=True)
    ]


def _after_relaxing(potential: CheckpointPotential, hull: ReferenceHull, cases: list[TruthCase]) -> list[float]:
    from gnn.simulation.relax import RelaxSettings, relax_many

    starts = [record_to_atoms(case.start) for case in cases]
    return [
        _formation_energy(hull, r.atoms.numbers, r.energy) if r.converged else np.inf  # as campaigns drop it
        for r in relax_many(starts, potential, RelaxSettings(fmax=FMAX))
    ]


def describe(result: DemoResult) -> dict[str, Any]:
    """The figures a newcomer wants to see first."""
    funnel = {stage.stage: stage.n_out for stage in result.campaign.funnel}
    relaxed = result.truth["relaxed"]
    return {
        "structures in the lake": result.ingest.kept + result.ingest.duplicates,
        "test energy MAE, meV/atom": _rounded(result.evaluate.energy_mae_mev_per_atom),
        "test force MAE, meV/Å": _rounded(result.evaluate.force_mae_mev_per_angstrom),
        "distinct candidates": funnel.get("distinct", result.campaign.n_candidates),
        "shortlist": result.campaign.n_shortlist,
        "crystals compared with DFT": relaxed["n"],
        "Spearman against DFT": _rounded(relaxed["spearman"], 3),
        "best decile found, at DFT's geometry": _both(result, "best_decile_recall"),
        "formation energy MAE, at DFT's geometry, meV/atom": _both(result, "mae", 1e3),
        "seconds": _rounded(sum(result.seconds.values())),
        "report": result.report,
    }


def _both(result: DemoResult, name: str, factor: float = 1.0) -> str:
    """A score after relaxing and at DFT's geometry."""
    found = (result.truth[where][name] for where in ("relaxed", "at_dft_geometry"))
    return ", ".join("–" if figure is None else f"{figure * factor:.1f}" for figure in found)


def _rounded(figure: float | None, digits: int = 1) -> float | None:
    return None if figure is None else round(figure, digits)
