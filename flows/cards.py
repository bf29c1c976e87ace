"""Which card a data set is read with, and where cards lie."""

from __future__ import annotations

from pathlib import Path

from flows.settings import Home
from gnn.errors import InputError
from gnn.lake import Lake
from gnn.lake.reference import NAME, check_name
from gnn.structures.cards import AUTO, Card, generic_card, known_cards, load_card
from gnn.structures.readers import UnreadableFile, read_records
from gnn.structures.readers.opening import bare_name
from gnn.structures.readers.sources import expand

SHIPPED = Path(__file__).resolve().parents[1] / "datasets" / "cards"
"""Cards that come with the repository."""


def card_folders(home: Home) -> list[Path]:
    """Where cards are looked for: the user's own first."""
    return [home.cards, SHIPPED]


def card_for(dataset: str, home: Home, card: str | None, theory: str | None) -> Card:
    """The card that `sluice ingest` reads with; see `flows.ingest.ingest`. `card` may name a data set of the lake, too.

    Raises:
        InputError: there is no such card, or it contradicts `theory`.
    """
    return _chosen(dataset, home, card).with_theory(theory)


def _chosen(dataset: str, home: Home, card: str | None) -> Card:
    if card == AUTO:
        return generic_card(dataset)
    lake = Lake(home.lake)
    if card is not None:
        of_a_set = card not in known_cards(card_folders(home)) and NAME.fullmatch(card) and lake.has(card)
        return lake.card(card) if of_a_set else load_card(card, card_folders(home))
    if dataset in known_cards(card_folders(home)):
        return load_card(dataset, card_folders(home))
    if lake.has(dataset):
        return lake.card(dataset)
    return generic_card(dataset)


def check_input(files: list[str], dataset: str, home: Home, card: str | None, theory: str | None) -> None:
    """Read the first row of each kind of file, so that a mistake is told before anything is started.

    A kind that cannot be read costs its files and not the others.

    Raises:
        InputError: what `flows.ingest.ingest` would raise.
    """
    check_name(dataset)
    chosen = card_for(dataset, home, card, theory)
    kinds = {kind_of(path): path for path in reversed(expand(files))}
    found = [first_error(path, chosen) for path in kinds.values()]
    lacking = [error for error in found if error is not None and not isinstance(error, UnreadableFile)]
    if lacking and None not in found:
        raise lacking[0]


def first_error(path: Path, card: Card) -> InputError | None:
    """What keeps the first row of a file from being read."""
    try:
        next(read_records(path, card), None)
    except InputError as error:
        return error
    return None


def kind_of(path: Path) -> tuple[str, str]:
    """What files share that are read alike."""
    return path.suffix, bare_name(path).rpartition(".")[2]
