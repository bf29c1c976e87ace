"""Files of candidates that a campaign names, with those in its folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gnn.errors import InputError
from gnn.screening.campaign import CampaignSpec
from gnn.structures.readers.sources import expand, printable


def candidate_files(spec: CampaignSpec) -> dict[str, Path]:
    """Files to read by the name that sources give them; of a folder, what `sluice ingest` would read of it.

    Raises:
        InputError: naming the first that is not there, or one that is listed twice, or a folder without data.
    """
    found: dict[str, Path] = {}
    seen: set[Path] = set()
    for listed in spec.candidates.files:
        files = dict(_files(spec.path(listed), listed))
        for name, path in files.items():
            if path.resolve() in seen:
                raise InputError(f"candidates.files: {name} is listed twice")
        seen |= {path.resolve() for path in files.values()}
        found |= files
    return found


def _files(path: Path, listed: str) -> Iterator[tuple[str, Path]]:
    if not path.exists():
        raise InputError(f"candidates.files: there is no {path}; paths are relative to the campaign file")
    if not path.is_dir():
        yield listed, path
        return
    try:
        inside = expand([path])
    except InputError as error:
        raise InputError(f"candidates.files: {error}") from None
    for file in inside:
        yield printable((Path(listed) / file.relative_to(path)).as_posix()), file
