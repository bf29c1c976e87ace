"""The lake: accounting that always adds up, versions, digests, quarantine, and writers that die or meet."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gnn.errors import InputError
from gnn.lake import Lake, appending, parse_reference
from gnn.structures.cards import Card
from gnn.structures.readers import Rejected
from gnn.structures.record import RECORD_SCHEMA, Source, table_to_records

rows = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from(["sound", "conflict", "overlap", "rejected"])), max_size=25
)


def counted(done):
    return done.rows_in, done.kept, done.duplicates, done.quarantined


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=rows, batch=st.integers(1, 7), commit=st.integers(1, 9))
def test_rows_in_are_kept_or_duplicate_or_quarantined(
    rows, batch, commit, record_of, card, tmp_path_factory, monkeypatch
):
    """Against a plain dictionary, for any batch and commit size; a second time keeps nothing."""
    monkeypatch.setattr("gnn.lake.table.BATCH_ROWS", batch)
    monkeypatch.setattr(appending, "COMMIT_ROWS", commit)
    lake = Lake(tmp_path_factory.mktemp("lake"))

    def records():
        for place, (number, kind) in enumerate(rows):
            if kind == "rejected":
                yield Rejected(place, "unreadable-row: torn", Source("a.xyz", place, "0" * 64))
            else:
                energy = 99.0 if kind == "conflict" else None
                record = record_of(number, energy, overlap=kind == "overlap")
                yield replace(record, source=Source("a.xyz", place, "0" * 64))

    expected, table = Counter(), {}
    for number, kind in rows:
        if kind in ("rejected", "overlap"):
            expected["quarantined"] += 1
            continue
        label = 99.0 if kind == "conflict" else -1.0 * number
        known = table.setdefault(number, label)
        first_time = (number, label) not in expected and known == label
        expected[(number, label)] += 1
        if known != label:
            expected["quarantined"] += 1
        elif first_time:
            expected["kept"] += 1
        else:
            expected["duplicates"] += 1

    first = lake.append("set", records(), card)
    assert counted(first) == (len(rows), expected["kept"], expected["duplicates"], expected["quarantined"])
    assert sum(first.reasons.values()) == first.quarantined
    second = lake.append("set", records(), card)
    assert counted(second)[:2] == (len(rows), 0)
    assert second.quarantined == first.quarantined
    assert second.content_digest == first.content_digest
    if first.quarantined:
        assert lake.quarantine("set").num_rows == first.quarantined
    if lake.has("set"):
        assert lake.rows("set") == first.kept == lake.read("set").num_rows


def test_what_is_read_is_what_was_put_in(lake, card, record_of):
    records = [record_of(number) for number in range(5)]
    done = lake.append("set", records, card)
    assert (done.version, done.kept) == (0, 5)
    table = lake.read("set")
    assert table.schema.equals(RECORD_SCHEMA)
    back = table_to_records(table)
    assert [record.structure_id for record in back] == [record.structure_id for record in records]
    assert {record.dataset for record in back} == {"set"}
    assert all(np.array_equal(mine.forces, theirs.forces) for mine, theirs in zip(records, back, strict=True))
    assert all(record.ingested_at is not None for record in back)
    assert back[0].source == records[0].source


def test_columns_and_batches(lake, card, record_of):
    lake.append("set", (record_of(number) for number in range(25)), card)
    assert lake.read("set", columns=["energy", "theory"]).column_names == ["energy", "theory"]
    batches = list(lake.record_batches("set", batch_rows=10))
    assert all(batch.num_rows <= 10 for batch in batches)
    assert pa.Table.from_batches(batches).equals(lake.read("set"))
    with pytest.raises(InputError, match="no column 'energies'; it has structure_id"):
        lake.read("set", columns=["energies"])


def test_versions(lake, card, record_of):
    lake.append("set", [record_of(0)], card)
    lake.append("set", [record_of(1), record_of(2)], card)
    assert lake.version("set") == 1
    assert lake.read("set", 0).num_rows == 1 and lake.read("set").num_rows == 3
    assert lake.content_digest("set", 0) != lake.content_digest("set", 1) == lake.content_digest("set")
    assert [(version.version, version.rows) for version in lake.versions("set")] == [(1, 3), (0, 1)]
    with pytest.raises(InputError, match="set@7 cannot be read; the newest version is 1"):
        lake.read("set", 7)


def test_large_structures_go_in_smaller_batches(lake, card, record_of, monkeypatch):
    sizes = []
    add = appending.Appending.add
    monkeypatch.setattr("gnn.lake.table.BATCH_ATOMS", 5)
    monkeypatch.setattr(appending.Appending, "add", lambda self, batch: (sizes.append(len(batch)), add(self, batch)))
    rejected = Rejected(0, "unreadable-row: x", Source("a", 0, "0"))
    lake.append("set", [record_of(0), rejected, *(record_of(number) for number in range(1, 7))], card)
    assert sizes == [4, 3, 1]


def test_nothing_new_makes_no_version(lake, card, record_of):
    lake.append("set", [record_of(0)], card)
    again = lake.append("set", [record_of(0)], card)
    assert (again.version, again.kept, again.duplicates) == (0, 0, 1)
    assert len(lake.versions("set")) == 1


def test_the_digest_in_the_commit_is_that_of_the_content(lake, card, record_of):
    for start in range(3):
        done = lake.append("set", (record_of(start * 10 + number) for number in range(10)), card)
        assert done.content_digest == lake.content_digest("set") == lake._computed_digest("set", done.version)


def test_the_same_content_by_other_ways_has_the_same_digest(tmp_path, card, record_of):
    one, other = Lake(tmp_path / "one"), Lake(tmp_path / "other")
    one.append("set", (record_of(number) for number in range(6)), card)
    other.append("renamed", (record_of(number) for number in reversed(range(3))), card)
    other.append("renamed", (record_of(number) for number in range(6)), card)
    assert one.content_digest("set") == other.content_digest("renamed")


def test_quarantine_tells_why_and_keeps_the_row(lake, card, record_of):
    other = replace(record_of(0, energy=5.0), source=Source("b.xyz", 4, "e" * 64))
    torn = Rejected(7, "calculation unavailable: x/y is so", Source("c.json", 7, "d" * 64), "text")
    lake.append("set", [record_of(0), other, torn, record_of(3, overlap=True)], card)
    refused = {row["reason"]: row for row in lake.quarantine("set").to_pylist()}
    assert set(refused) == {"conflict", "calculation unavailable", "overlapping-atoms"}
    assert refused["conflict"]["structure_id"] == record_of(0).structure_id
    assert (refused["conflict"]["source_file"], refused["conflict"]["source_row"]) == ("b.xyz", 4)
    assert '"energy": 5.0' in refused["conflict"]["content"]
    assert refused["calculation unavailable"]["content"] == "text"
    assert refused["overlapping-atoms"]["detail"] == "atoms 0 and 1 are 0.003 Å apart"


def test_only_quarantine(lake, card):
    done = lake.append("set", [Rejected(0, "unreadable-row: x", Source("a", 0, "0"))], card)
    assert (done.version, done.content_digest, done.quarantined) == (None, None, 1)
    assert lake.datasets() == [] and lake.quarantine("set").num_rows == 1


def test_no_rows_at_all(lake, card):
    assert counted(lake.append("set", [], card)) == (0, 0, 0, 0)
    assert not lake.has("set")


def test_a_card_that_nothing_came_of_binds_nobody(lake, record_of):
    def card(unit: str) -> Card:
        return Card.model_validate({"name": "ds", "theory": "t", "properties": {"gap": {"unit": unit}}})

    lake.append("ds", [], card("meV"))
    lake.append("ds", [record_of(0)], card("eV"))
    with pytest.raises(InputError, match="gap"):
        lake.append("ds", [record_of(1)], card("meV"))


def test_the_card_lies_with_the_table(lake, record_of):
    card = Card.model_validate({"name": "x", "theory": "t", "properties": {"gap": {"unit": "eV"}}, "licence": "MIT"})
    lake.append("set", [record_of(0)], card)
    assert lake.card("set") == card
    more = card.model_copy(update={"properties": {"heat": card.properties["gap"]}})
    lake.append("set", [record_of(1)], more)
    assert set(lake.card("set").properties) == {"gap", "heat"}


def test_a_theory_that_was_said_for_some_rows_is_not_remembered(lake, record_of):
    for theory, remembered in (("pbe/x", "pbe/x"), ("pbe/x", "pbe/x"), ("lda/x", None), ("lda/x", None)):
        lake.append("si", [record_of(1)], Card(name="si", theory=theory))
        assert lake.card("si").theory == remembered
    for theory, remembered in (("pbe/x", "pbe/x"), ("pbe/x", "pbe/x"), ("lda/x", None), ("lda/x", None)):
        lake.append("ge", [record_of(1)], Card(name="ge", fallback_theory=theory))
        assert lake.card("ge").fallback_theory == remembered


def test_a_card_that_contradicts_the_table_is_refused(lake, record_of):
    lake.append("set", [record_of(0)], Card.model_validate({"name": "x", "properties": {"gap": {"unit": "eV"}}}))
    other = Card.model_validate({"name": "x", "properties": {"gap": {"unit": "meV"}}})
    with pytest.raises(InputError, match="declares property gap"):
        lake.append("set", [record_of(1)], other)


def test_unknown_data_sets_list_the_known(lake, card, record_of):
    with pytest.raises(InputError, match=r"no data set 'set' in the lake \(there are: none yet\)"):
        lake.version("set")
    lake.append("set", [record_of(0)], card)
    for call in (lake.version, lake.read, lake.card, lake.quarantine, lake.content_digest, lake.versions):
        with pytest.raises(InputError, match="there are: set"):
            call("other")
    assert lake.datasets() == ["set"]


def test_compaction_changes_versions_and_not_the_digest(lake, card, record_of):
    for number in range(4):
        lake.append("set", [record_of(number)], card)
    digest, before = lake.content_digest("set"), lake.version("set")
    would = lake.collect_garbage("set", [1], dry_run=True)
    assert lake.version("set") == before
    deleted = lake.collect_garbage("set", [1])
    assert lake.version("set") > before and lake.content_digest("set") == digest
    assert sorted(lake.read("set")["energy"].to_pylist()) == [-3.0, -2.0, -1.0, 0.0]
    assert lake.read("set", 1).num_rows == 2, "a named version stays readable"
    assert len(deleted) >= 1 and isinstance(would, list)
    assert lake.card("set") == card
    assert lake.append("set", [record_of(number) for number in range(5)], card).kept == 1


def test_versions_after_two_collections(lake, card, record_of):
    for number in range(3):
        lake.append("set", [record_of(number)], card)
    first = lake.collect_garbage("set", [])
    for number in range(3, 5):
        lake.append("set", [record_of(number)], card)
    second = lake.collect_garbage("set", [])
    assert len(first) == 3 and len(second) == 3, "the merged file and two new ones, none twice"
    assert lake.collect_garbage("set", []) == []
    assert [(version.version, version.rows) for version in lake.versions("set")][-2:] == [(1, 2), (0, 1)]
    digests = {version.version: version.content_digest for version in lake.versions("set")}
    newest = lake.version("set")
    assert digests[newest] == digests[newest - 1] == lake._computed_digest("set", newest)
    assert len(set(digests.values())) == 5
    for read in (lake.read, lambda *arguments: list(lake.record_batches(*arguments))):
        with pytest.raises(InputError, match=r"set@0 was deleted by `sluice lake gc`"):
            read("set", 0)


def test_a_digest_that_no_commit_tells(lake, card, record_of):
    lake.append("set", [record_of(0)], card)
    commit = lake.root / "set" / "_delta_log" / f"{0:020}.json"
    commit.write_text(commit.read_text().replace("sluice.content_digest", "another"))
    lake.append("set", [record_of(1)], card)
    assert None not in [version.content_digest for version in lake.versions("set")]
    lake.collect_garbage("set", [])
    assert lake.versions("set")[-1].content_digest is None


def test_flags_are_set_on_the_way_in(lake, card, record_of):
    wild = replace(record_of(1), forces=np.full((2, 3), 100.0))
    lake.append("set", [wild], card)
    assert lake.read("set", columns=["flags"])["flags"].to_pylist() == [["large-force"]]


def test_a_writer_that_came_between_is_noticed(lake, card, record_of):
    """The keys are read again when another process has committed since."""
    other = Lake(lake.root)

    def records():
        yield record_of(0)
        yield record_of(1)
        other.append("set", [record_of(1), record_of(2, energy=7.0)], card)
        yield record_of(2)
        yield record_of(3)

    done = lake.append("set", records(), card)
    assert counted(done) == (4, 2, 1, 1)
    assert done.reasons == {"conflict": 1}
    assert lake.rows("set") == 4
    assert lake.content_digest("set") == lake._computed_digest("set", lake.version("set"))


def test_writers_at_the_same_time(lake, card, record_of):
    results = []

    def write(start):
        results.append(Lake(lake.root).append("set", [record_of(n) for n in range(start, start + 30)], card))

    threads = [threading.Thread(target=write, args=(start,)) for start in (0, 10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lake.rows("set") == 50 == sum(done.kept for done in results)
    assert len(set(lake.read("set")["structure_id"].to_pylist())) == 50
    assert all(done.rows_in == done.kept + done.duplicates + done.quarantined for done in results)


APPEND = """
import sys, time
from pathlib import Path
import numpy as np
from gnn.lake import Lake, appending
from gnn.structures.cards import Card
from gnn.structures.record import Record
appending.COMMIT_ROWS = 100
import gnn.lake.table as table
table.BATCH_ROWS = 50
def records():
    for n in range(2000):
        positions = np.array([[0, 0, 0], [2.0, 0, 0.001 * n]])
        yield Record("x", "t", np.array([14, 14]), positions, np.eye(3) * 5, np.array([True] * 3), energy=float(n))
