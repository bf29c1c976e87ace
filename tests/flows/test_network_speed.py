"""The table of network speeds."""

from __future__ import annotations

from flows.bench.network_speed import Row, structures, table


def test_table_has_a_line_a_row() -> None:
    text = table([Row("64 L0", "molecule", 78208, 192, 3000.4, 9000.0, 450.0)], "command").markdown()
    assert text.splitlines()[-1] == "| 64 L0 | molecule | 78208 | 3000 | 9000 | 450 |"


def test_structures_are_the_same_every_time_and_differ() -> None:
    first, second = structures("molecule", 2)
    again = structures("molecule", 1)[0]
    assert (first.positions == again.positions).all()
    assert (first.positions != second.positions).any()
