"""The ingest flow and the verbs `ingest` and `lake`: counts, cards, errors in one line, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from typer.testing import CliRunner

import flows.ingest as module
from flows.cards import card_for, check_input
from flows.cli.main import app
from flows.used_versions import in_use, used_versions
from gnn.errors import InputError
from gnn.files import file_sha256
from gnn.lake import Lake
from gnn.screening.manifest import CampaignManifest, ModelPin

run = partial(CliRunner().invoke, app)


def frames(count: int, start: int = 0, scale: float = 1.0):
    for number in range(start, start + count):
        atoms = bulk("Si", cubic=True)
        atoms.rattle(0.05, seed=number)
        forces = np.random.default_rng(number).normal(size=(8, 3)) * scale
        atoms.calc = SinglePointCalculator(atoms, energy=-40.0 - number, forces=forces)
        yield atoms


def write(path: Path, count: int = 5, start: int = 0, **more) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ase.io.write(path, list(frames(count, start, **more)), format="extxyz")
    return path


@pytest.fixture
def go(home):
    """The flow's body without Prefect, and the warnings it gave."""

    def ingest(files, dataset="si", card=None, theory="pbe/x"):
        warnings: list[str] = []
        arguments = ([str(file) for file in files], dataset, home, card, theory)
        return module.ingest_with(module.ingest_group, warnings.append, *arguments), warnings

    return ingest


@pytest.fixture
def without_prefect(monkeypatch):
    """The verb calls the flow's body, so that no server is needed."""

    def flow(*arguments):
        return module.ingest_with(module.ingest_group, lambda _: None, *arguments)

    monkeypatch.setattr(module, "ingest", flow)


# the flow's body


def test_twice_the_same_files(go, tmp_path):
    files = [write(tmp_path / "a.xyz"), write(tmp_path / "b.xyz", 3, start=5)]
    first, warnings = go(files)
    assert (first.rows_in, first.kept, first.duplicates, first.quarantined) == (8, 8, 0, 0)
    assert (first.files, first.files_failed, first.theories, first.version) == (2, 0, ["pbe/x"], 0)
    assert warnings == []
    second, _ = go(files)
    assert (second.rows_in, second.kept, second.duplicates) == (8, 0, 8)
    assert (second.version, second.content_digest) == (first.version, first.content_digest)


def test_a_broken_file_costs_itself(go, tmp_path):
    good, torn = write(tmp_path / "good.xyz"), write(tmp_path / "torn.xyz", start=10)
    torn.write_text(torn.read_text()[:-100])
    result, _ = go([torn, good])
    assert (result.rows_in, result.kept, result.files_failed) == (5, 5, 1)
    assert "truncated" in result.file_errors[f"{tmp_path.name}/torn.xyz"]


def test_names_in_another_encoding(go, tmp_path):
    folder = tmp_path / "in"
    write(folder / "a.xyz").rename(folder / os.fsdecode(b"M\xfcller.xyz"))
    (folder / os.fsdecode(b"M\xfcll.xyz")).write_text("no frame\n")
    result, _ = go([folder])
    assert (result.kept, list(result.file_errors)) == (5, ["in/M\ufffdll.xyz"])
    result.model_dump_json()


def test_bad_rows_cost_themselves(go, tmp_path):
    path = write(tmp_path / "a.xyz")
    lines = path.read_text().splitlines(keepends=True)
    lines[3] = lines[2]
    path.write_text("".join(lines))
    result, _ = go([path])
    assert (result.rows_in, result.kept, result.quarantined) == (5, 4, 1)
    assert result.reasons == {"overlapping-atoms": 1}


def test_outliers_stay_with_a_flag(go, tmp_path, home):
    result, _ = go([write(tmp_path / "a.xyz", scale=100.0)])
    assert (result.kept, result.quarantined) == (5, 0)
    assert Lake(home.lake).read("si", columns=["flags"])["flags"].to_pylist() == [["large-force"]] * 5


