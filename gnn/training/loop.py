"""The training loop: resumable at any moment, repeatable bit for bit where the budget is counted in epochs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from gnn.errors import InputError, SluiceError
from gnn.files import locked
from gnn.graphs.batch import Batch
from gnn.graphs.graph_set import Split
from gnn.models.device import device_of
from gnn.models.model import Model, build_model
from gnn.training import state as disk
from gnn.training.config import TrainConfig
from gnn.training.data import TrainingData
from gnn.training.ema import Ema, copy_weights
from gnn.training.evaluation import Accumulator
from gnn.training.losses import loss_terms, total_loss
from gnn.training.optimiser import make_budget, make_optimiser
from gnn.training.resolve import Recipe
from gnn.training.schedule import Budget, Position, learning_rate_factor
from gnn.training.state import EpochRecord, TrainState
from gnn.training.tracker import NullTracker, Tracker

VALIDATION_SHARE = 0.08
"""Part of a training's time that validation may take."""
EVALUATION_COST = 0.5
"""Cost of evaluating a structure against training on it: a forward and one backward pass instead of two."""


@dataclass(frozen=True)
class Progress:
    """What a progress bar shows."""

    epoch: int
    step: int
    progress: float
    elapsed_s: float
    lr: float
    train: dict[str, float]
    valid: dict[str, float]


@dataclass(frozen=True)
class TrainOutcome:
    """A finished training; `model` holds the best averaged weights, on the CPU."""

    model: Model
    epochs: int
    steps: int
    structures: int
    bad_steps: int
    elapsed_s: float
    cpu_s: float
    best_epoch: int | None
    metrics: dict[str, float]
    curve: list[EpochRecord]
    reused: bool


