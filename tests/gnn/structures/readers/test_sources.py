"""Arguments of a command line as a list of things to read, and how records name them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gnn.errors import InputError
from gnn.structures.readers.sources import expand, is_document, source_name, source_sha256


@pytest.fixture
def tree(tmp_path) -> Path:
    for name in (
        "b/2.xyz",
        "b/1.xyz",
        "b/README.md",
        "b/.hidden",
        "b/LICENSE",
        "sys/type.raw",
        "sys/set.000/coord.npy",
        "c.db",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def names(paths, tree):
    return [path.relative_to(tree).as_posix() for path in paths]


def test_folders_are_read_in_order_and_systems_are_one_thing(tree):
    assert names(expand([tree]), tree) == ["b/1.xyz", "b/2.xyz", "c.db", "sys"]


def test_each_path_once_in_the_order_given(tree):
    arguments = [tree / "c.db", tree / "b" / "2.xyz", tree / "b", tree / "c.db"]
    assert names(expand(arguments), tree) == ["c.db", "b/2.xyz", "b/1.xyz"]


def test_globs(tree):
    assert names(expand([f"{tree}/b/*.xyz"]), tree) == ["b/1.xyz", "b/2.xyz"]
    assert names(expand([f"{tree}/*"]), tree) == ["b/1.xyz", "b/2.xyz", "c.db", "sys"]
    with pytest.raises(InputError, match="there is no file"):
        expand([f"{tree}/*.traj"])


def test_a_document_alone_is_tried(tree):
    assert names(expand([tree / "b" / "README.md"]), tree) == ["b/README.md"]
    assert names(expand([tree / "b" / "README.md", tree / "c.db"]), tree) == ["c.db"]


GAUSSIAN = " Entering Gaussian System, Link 0=g16\n"
XYZ = '1\nProperties=species:S:1:pos:R:3 energy=-1 pbc="F F F"\nHe 0 0 0\n'


def test_texts_of_a_folder_are_read_where_they_begin_as_data(tmp_path):
    for name, text in (
        ("mol.log", GAUSSIAN), ("si.txt", XYZ), ("a.json.txt", '[{"atoms": 1}]'), ("run.log", "it began\n"),
        ("notes.txt", "words\n"), ("README.txt", XYZ),
    ):  # fmt: skip
        (tmp_path / name).write_text(text)
    assert names(expand([tmp_path]), tmp_path) == ["a.json.txt", "mol.log", "si.txt"]
    assert names(expand([f"{tmp_path}/*.log"]), tmp_path) == ["mol.log"]


def test_a_text_that_is_named_is_read(tree):
    (tree / "run.log").write_text("it began\n")
    assert names(expand([tree / "run.log", tree / "c.db"]), tree) == ["run.log", "c.db"]


def test_only_documents(tmp_path):
    (tmp_path / "notes.txt").write_text("words\n")
    (tmp_path / "README.md").write_text("words\n")
    for argument in (tmp_path, f"{tmp_path}/*"):
        with pytest.raises(InputError, match=r"only documents \(README\.md, notes\.txt\) in .*; name a file itself"):
            expand([argument])


def test_a_link_back_is_not_followed(tree):
    (tree / "b" / "latest").symlink_to(".")
    (tree / "b" / "up").symlink_to(tree)
    (tree / "other").symlink_to(tree / "sys")
    assert names(expand([tree]), tree) == ["b/1.xyz", "b/2.xyz", "c.db", "other", "sys"]


@pytest.mark.parametrize(("name", "document"), [("card.md", True), ("LICENSE", True), (".x", True), ("a.xyz", False)])
def test_documents(name, document):
    assert is_document(Path(name)) is document


def test_an_empty_folder_is_nothing(tmp_path):
    with pytest.raises(InputError):
        expand([tmp_path])


def test_names_hold_nothing_of_the_machine(tree):
    assert source_name(tree / "b" / "1.xyz") == "b/1.xyz"
    assert source_name(Path("/x.xyz")) == "x.xyz"


def test_digest_of_a_folder_sees_names_and_contents(tree):
    before = source_sha256(tree / "sys")
    assert source_sha256(tree / "sys") == before
    (tree / "sys" / "type.raw").write_text("other")
    changed = source_sha256(tree / "sys")
    (tree / "sys" / "type.raw").rename(tree / "sys" / "types.raw")
    assert len({before, changed, source_sha256(tree / "sys")}) == 3
