"""Rerunning a campaign: only what failed, or some of it by number or by error, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flows.campaign_shard import compute_shard, merge_shards
from flows.campaigns import CampaignFolder, result_of
from flows.cli.main import app
from flows.rerun import UNFINISHED, Choice, chosen_shards, failed_shards, parse_choice
from flows.settings import Home
from gnn.errors import InputError, SluiceError
from gnn.screening.preparation import number_planned
from gnn.screening.reopen import set_aside

Run = Callable[..., Any]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the shards that were run."""
    return []


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, calls: list[int]) -> dict[int, str]:
    """Shards that fail, with their error; change it to mend them."""
    import flows.screen

    real, errors = flows.screen.screen_shard, {}

    def shard(root: str, name: str, index: int, threads: int = 1) -> dict[str, Any]:
        calls.append(index)
        if index in errors:
            raise RuntimeError(errors[index])
        return real(root, name, index, threads)

    monkeypatch.setattr("flows.screen.screen_shard", shard)
    return errors


@pytest.fixture
def broken(run_here: Run, home: Home, campaign_file: Path, failing: dict[int, str], calls: list[int]) -> CampaignFolder:
    """A campaign whose shards 0 and 2 lost their node and whose shard 1 met a bad disk."""
    failing.update({0: "the node went away", 1: "bad disk", 2: "the node went away"})
    with pytest.raises(SluiceError, match="3 of"):
        run_here(campaign_file)
    failing.clear()
    calls.clear()
    return CampaignFolder(home, "metals")


def test_all_that_failed(broken: CampaignFolder, run_here: Run, calls: list[int]) -> None:
    total = result_of(broken).shards.total
    assert failed_shards(broken) == {
        0: "RuntimeError: the node went away",
        1: "RuntimeError: bad disk",
        2: "RuntimeError: the node went away",
    }
    result = run_here(broken.spec())
    assert (result.state, result.shards.failed, result.shards.done) == ("COMPLETED", 0, total)
    assert failed_shards(broken) == {}


@pytest.mark.parametrize(
    ("shards", "error", "expected"),
    [("2,7", None, None), ("0,2", None, [0, 2]), (None, "disk", [1]), ("1-2", "node", [2])],
)
def test_some_of_it(
    broken: CampaignFolder, run_here: Run, calls: list[int], shards: str, error: str, expected: list[int] | None
) -> None:
    choice = parse_choice(shards, error)
    if expected is None:
        with pytest.raises(InputError, match="has no shard 7; it has"):
            run_here(broken.spec(), only=choice)
        assert calls == []
        return
    left = sorted({0, 1, 2} - set(expected))
    with pytest.raises(SluiceError, match=f"{len(left)} of .* shards failed, the first \\(shard {left[0]}\\)"):
        run_here(broken.spec(), only=choice)
    assert calls == expected
    assert sorted(failed_shards(broken)) == left
    assert result_of(broken).shards.failed == len(left)


def test_nothing_fits(broken: CampaignFolder, run_here: Run) -> None:
    before = broken.manifest()
    with pytest.raises(InputError, match=r"nothing that failed fits; failed shards: 0 \(RuntimeError: the node went"):
        run_here(broken.spec(), only=parse_choice(None, "out of memory"))
    assert broken.manifest() == before


def test_in_the_end_it_is_the_undisturbed_result(broken: CampaignFolder, run_here: Run, home: Home) -> None:
    with pytest.raises(SluiceError):
        run_here(broken.spec(), only=Choice((range(1, 2),)))
    run_here(broken.spec(), only=Choice(error=re.compile("node")))
    whole = run_here(broken.spec().model_copy(update={"name": "calm"}))
    again = result_of(broken)
    assert again.funnel == whole.funnel
    tables = [pq.read_table(home.campaigns / name / "candidates.parquet") for name in ("metals", "calm")]
    assert tables[0].drop_columns(["cpu_s"]).equals(tables[1].drop_columns(["cpu_s"]))


def test_an_interrupted_shard_counts_as_failed(broken: CampaignFolder, run_here: Run) -> None:
    run_here(broken.spec())
    (broken.shards / "shard-0001.json").unlink()
    assert failed_shards(broken) == {1: UNFINISHED}


@pytest.fixture
def poisoned(run_here: Run, home: Home, campaign_file: Path, monkeypatch: pytest.MonkeyPatch) -> CampaignFolder:
    """A finished campaign in which every nickel structure was set aside for want of memory."""
    from gnn.potentials.foreign import CalculatorPotential

    real = CalculatorPotential.predict

    def predict(self: CalculatorPotential, batch: Any) -> Any:
        if 28 in batch.numbers:
            raise MemoryError("no memory for nickel")
        return real(self, batch)

    with monkeypatch.context() as patched:
        patched.setattr(CalculatorPotential, "predict", predict)
        result = run_here(campaign_file)
    assert result.state == "COMPLETED"
    return CampaignFolder(home, "metals")