def test_nothing_to_read_is_an_error_with_the_counts(go, tmp_path):
    torn = write(tmp_path / "torn.xyz")
    torn.write_text("no frame\n")
    with pytest.raises(module.NothingRead, match=r"nothing could be read into si: .*torn\.xyz") as caught:
        go([torn])
    assert caught.value.result.files_failed == 1


def test_folders_globs_and_documents(go, tmp_path):
    for name in ("a/x.xyz", "a/b/y.xyz", "c/z.xyz"):
        write(tmp_path / name, 1, start=len(name) + ord(name[0]))
    (tmp_path / "a" / "README.md").write_text("# words")
    (tmp_path / "a" / "card.md").write_text("# words")
    assert go([tmp_path / "a"])[0].files == 2
    assert go([f"{tmp_path}/*/*.xyz"])[0].files == 2
    assert go([f"{tmp_path}/**/*.xyz"])[0].files == 3
    assert go([*(tmp_path / "a").iterdir()])[0].files == 2, "what a shell makes of a/*"
    with pytest.raises(InputError, match="there is no file nowhere"):
        go(["nowhere"])


def test_groups_of_files(go, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "GROUP_FILES", 2)
    files = [write(tmp_path / f"{number}.xyz", 1, start=number % 4) for number in range(5)]
    result, _ = go(files)
    assert (result.files, result.rows_in, result.kept, result.duplicates) == (5, 5, 4, 1)


def test_what_the_card_expects_is_compared(go, tmp_path, home):
    path = write(tmp_path / "a.xyz")
    home.cards.mkdir(parents=True)
    file = f'files."a.xyz" = {{ rows = 5, sha256 = "{file_sha256(path)}" }}'
    (home.cards / "si.toml").write_text(f'theory = "pbe/x"\n[expected]\nrows_in = 5\nkept = 4\n{file}')
    result, warnings = go([path], theory=None)
    assert result.warnings == warnings == ["kept is 5 where the card expects 4"]
    assert go([path], theory=None)[1] == [], "a second time nothing is kept, and rightly"
    write(path, 4)
    _, warnings = go([path], theory=None)
    assert "4 rows where the card expects 5" in warnings[0] and "not the file that the card describes" in warnings[1]


def test_another_set_by_the_rules_of_a_card_is_not_held_against_its_counts(go, tmp_path, home):
    home.cards.mkdir(parents=True)
    (home.cards / "theirs.toml").write_text('theory = "pbe/x"\n[expected]\nrows_in = 77\n')
    path = write(tmp_path / "a.xyz")
    assert go([path], dataset="mine", card="theirs", theory=None)[1] == []
    assert go([path], dataset="theirs", theory=None)[1] == ["rows_in is 5 where the card expects 77"]
    own = str(home.cards / "theirs.toml")
    assert go([path], dataset="third", card=own, theory=None)[1] == ["rows_in is 5 where the card expects 77"]


def test_a_stranger_in_the_folder_costs_itself(go, tmp_path, home):
    """Something that no card explains, and words: told, and the rest is read."""
    write(tmp_path / "set" / "a.xyz")
    (tmp_path / "set" / "settings.json").write_text('{"encut": 520.0}')
    (tmp_path / "set" / "photo.png").write_bytes(b"\x89PNG")
    check_input([str(tmp_path / "set")], "si", home, None, "pbe/x")
    result, _ = go([tmp_path / "set"])
    assert (result.files, result.files_failed, result.kept) == (3, 2, 5)
    with pytest.raises(InputError, match="nothing in it looks like a structure"):
        check_input([str(tmp_path / "set" / "settings.json")], "si", home, None, "pbe/x")


def test_structures_without_labels_are_said_to_be(go, tmp_path):
    path = tmp_path / "bare.xyz"
    bare = list(frames(3))
    ase.io.write(path, bare, format="extxyz", write_results=False)
    _, warnings = go([path])
    assert warnings == ["3 rows have no energy, forces, stress or property: structures only"]


