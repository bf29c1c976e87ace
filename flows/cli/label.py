"""`sluice label`: structures through an engine into the lake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli import output
from flows.cli.results import LabelPlanResult, LabelResult

if TYPE_CHECKING:
    from gnn.dft.sources import Ranks


@output.goes_on
def label(
    shortlist: Annotated[
        str, typer.Argument(help="A campaign (name or folder) or a structure file.", show_default=False)
    ],
    engine: Annotated[
        str,
        typer.Option(
            "--engine", help="gpaw; xtb (tight binding, molecules); or emt for trying things out.", show_default=False
        ),
    ],
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Data set of the lake; default labels-ENGINE.")
    ] = None,
    rank: Annotated[
        str | None,
        typer.Option(
            "--rank", metavar="1,2,3", help="Only the structures of these ranks; 5-7 takes those that there are."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many, the best first.")] = None,
    relax: Annotated[bool, typer.Option("--relax/--static", help="Relax with the engine, or label as given.")] = False,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Structures at a time, one core each.")] = 1,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try recorded failures again.")] = False,
    changes: output.SetOption = None,
    dry_run: output.DryRunOption = False,
    as_json: output.JsonOption = False,
) -> None:
    """Label structures by DFT and put the results into the lake; what is labelled already is not computed again."""
    from flows.label import LabelRequest, make_plan
    from flows.label import label as label_flow
    from flows.settings import find_home

    request = LabelRequest(
        source=shortlist,
        engine=engine,
        dataset=dataset,
        kind="relax" if relax else "static",
        ranks=ranks(rank),
        limit=limit,
        workers=workers,
        settings=output.overrides(changes),
        retry_failed=retry_failed,
    )
    home = find_home()
    plan = make_plan(request, home)
    told = LabelPlanResult(
        engine=engine,
        theory=plan.theory,
        structures=len(plan.jobs),
        to_do=plan.to_do,
        journal=home.relative(plan.journal.path),
    )
    if dry_run:
        output.show(told, as_json, describe_plan)
        return
    describe_plan(told)
    with output.terminating_like_interrupt():
        result = label_flow(request, home, Remarks(told.to_do))
    output.show(result, as_json, describe)
    if result.failed and not result.done:
        raise typer.Exit(output.OUR_ERROR)


def describe_plan(result: LabelPlanResult) -> None:
    """What would be done."""
    output.say(f"{result.structures} structures at {result.theory}, {result.to_do} to do; journal {result.journal}")


def ranks(text: str | None) -> tuple[Ranks, ...]:
    """`1,5-7` as first and last ranks: (1, 1), (5, 7).

    Raises:
        InputError: something else stands there.
    """
    from gnn.errors import InputError

    if text is None:
        return ()
    found: list[Ranks] = []
    for part in filter(None, text.replace(" ", "").split(",")):
        first, dash, last = part.partition("-")
        numbers = [first, last if dash else first]
        if not all(number.isdecimal() for number in numbers) or int(numbers[0]) > int(numbers[1]):
            raise InputError(f"--rank {text!r}: {part!r} is no rank; write 1,2,5-7")
        found.append((int(numbers[0]), int(numbers[1])))
    if not found:
        raise InputError(f"--rank {text!r} names no rank; write 1,2,5-7, or leave it out for all")
    return tuple(found)


class Remarks:
    """One line on stderr for each structure as it is done."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.seen = 0

    def __call__(self, record: dict[str, Any]) -> None:
        """Say how one structure ended."""
        self.seen += 1
        job = record["job"]
        name = f"{job['group']} ({len(job['numbers'])} atoms, {job['config_type']})"
        if record["status"] == "done":
            said = f"{len(record['frames'])} frames, {record['cpu_s']:.1f} CPU s"
        else:
            said = f"failed: {record['reason']}"
        output.say(f"  {self.seen}/{self.total} {name}: {said}")


def describe(result: LabelResult) -> None:
    """The summary for people."""
    rows: list[list[object]] = [
        ["theory", result.theory],
        ["structures", result.jobs],
        ["done", f"{result.done} ({result.reused} known before)"],
        ["failed", result.failed],
        ["frames", result.frames],
        ["CPU s", f"{result.cpu_s:.1f}"],
        ["in the lake", "–" if result.dataset is None else f"{result.dataset}@{result.version}"],
        ["new there", f"{result.kept} frames ({result.duplicates} known before, {result.quarantined} quarantined)"],
    ]
    output.table(f"label with {result.engine}", ["", ""], rows)
    for reason, times in result.reasons.items():
        output.say(f"  {times} × {reason}")
    for reason, frames in result.quarantine_reasons.items():
        output.say(f"  quarantined: {frames} {reason}")
