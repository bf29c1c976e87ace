"""Campaign folders: what lies where, the pinned model, states, and the result that commands print."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from flows.cli.results import CampaignResult, FunnelStage, KnownCompoundRow, ShardCounts
from flows.settings import Home
from gnn.errors import InputError, SluiceError, one_line
from gnn.files import write_text
from gnn.overlay import dotted
from gnn.screening.campaign import NAME, CampaignSpec, read_kept
from gnn.screening.manifest import MANIFEST_NAME as MANIFEST
from gnn.screening.manifest import CampaignManifest, ModelPin

if TYPE_CHECKING:
    from gnn.potentials.potential import Potential
    from gnn.screening.gather import Inputs
    from gnn.training.checkpoint import CheckpointManifest

FOREIGN = "foreign:"
SPEC_NAME, TEXT_NAME = "campaign.json", "campaign.toml"
KNOWN_FIELDS = {"formula", "prototype", "found", "rank", "hull_distance", "comment"}
INTERRUPTED = "INTERRUPTED"
"""A campaign whose manifest says RUNNING though no process holds its lock, or that of a shard."""
DAMAGED = "DAMAGED"
"""A campaign whose specification or manifest cannot be read."""


@dataclass(frozen=True)
class CampaignFolder:
    """The folder of one campaign."""

    home: Home
    name: str

    @cached_property
    def root(self) -> Path:
        """datasets/campaigns/NAME."""
        return self.home.campaigns / self.name

    @property
    def shards(self) -> Path:
        """Prepared candidates, journals and sealed shards."""
        return self.root / "shards"

    @property
    def lock(self) -> Path:
        """Held while a campaign runs."""
        return self.root / "campaign.lock"

    @property
    def cancel_mark(self) -> Path:
        """While this file is there, shards stop at the next finished structure."""
        return self.root / "cancel"

    def exists(self) -> bool:
        """Whether a campaign of this name was ever started."""
        return (self.root / SPEC_NAME).is_file()

    def is_running(self) -> bool:
        """Whether a process holds the campaign's lock."""
        return is_held(self.lock)

    def computes_shards(self) -> bool:
        """Whether a process holds the lock of a shard that is not finished."""
        locks = self.shards.glob("shard-*.lock")
        return any(is_held(lock) for lock in locks if not lock.with_suffix(".json").is_file())

    def spec(self) -> CampaignSpec:
        """The specification the campaign was started with.

        Raises:
            InputError: there is no such campaign, or its specification is damaged.
        """
        if not self.exists():
            known = ", ".join(folder.name for folder in campaign_folders(self.home)) or "none"
            raise InputError(f"no campaign {self.name!r} in {self.home.campaigns}; there are: {known}")
        return read_kept(self.root / SPEC_NAME, CampaignSpec)

    def begun(self) -> CampaignManifest | None:
        """What was recorded of a campaign that can be gone on with; None where it begins."""
        return self.manifest() if self.exists() else None

    def manifest(self) -> CampaignManifest | None:
        """What the last run recorded; None before the first has begun."""
        return CampaignManifest.read(self.root) if (self.root / MANIFEST).is_file() else None

    def keep_spec(self, spec: CampaignSpec, text: str | None) -> None:
        """Keep the specification, and the text of the file it was read from."""
        if text is not None:
            write_text(self.root / TEXT_NAME, text)
        write_text(self.root / SPEC_NAME, spec.model_dump_json(indent=1) + "\n")

    def spec_text(self) -> str | None:
        """The text of the file that the specification was read from; None where it came from none."""
        path = self.root / TEXT_NAME
        return path.read_text(encoding="utf-8") if path.is_file() else None

    def clear(self) -> None:
        """Remove everything but the lock."""
        for path in self.root.iterdir():
            if path.suffix != ".lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def is_held(lock: Path) -> bool:
    """Whether a process holds a lock."""
    if not lock.exists():
        return False
    try:
        with FileLock(str(lock), timeout=0):
            return False
    except Timeout:
        return True


def campaign_folders(home: Home) -> list[CampaignFolder]:
    """Every campaign in the home, by name."""
    if not home.campaigns.is_dir():
        return []
    folders = [CampaignFolder(home, path.name) for path in sorted(home.campaigns.iterdir())]
    return [folder for folder in folders if folder.exists()]


