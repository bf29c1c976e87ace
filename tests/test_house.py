"""The house stands: imports point one way, nothing unsafe, nothing that belongs to one machine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = ("gnn", "flows")
UNSAFE = re.compile(r"\b(torch\.load|pickle\.load|cPickle|yaml\.load\(|shell=True|weights_only=False)|(?<![\w.])eval\(")
MACHINE_PATHS = re.compile(r"(?<![\w.~])/(work|home|root)/")
LONGEST_FUNCTION = 60


def files(repository: Path, *suffixes: str) -> list[Path]:
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return [repository / name for name in tracked if name.endswith(suffixes) and (repository / name).is_file()]


def test_imports_point_one_way(repository: Path) -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter], cwd=repository, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


def test_nothing_unsafe_is_called(repository: Path) -> None:
    for path in files(repository, ".py"):
        if path.relative_to(repository).parts[0] in SOURCES:
            assert not UNSAFE.search(path.read_text()), path


def test_no_path_of_one_machine(repository: Path) -> None:
    for path in files(repository, ".py", ".md", ".toml", ".yaml", "Makefile"):
        if path != Path(__file__):
            assert not MACHINE_PATHS.search(path.read_text()), path


def test_functions_stay_short(repository: Path) -> None:
    import ast

    for path in files(repository, ".py"):
        if path.relative_to(repository).parts[0] not in SOURCES:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                length = body[-1].end_lineno - body[0].lineno + 1 if body else 0  # type: ignore[operator]
                assert length <= LONGEST_FUNCTION, f"{path}:{node.lineno} {node.name} has {length} lines"


def test_nothing_in_datasets_can_be_imported(repository: Path) -> None:
    assert not [path for path in files(repository, ".py") if path.relative_to(repository).parts[0] == "datasets"]


@pytest.mark.parametrize("name", ["README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", ".ci/run"])
def test_what_newcomers_expect_is_there(repository: Path, name: str) -> None:
    assert (repository / name).is_file()


def test_links_in_the_readme_lead_somewhere(repository: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", (repository / "README.md").read_text()):
        assert (repository / target).exists(), target