def test_which_card(home, tmp_path, repository):
    assert card_for("new", home, None, "a/b").reader == "auto"
    assert card_for("mp20", home, None, None).reader == "csv-cif"
    assert card_for("mp20", home, "auto", "a/b").fallback_theory == "a/b"
    assert card_for("ge", home, "mlearn", None).theory == "pbe/vasp-pw520"
    home.cards.mkdir(parents=True)
    (home.cards / "mp20.toml").write_text('theory = "mine/x"')
    assert card_for("mp20", home, None, None).theory == "mine/x"
    assert card_for("x", home, str(repository / "datasets" / "cards" / "wbm.toml"), None).name == "wbm"


def test_a_table_remembers_its_card(go, tmp_path, home):
    card = tmp_path / "own.toml"
    card.write_text('theory = "pbe/own"\nlicence = "MIT"\n[properties.dihedral]\nunit = "deg"\n')
    go([write(tmp_path / "a.xyz")], card=str(card), theory=None)
    result, _ = go([write(tmp_path / "b.xyz", 2, start=9)], theory=None)
    assert result.theories == ["pbe/own"]
    assert Lake(home.lake).card("si").licence == "MIT"


def test_what_a_file_tells_comes_before_the_theory_that_is_given(go, tmp_path, home):
    """And before the one that was given for other files of the set, which serves again where files are silent."""
    silent, telling = write(tmp_path / "silent.xyz"), write(tmp_path / "telling.xyz", start=5)
    telling.write_text(telling.read_text().replace("energy=", "theory=hse/own energy="))
    result, _ = go([silent, telling])
    assert result.theories == ["hse/own", "pbe/x"]
    more, new = write(tmp_path / "more.xyz", start=10), write(tmp_path / "new.xyz", start=15)
    new.write_text(new.read_text().replace("energy=", "theory=hse/own energy="))
    assert go([new], theory=None)[0].theories == ["hse/own"]
    assert go([new], theory="pbe/x")[0].warnings == [
        "--theory pbe/x serves only what tells no level of theory; here is what files told: hse/own"
        ' (a card with theory = "pbe/x" goes before that)'
    ]
    assert go([more], theory=None)[0].theories == ["pbe/x"]


# the verbs


def test_ingest_prints_one_json_object(home, tmp_path, without_prefect):
    path = write(tmp_path / "a.xyz")
    done = run(["ingest", str(path), "--dataset", "si", "--theory", "pbe/x", "--json"])
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert answer["rows_in"] == answer["kept"] + answer["duplicates"] + answer["quarantined"] == 5
    for key in ("dataset", "version", "files_failed", "reasons", "schema_version"):
        assert key in answer


def test_ingest_tells_people(home, tmp_path, without_prefect):
    path = write(tmp_path / "a.xyz")
    torn = write(tmp_path / "b.xyz")
    torn.write_text(torn.read_text()[:-50])
    done = run(["ingest", str(path), str(torn), "--dataset", "si", "--theory", "pbe/x"])
    assert done.exit_code == 0
    assert "si@0: 5 rows in = 5 kept + 0 duplicates + 0 quarantined; 2 files, 1 failed" in done.stdout
    assert "b.xyz: truncated" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.xyz", "--dataset", "x"], "there is no file nowhere.xyz"),
        (["{file}", "--dataset", "a/b", "--theory", "t"], "'a/b' cannot name a data set"),
        (["{file}", "--dataset", "x"], "give --theory KEY"),
        (["{file}", "--dataset", "x", "--card", "nope"], "there is no card 'nope'; known are: 3bpa"),
        (["{file}", "--dataset", "mp20", "--theory", "t"], "contradicts card mp20"),
    ],
)
def test_mistakes_are_told_in_one_line_before_anything_starts(home, tmp_path, arguments, words, monkeypatch):
    monkeypatch.setattr(module, "ingest", lambda *_: pytest.fail("the flow was started"))
    file = write(tmp_path / "a.xyz")
    done = run(["ingest", *(argument.format(file=file) for argument in arguments)])
    assert done.exit_code == 2
    assert done.stdout == ""
    assert words in done.stderr and done.stderr.count("\n") == 1
    assert not home.lake.exists()


