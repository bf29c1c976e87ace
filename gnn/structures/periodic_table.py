"""How alike two elements are by their places in the periodic table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

LAST_OF_PERIOD = (2, 10, 18, 36, 54, 86, 118)
"""Atomic numbers of the noble gases."""
GROUPS = 18
S_GROUPS = 2
F_GROUP = 3
"""Where lanthanides and actinides stand, all of them."""
HELIUM = 2
ALIKE = (1.0, 2.0)
"""Periods and groups over which elements become unlike."""
OWN = 0.3
"""Variance of what an element has for itself, beside that of what it shares with its neighbours."""


def place(number: int) -> tuple[int, int]:
    """Period and group of an atomic number; lanthanides and actinides are of group 3."""
    period = next(k for k, last in enumerate(LAST_OF_PERIOD, start=1) if number <= last)
    first, last = (LAST_OF_PERIOD[period - 2] + 1 if period > 1 else 1), LAST_OF_PERIOD[period - 1]
    if number - first < S_GROUPS and number != HELIUM:
        return period, number - first + 1
    return period, max(GROUPS - (last - number), F_GROUP)


def likeness(elements: Sequence[str]) -> NDArray[np.float64]:
    """Correlations (Z, Z) of properties that elements near each other in the table have alike; positive definite.

    k(a, b) = (exp(-½ Δperiod²/1² - ½ Δgroup²/2²) + ν δ_ab) / (1 + ν), ν = 0.3: a Gaussian over places, and what each
    element has for itself. Its widths decide little (docs/decisions/0025-elements-alike.md).
    """
    places = np.array([place(atomic_numbers[element]) for element in elements], dtype=np.float64).reshape(-1, 2)
    apart = (places[:, None] - places[None]) / np.array(ALIKE)
    shared: NDArray[np.float64] = np.exp(-0.5 * np.square(apart).sum(-1))
    return (shared + OWN * np.eye(len(places))) / (1 + OWN)