def folder_of(name_or_file: str, home: Home) -> CampaignFolder:
    """The folder of a campaign given by its name or its TOML file.

    Raises:
        InputError: neither names a campaign.
    """
    if name_or_file.endswith(".toml"):
        from gnn.screening.campaign import read_campaign

        return CampaignFolder(home, read_campaign(Path(name_or_file)).name)
    if not NAME.fullmatch(name_or_file):
        raise InputError(f"{name_or_file!r} is no campaign's name; give a name or a TOML file")
    return CampaignFolder(home, name_or_file)


def refuse_another_spec(folder: CampaignFolder, spec: CampaignSpec) -> None:
    """Do nothing if the folder is new or holds this very specification.

    Raises:
        InputError: it holds another one; the message says what differs.
    """
    if not folder.exists() or (old := folder.spec()).spec_digest == spec.spec_digest:
        return
    before, now = (dotted(each.model_dump(mode="json", exclude={"base"})) for each in (old, spec))
    changed = [
        f"{key} was {before.get(key)}, now {now.get(key)}"
        for key in sorted(before | now)
        if before.get(key) != now.get(key)
    ]
    raise InputError(
        f"campaign {spec.name!r} exists with another specification ({'; '.join(changed[:3])}"
        f"{', ...' if len(changed) > 3 else ''}); give it another name, or start it anew with --fresh"
    )


def pinned(folder: CampaignFolder, spec: CampaignSpec, begun: CampaignManifest | None) -> Inputs:
    """What a campaign is prepared from: model and lake as they were when it began, or as they are now.

    Raises:
        InputError: there is no such model or data set.
    """
    from gnn.lake.table import Lake
    from gnn.screening.gather import Inputs, pinned_datasets
    from gnn.screening.references import pinned_versions

    lake = Lake(folder.home.lake)
    if begun is not None:
        datasets = begun.candidate_datasets or spec.candidates.datasets  # none in manifests of before they were pinned
        return Inputs(lake, begun.lake_versions, begun.model, datasets)
    model = pin_model(spec, folder.home)
    versions = pinned_versions(lake, spec.hull.datasets, model.theory)
    return Inputs(lake, versions, model, pinned_datasets(lake, spec.candidates.datasets))


def pin_model(spec: CampaignSpec, home: Home) -> ModelPin:
    """Resolve the model now, once: version, sha256, theory and elements.

    Raises:
        InputError: there is no such model, or it has several theories and the campaign names none.
    """
    if spec.model.startswith(FOREIGN):
        return _foreign_pin(spec)
    from flows.registry import find
    from gnn.training.checkpoint import read_manifest

    found = find(spec.model, home)
    manifest = read_manifest(found.path)
    if not manifest.knows_energies:
        only = ", ".join(manifest.model.properties)
        raise InputError(
            f"model {spec.model} was not trained on energies or forces (it predicts {only}), so it ranks nothing"
        )
    theory = _theory(spec, manifest)
    return ModelPin(
        uri=spec.model,
        version=found.version,
        sha256=found.sha256,
        path=home.relative(found.path),
        theory=theory,
        elements=sorted(manifest.elements_at(theory)),
    )


def _theory(spec: CampaignSpec, manifest: CheckpointManifest) -> str:
    known, chosen = ", ".join(manifest.theories), spec.theory or manifest.usual_theory
    if chosen is None:
        raise InputError(f"model {spec.model} has several theories; set theory to one of {known}")
    if chosen not in manifest.theories:
        raise InputError(f"model {spec.model} has no theory {chosen!r}; it has {known}")
    return chosen


def _foreign_pin(spec: CampaignSpec) -> ModelPin:
    """The pin of a foreign model, which is opened once a process: a mistake shows before the campaign begins."""
    from gnn.potentials.foreign import foreign, foreign_digest, opened

    name = spec.model.removeprefix(FOREIGN)
    potential = foreign(name)
    if spec.theory is not None and spec.theory != potential.theory:
        raise InputError(f"model {spec.model} has the theory {potential.theory}, not {spec.theory!r}")
    sha256 = foreign_digest(name, potential)
    if (key := (sha256, potential.theory)) not in _potentials:
        _potentials[key] = opened(name)
    return ModelPin(
        uri=spec.model,
        version=None,
        sha256=sha256,
        theory=potential.theory,
        elements=sorted(potential.elements),
        path=None,
        foreign=name,
    )


_potentials: dict[tuple[str, str], Potential] = {}


