"""The training loop: resumable at any moment, repeatable bit for bit where the budget is counted in epochs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from gnn.errors import InputError, SluiceError
from gnn.files import locked
from gnn.graphs.batch import Batch
from gnn.graphs.graph_set import Split
from gnn.models.device import device_name, device_of
from gnn.models.model import Model, Prediction, build_model
from gnn.training import state as disk
from gnn.training.clipping import clip_gradients, running_norm
from gnn.training.config import TrainConfig
from gnn.training.data import TrainingData
from gnn.training.ema import Ema, copy_weights
from gnn.training.evaluation import Accumulator
from gnn.training.losses import label_masks
from gnn.training.optimiser import make_budget, make_optimiser
from gnn.training.outcome import Progress, TrainOutcome
from gnn.training.parallel import Alone, Replicas, add_up_gradients, replicas
from gnn.training.resolve import Recipe
from gnn.training.schedule import CLOCKS, Budget, Position, learning_rate_factor
from gnn.training.selection import last_is_kept, least_errors, untrained_errors, validation_score
from gnn.training.state import EpochRecord, TrainState
from gnn.training.step import Step, make_step
from gnn.training.tracker import NullTracker, Tracker

VALIDATION_SHARE = 0.08
"""Part of a training's time that validation may take."""
EVALUATION_COST = 0.5
"""Cost of evaluating a structure against training on it: a forward and one backward pass instead of two."""


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
    with replicas(recipe.config.device) as (processes, device):
        if not processes.leads:
            return Trainer(recipe, data, run_folder, NullTracker(), None, processes, device).run()
        with locked(run_folder / "lock", f"training {run_folder.name}"):
            return Trainer(recipe, data, run_folder, tracker or NullTracker(), progress, processes, device).run()