def test_nothing_readable_exits_2_and_still_answers(home, tmp_path, without_prefect):
    torn = tmp_path / "torn.xyz"
    torn.write_text("no frame\n")
    done = run(["ingest", str(torn), "--dataset", "x", "--theory", "t", "--json"])
    assert done.exit_code == 2
    assert json.loads(done.stdout)["files_failed"] == 1
    assert "nothing could be read" in done.stderr


def test_missing_arguments(home):
    assert run(["ingest"]).exit_code == 2
    assert run(["ingest", "a.xyz"]).exit_code == 2


@pytest.fixture
def filled(go, tmp_path, home) -> Lake:
    go([write(tmp_path / "a.xyz")])
    path = write(tmp_path / "b.xyz", 2, start=20)
    path.write_text(path.read_text().replace("Si ", "Xx ", 1))
    go([path])
    return Lake(home.lake)


def test_lake_ls_and_show(filled):
    answer = json.loads(run(["lake", "ls", "--json"]).stdout)
    (row,) = answer["datasets"]
    assert (row["dataset"], row["version"], row["rows"], row["quarantined"]) == ("si", 1, 6, 1)
    assert (row["theories"], row["elements"]) == (["pbe/x"], ["Si"])
    assert row["content_digest"] == filled.content_digest("si")
    old = json.loads(run(["lake", "show", "si@0", "--json"]).stdout)["datasets"][0]
    assert (old["version"], old["rows"]) == (0, 5) and old["content_digest"] != row["content_digest"]
    assert "si" in run(["lake", "ls"]).stdout


def test_lake_versions_and_quarantine(filled):
    versions = json.loads(run(["lake", "versions", "si", "--json"]).stdout)["versions"]
    assert [(row["version"], row["rows"], row["operation"]) for row in versions] == [(1, 6, "write"), (0, 5, "write")]
    refused = json.loads(run(["lake", "quarantine", "si", "--json"]).stdout)
    assert refused["quarantined"] == 1 == sum(refused["reasons"].values()) == len(refused["rows"])
    assert json.loads(run(["lake", "quarantine", "si", "--limit", "0", "--json"]).stdout)["rows"] == []
    for verb in ("versions", "quarantine"):
        assert run(["lake", verb, "si"]).exit_code == 0


def campaign_of(home, **fields):
    """The manifest of a campaign that has begun."""
    pin = ModelPin(uri="foreign:emt", version=None, sha256="0" * 64, path=None, theory="emt/ase", elements=["Al"])
    (home.campaigns / "c").mkdir(parents=True)
    manifest = CampaignManifest(name="c", state="RUNNING", spec_digest="", model=pin, code_version="", **fields)
    return manifest.write(home.campaigns / "c")


@pytest.mark.parametrize(("name", "text"), [("", "{"), ("", "{}"), ("", "[]"), ("model.json", "{")])
def test_lake_gc_deletes_nothing_where_a_manifest_is_damaged(filled, home, name, text):
    path = campaign_of(home, lake_versions={"si": 0})
    path = path.with_name(name) if name else path
    path.write_text(text)
    refused = run(["lake", "gc"])
    assert (refused.exit_code, len(refused.stderr.splitlines())) == (2, 1)
    assert f"{path} is damaged" in refused.stderr
    assert filled.read("si", 0).num_rows == 5


