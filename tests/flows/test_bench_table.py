"""Tables of benchmarks as Markdown and as JSON."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from flows.bench.table import BenchTable, Column, Machine, Part, bench_table, grid, shown, this_machine

MACHINE = Machine(processor="AMD EPYC", cores=2, system="Linux x86_64", python="3.11.7", load=4.25)


@pytest.fixture
def made() -> BenchTable:
    columns = [Column(name="model"), Column(name="ms", digits=1), Column(name="weights")]
    parts = [Part(title="Speeds", columns=columns, rows=[["a", 1.26, 7], ["b", None, 8]], notes=["One note."])]
    return BenchTable(
        benchmark="speed",
        title="Speed of things",
        command="sluice bench speed",
        machine=MACHINE,
        versions={"torch": "2.13.0", "ase": "3.29.0"},
        seeds=[0, 1],
        notes=["Measured in turn."],
        parts=parts,
    )


def test_page_says_what_where_with_what_and_how(made: BenchTable) -> None:
    assert made.markdown().splitlines() == [
        "# Speed of things",
        "",
        "AMD EPYC, 2 cores, Linux x86_64, load 4.2 at the start. Python 3.11.7, torch 2.13.0, ase 3.29.0. Seeds: 0, 1.",
        "",
        "    sluice bench speed",
        "",
        "- Measured in turn.",
        "",
        "## Speeds",
        "",
        "| model | ms | weights |",
        "| --- | ---: | ---: |",
        "| a | 1.3 | 7 |",
        "| b | – | 8 |",
        "",
        "- One note.",
    ]


def test_json_goes_there_and_back(made: BenchTable) -> None:
    again = BenchTable.model_validate_json(made.model_dump_json())
    assert again == made
    assert json.loads(made.model_dump_json())["parts"][0]["rows"][0] == ["a", 1.26, 7]


def test_no_seeds_and_no_load_are_not_mentioned(made: BenchTable) -> None:
    silent = made.model_copy(update={"seeds": [], "machine": MACHINE.model_copy(update={"load": None})})
    assert "Seeds" not in silent.provenance()
    assert "load" not in silent.provenance()


def test_a_row_of_the_wrong_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        grid([Column(name="a"), Column(name="b")], [["x"]])


def test_cells() -> None:
    assert shown(None, Column(name="a")) == "–"
    assert shown(3, Column(name="a", digits=2)) == "3"
    assert shown(3.14159, Column(name="a", digits=2)) == "3.14"
    assert shown("x", Column(name="a", digits=2)) == "x"


def test_a_column_without_rows_is_text() -> None:
    assert grid([Column(name="a")], []) == "| a |\n| --- |"


def test_facts_are_of_this_machine() -> None:
    found = bench_table("speed", "t", "c", [])
    assert found.machine.python == this_machine().python
    assert found.versions["torch"]
    assert found.versions["sluice"]


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError):
        Part.model_validate({"title": "t", "columns": [], "rows": [], "extra": 1})
