"""Structures of a shard through a potential; each gets one row, whatever becomes of it.

A structure that breaks a batch is found by halving the batch, and set aside with its reason; the others go on. When
memory runs out, batches become smaller for good. What the disk refuses is nobody's fault: it stops the shard.
"""

from __future__ import annotations

import gc
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ase import Atoms

from gnn.errors import SluiceError, told
from gnn.potentials.evaluate import is_out_of_memory
from gnn.potentials.potential import Potential
from gnn.screening.campaign import RelaxationSpec
from gnn.screening.candidates import Candidate
from gnn.simulation.relax import Relaxed, RelaxSettings, check_provides, relax_many

logger = logging.getLogger(__name__)

CHUNK = 64
"""Structures evaluated at a time where nothing is relaxed."""
SET_ASIDE = "error"
"""Outcome of a structure that the potential, or the process, could not bear."""
MOST_DOUBTFUL = 3
"""Structures set aside in a row before the potential itself is doubted."""

Row = dict[str, Any]
OnResult = Callable[[Row], None]


class CampaignCancelledError(SluiceError):
    """Someone asked the campaign to stop; what is journalled stays."""


class Recorder:
    """Takes rows and passes them on; remembers whose they are, which were borne, and whether the passing on failed.

    A row that was set aside waits until a later structure succeeds: a potential that fails over everything is broken
    itself, and the structures are not to blame.
    """

    def __init__(self, append: OnResult) -> None:
        self._append = append
        self._doubtful: list[Row] = []
        self.finished: set[str] = set()
        self.borne: set[str] = set()
        self.broken = False

    def __call__(self, row: Row) -> None:
        """Take a row."""
        self.finished.add(row["candidate_id"])
        if row["outcome"] == SET_ASIDE:
            self._doubtful.append(row)
            return
        self.borne.add(row["candidate_id"])
        self.settle()
        self._pass_on(row)

    def left(self, rows: Sequence[Candidate]) -> list[Candidate]:
        """Those of `rows` that have none yet."""
        return [row for row in rows if row.candidate_id not in self.finished]

    @property
    def doubtful(self) -> Sequence[Row]:
        """Rows set aside since the last success."""
        return self._doubtful

    def settle(self) -> None:
        """Pass on the rows that waited."""
        while self._doubtful:
            row = self._doubtful[0]
            logger.warning("set aside: %s", row["reason"], extra={"structure": row["candidate_id"]})
            self._pass_on(row)
            self._doubtful.pop(0)

    def _pass_on(self, row: Row) -> None:
        try:
            self._append(row)
        except BaseException:
            self.broken = True
            raise


def compute(
    rows: Sequence[Candidate],
    spec: RelaxationSpec,
    potential: Potential,
    append: OnResult,
    probe: Candidate | None = None,
) -> None:
    """Relax or evaluate `rows`; `append` gets one row of each as it finishes.

    Args:
        rows: what is to be computed.
        spec: how.
        potential: by what.
        append: takes the rows.
        probe: a structure that the potential could bear earlier, to tell a broken potential from bad structures.

    Raises:
        InputError: the potential cannot do what is asked.
        CampaignCancelledError: `append` said so.
        OSError: `append` could not write.
        SluiceError: the potential failed over everything.
    """
    if spec.mode != "none":
        check_provides(potential, settings_of(spec))
    record = Recorder(append)
    _halving(rows, spec, potential, record, _evaluate if spec.mode == "none" else _relax)
    _refuse_broken(potential, record, probe or _some_success(rows, record))
    record.settle()


def _some_success(rows: Sequence[Candidate], record: Recorder) -> Candidate | None:
    return next((row for row in rows if row.candidate_id in record.borne), None)


def _refuse_broken(potential: Potential, record: Recorder, probe: Candidate | None) -> None:
    """Do nothing if the structures set aside last are to blame for it themselves.

    Raises:
        SluiceError: many failed in a row, and the potential fails over one that it could bear before, too.
    """
    failed = record.doubtful
    if len(failed) <= MOST_DOUBTFUL:
        return
    try:
        if probe is not None:
            potential.predict_atoms([probe.atoms()])
            return
        reason = "none has succeeded"
    except Exception as error:  # noqa: BLE001 (told below)
        reason = f"now it fails over {probe.candidate_id if probe else ''} too: {told(error)}"
    raise SluiceError(
        f"the potential failed over {len(failed)} structures in a row, the last with {failed[-1]['reason']}; {reason}"
    )


Work = Callable[[Sequence[Candidate], RelaxationSpec, Potential, Recorder], None]


