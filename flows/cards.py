"""Which card a data set is read with, and where cards lie."""

from __future__ import annotations

from pathlib import Path

from flows.settings import Home
from gnn.lake import Lake
from gnn.structures.cards import AUTO, Card, generic_card, known_cards, load_card

SHIPPED = Path(__file__).resolve().parents[1] / "datasets" / "cards"
"""Cards that come with the repository."""


def card_folders(home: Home) -> list[Path]:
    """Where cards are looked for: the user's own first."""
    return [home.cards, SHIPPED]


def card_for(dataset: str, home: Home, card: str | None, theory: str | None) -> Card:
    """The card that `sluice ingest` reads with; see `flows.ingest.ingest`.

    Raises:
        InputError: there is no such card, or it contradicts `theory`.
    """
    return _chosen(dataset, home, card).with_theory(theory)


def _chosen(dataset: str, home: Home, card: str | None) -> Card:
    if card == AUTO:
        return generic_card(dataset)
    if card is not None:
        return load_card(card, card_folders(home))
    if dataset in known_cards(card_folders(home)):
        return load_card(dataset, card_folders(home))
    lake = Lake(home.lake)
    if lake.has(dataset):
        return lake.card(dataset)
    return generic_card(dataset)