Lake(Path(sys.argv[1])).append("set", records(), Card(name="set", theory="t"))
"""


@pytest.mark.slow
def test_a_killed_append_continues_to_the_same_content(tmp_path):
    """kill -9 in the middle of the commits, several times, then a run to the end: the digest of an undisturbed run."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", APPEND, str(tmp_path / "whole")], env=environment, check=True)
    whole = Lake(tmp_path / "whole")
    killed_in_the_middle = 0
    for commits in (1, 5, 9):
        process = subprocess.Popen([sys.executable, "-c", APPEND, str(tmp_path / "torn")], env=environment)
        log = tmp_path / "torn" / "set" / "_delta_log"
        while process.poll() is None and not (log / f"{commits:020}.json").exists():
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        killed_in_the_middle += process.wait() == -signal.SIGKILL
    assert killed_in_the_middle >= 2
    torn = Lake(tmp_path / "torn")
    assert 0 < torn.rows("set") < 2000
    subprocess.run([sys.executable, "-c", APPEND, str(tmp_path / "torn")], env=environment, check=True)
    assert torn.rows("set") == 2000
    assert (
        torn.content_digest("set") == whole.content_digest("set") == torn._computed_digest("set", torn.version("set"))
    )


@pytest.mark.parametrize(
    ("text", "parsed"), [("mp20", ("mp20", None)), ("a.b-c_1@0", ("a.b-c_1", 0)), ("x@12", ("x", 12))]
)
def test_references(text, parsed):
    assert parse_reference(text) == parsed


@pytest.mark.parametrize(
    "text", ["", "@3", "a@", "a@b", "a@-1", "a@²", "a@" + "9" * 20, "_x", "../x", "a/b", "a b", "a@1@2"]
)
def test_what_is_no_reference(text):
    with pytest.raises(InputError):
        parse_reference(text)


@pytest.mark.parametrize("name", ["_locks", "../up", "a/b", ""])
def test_names_that_cannot_be(lake, card, name):
    with pytest.raises(InputError, match="cannot name a data set"):
        lake.append(name, [], card)


@pytest.mark.parametrize("name", ["a#b", "a?b", "a%20b", "a[1]"])
def test_paths_that_cannot_be(tmp_path, card, record_of, name):
    with pytest.raises(InputError, match=r"tables cannot lie in .*; set SLUICE_HOME to a folder without it"):
        Lake(tmp_path / name / "lake").append("set", [record_of(0)], card)
    assert not (tmp_path / name).exists()
    assert Lake(tmp_path / "100% sûr, a+b").append("set", [record_of(0)], card).kept == 1
