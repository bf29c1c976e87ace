from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import typer

from flows.cli.main import main
from flows.cli.output import goes_on, overrides, speaks_plainly, terminating_like_interrupt, toml_value
from gnn.errors import InputError, SluiceError


def test_overrides_nest_and_read_toml() -> None:
    assert overrides(["a.b=1", "a.c=[1, 2]", "d=text", "e=true", "f='x'"]) == {
        "a": {"b": 1, "c": [1, 2]},
        "d": "text",
        "e": True,
        "f": "x",
    }


def test_an_override_without_a_value_is_the_users_mistake() -> None:
    with pytest.raises(InputError, match=r"a\.b=c"):
        overrides(["a.b"])


@pytest.mark.parametrize("assignments", [["data=3", "data.cutoff=4"], ["a.b=1", "a.b.c=2"]])
def test_an_override_within_a_value_is_the_users_mistake(assignments: list[str]) -> None:
    with pytest.raises(InputError, match=r"has a value already"):
        overrides(assignments)


def test_toml_value_takes_text_as_it_is() -> None:
    assert toml_value("models:/x@champion") == "models:/x@champion"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("bad\nvalue"), 2),
        (SluiceError("broke"), 1),
        (KeyboardInterrupt(), 130),
        (RuntimeError("Timed out while attempting to connect to ephemeral Prefect API server."), 1),
        (RuntimeError("Failed to reach API at http://127.0.0.1:9/api/"), 1),
        (httpx.ConnectError("All connection attempts failed"), 1),
    ],
)
def test_errors_become_one_line_and_an_exit_code(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    @speaks_plainly
    def verb() -> None:
        raise error

    with pytest.raises(typer.Exit) as exit_:
        verb()
    assert exit_.value.exit_code == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("decorator", "said"), [(speaks_plainly, "stopped"), (goes_on, "stopped; the same command goes on from here")]
)
def test_only_what_keeps_its_work_promises_to_go_on(
    decorator: Callable[..., Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @decorator
    def verb() -> None:
        raise KeyboardInterrupt

    with pytest.raises(typer.Exit):
        verb()
    assert capsys.readouterr().err == f"{said}\n"


def test_our_own_bugs_are_not_hidden() -> None:
    @speaks_plainly
    def verb() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        verb()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", "--minutes", "abc"], "'--minutes'"),
        (["up", "--prefect-port", "99999"], "65535"),
        (["lake", "bogus"], "'bogus'"),
        (["screen"], "'campaign'"),
    ],
)
def test_wrong_usage_is_told_in_one_line(
    arguments: list[str], named: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sluice", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ") and named in line
    assert captured.out == ""


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from flows.cli.main import app; "
        "heavy = {'torch', 'prefect', 'mlflow', 'pymatgen', 'pandas', 'dask'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_batch_systems_stop_is_an_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt), terminating_like_interrupt():
        os.kill(os.getpid(), signal.SIGTERM)
        signal.sigtimedwait([], 5)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_prefects_own_signal_is_an_interrupt_too() -> None:
    class TerminationSignal(BaseException):
        pass

    with pytest.raises(KeyboardInterrupt), terminating_like_interrupt():
        raise TerminationSignal
