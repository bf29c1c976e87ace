"""The orchestration of Sluice: Prefect flows, Dask clusters, the MLflow registry and the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from gnn.potentials.load import CheckpointPotential


def load(
    model: str, theory: str | None = None, device: str = "cpu", dtype: Literal["float32", "float64"] = "float32"
) -> CheckpointPotential:
    """Give a model as a potential.

    An ASE calculator is `load("models:/alloys@champion").calculator()`. `model` is a checkpoint folder, a `models:/`
    URI or a registered name (its champion). `theory` is needed where the model knows several.

    Raises:
        InputError: there is no such model or theory; the message lists what there is.
    """
    from flows.registry import resolve
    from flows.settings import find_home
    from gnn.potentials.load import load as load_checkpoint

    return load_checkpoint(resolve(model, find_home()), theory=theory, device=device, dtype=dtype)
