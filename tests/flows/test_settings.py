from __future__ import annotations

from pathlib import Path

import pytest

from flows.settings import Home, find_home


def test_environment_names_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    assert find_home().root == tmp_path


def test_nearest_marker_names_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLUICE_HOME", raising=False)
    (tmp_path / "sluice.toml").touch()
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert find_home(inner).root == tmp_path.resolve()


def test_without_a_marker_the_current_folder_is_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLUICE_HOME", raising=False)
    assert find_home(tmp_path).root == tmp_path.resolve()


def test_paths_are_relative_to_the_home_where_they_can_be(tmp_path: Path) -> None:
    home = Home(tmp_path)
    inside = home.lake / "x"
    assert home.relative(inside) == "datasets/lake/x"
    assert home.absolute(home.relative(inside)) == inside
    assert home.relative(Path("/elsewhere/y")) == "/elsewhere/y"
