"""Archives are read member by member."""

from __future__ import annotations

import tarfile

import pytest
from deepmd_system import write_system

from gnn.structures.readers import UnreadableFile, read_records, read_whole


def test_archives_are_read_member_by_member(tmp_path, frames, xyz, card, read_all):
    write_system(tmp_path / "in" / "run" / "data.001", frames, "raw")
    write_system(tmp_path / "in" / "run" / "data.002", frames[:2], "raw")
    path = tmp_path / "all.tar.xz"
    with tarfile.open(path, "w:xz") as archive:
        archive.add(tmp_path / "in" / "run", "run")
        archive.add(xyz, "run/frames.xyz")
    records = read_all(path, card)
    assert len(records) == 5 + 2 + 5
    assert records[0].source.file == f"{tmp_path.name}/all.tar.xz!run/data.001"
    assert len({record.group for record in records}) == 3


def test_hostile_archives_are_refused(tmp_path, xyz, card):
    outside, loop = f"{tmp_path.parent}/escape.xyz", "loop.xyz"
    for name, linkname in (("../escape.xyz", ""), ("link.xyz", "/etc/hostname"), (outside, ""), (loop, loop)):
        path = tmp_path / "bad.tar"
        with tarfile.open(path, "w") as archive:
            member = tarfile.TarInfo(name)
            if linkname:
                member.type, member.linkname = tarfile.SYMTYPE, linkname
            archive.addfile(member)
        with pytest.raises(UnreadableFile):
            list(read_records(path, card))
    assert not (tmp_path.parent / "escape.xyz").exists()


def test_links_within_an_archive_are_the_files_they_point_to(tmp_path, xyz, card, read_all):
    path = tmp_path / "linked.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(tmp_path, "run", recursive=False)
        archive.add(xyz, "run/frames.xyz")
        for kind, name, target in (
            (tarfile.LNKTYPE, "hard.xyz", "run/frames.xyz"),
            (tarfile.SYMTYPE, "run/soft.xyz", "frames.xyz"),
            (tarfile.SYMTYPE, "again", "run"),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    assert len(read_all(path, card)) == 3 * 5


def test_one_bad_member_is_named_and_the_others_are_read(tmp_path, frames, xyz, card):
    (tmp_path / "torn.xyz").write_text(xyz.read_text()[:-300])
    path = tmp_path / "all.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(tmp_path / "torn.xyz", "a.xyz")
        archive.add(xyz, "b.xyz")
    kept = []
    with pytest.raises(UnreadableFile, match=r"1 of 2 members: a\.xyz"):
        for record in read_whole(path, card):
            kept.append(record)
    assert len(kept) == 5, "nothing of the torn member, all of the other"


@pytest.mark.parametrize("limit", [1, 20, 10**6])
def test_nothing_is_given_of_a_file_that_does_not_end(xyz, card, monkeypatch, limit):
    from gnn.structures.readers import read

    monkeypatch.setattr(read, "HELD_ATOMS", limit)
    assert len(list(read_whole(xyz, card))) == 5
    xyz.write_text(xyz.read_text()[:-300])
    kept = []
    with pytest.raises(UnreadableFile):
        for record in read_whole(xyz, card):
            kept.append(record)
    assert kept == []


def test_a_truncated_archive_costs_the_file(tmp_path, xyz, card):
    path = tmp_path / "all.tar.xz"
    with tarfile.open(path, "w:xz") as archive:
        archive.add(xyz, "b.xyz")
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(UnreadableFile):
        list(read_records(path, card))


def test_a_name_in_another_encoding(tmp_path, xyz, card, read_all):
    path = tmp_path / "all.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        archive.add(xyz, "Müller.xyz")
    assert read_all(path, card)[0].source.file == f"{tmp_path.name}/all.tar!M\ufffdller.xyz"
