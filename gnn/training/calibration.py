"""From a committee's spread to an expected error."""

from __future__ import annotations

import numpy as np

from gnn.training.checkpoint import Calibration
from gnn.training.evaluation import Parity

FEWEST = 10
LARGEST_SCALE = 1e3


def calibrate(parity: Parity) -> Calibration | None:
    """The factor s that makes the spread as large as the error on average: s² = mean(error²) / mean(spread²).

    Moments are matched rather than the likelihood of each error: over the spread of M members an error is distributed
    as Student's t with M - 1 degrees of freedom, whose mean square is infinite for two and three members, so one pair
    of members that agree by chance would decide the factor. None with fewer than ten structures or no spread at all.
    """
    spread = parity.energy_std
    usable = spread > 1e-9
    if int(usable.sum()) < FEWEST:
        return None
    error = (parity.energy_predicted - parity.energy_label)[usable]
    scale = float(np.sqrt(np.mean(np.square(error)) / np.mean(np.square(spread[usable]))))
    return Calibration(energy_scale=min(max(scale, 1.0 / LARGEST_SCALE), LARGEST_SCALE), n=int(usable.sum()))
