"""The engines that can be asked for by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from gnn.dft.emt import EmtEngine
from gnn.dft.engine import Engine
from gnn.dft.gpaw import GpawEngine, GpawSettings
from gnn.dft.xtb import XtbEngine, XtbSettings
from gnn.errors import InputError

EngineMaker = Callable[[], Engine]
TIMEOUT = "timeout_s"
Settings = TypeVar("Settings", bound=BaseModel)


def make_engine(name: str, settings: Mapping[str, Any] | None = None) -> EngineMaker:
    """A function that makes one engine a call (one a worker), all with the same settings.

    `gpaw` takes the fields of `GpawSettings`, or `theory` (a theory key that fixes them all), and `timeout_s`; `xtb`
    the fields of `XtbSettings`; `emt` nothing.

    Raises:
        InputError: no engine of that name, or a setting it does not know; the message lists the known ones.
    """
    if name not in ENGINES:
        raise InputError(f"there is no engine {name!r}; known: {', '.join(sorted(ENGINES))}")
    return ENGINES[name](dict(settings or {}))


def _gpaw(settings: dict[str, Any]) -> EngineMaker:
    timeout_s = _timeout(settings.pop(TIMEOUT, 3600.0))
    parsed = _gpaw_settings(settings)
    return lambda: GpawEngine(parsed, timeout_s)


def _timeout(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise InputError(f"engine 'gpaw': setting {TIMEOUT}={value!r} must be a positive number of seconds")
    return float(value)


def _gpaw_settings(settings: dict[str, Any]) -> GpawSettings:
    base = GpawSettings.from_theory(str(settings.pop("theory"))) if "theory" in settings else GpawSettings()
    return _parsed("gpaw", GpawSettings, {**base.model_dump(), **settings}, ("theory", TIMEOUT))


def _xtb(settings: dict[str, Any]) -> EngineMaker:
    parsed = _parsed("xtb", XtbSettings, settings)
    return lambda: XtbEngine(parsed)


def _parsed(engine: str, kind: type[Settings], values: dict[str, Any], others: tuple[str, ...] = ()) -> Settings:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        known = ", ".join((*kind.model_fields, *others))
        raise InputError(
            f"engine {engine!r}: setting {where}={first['input']!r}: {first['msg']}; it knows {known}"
        ) from None


def _emt(settings: dict[str, Any]) -> EngineMaker:
    if settings:
        raise InputError(f"engine 'emt' takes no settings, got {', '.join(sorted(settings))}")
    return EmtEngine


ENGINES: dict[str, Callable[[dict[str, Any]], EngineMaker]] = {"gpaw": _gpaw, "xtb": _xtb, "emt": _emt}
