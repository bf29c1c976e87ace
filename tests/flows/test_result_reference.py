"""The page of results is that of the types."""

from __future__ import annotations

from pathlib import Path

from flows.cli.result_reference import page, shown


def test_the_page_is_made_from_the_types(repository: Path) -> None:
    written = (repository / "docs" / "guide" / "results.md").read_text(encoding="utf-8")
    assert written == page(), "python -m flows.cli.result_reference > docs/guide/results.md"


def test_types_are_shown_without_their_modules() -> None:
    assert shown(int | None) == "`int \\| None`"
    assert shown(dict[str, Path]) == "`dict[str, Path]`"