class Trainer:
    """One training: a network, its optimiser, its average, and where it stands."""

    def __init__(
        self,
        recipe: Recipe,
        data: TrainingData,
        run_folder: Path,
        tracker: Tracker,
        progress: Callable[[Progress], None] | None,
        processes: Replicas | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.recipe = recipe
        self.config: TrainConfig = recipe.config
        self.data = data
        self.folder = run_folder
        self.tracker = tracker
        self.report = progress
        self.processes: Replicas = processes or Alone()
        self.device = device or device_of(self.config.device)
        self.model = self._new_model()
        self.parameters = dict(self.model.named_parameters())
        self.optimiser = make_optimiser(self.model, self.config, recipe.lr)
        self.ema = Ema(self.model, self.config.ema.decay)
        self.best = {name: value.clone() for name, value in self.ema.weights.items()}
        self.state = TrainState(header=recipe.header)
        self.differentiate: Step = make_step(self.model, self.config, recipe.scales, recipe.wanted)
        self.clock = CLOCKS[self.config.clock]
        self.budget: Budget = make_budget(self.config, data.graph_set.pass_size)

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
        if self.processes.size != self.config.devices:
            raise InputError(f"devices = {self.config.devices}, but {self.processes.size} process(es) were started")
        self.state.resumes += found is not None
        self._note_device()
        self._start_clocks()
        if self.recipe.initial_weights is not None and self.state.step == 0:
            self._record(self._validate())
        while self.progress < 1.0:
            self._epoch()
        self._finish()
        return self._outcome(reused=False)

    def _note_device(self) -> None:
        if (name := device_name(self.device)) not in self.state.trained_on:
            self.state.trained_on.append(name)

    def _epoch(self) -> None:
        """The rest of the current epoch, unless the budget ends before it does."""
        self.model.train()
        batches = self._batches()
        was_compiled = self.differentiate.is_compiled
        while self.progress < 1.0 and self._step(next(batches, None)):
            self._tick(compiled_now=self.differentiate.is_compiled and not was_compiled)
            was_compiled = self.differentiate.is_compiled
            if self.progress < 1.0:  # a state that has used its budget would never end its epoch
                self._validate_when_due()
                self._save_when_due()
        if self.progress < 1.0 or self.config.epochs is not None:
            self._end_epoch()

    def _batches(self) -> Iterator[Batch]:
        """What is left of the epoch; where helpers leave within it, a part without them takes the place of the rest."""
        helped = self._helped
        for batch in self._planned(helped):
            yield batch
            if helped and not self._helped:  # asked after the step that the batch was for
                yield from self._planned(helped=False)
                return

    @property
    def _helped(self) -> bool:
        leave = self.config.schedule.helpers_leave
        return bool(self.data.graph_set.helpers) and (leave == 1 or self.progress < leave)

    def _planned(self, helped: bool) -> Iterator[Batch]:
        """The batches of the epoch from where it stands."""
        state, limits = self.state, self.config.batch
        return self.data.batches(
            "train",
            max_atoms=self.recipe.max_atoms,
            max_edges=limits.max_edges,
            seed=self.config.seed,
            epoch=state.epoch,
            shuffle=True,
            start=state.batch + self.processes.rank,
            stride=self.processes.size,
            helpers=helped,
        )

    def _step(self, batch: Batch | None) -> bool:
        """One step of all processes, some of which may have no batch left; False where none has."""
        n_batches, n_structures, counts = self._shared(batch)
        if n_batches == 0:
            return False
        losses = self._descend(None if batch is None else batch.to(self.device), counts)
        state = self.state
        state.batch += n_batches
        state.seen += n_structures
        state.structures += n_structures
        for name, value in losses.items():
            state.sums[name] = state.sums.get(name, 0.0) + value
            state.counts[name] = state.counts.get(name, 0) + 1
        if self.report is not None:
            self.report(self._progress_now())
        return True

    def _shared(self, batch: Batch | None) -> tuple[int, int, dict[str, float] | None]:
        """Batches, structures and labels of each term that all processes hold in this step; None: this one's alone."""
        if self.processes.size == 1:
            return (0, 0, None) if batch is None else (1, batch.n_structures, None)
        masks = {} if batch is None else label_masks(batch, self.recipe.wanted)
        names = ["energy", "forces", "stress", *(f"property_{name}" for name in sorted(self.recipe.model.properties))]
        own = [float(masks[name].sum()) if name in masks else 0.0 for name in names]
        present = [0.0, 0.0] if batch is None else [1.0, float(batch.n_structures)]
        n_batches, n_structures, *counts = self.processes.summed([*present, *own])
        return int(n_batches), int(n_structures), dict(zip(names, counts, strict=True))

    def _descend(self, batch: Batch | None, counts: dict[str, float] | None) -> dict[str, float]:
        """One optimiser step; the loss and its terms. A step with a non-finite loss or gradient is skipped."""
        self.optimiser.zero_grad()
        losses = {} if batch is None else self.differentiate(batch, self.progress, counts)
        if counts is not None:
            losses = self._added_up(losses, counts)
        if not losses:
            return {}
        state, largest = self.state, self.config.optimiser.clip
        norm = clip_gradients(self.parameters.values(), state.gradient_norm, largest)
        if not (math.isfinite(norm) and bool(torch.isfinite(losses["loss"]))):
            self._count_bad_step()
            return {}
        self.optimiser.step(self.lr)
        state.gradient_norm = running_norm(state.gradient_norm, norm, largest, state.step)
        state.step += 1
        state.consecutive_bad = 0
        self.ema.update(self.model, state.step)
        return {name: float(value) for name, value in losses.items()}

    def _added_up(self, losses: dict[str, Tensor], counts: dict[str, float]) -> dict[str, Tensor]:
        """The losses of all processes; the gradients of all take the place of this one's."""
        names = [name for name, count in counts.items() if count > 0]
        if not names:
            return {}
        zero = next(iter(self.parameters.values())).new_zeros(())
        whole = {name: losses.get(name, zero).to(zero.dtype).clone() for name in ["loss", *names]}
        add_up_gradients(self.processes, list(self.parameters.values()), list(whole.values()))
        return whole

    def _count_bad_step(self) -> None:
        state = self.state
        state.bad_steps += 1
        self.state.consecutive_bad += 1
        if state.bad_steps > self.config.max_bad_steps or self.state.consecutive_bad >= 5:
            raise SluiceError(
                f"the loss was not finite {state.bad_steps} times (epoch {state.epoch}, step {state.step}); "
                f"lower optimiser.lr (now {self.recipe.lr:g}) or look for wrong labels with `sluice lake show`"
            )

    # ---- where it stands

    @property
    def progress(self) -> float:
        """Part of the budget that is used."""
        state = self.state
        position = Position(state.epoch, state.seen, state.elapsed_s, state.validation_s, state.compiling_s)
        return self.budget.progress(position)

    @property
    def lr(self) -> float:
        """The learning rate now."""
        return self.recipe.lr * learning_rate_factor(self.progress, self.config.schedule)

    def _progress_now(self) -> Progress:
        state = self.state
        valid = state.curve[-1].valid if state.curve else {}
        learnt = state.elapsed_s - state.compiling_s
        return Progress(state.epoch, state.step, self.progress, learnt, self.lr, self._means(), valid)

    def _means(self) -> dict[str, float]:
        return {name: total / self.state.counts[name] for name, total in self.state.sums.items()}

    def _start_clocks(self) -> None:
        self._wall, self._cpu = self.clock(), time.process_time()
        self._saved_at = time.monotonic()
        self._validated_at = self.state.elapsed_s

    def _tick(self, compiled_now: bool = False) -> None:
        """Add the time since the last tick: wall time of the first process, CPU time of all."""
        wall, cpu = self.clock(), time.process_time()
        passed = wall - self._wall
        firsts = [self._firsts(passed), self._firsts(passed if compiled_now else 0.0)]
        elapsed, compiling, spent = self.processes.summed([*firsts, cpu - self._cpu])
        self.state.elapsed_s += elapsed
        self.state.compiling_s += compiling
        self.state.cpu_s += spent
        self._wall, self._cpu = wall, cpu

    def _firsts(self, value: float) -> float:
        """The value if this is the first process, else 0: summed over processes it is the first one's."""
        return value if self.processes.leads else 0.0

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
            self._validated_at = self.state.elapsed_s
            return {}
        if self.state.untaught_metrics is None:
            self.state.untaught_metrics = self._evaluate("valid", self.model.untaught)
        started = self.clock()
        self.model.eval()
        with self.ema.applied(self.model):
            metrics = self._evaluate("valid", self._predict)
        self.model.train()
        self._keep_best(self._score(metrics), metrics)
        (self.state.validation_s,) = self.processes.summed([self._firsts(self.clock() - started)])
        self._tick()
        self._validated_at = self.state.elapsed_s
        return metrics

    def _predict(self, batch: Batch) -> Prediction:
        wanted = self.recipe.wanted
        return self.model.predict(batch, forces=wanted.forces, stress=wanted.stress)

    def _evaluate(self, split: Split, predict: Callable[[Batch], Prediction]) -> dict[str, float]:
        accumulator = Accumulator(self.recipe.model.theories, self.recipe.model.properties)
        for batch in self.data.batches(
            split,
            max_atoms=self.recipe.max_atoms * self.config.batch.valid_factor,
            max_edges=self._valid_edges,
            shuffle=False,
            start=self.processes.rank,
            stride=self.processes.size,
        ):
            on_device = batch.to(self.device)
            accumulator.add(on_device, predict(on_device))
        accumulator.replace_totals(self.processes.summed(accumulator.totals()))
        return accumulator.result().headline()

    @property
    def _valid_edges(self) -> int | None:
        limits = self.config.batch
        return None if limits.max_edges is None else limits.max_edges * limits.valid_factor

    def _score(self, metrics: dict[str, float]) -> float:
        least, most = least_errors(self.recipe.scales.properties), self.state.untaught_metrics or {}
        return validation_score(metrics, untrained_errors(self.config.losses), least, most)

    def _keep_best(self, score: float | None, metrics: dict[str, float]) -> None:
        state = self.state
        if score is None or state.best_score is None or score <= state.best_score:
            self._keep(score, metrics)

    def _keep(self, score: float | None, metrics: dict[str, float]) -> None:
        state = self.state
        self.best = {name: value.clone() for name, value in self.ema.weights.items()}
        state.best_score, state.best_epoch, state.best_metrics = score, state.epoch, metrics

    def _prefer_last(self) -> None:
        """Keep the last weights unless earlier ones were clearly better."""
        last, best = self.state.curve[-1].valid, self.state.best_score
        n_valid = self.data.graph_set.independent("valid")
        if last and best is not None and last_is_kept(self._score(last), best, n_valid):
            self._keep(self._score(last), last)

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
        self.tracker.metrics(record.curves(), record.step)

    def _end_epoch(self) -> None:
        self.state.epoch, self.state.seen, self.state.batch = self.state.epoch + 1, 0, 0
        if self._epoch_is_validated():
            self._record(self._validate())
        self._save_when_due()

    # ---- disk

    def _save_when_due(self) -> None:
        if self.processes.leads and time.monotonic() - self._saved_at >= self.config.checkpoint_s:
            self._save()

    def _save(self) -> None:
        disk.save_state(self.folder, self.state, self._tensors())
        self._saved_at = time.monotonic()

    def _tensors(self) -> dict[str, Tensor]:
        return {
            **disk.prefixed("weights", self.parameters),
            **disk.prefixed("ema", self.ema.weights),
            **disk.prefixed("best", self.best),
            **disk.prefixed("optimiser", self.optimiser.tensors(self.parameters)),
            "rng": torch.get_rng_state(),
        }

    def _restore(self, state: TrainState, tensors: dict[str, Tensor]) -> None:
        copy_weights(self.model, disk.section("weights", tensors))
        self.ema.restore(disk.section("ema", tensors))
        self.best = {name: value.to(self.device) for name, value in disk.section("best", tensors).items()}
        self.optimiser.restore(self.parameters, disk.section("optimiser", tensors))
        torch.set_rng_state(tensors["rng"])
        self.state = state

    def _finish(self) -> None:
        last_is_validated = bool(self.state.curve) and self.state.curve[-1].step == self.state.step
        if not last_is_validated:
            self._record(self._validate())
        self._prefer_last()
        self._tick()
        self.state.finished = True
        if self.processes.leads:
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
            trained_on=tuple(state.trained_on),
        )
