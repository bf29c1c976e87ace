"""Which reader a name stands for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ase.io import ulm

from gnn.errors import InputError
from gnn.structures.cards import Card
from gnn.structures.readers import UnreadableFile, guess_reader, read_records
from gnn.structures.readers.read import READERS, Reader


@pytest.mark.parametrize(
    ("name", "reader"),
    [
        ("a.xyz", "extxyz"),
        ("a.extxyz.gz", "extxyz"),
        ("a.traj.bz2", "ase-traj"),
        ("a.db", "ase-db"),
        ("a.json.xz", "json"),
        ("a.csv", "csv"),
        ("vasprun.xml", "vasprun"),
        ("vasprun.relax2.xml.gz", "vasprun"),
        ("OUTCAR", "outcar"),
        ("OUTCAR_3.gz", "outcar"),
        ("a.tar.xz", "tar"),
        ("a.tgz", "tar"),
        ("a.parquet", "parquet"),
        ("a.cif", "ase"),
    ],
)  # fmt: skip
def test_readers_are_guessed_by_name(name, reader):
    assert guess_reader(Path(name)) == reader


def test_a_restart_of_gpaw_is_no_trajectory(tmp_path):
    """Both are kept in ULM files."""
    with ulm.open(str(tmp_path / "si.gpw"), "w", tag="gpaw") as writer:
        writer.write(version=3)
    assert guess_reader(tmp_path / "si.gpw") == "ase"


def test_a_folder_that_is_no_system(tmp_path):
    with pytest.raises(UnreadableFile, match=r"no DeePMD system"):
        guess_reader(tmp_path)


def test_a_reader_that_is_not_there(xyz):
    with pytest.raises(InputError, match=r"no reader 'xsf'; known are: .*extxyz") as caught:
        list(read_records(xyz, Card(name="x", reader="xsf", theory="t")))
    assert "tar" not in re.split(r"[:,] ", str(caught.value)), "an archive is opened, and not read by rows"


def test_whatever_a_library_raises_costs_the_file(xyz, card, monkeypatch):
    def read(path, rules):
        raise ZeroDivisionError("no such thing")
        yield

    monkeypatch.setitem(READERS, "extxyz", Reader(read, ()))
    with pytest.raises(UnreadableFile, match=r"frames\.xyz: ZeroDivisionError: no such thing"):
        list(read_records(xyz, card))
