"""Structures that kill the process that computes them: found out over several deaths, and set aside with that reason.

An exception can be caught; a segmentation fault, or the kernel when memory is gone, cannot. So a shard leaves a note
of what it is at, and takes it away when it ends by itself; who stops it on purpose takes it away too. Whoever finds a
note knows that a process died here. One death is forgiven, over a lone structure too: nodes are taken away every day.
After the second, structures go in small groups; after a death in a group each of it goes alone; and one over which two
processes have died alone is not tried again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gnn.files import write_text
from gnn.screening.candidates import Candidate

FORGIVEN = 1
"""Deaths after which a shard still goes at full speed."""
GROUP = 32
"""Structures that go together after more deaths."""
DEATHS = 2
"""Deaths over a lone structure after which it is set aside."""

ENDING = ".at.json"
"""Of notes; what stands before it is the shard's name."""


@dataclass
class Strikes:
    """What is known of the deaths over a shard; kept in the note at `path`.

    at: ids that are being computed; deaths: processes that died here; suspects: ids among which a process died;
    strikes: id -> processes that died over it alone.
    """

    path: Path
    at: list[str] = field(default_factory=list)
    deaths: int = 0
    suspects: list[str] = field(default_factory=list)
    strikes: dict[str, int] = field(default_factory=dict)

    @classmethod
    def after(cls, path: Path, finished: Mapping[str, Any]) -> Strikes:
        """What the note at `path` tells, if there is one; `finished` are ids that have results."""
        note = _read(path)
        if note is None:
            return cls(path)
        at = [name for name in note["at"] if name not in finished]
        strikes = dict(note["strikes"])
        if len(note["at"]) == 1 and at and note["deaths"] >= FORGIVEN:
            strikes[at[0]] = strikes.get(at[0], 0) + 1
        in_a_group = bool(at) and note["deaths"] > FORGIVEN
        suspects = [name for name in (*(at if in_a_group else ()), *note["suspects"]) if name not in finished]
        return cls(path, [], note["deaths"] + 1, list(dict.fromkeys(suspects)), strikes)

    def deadly(self) -> dict[str, str]:
        """Ids that are not to be tried again, with the reason."""
        return {
            name: f"the process died over it {count} times" for name, count in self.strikes.items() if count >= DEATHS
        }

    def groups(self, todo: Sequence[Candidate]) -> Iterator[list[Candidate]]:
        """What to compute together, each noted as it begins: all at once while there is no suspicion."""
        suspects = set(self.suspects)
        for group in self._cut([row for row in todo if row.candidate_id not in suspects], GROUP):
            yield group
        for group in self._cut([row for row in todo if row.candidate_id in suspects], 1):
            yield group

    def _cut(self, rows: list[Candidate], size: int) -> Iterator[list[Candidate]]:
        width = size if self.deaths > FORGIVEN else max(1, len(rows))
        for start in range(0, len(rows), width):
            group = rows[start : start + width]
            self._note(group)
            yield group

    def _note(self, group: Sequence[Candidate]) -> None:
        self.at = [row.candidate_id for row in group]
        content = {name: getattr(self, name) for name in ("at", "deaths", "suspects", "strikes")}
        write_text(self.path, json.dumps(content) + "\n")

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Take the note away afterwards, however it ends: then the process has not died."""
        try:
            yield
        finally:
            self.path.unlink(missing_ok=True)


@contextmanager
def stopped_on_purpose(folder: Path) -> Iterator[None]:
    """Where the block is interrupted, take away the notes that shards in `folder` wrote meanwhile: none of them died.

    To be left after the processes of the shards are gone. Notes of earlier deaths, which nobody has taken up, stay.
    """
    before = _notes(folder)
    try:
        yield
    except Exception:
        raise
    except BaseException:
        for path, content in _notes(folder).items():
            if before.get(path) != content:
                path.unlink(missing_ok=True)
        raise


def _notes(folder: Path) -> dict[Path, bytes]:
    return {path: _content(path) for path in folder.glob(f"*{ENDING}")}


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # its shard has just ended
        return b""


def _read(path: Path) -> dict[str, Any] | None:
    """The note; None where there is none, or none that can be read."""
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return note if isinstance(note, dict) and {"at", "deaths", "suspects", "strikes"} <= note.keys() else None
