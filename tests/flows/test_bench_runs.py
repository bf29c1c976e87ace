"""Runs in a journal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flows.bench.runs import Run, claimed, finished, journal_of, label, select, work_through
from gnn.errors import InputError, SluiceError
from gnn.files import canonical_json


class Counted:
    """Runs that count how often they were done; those in `broken` fail."""

    def __init__(self, n: int, broken: dict[int, Exception] | None = None) -> None:
        self.calls: list[int] = []
        self.broken = broken or {}
        self.runs = [Run({"task": "t", "k": k}, lambda k=k: self.do(k)) for k in range(n)]

    def do(self, k: int) -> dict[str, Any]:
        self.calls.append(k)
        if k in self.broken:
            raise self.broken[k]
        return {"error": 0.5 * k}


def test_a_second_call_does_what_the_first_left(tmp_path: Path) -> None:
    counted, journal = Counted(5), journal_of("b", tmp_path / "b.jsonl")
    first = work_through(journal, counted.runs, tmp_path / "locks", limit=2)
    second = work_through(journal, counted.runs, tmp_path / "locks")
    assert counted.calls == [0, 1, 2, 3, 4]
    assert (first.done_before, first.done) == (0, 2)
    assert (second.done_before, second.done) == (2, 3)
    assert [record["result"]["error"] for record in journal.read()] == [0.0, 0.5, 1.0, 1.5, 2.0]


def test_records_say_where_and_with_what(tmp_path: Path) -> None:
    journal = journal_of("b", tmp_path / "b.jsonl")
    work_through(journal, Counted(1).runs, tmp_path)
    (record,) = journal.read()
    assert record["where"].keys() == {"processor", "load", "when"}
    assert record["versions"]["torch"]


def test_a_torn_line_is_done_again(tmp_path: Path) -> None:
    counted, journal = Counted(2), journal_of("b", tmp_path / "b.jsonl")
    work_through(journal, counted.runs, tmp_path)
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole[:-20])
    work_through(journal, counted.runs, tmp_path)
    assert counted.calls == [0, 1, 1]
    assert len(journal.read()) == 2


def test_a_failed_run_is_told_and_tried_again(tmp_path: Path) -> None:
    counted, journal = Counted(3, {1: SluiceError("no luck")}), journal_of("b", tmp_path / "b.jsonl")
    first = work_through(journal, counted.runs, tmp_path)
    assert first.failed == {"task=t k=1": "no luck"}
    assert first.done == 2
    counted.broken = {}
    assert work_through(journal, counted.runs, tmp_path).done == 1


def test_wrong_input_ends_all(tmp_path: Path) -> None:
    counted = Counted(3, {1: InputError("no such data")})
    with pytest.raises(InputError, match="no such data"):
        work_through(journal_of("b", tmp_path / "b.jsonl"), counted.runs, tmp_path)
    assert counted.calls == [0, 1]


def test_what_another_process_does_is_left_to_it(tmp_path: Path) -> None:
    counted, journal = Counted(2), journal_of("b", tmp_path / "b.jsonl")
    with claimed(counted.runs[0], tmp_path) as mine, claimed(counted.runs[0], tmp_path) as again:
        assert mine
        assert not again
        progress = work_through(journal, counted.runs, tmp_path)
    assert (progress.done, progress.taken_by_others) == (1, 1)
    assert counted.calls == [1]


def test_the_journal_of_another_benchmark_is_refused(tmp_path: Path) -> None:
    work_through(journal_of("b", tmp_path / "b.jsonl"), Counted(1).runs, tmp_path)
    with pytest.raises(InputError, match="other work"):
        journal_of("other", tmp_path / "b.jsonl").read()


def test_the_last_of_equal_keys_counts(tmp_path: Path) -> None:
    journal = journal_of("b", tmp_path / "b.jsonl")
    with journal.appending() as append:
        append({"key": {"k": 0}, "result": 1})
        append({"key": {"k": 0}, "result": 2})
    assert finished(journal) == {canonical_json({"k": 0}): {"key": {"k": 0}, "result": 2}}
    assert json.loads(journal.path.read_text().splitlines()[0]) == {"benchmark": "b", "schema": 1}


def test_selection_and_label() -> None:
    runs = Counted(3).runs
    assert [run.key["k"] for run in select(runs, {"k": [0, 2], "task": []})] == [0, 2]
    assert label({"task": "3bpa", "seed": 0, "changes": {}, "x": None}) == "task=3bpa seed=0"
