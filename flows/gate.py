"""The registry as a gate: every version is measured on the frozen suite, and only a better one becomes champion."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flows import registry
from flows.events import announce_champion
from flows.learnt import n_learnt
from flows.registry import CHAMPION, FIRST, VERDICT, RegisteredModel
from flows.settings import Home
from flows.suites import Suite, evaluate_on, freeze, read_suite, suite_folder
from flows.tracking import connect
from gnn.errors import InputError, SluiceError
from gnn.files import locked, write_text
from gnn.training.promotion import Decision, SuiteErrors, decide, suite_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from gnn.training.evaluation import Evaluation

CHALLENGER = "challenger"
LOCK_TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class Verdict:
    """What became of a version: whether it is champion now, and why or why not."""

    version: str
    champion: bool
    reason: str


def challenge(
    model: RegisteredModel, checkpoint: Path, graph_folder: Path, home: Home, device: str = "auto"
) -> Verdict:
    """Measure a version that was just trained, make it the challenger, and the champion if the rule says so.

    The suite is frozen from the graph set's test split if the name has none. A version that was judged is judged once.

    Raises:
        InputError: the checkpoint or the suite cannot be read.
    """
    suite = freeze(model.name, graph_folder, home)
    with _judging(model.name, home):
        client = connect(home)
        page = VersionPage(client, model, checkpoint)
        if suite is None:
            return page.judged(Verdict(model.version, _is_champion(model), "no suite: the test split is empty"))
        if (known := page.verdict(suite)) is not None:
            return known
        page.measured(suite, measure(model, suite, home, device, checkpoint))
        client.set_registered_model_alias(model.name, CHALLENGER, model.version)
        return page.judged(judge(model, checkpoint, suite, home, device), suite)


@contextmanager
def _judging(name: str, home: Home) -> Iterator[None]:
    """One judgement at a time for each name."""
    with locked(suite_folder(name, home) / "gate.lock", f"the gate of {name}", LOCK_TIMEOUT_S):
        yield


def judge(
    model: RegisteredModel,
    checkpoint: Path,
    suite: Suite,
    home: Home,
    device: str = "auto",
) -> Verdict:
    """Let a measured version be champion if it beats the one there is, on structures that it has not learnt from."""
    champion = champion_of(model.name, home)
    if champion is None or champion.version == model.version:
        return crown(model, FIRST if model.version == "1" else "there is no other champion", home)
    if (unfair := partial_to(suite, checkpoint, home)) is not None:
        return Verdict(model.version, False, f"{unfair}, so its errors say nothing")
    decision = compare(model, champion, suite, home, device)
    if decision.promote:
        return crown(model, f"beats version {champion.version}: {decision.reason}", home)
    reason = f"does not beat version {champion.version}: {decision.reason}"
    if (unfair := partial_to(suite, registry.resolve(f"{champion.name}/{champion.version}", home), home)) is not None:
        reason = f"{reason}; but version {champion.version} {unfair}"
    return Verdict(model.version, False, reason)


def partial_to(suite: Suite, checkpoint: Path, home: Home) -> str | None:
    """Why the errors of a checkpoint on a suite would flatter it; None where they do not."""
    from gnn.training.checkpoint import read_manifest

    graph_sets = read_manifest(checkpoint).data.graph_sets
    learnt = n_learnt(suite.members(), graph_sets, home)
    if learnt is None:
        sets = ", ".join(graph_set[:16] for graph_set in graph_sets)
        return f"may have learnt from the suite: what it was trained on ({sets}) is not all in {home.graphs}"
    return f"was trained on {learnt} of the suite's {suite.manifest.n_structures} structures" if learnt else None


def compare(
    challenger: RegisteredModel,
    champion: RegisteredModel,
    suite: Suite,
    home: Home,
    device: str = "auto",
) -> Decision:
    """What the rule says of two versions on a suite."""
    return decide(errors_of(challenger, suite, home, device), errors_of(champion, suite, home, device))


def champion_of(name: str, home: Home) -> RegisteredModel | None:
    """The champion of a name; None where there is none."""
    return next((model for model in registry.list_models(home, name) if CHAMPION in model.aliases), None)


def crown(model: RegisteredModel, reason: str, home: Home) -> Verdict:
    """Make a version the champion, and tell those who follow its name."""
    if not _is_champion(model):
        registry.promote(f"{model.name}/{model.version}", home)
        announce_champion(model.name, model.version, reason)
    client = connect(home)
    if str(client.get_registered_model(model.name).aliases.get(CHALLENGER)) == model.version:
        client.delete_registered_model_alias(model.name, CHALLENGER)
    return Verdict(model.version, True, reason)


def _is_champion(model: RegisteredModel) -> bool:
    return CHAMPION in model.aliases


def promote(uri: str, home: Home, reason: str | None = None, force: bool = False) -> Verdict:
    """Make a version champion if it beats the champion on the suite, or if it is forced with a reason.

    Raises:
        InputError: no such version, or it is forced without a reason.
        SluiceError: it does not beat the champion, or there is no suite to measure it on.
    """
    if force and not (reason or "").strip():
        raise InputError("--force needs --reason TEXT: it is kept on the version's page")
    model, folder = registry.lookup(uri, home)
    with _judging(model.name, home):
        suite = read_suite(model.name, home)
        page = VersionPage(connect(home), model, folder)
        if force:
            return page.judged(crown(model, f"forced: {reason}", home), suite)
        if suite is None:
            raise SluiceError(f"{model.name} has no frozen suite to measure on; --force --reason TEXT promotes without")
        if not page.is_measured(suite):
            page.measured(suite, measure(model, suite, home))
        verdict = page.judged(judge(model, folder, suite, home), suite)
    if not verdict.champion:
        raise SluiceError(
            f"{model.name} version {model.version} stays challenger: it {verdict.reason};"
            " --force --reason TEXT promotes it all the same"
        )
    return verdict


# ---- measuring


def measure(
    model: RegisteredModel, suite: Suite, home: Home, device: str = "auto", checkpoint: Path | None = None
) -> Evaluation:
    """Errors of a version on a suite; what the rule needs of them is kept beside the suite."""
    folder = checkpoint or registry.resolve(f"{model.name}/{model.version}", home)
    evaluation = evaluate_on(suite, folder, device)
    errors = suite_errors(suite.manifest.digest, evaluation.metrics)
    write_text(_kept(model, suite), errors.model_dump_json(indent=1) + "\n")
    return evaluation


def errors_of(model: RegisteredModel, suite: Suite, home: Home, device: str = "auto") -> SuiteErrors:
    """Errors of a version on a suite, measured now if that was not done before."""
    if (kept := kept_errors(model, suite)) is not None:
        return kept
    return suite_errors(suite.manifest.digest, measure(model, suite, home, device).metrics)


def kept_errors(model: RegisteredModel, suite: Suite) -> SuiteErrors | None:
    """Errors of a version on a suite; None where it was not measured on this very suite yet."""
    path = _kept(model, suite)
    if not path.is_file():
        return None
    kept = SuiteErrors.model_validate_json(path.read_text(encoding="utf-8"))
    return kept if kept.suite == suite.manifest.digest else None


def _kept(model: RegisteredModel, suite: Suite) -> Path:
    """Named by the weights, so that a version that is made anew elsewhere is never taken for another."""
    return suite.folder / "errors" / f"{model.sha256}.json"


# ---- the version's page


@dataclass(frozen=True)
class VersionPage:
    """What MLflow shows of a version: tags, its description, metrics and plots of its logged model."""

    client: MlflowClient
    model: RegisteredModel
    folder: Path

    def tags(self, values: dict[str, str]) -> None:
        """Set tags of the version."""
        for name, value in values.items():
            self.client.set_model_version_tag(self.model.name, self.model.version, name, value)

    def read_tags(self) -> dict[str, str]:
        """The version's tags."""
        return dict(self.client.get_model_version(self.model.name, self.model.version).tags)

    def is_measured(self, suite: Suite) -> bool:
        """Whether the page shows errors on this very suite."""
        return self.read_tags().get("suite") == suite.manifest.digest

    def verdict(self, suite: Suite) -> Verdict | None:
        """What was judged of the version on this suite; None where nothing was."""
        tags = self.read_tags()
        if tags.get("suite") != suite.manifest.digest or VERDICT not in tags:
            return None
        return Verdict(self.model.version, tags["gate"] == CHAMPION, tags[VERDICT])

    def judged(self, verdict: Verdict, suite: Suite | None = None) -> Verdict:
        """Write what became of the version; gives it back."""
        from flows.version_page import describe_version

        self.tags({"gate": CHAMPION if verdict.champion else CHALLENGER, VERDICT: verdict.reason})
        errors = None if suite is None else kept_errors(self.model, suite)
        describe_version(self.client, self.model, self.folder, verdict.reason, errors)
        return verdict

    def measured(self, suite: Suite, evaluation: Evaluation) -> None:
        """Write the errors on a suite as tags, as metrics of the logged model, and as parity plots."""
        from flows.version_page import log_measurement

        log_measurement(self.client, self.model, suite, evaluation)
        headline = {f"suite.{name}": f"{value:.6g}" for name, value in evaluation.headline().items()}
        self.tags({**headline, "suite": suite.manifest.digest, "suite.structures": str(suite.manifest.n_structures)})
