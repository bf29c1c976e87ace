"""Which shards of a campaign a rerun computes: those that failed, or some of them by number or by error."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from flows.campaigns import CampaignFolder
from flows.shards import ShardOutcome
from gnn.errors import InputError
from gnn.screening.preparation import number_planned
from gnn.screening.reopen import reopen, set_aside
from gnn.screening.shard import read_manifest

UNFINISHED = "not finished: its process ended"


@dataclass(frozen=True)
class Choice:
    """What to compute again. shards: spans of numbers, None for all; error: what their error must match, None for any.

    Structures that were set aside in finished shards are taken along where shards or an error are named.
    """

    shards: tuple[range, ...] | None = None
    error: re.Pattern[str] | None = None

    def takes(self, index: int, error: str) -> bool:
        """Whether a failed shard, or a structure of it, is meant."""
        is_wanted = self.shards is None or any(index in span for span in self.shards)
        return is_wanted and (self.error is None or bool(self.error.search(error)))


def parse_choice(shards: str | None, error: str | None) -> Choice | None:
    """The choice of `--shards 3,7-9` and `--error REGEX`; None where neither is given.

    Raises:
        InputError: a number or the expression cannot be read.
    """
    if shards is None and error is None:
        return None
    try:
        pattern = None if error is None else re.compile(error)
    except re.error as problem:
        raise InputError(f"--error {error!r} is no regular expression: {problem}") from None
    return Choice(None if shards is None else _spans(shards), pattern)


def _spans(text: str) -> tuple[range, ...]:
    return tuple(_span(part, text) for part in text.split(","))


def _span(part: str, text: str) -> range:
    match = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part)
    if match is None:
        raise InputError(f"--shards {text!r}: {part.strip()!r} is no number or range; write 3,7 or 3-9")
    first, last = int(match[1]), int(match[2] or match[1])
    if first > last:
        raise InputError(f"--shards {text!r}: {part.strip()!r} ends before it begins; write {last}-{first}")
    return range(first, last + 1)


def failed_shards(folder: CampaignFolder) -> dict[int, str]:
    """Shards that are not finished, with the reason; empty before the campaign is cut."""
    manifest = folder.manifest()
    told = {} if manifest is None else manifest.shard_errors
    return {
        index: told.get(str(index), UNFINISHED)
        for index in range(number_planned(folder.shards))
        if read_manifest(folder.shards, index) is None
    }


def chosen_shards(folder: CampaignFolder, choice: Choice) -> list[int]:
    """Shards to compute again: those that failed, and finished ones in which structures were set aside.

    Raises:
        InputError: a number is no shard's, or nothing that failed fits the choice.
    """
    total = number_planned(folder.shards)
    if strangers := [max(span.start, total) for span in choice.shards or () if span.stop > total]:
        raise InputError(f"campaign {folder.name} has no shard {min(strangers)}; it has {total}, from 0")
    failed = failed_shards(folder)
    chosen = [index for index, error in failed.items() if choice.takes(index, error)]
    chosen += [index for index in range(total) if index not in failed and _meant(folder, index, choice)]
    if not chosen:
        told = "; ".join(f"{index} ({error})" for index, error in list(failed.items())[:3]) or "none"
        raise InputError(f"campaign {folder.name}: nothing that failed fits; failed shards: {told}")
    return sorted(chosen)


def open_chosen(folder: CampaignFolder, choice: Choice) -> list[int]:
    """The chosen shards, the finished ones of them opened for the structures that were set aside."""
    chosen = chosen_shards(folder, choice)
    for index in chosen:
        if meant := _meant(folder, index, choice):
            reopen(folder.shards, index, meant)
    return chosen


def _meant(folder: CampaignFolder, index: int, choice: Choice) -> set[str]:
    """Structures set aside in a finished shard that are to be computed again."""
    rows = set_aside(folder.shards, index)
    return {row["candidate_id"] for row in rows if choice.takes(index, str(row["reason"]))}


def left_alone(folder: CampaignFolder, indices: Sequence[int], chosen: Collection[int]) -> list[ShardOutcome]:
    """How the shards that are not computed stand: finished, or failed as before."""
    failed = failed_shards(folder)
    outcomes = []
    for index in indices:
        if index in chosen:
            continue
        if index in failed:
            outcomes.append(ShardOutcome(index, None, failed[index], cached=False))
        else:
            manifest = read_manifest(folder.shards, index)
            content = None if manifest is None else manifest.model_dump(mode="json")
            outcomes.append(ShardOutcome(index, content, None, cached=True))
    return outcomes
