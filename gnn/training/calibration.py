"""From a committee's spread to an expected error."""

from __future__ import annotations

import numpy as np

from gnn.training.checkpoint import Calibration
from gnn.training.evaluation import Parity

FEWEST = 10
LARGEST_SCALE = 1e3


def calibrate(parity: Parity) -> Calibration | None:
    """The factor s that makes errors of the mean normal with deviation s · spread: s² = mean(error² / spread²).

    The maximum-likelihood scale of Gaussian uncertainties (Levi et al., Sensors 22, 5540 (2022), "std scaling"). None
    with fewer than ten structures or a spread that vanishes.
    """
    spread = parity.energy_std
    usable = spread > 1e-9
    if int(usable.sum()) < FEWEST:
        return None
    error = (parity.energy_predicted - parity.energy_label)[usable]
    scale = float(np.sqrt(np.mean(np.square(error / spread[usable]))))
    return Calibration(energy_scale=min(max(scale, 1.0 / LARGEST_SCALE), LARGEST_SCALE), n=int(usable.sum()))
