"""The little that our charts need: scales, round ticks, axes and marks, as SVG that the page's style sheet colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gnn.screening.report.markup import Html, element, join, void

MARGIN_LEFT, MARGIN_RIGHT, MARGIN_TOP, MARGIN_BOTTOM = 70.0, 14.0, 12.0, 44.0
PIXELS_A_TICK = 78.0
"""Room that a label of the horizontal axis needs."""


@dataclass(frozen=True)
class Scale:
    """A linear map from [low, high] in data to [start, end] in pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def holds(self, value: float) -> bool:
        """Whether a value lies inside the range."""
        return self.low <= value <= self.high

    def ticks(self, about: int = 5) -> list[float]:
        """Round numbers inside the range, about that many."""
        return round_ticks(self.low, self.high, about)


def round_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten in [low, high], about that many."""
    raw = (high - low) / max(about, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * min((1, 2, 5, 10), key=lambda factor: abs(math.log(factor * power / raw)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Ticks with just the decimals that tell them apart; a true minus sign."""
    step = abs(ticks[1] - ticks[0]) if len(ticks) > 1 else abs(ticks[0]) if ticks else 1.0
    digits = max(0, -math.floor(math.log10(step) + 1e-9)) if step else 0
    return [f"{tick + 0.0:.{digits}f}".replace("-", "−") for tick in ticks]


def padded(values: Sequence[float], share: float = 0.06) -> tuple[float, float]:
    """A range that holds `values` with some air; never empty."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    air = (high - low) * share or 0.05 * abs(high) or 0.05
    return low - air, high + air


@dataclass(frozen=True)
class Frame:
    """A rectangular plot: its size in pixels and its two scales."""

    width: float
    height: float
    x: Scale
    y: Scale

    @classmethod
    def of(cls, width: float, height: float, x: tuple[float, float], y: tuple[float, float]) -> Frame:
        """A frame of the given outer size for the ranges x and y."""
        return cls(
            width,
            height,
            Scale(x[0], x[1], MARGIN_LEFT, width - MARGIN_RIGHT),
            Scale(y[0], y[1], height - MARGIN_BOTTOM, MARGIN_TOP),
        )

    def holds(self, x: float, y: float) -> bool:
        """Whether a point lies inside the frame."""
        return self.x.holds(x) and self.y.holds(y)

    def axes(self, x_label: str, y_label: str, x_ticks: Sequence[tuple[float, str]] | None = None) -> Html:
        """Grid lines, tick labels and axis titles."""
        xs = x_ticks or _labelled(self.x.ticks(int((self.x.end - self.x.start) / PIXELS_A_TICK)))
        marks = [*self._x_marks(xs), *self._y_marks(_labelled(self.y.ticks()))]
        middle = (self.y.start + self.y.end) / 2
        return join(
            [
                *marks,
                element("text", x_label, class_="axis", x=(self.x.start + self.x.end) / 2, y=self.height - 6),
                element("text", y_label, class_="axis", transform=f"translate(11 {middle:.1f}) rotate(-90)"),
            ]
        )

    def _x_marks(self, ticks: Sequence[tuple[float, str]]) -> list[Html]:
        marks = []
        for value, label in ticks:
            x = self.x(value)
            marks.append(void("line", class_="grid", x1=x, x2=x, y1=self.y.start, y2=self.y.end))
            marks.append(element("text", label, class_="tick middle", x=x, y=self.y.start + 16))
        return marks

    def _y_marks(self, ticks: Sequence[tuple[float, str]]) -> list[Html]:
        marks = []
        for value, label in ticks:
            y = self.y(value)
            marks.append(void("line", class_="grid", x1=self.x.start, x2=self.x.end, y1=y, y2=y))
            marks.append(element("text", label, class_="tick end", x=self.x.start - 7, y=y + 4))
        return marks

    def line(self, points: Sequence[tuple[float, float]], class_: str) -> Html:
        """A line through points in data coordinates."""
        path = "M" + "L".join(f"{self.x(x):.1f} {self.y(y):.1f}" for x, y in points)
        return void("path", class_=class_, d=path)

    def dot(self, x: float, y: float, class_: str, radius: float = 3.5, tip: str = "", row: str | None = None) -> Html:
        """A point; `tip` is shown when it is pointed at, `row` names the table row it belongs to."""
        return void("circle", class_=class_, cx=self.x(x), cy=self.y(y), r=radius, data_tip=tip or None, data_row=row)

    def label(self, x: float, y: float, content: str, class_: str = "note middle", dy: float = -8) -> Html:
        """Text beside a point."""
        return element("text", content, class_=class_, x=self.x(x), y=self.y(y) + dy)

    def svg(self, title: str, *children: str) -> Html:
        """The whole picture; `title` is what a screen reader says."""
        return svg(self.width, self.height, title, *children)


def _labelled(ticks: Sequence[float]) -> list[tuple[float, str]]:
    return list(zip(ticks, tick_labels(ticks), strict=True))


def svg(width: float, height: float, title: str, *children: str, class_: str = "chart") -> Html:
    """An SVG element that shrinks with the page."""
    return element(
        "svg", *children, class_=class_, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=title,
        style=f"max-width:{width:g}px",
    )  # fmt: skip


def figure(picture: Html, title: str, caption: str = "") -> Html:
    """A picture with its title above and what needs saying below."""
    below = [element("p", caption, class_="caption")] if caption else []
    return element("figure", element("figcaption", title), picture, *below)
