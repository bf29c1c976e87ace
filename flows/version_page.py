"""The page of a version in MLflow: the model card and the gate's word as its description, metrics, plots, cost."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from flows.tracking import BATCH_OF_METRICS, clean_name

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from flows.registry import RegisteredModel
    from flows.suites import Suite
    from gnn.training.evaluation import Evaluation
    from gnn.training.promotion import SuiteErrors

LONGEST = 4900
"""Characters of a description; databases keep 5000."""
LEAST_CARD = 400
"""Characters of it that the card has at least, before the pictures."""
PLOT_FOLDER = "plots"
CARD_NAME, MANIFEST_NAME = "README.md", "model.json"
MOST_GROUPS = 20
"""Theories and elements in the table of a description."""
COSTS = ("cpu_s", "wall_s", "peak_memory_mb")


def log_measurement(client: MlflowClient, model: RegisteredModel, suite: Suite, evaluation: Evaluation) -> None:
    """Errors on a suite as metrics of the run and of its logged model, and parity plots of both."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    kept = [
        Metric(clean_name(f"suite/{name}"), value, now, 0, model_id=model.model_id, run_id=model.run_id,
               dataset_name=f"suite {suite.manifest.name}", dataset_digest=suite.manifest.digest[:36])
        for name, value in numbers(evaluation)
    ]  # fmt: skip
    for start in range(0, len(kept) if model.run_id else 0, BATCH_OF_METRICS):
        client.log_batch(model.run_id, metrics=kept[start : start + BATCH_OF_METRICS])
    with tempfile.TemporaryDirectory() as folder:
        keep_plots(client, model, evaluation, Path(folder))


def keep_plots(client: MlflowClient, model: RegisteredModel, evaluation: Evaluation, folder: Path) -> None:
    """Draw the parity plots and keep them with the run and with the logged model."""
    from flows.plots import parity_plot

    for path in parity_plot(evaluation.parity, folder, "suite"):
        if model.run_id is not None:
            client.log_artifact(model.run_id, str(path), PLOT_FOLDER)
        if model.model_id is not None:
            client.log_model_artifact(model.model_id, str(path), PLOT_FOLDER)


def numbers(evaluation: Evaluation) -> Iterator[tuple[str, float]]:
    """Every error by name: of the whole, of each theory, of each element."""
    yield from evaluation.headline().items()
    metrics = evaluation.metrics
    for kind, groups in (("theory", metrics.by_theory), ("element", metrics.by_element)):
        for group, found in groups.items():
            for name, value in found.model_dump(exclude_none=True).items():
                yield f"{kind}/{group}/{name}", float(value)


def describe_version(
    client: MlflowClient, model: RegisteredModel, folder: Path, verdict: str, errors: SuiteErrors | None
) -> None:
    """Write the version's description, and its cost as tags; `folder` holds its checkpoint."""
    manifest = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    for name in COSTS:
        if name in manifest["cost"]:
            client.set_model_version_tag(model.name, model.version, f"cost.{name}", f"{manifest['cost'][name]:g}")
    plots = [] if errors is None or model.run_id is None else plot_names(client, model.run_id)
    card = (folder / CARD_NAME).read_text(encoding="utf-8")
    table = "" if errors is None else error_table(errors)
    text = description(card, verdict, table, [plot_address(str(model.run_id), name) for name in plots])
    client.update_model_version(model.name, model.version, text)


def error_table(errors: SuiteErrors) -> str:
    """Errors on the suite as a Markdown table: the whole, then theories and elements, the largest groups first."""
    largest = sorted(errors.groups, key=lambda name: (name.startswith("element"), -errors.group_sizes.get(name, 0)))
    rows = {f"suite `{errors.suite[:12]}`": (errors.n_structures, errors.errors)}
    rows |= {name: (errors.group_sizes.get(name, 0), errors.groups[name]) for name in largest[:MOST_GROUPS]}
    lines = [f"| | structures | {' | '.join(errors.errors)} |", "| --- " * (len(errors.errors) + 2) + "|"]
    for name, (count, found) in rows.items():
        cells = [f"{found[quantity]:.4g}" if quantity in found else "" for quantity in errors.errors]
        lines.append(f"| {name} | {count} | {' | '.join(cells)} |")
    if (left := len(largest) - MOST_GROUPS) > 0:
        lines.append(f"\n{left} more elements are among the metrics of the run.")
    return "\n".join(lines)


def plot_names(client: MlflowClient, run_id: str) -> list[str]:
    """Paths of the suite's parity plots among a run's artifacts."""
    return [item.path for item in client.list_artifacts(run_id, PLOT_FOLDER) if item.path.endswith(".png")]


def plot_address(run_id: str, path: str) -> str:
    """Where an MLflow server shows an artifact of a run; relative to the server."""
    return f"get-artifact?{urlencode({'path': path, 'run_uuid': run_id})}"


def description(card: str, verdict: str, table: str, plots: list[str]) -> str:
    """The gate's word, the errors, the model card and the plots, as Markdown that a database can hold."""
    before = "\n\n".join(part for part in (f"**Gate:** {verdict}.", table) if part)
    if len(before) > LONGEST:
        return before[:LONGEST].rsplit("\n", 1)[0]
    pictures = " ".join(f"![parity on the suite]({address})" for address in plots)
    if len(before) + len(pictures) + LEAST_CARD > LONGEST:
        pictures = ""
    room = LONGEST - len(before) - len(pictures) - 4
    return "\n\n".join(part for part in (before, shortened(card.strip(), room), pictures) if part)


def shortened(card: str, room: int) -> str:
    """The card, cut at a line where it is longer than `room`."""
    if len(card) <= room:
        return card
    note = f"\n\n… the rest is in `{CARD_NAME}` among the artifacts."
    return card[: room - len(note)].rsplit("\n", 1)[0] + note if room > len(note) else ""
