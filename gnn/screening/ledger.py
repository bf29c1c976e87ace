"""The ledger of a campaign: who is still in, who was dropped where and why; the funnel is read off it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gnn.errors import SluiceError
from gnn.screening.manifest import Stage


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


@dataclass
class Ledger:
    """Candidates by id, each in until one stage drops it. Every stage satisfies n_in = n_out + sum of rejected."""

    ids: tuple[str, ...]
    drops: dict[str, Drop] = field(default_factory=dict)
    stages: list[Stage] = field(default_factory=list)

    def __post_init__(self) -> None:
        if len(set(self.ids)) != len(self.ids):
            twice = next(name for name, count in Counter(self.ids).items() if count > 1)
            raise SluiceError(f"candidate {twice} stands twice; every candidate must have its own source")
        self._known = frozenset(self.ids)

    @property
    def alive(self) -> list[str]:
        """Ids that no stage has dropped, in order."""
        return [name for name in self.ids if name not in self.drops]

    def is_alive(self, name: str) -> bool:
        """Whether candidate `name` is still in."""
        return name in self._known and name not in self.drops

    def close(self, stage: str, rejected: Mapping[str, str | tuple[str, str]]) -> list[str]:
        """Let `stage` drop `rejected` (id -> reason, or reason and detail); gives who is left.

        Raises:
            SluiceError: an id is unknown or was dropped before.
        """
        self._refuse_strangers(stage, rejected)
        n_in = len(self.ids) - len(self.drops)
        for name, why in rejected.items():
            reason, detail = (why, "") if isinstance(why, str) else why
            self.drops[name] = Drop(stage, reason, detail)
        counts = dict(sorted(Counter(self.drops[name].reason for name in rejected).items()))
        self.stages.append(Stage(stage=stage, n_in=n_in, n_out=n_in - len(rejected), rejected=counts))
        return self.alive

    def _refuse_strangers(self, stage: str, names: Iterable[str]) -> None:
        if stranger := next((name for name in names if not self.is_alive(name)), None):
            raise SluiceError(f"stage {stage} drops candidate {stranger}, which is unknown or was dropped before")
