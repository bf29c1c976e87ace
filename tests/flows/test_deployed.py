"""The flows that deployments run: what their plain parameters become, and what they announce."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import deployed, events, slots
from flows.settings import CLUSTER_VARIABLE, Home
from gnn.errors import InputError, SluiceError
from gnn.training.config import make_config

CAMPAIGN = 'name = "metals"\nmodel = "{model}"\n[candidates]\nelements = ["Al", "Cu"]\nprototypes = ["CsCl"]\n'


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the body of a flow was called with; the logger needs no run."""
    calls: dict[str, Any] = {}
    monkeypatch.setattr(deployed, "get_run_logger", lambda: SimpleNamespace(info=lambda _: None))

    def fake(module: str, name: str, result: Any) -> None:
        def fn(*args: Any, **kwargs: Any) -> Any:
            calls[name] = (args, kwargs, Path.cwd())
            return SimpleNamespace(**result)

        monkeypatch.setattr(f"{module}.{name}", SimpleNamespace(fn=fn))

    calls["fake"] = fake
    return calls


def test_relative_paths_start_at_the_home(home: Home, heard: dict[str, Any]) -> None:
    heard["fake"]("flows.ingest", "ingest", {"dataset": "a", "version": 1, "rows_in": 3, "kept": 2, "duplicates": 1,
                                             "quarantined": 0, "files_failed": 0, "files": 1})  # fmt: skip
    state = deployed.ingest.fn(["x.xyz"], "a")
    args, _, here = heard["ingest"]
    assert here == home.root.resolve()
    assert args == (["x.xyz"], "a", Home(home.root.resolve()), None, None)
    assert state.is_completed()
    assert state.message == "a@1: 3 rows in = 2 kept + 1 duplicates + 0 quarantined; 0 of 1 files failed"


def test_a_labelling_that_gave_nothing_fails(home: Home, heard: dict[str, Any]) -> None:
    heard["fake"]("flows.label", "label", {"done": 0, "failed": 2, "jobs": 2, "theory": "emt/ase"})
    with pytest.raises(SluiceError, match="0 of 2 structures labelled at emt/ase, 2 failed"):
        deployed.label.fn("metals", engine="emt", limit=2)
    request = heard["label"][0][0]
    assert (request.source, request.engine, request.kind, request.limit, request.dataset) == (
        "metals", "emt", "static", 2, None
    )  # fmt: skip