def test_structures_that_were_set_aside_are_computed_again(poisoned: CampaignFolder, run_here: Run) -> None:
    total = result_of(poisoned).shards.total
    lost = sum(len(set_aside(poisoned.shards, index)) for index in range(total))
    assert lost > 0
    with pytest.raises(InputError, match="nothing that failed fits"):
        run_here(poisoned.spec(), only=parse_choice(None, "node"))
    result = run_here(poisoned.spec(), only=parse_choice(None, "no memory"))
    assert result.computed == lost
    assert not any(set_aside(poisoned.shards, index) for index in range(total))
    whole = run_here(poisoned.spec().model_copy(update={"name": "calm"}))
    assert result.funnel == whole.funnel


def test_finished_shards_without_losses_are_not_opened(poisoned: CampaignFolder, run_here: Run) -> None:
    run_here(poisoned.spec(), only=parse_choice(None, "no memory"))
    with pytest.raises(InputError, match="failed shards: none"):
        chosen_shards(poisoned, Choice((range(1),)))


@pytest.mark.parametrize(
    ("shards", "error", "words"),
    [
        ("3,x", None, "'x' is no number or range"),
        ("", None, "is no number"),
        ("3,9-7", None, "'9-7' ends before it begins; write 7-9"),
        ("9" * 5000, None, "is no number or range"),
        (None, "(", "no regular expression"),
    ],
)
def test_choices_that_cannot_be_read(shards: str | None, error: str | None, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_choice(shards, error)


def test_choices() -> None:
    assert parse_choice(None, None) is None
    choice = parse_choice("3, 7-9", None)
    assert choice is not None
    assert [index for index in range(20) if choice.takes(index, "")] == [3, 7, 8, 9]


def test_a_range_beyond_all_bounds_is_refused_unexpanded(home: Home) -> None:
    folder = CampaignFolder(home, "metals")
    for shards, stranger in (("0-999999999", 0), ("5,7-999999999", 5)):
        with pytest.raises(InputError, match=f"has no shard {stranger}; it has 0, from 0"):
            chosen_shards(folder, parse_choice(shards, None))


def test_the_verb(broken: CampaignFolder, run_here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.screen.screen", lambda spec, home, only, **_: run_here(spec, only=only))
    bad = CliRunner().invoke(app, ["campaigns", "rerun", "metals", "--shards", "99"])
    assert (bad.exit_code, bad.stdout) == (2, "")
    assert "has no shard 99" in bad.stderr
    some = CliRunner().invoke(app, ["campaigns", "rerun", "metals", "--error", "node"])
    assert some.exit_code == 1
    assert "failed: campaign metals: 1 of" in some.stderr
    rest = CliRunner().invoke(app, ["campaigns", "rerun", "metals", "--shards", "1", "--json"])
    assert rest.exit_code == 0, rest.output
    assert json.loads(rest.stdout)["state"] == "COMPLETED"


# ---- put together without a server


def test_shards_of_batch_jobs_are_put_together(run_here: Run, home: Home, campaign_file: Path) -> None:
    total = 1
    index = 0
    while index < total:
        compute_shard(str(campaign_file), index, home, n_shards=3)
        total = number_planned(home.campaigns / "metals" / "shards")
        index += 1
        if index == 2:
            with pytest.raises(SluiceError, match=r"1 of 3 shards failed, the first \(shard 2\) with not finished"):
                merge_shards("metals", home)
            assert result_of(CampaignFolder(home, "metals")).state == "FAILED"
    merged = merge_shards("metals", home)
    assert (merged.state, merged.computed, merged.shards.done) == ("COMPLETED", 0, 3)
    whole = run_here(CampaignFolder(home, "metals").spec().model_copy(update={"name": "calm"}))
    assert merged.funnel == whole.funnel
    tables = [pq.read_table(home.campaigns / name / "candidates.parquet") for name in ("metals", "calm")]
    assert tables[0].drop_columns(["cpu_s", "shard"]).equals(tables[1].drop_columns(["cpu_s", "shard"]))


def test_a_campaign_that_was_not_cut_cannot_be_put_together(home: Home) -> None:
    with pytest.raises(InputError, match="no campaign 'metals'"):
        merge_shards("metals", home)
