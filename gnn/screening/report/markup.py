"""HTML made by functions, safe by construction: whatever is not already `Html` is escaped."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable

Attribute = str | int | float | bool | None


class Html(str):
    """Text that is markup already and is not escaped again."""

    __slots__ = ()


def text(value: object) -> Html:
    """`value` as escaped text."""
    return value if isinstance(value, Html) else Html(html.escape(str(value), quote=True))


def join(parts: Iterable[str], separator: str = "") -> Html:
    """Parts one after the other; plain strings are escaped."""
    return Html(separator.join(text(part) for part in parts))


def element(tag: str, *children: str, **attributes: Attribute) -> Html:
    """`<tag attributes>children</tag>`; `class_` means class, `data_tip` means data-tip, None and False leave out."""
    return Html(f"<{tag}{_attributes(attributes)}>{join(children)}</{tag}>")


def void(tag: str, **attributes: Attribute) -> Html:
    """An element without content, closed in itself, as SVG shapes are."""
    return Html(f"<{tag}{_attributes(attributes)}/>")


def _attributes(attributes: dict[str, Attribute]) -> str:
    written = []
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        key = name.rstrip("_").replace("_", "-")
        written.append(f" {key}" if value is True else f' {key}="{html.escape(_value(value), quote=True)}"')
    return "".join(written)


def _value(value: str | int | float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def number(value: float | None, digits: int = 3, sign: bool = False) -> str:
    """A number for people; an en dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    rounded = round(value, digits) + 0.0
    return f"{rounded:{'+' if sign and rounded else ''}.{digits}f}".replace("-", "−")


def count(value: int) -> str:
    """A count with thin spaces between thousands."""
    return f"{value:,}".replace(",", "\u202f")


MOST_DIGITS = 12
"""Of a percentage: enough for one among ten thousand million."""


def share(value: float) -> str:
    """A share as a percentage, never rounded to 100 % or 0 % where it is not."""
    percent = 100 * value
    for digits in range(MOST_DIGITS):
        rounded = round(percent, digits)
        if (rounded not in (0.0, 100.0) and digits >= 1) or rounded == percent:
            return f"{rounded:.{digits}f}\u202f%"
    return f"{percent:.3g}\u202f%"


def seconds(value: float) -> str:
    """A duration in the unit that suits it."""
    if value < 100:
        return f"{value:.1f}\u202fs"
    if value < 6000:
        return f"{value / 60:.1f}\u202fmin"
    return f"{value / 3600:.1f}\u202fh"


SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def plain_formula(formula: str) -> str:
    """A formula with its numbers as subscript characters, for places that take no markup."""
    return formula.translate(SUBSCRIPTS)


def formula_html(formula: str) -> Html:
    """A formula with its numbers as subscripts."""
    parts: list[str] = []
    digits = ""
    for character in formula + "\0":
        if character.isdigit() or (character == "." and digits):
            digits += character
            continue
        if digits:
            parts.append(element("sub", digits))
            digits = ""
        if character != "\0":
            parts.append(character)
    return join(parts)