@pytest.fixture
def training(home: Home, heard: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The train flow without its body and without a server."""
    monkeypatch.setattr("flows.train.refuse_early", lambda *_: None)
    monkeypatch.setattr("flows.slots.server_address", lambda: None)
    heard["fake"]("flows.train", "train", {"model": "m", "model_version": "2", "epochs": 3, "cpu_s": 7.0})
    return heard


def test_training_is_configured_by_file_form_and_changes(
    home: Home, training: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.unchanged.nothing_new", lambda *_: None)
    (home.root / "t.toml").write_text('preset = "small"\ncommittee = 3\nminutes = 9.0\n')
    state = deployed.train.fn(["cells"], "m", config="t.toml", epochs=3, device="cpu", changes={"ema": {"decay": 0.5}})
    config = training["train"][0][0]
    assert (config.data.datasets, config.register_as, config.preset, config.committee) == (["cells"], "m", "small", 3)
    assert (config.epochs, config.minutes, config.device) == (3, None, "cpu")
    assert state.message == "models:/m/2: 3 epochs, 7 CPU s"


def test_a_form_without_a_device_leaves_that_of_the_file(
    home: Home, training: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.unchanged.nothing_new", lambda *_: None)
    (home.root / "t.toml").write_text('device = "cpu"\nminutes = 9.0\n')
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    deployed.train.fn(["cells"], "m", config="t.toml")
    assert training["train"][0][0].device == "cpu"


def test_nothing_new_is_told_and_nothing_is_done(
    home: Home, training: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.unchanged.nothing_new", lambda *_: "nothing to do: the data are old")
    state = deployed.train.fn(["cells"], "m", minutes=1.0, device="cpu")
    assert state.is_completed()
    assert state.message == "nothing to do: the data are old"
    assert "train" not in training
    deployed.train.fn(["cells"], "m", minutes=1.0, device="cpu", even_if_unchanged=True)
    assert "train" in training


def test_a_form_says_only_what_was_filled_in() -> None:
    assert deployed.said({"a": "", "b": {"c": [], "d": None}, "e": 0, "f": False, "g": ["x"]}) == {
        "e": 0, "f": False, "g": ["x"],
    }  # fmt: skip


def test_what_a_form_says_is_laid_over_the_campaign(home: Home, heard: dict[str, Any]) -> None:
    heard["fake"]("flows.screen", "screen", {"campaign": "mine", "n_candidates": 5, "n_shortlist": 2,
                                             "model": "foreign:emt", "model_version": None})  # fmt: skip
    state = deployed.screen.fn("c.toml", name="mine", budget=2, changes={"filters": {"novel_only": True}})
    assert heard["screen"][1]["changes"] == {
        "name": "mine", "selection": {"budget": 2}, "filters": {"novel_only": True},
    }  # fmt: skip
    assert state.message == "campaign mine: 5 candidates, 2 on the shortlist, by foreign:emt"


@pytest.mark.parametrize(("count", "anew"), [(None, True), (1, True), (2, False)])
def test_a_retry_never_discards(
    home: Home, heard: dict[str, Any], monkeypatch: pytest.MonkeyPatch, count: int | None, anew: bool
) -> None:
    monkeypatch.setattr(deployed, "flow_run", SimpleNamespace(get_run_count=lambda: count))
    heard["fake"]("flows.screen", "screen", {"campaign": "c", "n_candidates": 5, "n_shortlist": 2,
                                             "model": "m", "model_version": "4"})  # fmt: skip
    assert deployed.screen.fn("c.toml", fresh=True).message.endswith("by m version 4")
    assert heard["screen"][0][4] is anew


def test_a_campaign_that_follows_a_champion_is_named_by_its_version(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = home.root / "c.toml"
    path.write_text(CAMPAIGN.replace("{model}", "alloys"))
    monkeypatch.setattr("flows.registry.find", lambda *_: SimpleNamespace(name="alloys", version="7"))
    found = deployed.campaign_changes(path, {"selection": {"budget": 3}}, {}, True, home)
    assert found == {"selection": {"budget": 3}, "name": "metals-v7", "model": "models:/alloys/7"}
    monkeypatch.setattr("flows.registry.find", lambda *_: SimpleNamespace(name=None, version=None))
    with pytest.raises(InputError, match="has no version to follow"):
        deployed.campaign_changes(path, {}, {}, True, home)


def test_the_worker_chooses_the_cluster_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CLUSTER_VARIABLE, raising=False)
    assert deployed.cluster_of("") == "local"
    monkeypatch.setenv(CLUSTER_VARIABLE, "tcp://127.0.0.1:8786")
    assert deployed.cluster_of("") == "tcp://127.0.0.1:8786"
    assert deployed.cluster_of("threads") == "threads"


# ---- events


@pytest.fixture
def emitted(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    monkeypatch.setattr("prefect.events.emit_event", lambda **event: found.append(event))
    return found


def test_without_a_standing_server_nothing_is_announced(
    emitted: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "server_address", lambda: None)
    assert not events.announce_growth("cells", 3, "abc", 5)
    assert emitted == []


def test_growth_and_champions_are_announced_by_name(
    emitted: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "server_address", lambda: "http://here")
    assert events.announce_growth("cells", 3, "abc", 5)
    assert events.announce_champion("alloys", "7", "beats version 6")
    growth, champion = emitted
    assert growth["event"] == "sluice.lake.grew"
    assert growth["resource"]["prefect.resource.id"] == "sluice.lake.cells"
    assert growth["payload"]["kept"] == 5
    assert champion["event"] == "sluice.model.new-champion"
    assert champion["resource"]["prefect.resource.id"] == "sluice.model.alloys"


# ---- accelerators


def test_every_gpu_is_a_choice_and_is_known_by_its_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: SimpleNamespace(uuid=f"uuid-{i}"))
    both = [slots.Accelerator("cuda:0", "sluice-gpu-uuid-0"), slots.Accelerator("cuda:1", "sluice-gpu-uuid-1")]
    assert slots.accelerators("auto") == both
    assert slots.accelerators("cuda:1") == both[1:]
    (cpu,) = slots.accelerators("cpu")
    assert cpu.device == "cpu"
    assert cpu.limit.startswith("sluice-cpu-")


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Limits that are held; stands for the server."""
    held: set[str] = set()

    @contextmanager
    def hold(limit: str, patience: float | None) -> Iterator[bool]:
        if limit in held:
            yield False
            return
        held.add(limit)
        yield True
        held.discard(limit)

    monkeypatch.setattr(slots, "server_address", lambda: "http://here")
    monkeypatch.setattr(slots, "_make_limit", lambda _: None)
    monkeypatch.setattr(slots, "_held", hold)
    return held


def test_a_training_takes_the_first_free_gpu(taken: set[str]) -> None:
    choices = [slots.Accelerator("cuda:0", "a"), slots.Accelerator("cuda:1", "b")]
    with slots.training_slot(choices) as first, slots.training_slot(choices) as second:
        assert (first, second) == ("cuda:0", "cuda:1")
        assert taken == {"a", "b"}
    assert taken == set()


def test_a_training_waits_until_a_gpu_is_free(taken: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    taken.add("a")
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            taken.discard("a")

    monkeypatch.setattr(slots.time, "sleep", nap)
    with slots.training_slot([slots.Accelerator("cuda:0", "a")], wait_s=5.0) as device:
        assert device == "cuda:0"
    assert naps == [5.0, 5.0, 5.0]


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [slots.Accelerator("cuda:0", "b"), slots.Accelerator("cuda:1", "a")]
    monkeypatch.setattr(slots, "accelerators", lambda _: found)


@pytest.mark.usefixtures("two_gpus")
def test_one_process_takes_one_gpu(taken: set[str]) -> None:
    with slots.on_free_device(make_config({"minutes": 1})) as config:
        assert config.device == "cuda:0"
        assert taken == {"b"}
    assert taken == set()


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("changes", [{"committee": 3}, {"devices": 2}])
def test_several_processes_take_every_gpu_and_find_their_own(taken: set[str], changes: dict[str, int]) -> None:
    with slots.on_free_device(make_config({"minutes": 1, **changes})) as config:
        assert config.device == "auto"
        assert taken == {"a", "b"}
    assert taken == set()


@pytest.mark.usefixtures("two_gpus")
def test_several_processes_wait_for_the_last_gpu(taken: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    taken.add("b")
    held_meanwhile: list[set[str]] = []

    def nap(_: float) -> None:
        held_meanwhile.append(set(taken))
        taken.discard("b")

    monkeypatch.setattr(slots.time, "sleep", nap)
    with slots.on_free_device(make_config({"minutes": 1, "devices": 2})):
        assert taken == {"a", "b"}
    assert held_meanwhile == [{"a", "b"}]


def test_no_device_no_training() -> None:
    with pytest.raises(InputError, match="no device"), slots.training_slot([]):
        pass


@pytest.mark.server
@pytest.mark.slow
def test_two_trainings_never_share_a_slot_of_the_server(prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import ThreadPoolExecutor

    monkeypatch.setattr(slots, "server_address", lambda: prefect_server)
    inside: list[int] = []
    most: list[int] = []

    def work(choice: list[slots.Accelerator]) -> Callable[[], None] | None:
        with slots.training_slot(choice, wait_s=0.2):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.5)
            inside.pop()

    gpu = [slots.Accelerator("cuda:0", "sluice-gpu-test")]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, [gpu] * 3))
    assert most == [1, 1, 1]
