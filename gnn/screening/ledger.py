"""The ledger of a campaign: who is still in, who was dropped where and why; the funnel is read off it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gnn.errors import SluiceError
from gnn.screening.manifest import Stage
from gnn.screening.names import ByName, Names
from gnn.screening.spool import Spool

Why = str | tuple[str, str]
"""A reason, or a reason and a detail."""


@dataclass(frozen=True)
class Drop:
    """Why a candidate went: the stage, a short reason that is counted, and what is special to this candidate."""

    stage: str
    reason: str
    detail: str = ""

    @property
    def text(self) -> str:
        """Reason and detail."""
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


class Ledger:
    """Candidates by id, each in until one stage drops it. Every stage satisfies n_in = n_out + sum of rejected.

    Eight bytes a candidate beside its id: a number for stage and reason, and where the detail lies on disk, in a file
    without a name under `scratch`.
    """

    def __init__(self, ids: Iterable[str], stages: Iterable[Stage] = (), scratch: Path | None = None) -> None:
        self.ids = ids if isinstance(ids, Names) else Names(ids)
        self.stages = list(stages)
        if (twice := self.ids.repeated()) is not None:
            raise SluiceError(f"candidate {twice} stands twice; every candidate must have its own source")
        self._why: NDArray[np.uint32] = np.zeros(len(self.ids), dtype=np.uint32)
        self._detail: NDArray[np.uint32] = np.zeros(len(self.ids), dtype=np.uint32)
        self._reasons: list[tuple[str, str]] = [("", "")]
        self._numbers: dict[tuple[str, str], int] = {}
        self._details = Spool(scratch)

    def copy(self) -> Ledger:
        """A ledger that goes on from here and leaves this one as it is."""
        other = copy(self)  # ids and the spool of details, which only grows, are shared
        other._why, other._detail = self._why.copy(), self._detail.copy()
        other.stages, other._reasons, other._numbers = list(self.stages), list(self._reasons), dict(self._numbers)
        return other

    @property
    def drops(self) -> Mapping[str, Drop]:
        """Why each dropped candidate went."""
        return ByName(self.ids, self._drop, known=self._why)

    @property
    def alive(self) -> list[str]:
        """Ids that no stage has dropped, in order."""
        return list(self.living())

    @property
    def n_alive(self) -> int:
        """How many are still in."""
        return len(self.ids) - int(np.count_nonzero(self._why))

    def living(self) -> Iterator[str]:
        """Ids that no stage has dropped, in order, one after the other; those behind may be dropped meanwhile."""
        return (name for place, name in enumerate(self.ids) if not self._why[place])

    def is_in(self, place: int) -> bool:
        """Whether the candidate at `place` is still in."""
        return not self._why[place]

    def places(self) -> NDArray[np.uint32]:
        """Places of those that are still in, in order."""
        return np.flatnonzero(self._why == 0).astype(np.uint32)

    def close(self, stage: str, rejected: Mapping[str, Why] | Iterable[tuple[str, Why]]) -> None:
        """Let `stage` drop `rejected` (id -> reason, or reason and detail).

        Raises:
            SluiceError: an id is unknown or was dropped before.
        """
        n_in, counts = self.n_alive, Counter[str]()
        for name, why in rejected.items() if isinstance(rejected, Mapping) else rejected:
            place = self.ids.place(name)
            if place is None or self._why[place]:
                raise SluiceError(f"stage {stage} drops candidate {name}, which is unknown or was dropped before")
            reason, detail = (why, "") if isinstance(why, str) else why
            self.note(place, Drop(stage, reason, detail))
            counts[reason] += 1
        n_out = n_in - counts.total()
        self.stages.append(Stage(stage=stage, n_in=n_in, n_out=n_out, rejected=dict(sorted(counts.items()))))

    def note(self, place: int, drop: Drop) -> None:
        """Write down that the candidate at `place` is dropped, for a stage that is being closed or was."""
        key = (drop.stage, drop.reason)
        if (number := self._numbers.get(key)) is None:
            number = self._numbers[key] = len(self._reasons)
            self._reasons.append(key)
        self._why[place] = number
        self._detail[place] = self._details.append(drop.detail) + 1 if drop.detail else 0

    def _drop(self, place: int) -> Drop:
        stage, reason = self._reasons[int(self._why[place])]
        detail = int(self._detail[place])
        return Drop(stage, reason, self._details[detail - 1] if detail else "")