def test_lake_gc_keeps_what_others_name(filled, home):
    folder = home.graphs / "abc"
    folder.mkdir(parents=True)
    (folder / "graph_set.json").write_text(json.dumps({"inputs": [{"dataset": "si", "version": 0}]}))
    campaign_of(home, lake_versions={"si": 1, "other": 3}, candidate_datasets=["other@2"])
    assert used_versions(home) == {"other": [2, 3], "si": [0, 1]}
    would = json.loads(run(["lake", "gc", "--dry-run", "--json"]).stdout)
    assert would["dry_run"] and filled.version("si") == 1
    done = json.loads(run(["lake", "gc", "--json"]).stdout)
    assert done["kept_versions"]["si"] == [0, 1]
    assert filled.read("si", 0).num_rows == 5 and filled.read("si", 1).num_rows == 6
    assert run(["lake", "gc"]).exit_code == 0


def test_lake_gc_keeps_what_is_read(filled, home):
    """Of a run that was killed, too, until nobody will start it again."""
    with in_use(home, [("si", 0), ("si", 1)]):
        (marker,) = (home.lake / "_in_use").iterdir()
        left = marker.read_text()
        assert json.loads(run(["lake", "gc", "--json"]).stdout)["kept_versions"] == {"si": [0, 1]}
        assert filled.read("si", 0).num_rows == 5
    assert used_versions(home) == {}
    marker.write_text(left)
    assert used_versions(home) == {"si": [0, 1]}
    os.utime(marker, (0, 0))
    assert used_versions(home) == {}
    assert filled.datasets() == ["si"]


@pytest.mark.parametrize(
    "arguments", [["show", "other"], ["versions", "other"], ["quarantine", "other"], ["show", "si@9"]]
)
def test_lake_mistakes(filled, arguments):
    done = run(["lake", *arguments])
    assert done.exit_code == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert "there are: si" in done.stderr or "the newest version is 1" in done.stderr


def test_an_empty_lake(home):
    assert json.loads(run(["lake", "ls", "--json"]).stdout)["datasets"] == []


# under Prefect


@pytest.mark.server
def test_the_flow_under_prefect(home, tmp_path, prefect_server):
    path = write(tmp_path / "a.xyz")
    result = module.ingest([str(path)], "si", home, None, "pbe/x")
    assert (result.rows_in, result.kept) == (5, 5)
    state = module.ingest([str(path)], "si", home, None, "pbe/x", return_state=True)
    assert state.is_completed() and state.result().duplicates == 5
    path.write_text("broken\n")
    failed = module.ingest([str(path)], "si", home, None, "pbe/x", return_state=True)
    assert failed.is_failed()


INGEST = """
import sys
from pathlib import Path
import flows.ingest as module
from flows.settings import Home
from gnn.lake import appending, table
appending.COMMIT_ROWS, table.BATCH_ROWS = 20, 10
home, files = Home(Path(sys.argv[1])), sys.argv[2:]
print(module.ingest_with(module.ingest_group, print, files, "si", home, None, "pbe/x").model_dump_json())
"""


@pytest.mark.slow
def test_a_killed_ingest_ends_in_the_same_content(tmp_path):
    """kill -9 after the second commit, then the same command."""
    files = [str(write(tmp_path / f"{number}.xyz", 60, start=100 * number)) for number in range(3)]
    call = [sys.executable, "-c", INGEST]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole = subprocess.run([*call, str(tmp_path / "one"), *files], env=environment, check=True, capture_output=True)
    process = subprocess.Popen([*call, str(tmp_path / "two"), *files], env=environment, stdout=subprocess.DEVNULL)
    commit = tmp_path / "two" / "datasets" / "lake" / "si" / "_delta_log" / f"{1:020}.json"
    while process.poll() is None and not commit.exists():
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    again = subprocess.run([*call, str(tmp_path / "two"), *files], env=environment, check=True, capture_output=True)
    first, second = (json.loads(done.stdout.splitlines()[-1]) for done in (whole, again))
    assert second["content_digest"] == first["content_digest"]
    assert second["kept"] + second["duplicates"] == first["kept"] == 180
    assert second["duplicates"] >= 40, "what was committed is not read in again"