def train(
    recipe: Recipe,
    data: TrainingData,
    run_folder: Path,
    tracker: Tracker | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> TrainOutcome:
    """Train one network until its budget is used; continue what `run_folder` holds; do nothing where it is finished.

    Raises:
        InputError: the folder holds another training, or there is nothing to train on.
        SluiceError: the loss was not finite too often, or the folder is in use.
    """
    if data.graph_set.split_counts.get("train", 0) == 0:
        raise InputError(f"graph set {data.graph_set.graph_set_id[:16]} has no training structures")
    with locked(run_folder / "lock", f"training {run_folder.name}"):
        return Trainer(recipe, data, run_folder, tracker or NullTracker(), progress).run()


class Trainer:
    """One training: a network, its optimiser, its average, and where it stands."""

    def __init__(
        self,
        recipe: Recipe,
        data: TrainingData,
        run_folder: Path,
        tracker: Tracker,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.recipe = recipe
        self.config: TrainConfig = recipe.config
        self.data = data
        self.folder = run_folder
        self.tracker = tracker
        self.report = progress
        self.device = device_of(self.config.device)
        self.model = self._new_model()
        self.parameters = dict(self.model.named_parameters())
        self.optimiser = make_optimiser(self.model, self.config, recipe.lr)
        self.ema = Ema(self.model, self.config.ema.decay)
        self.best = {name: value.clone() for name, value in self.ema.weights.items()}
        self.state = TrainState(header=recipe.header)
        self.budget: Budget = make_budget(self.config, data.graph_set.split_counts["train"])

    def _new_model(self) -> Model:
        model = build_model(self.recipe.model, seed=self.config.seed)
        if self.recipe.initial_weights is not None:
            copy_weights(model, self.recipe.initial_weights(model))
        return model.to(device=self.device, dtype=getattr(torch, self.config.dtype))

    # ---- the course of a run

    def run(self) -> TrainOutcome:
        """Load what there is, train what is left; the caller's random numbers are not touched."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            return self._run()

    def _run(self) -> TrainOutcome:
        found = disk.load_state(self.folder, self.recipe.header)
        if found is not None:
            self._restore(*found)
        if self.state.finished:
            return self._outcome(reused=True)
        self.state.resumes += found is not None
        self._start_clocks()
        while self.progress < 1.0:
            self._epoch()
        self._finish()
        return self._outcome(reused=False)

    def _epoch(self) -> None:
        """The rest of the current epoch, unless the budget ends before it does."""
        self.model.train()
        for batch in self._batches():
            self._step(batch)
            self._tick()
            if self.progress >= 1.0 and self.config.minutes is not None:
                return
            self._validate_when_due()
            self._save_when_due()
        self._end_epoch()

    def _batches(self) -> Iterator[Batch]:
        state, limits = self.state, self.config.batch
        return self.data.batches(
            "train",
            max_atoms=self.recipe.max_atoms,
            max_edges=limits.max_edges,
            seed=self.config.seed,
            epoch=state.epoch,
            shuffle=True,
            dtype=getattr(torch, self.config.dtype),
            start=state.batch,
        )

    def _step(self, batch: Batch) -> None:
        batch = batch.to(self.device)
        losses = self._descend(batch)
        state = self.state
        state.batch += 1
        state.seen += batch.n_structures
        state.structures += batch.n_structures
        for name, value in losses.items():
            state.sums[name] = state.sums.get(name, 0.0) + value
            state.counts[name] = state.counts.get(name, 0) + 1
        if self.report is not None:
            self.report(self._progress_now())

    def _descend(self, batch: Batch) -> dict[str, float]:
        """One optimiser step; the loss and its terms. A step with a non-finite loss or gradient is skipped."""
        wanted = self.recipe.wanted
        prediction = self.model.predict(batch, forces=wanted.forces, stress=wanted.stress, training=True)
        terms = loss_terms(prediction, batch, self.config.losses, self.recipe.scales)
        if not terms:
            return {}
        loss = total_loss(terms, self.config.losses, self.progress)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), self.config.optimiser.clip)
        if not bool(torch.isfinite(loss) & torch.isfinite(norm)):
            self._count_bad_step()
            return {}
        self._set_lr()
        self.optimiser.step()
        self.state.step += 1
        self.state.consecutive_bad = 0
        self.ema.update(self.model, self.state.step)
        return {"loss": float(loss.detach()), **{name: float(value.detach()) for name, value in terms.items()}}

    def _count_bad_step(self) -> None:
        state = self.state
        state.bad_steps += 1
        self.state.consecutive_bad += 1
        if state.bad_steps > self.config.max_bad_steps or self.state.consecutive_bad >= 5:
            raise SluiceError(
                f"the loss was not finite {state.bad_steps} times (epoch {state.epoch}, step {state.step}); "
                f"lower optimiser.lr (now {self.recipe.lr:g}) or look for wrong labels with `sluice lake show`"
            )

    def _set_lr(self) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = self.lr

    # ---- where it stands

    @property
    def progress(self) -> float:
        """Part of the budget that is used."""
        state = self.state
        position = Position(state.epoch, state.seen, state.elapsed_s, state.validation_s)
        return self.budget.progress(position)

    @property
    def lr(self) -> float:
        """The learning rate now."""
        return self.recipe.lr * learning_rate_factor(self.progress, self.config.schedule)

    def _progress_now(self) -> Progress:
        state = self.state
        valid = state.curve[-1].valid if state.curve else {}
        return Progress(state.epoch, state.step, self.progress, state.elapsed_s, self.lr, self._means(), valid)

    def _means(self) -> dict[str, float]:
        return {name: total / self.state.counts[name] for name, total in self.state.sums.items()}

    def _start_clocks(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()
        self._saved_at = self._wall
        self._validated_at = self.state.elapsed_s

    def _tick(self) -> None:
        wall, cpu = time.monotonic(), time.process_time()
        self.state.elapsed_s += wall - self._wall
        self.state.cpu_s += cpu - self._cpu
        self._wall, self._cpu = wall, cpu

    # ---- validation

    def _validate_when_due(self) -> None:
        """Inside an epoch, only where the budget is time and validation has become cheap against what has passed."""
        if self.config.minutes is None:
            return
        since = self.state.elapsed_s - self._validated_at
        if since > max(self.state.validation_s / VALIDATION_SHARE, 0.02 * 60 * self.config.minutes):
            self._record(self._validate())

    def _epoch_is_validated(self) -> bool:
        """Every epoch, or every so many that validation stays within its share; depends on counts alone."""
        if self.config.minutes is not None:
            return False
        counts = self.data.graph_set.split_counts
        ratio = EVALUATION_COST * counts.get("valid", 0) / counts["train"]
        return self.state.epoch % max(1, math.ceil(ratio / VALIDATION_SHARE)) == 0

    def _validate(self) -> dict[str, float]:
        """Errors of the averaged weights on the validation split; keeps them if they are the best so far."""
        if self.data.graph_set.split_counts.get("valid", 0) == 0:
            self._keep_best(None, {})
            return {}
        started = time.monotonic()
        self.model.eval()
        with self.ema.applied(self.model):
            metrics = self._evaluate("valid")
        self.model.train()
        self._keep_best(validation_score(metrics), metrics)
        self.state.validation_s = time.monotonic() - started
        self._tick()
        self._validated_at = self.state.elapsed_s
        return metrics

    def _evaluate(self, split: Split) -> dict[str, float]:
        accumulator = Accumulator(self.recipe.model.theories, self.recipe.model.properties)
        for batch in self.data.batches(
            split,
            max_atoms=self.recipe.max_atoms * self.config.batch.valid_factor,
            max_edges=None,
            seed=0,
            epoch=0,
            shuffle=False,
            dtype=getattr(torch, self.config.dtype),
        ):
            on_device = batch.to(self.device)
            wanted = self.recipe.wanted
            accumulator.add(on_device, self.model.predict(on_device, forces=wanted.forces, stress=wanted.stress))
        return accumulator.result().headline()

    def _keep_best(self, score: float | None, metrics: dict[str, float]) -> None:
        state = self.state
        if score is None or state.best_score is None or score <= state.best_score:
            self.best = {name: value.clone() for name, value in self.ema.weights.items()}
            state.best_score, state.best_epoch, state.best_metrics = score, state.epoch, metrics

    def _record(self, valid: dict[str, float]) -> None:
        """Add a point to the curves and begin new sums."""
        state = self.state
        record = EpochRecord(
            epoch=state.epoch,
            step=state.step,
            elapsed_s=state.elapsed_s,
            progress=self.progress,
            train=self._means(),
            valid=valid,
            lr=self.lr,
        )
        state.curve.append(record)
        state.sums, state.counts = {}, {}
        self.tracker.metrics(curve_point(record), record.step)

    def _end_epoch(self) -> None:
        self.state.epoch, self.state.seen, self.state.batch = self.state.epoch + 1, 0, 0
        if self._epoch_is_validated():
            self._record(self._validate())
        self._save_when_due()

    # ---- disk

    def _save_when_due(self) -> None:
        if time.monotonic() - self._saved_at >= self.config.checkpoint_s:
            self._save()

    def _save(self) -> None:
        self._tick()
        disk.save_state(self.folder, self.state, self._tensors())
        self._saved_at = time.monotonic()

    def _tensors(self) -> dict[str, Tensor]:
        names = {id(parameter): name for name, parameter in self.parameters.items()}
        return {
            **disk.prefixed("weights", self.parameters),
            **disk.prefixed("ema", self.ema.weights),
            **disk.prefixed("best", self.best),
            **disk.prefixed("optimiser", disk.optimiser_tensors(self.optimiser, names)),
            "rng": torch.get_rng_state(),
        }

    def _restore(self, state: TrainState, tensors: dict[str, Tensor]) -> None:
        copy_weights(self.model, disk.section("weights", tensors))
        self.ema.weights = {name: value.to(self.device) for name, value in disk.section("ema", tensors).items()}
        self.best = {name: value.to(self.device) for name, value in disk.section("best", tensors).items()}
        disk.restore_optimiser(self.optimiser, self.parameters, disk.section("optimiser", tensors))
        torch.set_rng_state(tensors["rng"])
        self.state = state

    def _finish(self) -> None:
        last_is_validated = bool(self.state.curve) and self.state.curve[-1].step == self.state.step
        if not last_is_validated:
            self._record(self._validate())
        self.state.finished = True
        self._save()

    def _outcome(self, reused: bool) -> TrainOutcome:
        copy_weights(self.model, self.best)
        state = self.state
        return TrainOutcome(
            model=self.model.to("cpu").eval(),
            epochs=state.epoch,
            steps=state.step,
            structures=state.structures,
            bad_steps=state.bad_steps,
            elapsed_s=state.elapsed_s,
            cpu_s=state.cpu_s,
            best_epoch=state.best_epoch,
            metrics=state.best_metrics,
            curve=state.curve,
            reused=reused,
        )


def validation_score(metrics: dict[str, float]) -> float:
    """Mean logarithm of the mean absolute errors of what is trained: no weights, no units; lower is better."""
    errors = [value for name, value in metrics.items() if name.rsplit("/", 1)[-1].find("mae") >= 0]
    return sum(math.log(max(value, 1e-12)) for value in errors) / max(1, len(errors))


def curve_point(record: EpochRecord) -> dict[str, float]:
    """A record as names of curves."""
    return {
        **{f"train/{name}": value for name, value in record.train.items()},
        **{f"valid/{name}": value for name, value in record.valid.items()},
        "lr": record.lr,
        "epoch": float(record.epoch),
        "elapsed_s": record.elapsed_s,
    }