def _halving(
    rows: Sequence[Candidate], spec: RelaxationSpec, potential: Potential, record: Recorder, work: Work
) -> None:
    """`work` on all rows; where it breaks, on the two halves of what is left, down to the one that breaks it."""
    try:
        work(rows, spec, potential, record)
        return
    except Exception as error:
        if record.broken:
            raise
        cause = error
    left = record.left(rows)
    if is_out_of_memory(cause):
        spec = _smaller(spec, cause)
    if len(left) == 1 and len(rows) == 1:
        record(failed_row(left[0], told(cause)))
        return
    middle = (len(left) + 1) // 2
    for half in (left[:middle], left[middle:]):
        if half:
            _halving(half, spec, potential, record, work)


def _smaller(spec: RelaxationSpec, error: BaseException) -> RelaxationSpec:
    """The same with batches of half the size, after what can be freed is freed."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    smaller = spec.model_copy(update={"max_atoms": max(1, spec.max_atoms // 2)})
    logger.warning("out of memory (%s): at most %d atoms a batch from here", told(error), smaller.max_atoms)
    return smaller


def _relax(todo: Sequence[Candidate], spec: RelaxationSpec, potential: Potential, record: Recorder) -> None:
    def on_result(k: int, relaxed: Relaxed) -> None:
        record(_relaxed_row(todo[k], relaxed))

    structures = [row.atoms() for row in todo]
    settings, scorer = settings_of(spec), scorer_of(potential)
    relax_many(structures, followed(potential, spec), settings, spec.max_atoms, on_result, final=scorer)


def settings_of(spec: RelaxationSpec) -> RelaxSettings:
    """A campaign's relaxation as the relaxer has it."""
    return RelaxSettings(fmax=spec.fmax, max_steps=spec.max_steps, cell=spec.mode == "cell")


def followed(potential: Potential, spec: RelaxationSpec) -> Potential:
    """Whose forces a relaxation follows: the whole potential's, or those of a committee's first member alone."""
    lead: Callable[[], Potential] | None = getattr(potential, "lead", None)
    return potential if lead is None or spec.follow == "mean" else lead()


def scorer_of(potential: Potential) -> Potential | None:
    """What scores relaxed structures in batches: a whole committee, without forces if it can; None for one member."""
    if "uncertainty" not in potential.provides:
        return None
    energies_only: Callable[[], Potential] | None = getattr(potential, "energies_only", None)
    return potential if energies_only is None else energies_only()


def _relaxed_row(row: Candidate, relaxed: Relaxed) -> Row:
    """The journal's record of a relaxation; energy and uncertainty by the whole committee."""
    final = relaxed.final
    energy = relaxed.energy if final is None else final.energy
    uncertainty = None if final is None else final.uncertainty
    return {
        "candidate_id": row.candidate_id,
        "energy_per_atom": _finite(None if energy is None else energy / row.n_atoms),
        "uncertainty": _finite(uncertainty),
        "converged": relaxed.converged,
        "outcome": relaxed.outcome,
        "reason": relaxed.reason,
        "steps": relaxed.steps,
        "fmax": _finite(relaxed.fmax),
        "cpu_s": relaxed.cpu_s,
        **_geometry(relaxed.atoms, row),
    }


def _geometry(atoms: Atoms, row: Candidate) -> Row:
    """Positions and cell as flat lists; those the structure came with where the result is not finite."""
    finite = np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell[:]).all()
    positions, cell = (atoms.positions, atoms.cell[:]) if finite else (row.positions, row.cell)
    return {"positions": np.ravel(positions).tolist(), "cell": np.ravel(cell).tolist()}


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def failed_row(row: Candidate, reason: str) -> Row:
    """The record of a structure that was set aside."""
    return {
        "candidate_id": row.candidate_id,
        "energy_per_atom": None,
        "uncertainty": None,
        "converged": False,
        "outcome": SET_ASIDE,
        "reason": reason,
        "steps": 0,
        "fmax": None,
        "cpu_s": 0.0,
        "positions": np.ravel(row.positions).tolist(),
        "cell": np.ravel(row.cell).tolist(),
    }


def _evaluate(todo: Sequence[Candidate], spec: RelaxationSpec, potential: Potential, record: Recorder) -> None:
    """Energies of structures as they are."""
    for start in range(0, len(todo), CHUNK):
        for row in _evaluated(todo[start : start + CHUNK], spec, potential):
            record(row)


def _evaluated(chunk: Sequence[Candidate], spec: RelaxationSpec, potential: Potential) -> list[Row]:
    started = time.process_time()
    predictions = potential.predict_atoms([row.atoms() for row in chunk], spec.max_atoms)
    each = (time.process_time() - started) / len(chunk)
    rows = []
    for row, prediction in zip(chunk, predictions, strict=True):
        energy = _finite(prediction.energy / row.n_atoms)
        given = {
            "energy_per_atom": energy,
            "uncertainty": _finite(prediction.uncertainty),
            "converged": energy is not None,
            "outcome": "converged" if energy is not None else "non_finite",
            "cpu_s": each,
        }
        rows.append({**failed_row(row, ""), "reason": None if energy is not None else "energy is not finite", **given})
    return rows