def potential_of(model: ModelPin, home: Home) -> Potential:
    """The pinned model, loaded once a process.

    Raises:
        InputError: its folder is gone.
        SluiceError: its weights are not those that were pinned.
    """
    key = (model.sha256, model.theory)
    if key not in _potentials:
        _potentials[key] = _loaded(model, home)
    return _potentials[key]


def _loaded(model: ModelPin, home: Home) -> Potential:
    if model.foreign is not None:
        from gnn.potentials.foreign import foreign, foreign_digest

        potential = foreign(model.foreign)
        if foreign_digest(model.foreign, potential) != model.sha256:
            raise SluiceError(f"{model.uri} is another model than the campaign began with; start anew with --fresh")
        return potential
    from gnn.potentials.load import load
    from gnn.training.checkpoint import read_manifest

    path = home.absolute(model.path or "")
    if not path.is_dir():
        raise InputError(f"the campaign's model {model.uri} (version {model.version}) is no longer at {path}")
    if (found := read_manifest(path).sha256) != model.sha256:
        raise SluiceError(
            f"{path} holds other weights (sha256 {found[:12]}) than the campaign began with ({model.sha256[:12]});"
            " bring them back, or start anew with --fresh"
        )
    return load(path, theory=model.theory, device="auto")


def state_of(folder: CampaignFolder, manifest: CampaignManifest) -> str:
    """The campaign's state as it is now."""
    if manifest.state == "RUNNING" and not (folder.is_running() or folder.computes_shards()):
        return INTERRUPTED
    return manifest.state


def shard_counts(folder: CampaignFolder, manifest: CampaignManifest) -> ShardCounts:
    """Shards planned, sealed and failed, as the disk has them."""
    from gnn.screening.preparation import number_planned
    from gnn.screening.shard import shard_name

    total = number_planned(folder.shards)
    unsealed = {index for index in range(total) if not (folder.shards / f"{shard_name(index)}.json").is_file()}
    failed = {index for index in unsealed if str(index) in manifest.shard_errors}
    return ShardCounts(total=total, done=total - len(unsealed), failed=len(failed))


def result_of(folder: CampaignFolder) -> CampaignResult:
    """What commands print of a campaign.

    Raises:
        InputError: there is no such campaign, or it has recorded nothing yet.
    """
    folder.spec()
    manifest = folder.manifest()
    if manifest is None:
        raise InputError(
            f"campaign {folder.name!r} has recorded nothing yet; run `sluice campaigns rerun {folder.name}`"
        )
    return CampaignResult(
        campaign=folder.name,
        state=state_of(folder, manifest),
        n_candidates=manifest.n_candidates,
        funnel=[FunnelStage(**stage.model_dump()) for stage in manifest.funnel],
        n_shortlist=manifest.n_shortlist,
        model=manifest.model.uri,
        model_version=manifest.model.version,
        model_sha256=manifest.model.sha256,
        lake_versions=manifest.lake_versions,
        candidate_datasets=manifest.candidate_datasets,
        shards=shard_counts(folder, manifest),
        cost=manifest.cost,
        computed=manifest.computed,
        reused=manifest.reused,
        known=[KnownCompoundRow(**outcome.model_dump(include=KNOWN_FIELDS)) for outcome in manifest.known],
        warnings=manifest.warnings,
        paths={name: folder.home.relative(folder.root / path) for name, path in manifest.paths.items()},
    )


def results(home: Home) -> list[CampaignResult]:
    """What is printed of the campaigns that have recorded something; of damaged ones the name, and why as a warning."""
    found = []
    for folder in campaign_folders(home):
        try:
            if folder.manifest() is not None:
                found.append(result_of(folder))
        except InputError as error:
            found.append(_damaged(folder.name, one_line(error)))
    return found


def _damaged(name: str, why: str) -> CampaignResult:
    return CampaignResult(
        campaign=name,
        state=DAMAGED,
        n_candidates=0,
        funnel=[],
        n_shortlist=0,
        model="",
        model_version=None,
        model_sha256="",
        lake_versions={},
        shards=ShardCounts(total=0, done=0, failed=0),
        cost={},
        paths={},
        warnings=[why],
    )


def request_cancel(folder: CampaignFolder) -> None:
    """Ask a running campaign to stop.

    Raises:
        InputError: there is no such campaign, or no process runs it.
    """
    folder.spec()
    if not folder.is_running():
        hint = "stop its processes of `sluice shard`" if folder.computes_shards() else "there is nothing to cancel"
        raise InputError(f"campaign {folder.name!r} is not running; {hint}")
    write_text(folder.cancel_mark, "")
