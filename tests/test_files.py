from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnn.errors import InputError, SluiceError
from gnn.files import Journal, digest, file_sha256, locked, write_atomically, write_text

HEADER = {"journal": "test", "version": 1}


def test_digest_does_not_depend_on_key_order() -> None:
    assert digest({"a": 1, "b": [2, 3]}) == digest({"b": [2, 3], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


def test_digest_refuses_nan() -> None:
    with pytest.raises(ValueError, match="JSON"):
        digest({"a": float("nan")})


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = write_text(tmp_path / "deep" / "file.txt", "old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_file_sha256(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a", "")
    assert file_sha256(path) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_journal_round_trip(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl", HEADER)
    assert journal.read() == []
    for value in (1, 2):
        with journal.appending() as append:
            append({"value": value})
    assert [record["value"] for record in journal.read()] == [1, 2]


@given(st.lists(st.integers(), min_size=1, max_size=5), st.integers(min_value=1, max_value=12))
def test_journal_survives_a_torn_last_line(
    tmp_path_factory: pytest.TempPathFactory, values: list[int], torn: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "j.jsonl"
    journal = Journal(path, HEADER)
    with journal.appending() as append:
        for value in values:
            append({"value": value})
    whole = path.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    cut = max(last + 1, len(whole) - torn)
    path.write_bytes(whole[:cut])
    kept = values if cut == len(whole) else values[:-1]
    assert [record["value"] for record in journal.read()] == kept
    with journal.appending() as append:
        append({"value": -1})
    assert [record["value"] for record in journal.read()] == [*kept, -1]


def test_reading_leaves_the_line_that_another_process_is_writing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl", HEADER)
    with journal.appending() as append:
        append({"value": 1})
    line = b'{"value": 2}\n'
    with journal.path.open("ab") as stream:
        stream.write(line[:5])
        stream.flush()
        assert [record["value"] for record in journal.read()] == [1]
        stream.write(line[5:])
    assert [record["value"] for record in journal.read()] == [1, 2]


def test_journal_of_other_work_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path, HEADER).appending() as append:
        append({"value": 1})
    with pytest.raises(InputError, match="other work"):
        Journal(path, {**HEADER, "version": 2}).read()


def test_journal_header_is_the_first_line(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path, HEADER).appending() as append:
        append({"value": 1})
    assert json.loads(path.read_text().splitlines()[0]) == HEADER


def _hold_lock_and_die(path: Path, ready: object) -> None:
    with locked(path, "the thing"):
        ready.set()  # type: ignore[attr-defined]
        os._exit(9)


def test_lock_refuses_a_second_holder_and_dies_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=_hold_lock_and_die, args=(path, ready))
    process.start()
    process.join()
    assert ready.is_set()
    with locked(path, "the thing"), pytest.raises(SluiceError, match="in use"), locked(path, "the thing"):
        pass


@pytest.mark.parametrize("line", [1, 2, 3])
def test_a_damaged_record_is_taken_out(tmp_path: Path, line: int) -> None:
    path = tmp_path / "j.jsonl"
    journal = Journal(path, HEADER)
    with journal.appending() as append:
        for value in range(3):
            append({"value": value})
    before = path.read_bytes()
    lines = before.splitlines(keepends=True)
    lines[line] = b"\x00\xff" + lines[line][2:]
    path.write_bytes(b"".join(lines))
    sound = journal.read_sound()
    assert path.read_bytes() == b"".join(lines)
    assert journal.mend() == 1
    assert sound == journal.read()
    assert [record["value"] for record in journal.read()] == [value for value in range(3) if value != line - 1]
    assert path.with_name("j.jsonl.damaged").is_file()
    assert journal.mend() == 0


def test_a_damaged_header_takes_the_records_along(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    journal = Journal(path, HEADER)
    with journal.appending() as append:
        append({"value": 1})
    path.write_bytes(b"{" + path.read_bytes()[2:])
    assert journal.read_sound() == []
    assert journal.mend() == 2
    assert journal.read() == []
    with journal.appending() as append:
        append({"value": 2})
    assert journal.read() == [{"value": 2}]


def test_nothing_to_mend(tmp_path: Path) -> None:
    assert Journal(tmp_path / "none.jsonl", HEADER).mend() == 0
