"""A chart of lines as SVG inside a page, in the page's colours, light or dark."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tf_synflow.reporting.html_page import Html, element, join

_WIDTH, _HEIGHT = 820, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 32, 34, 66


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a chart.

    Attributes:
      label: Text of the line in the legend.
      colour: Name of a colour in style.css, such as "synflow".
      points: For each point `x` (above 0), `y`, and the lowest and highest `y`.
      dashed: Whether it is drawn dashed and without the points. Defaults to False.
    """

    label: str
    colour: str
    points: Sequence[tuple[float, float, float, float]]
    dashed: bool = False


def line_chart(lines: Sequence[Line], x_title: str, y_title: str) -> Html:
    """Lines over a logarithmic axis, with a legend.

    Args:
      lines: The lines to draw. At least one of them must have a point.
      x_title: Title of the horizontal axis, which is logarithmic.
      y_title: Title of the vertical axis.
    """
    every = [point for line in lines for point in line.points]
    decades = [math.log10(point[0]) for point in every]
    first, last = math.floor(min(decades)), math.ceil(max(decades))
    last = max(last, first + 1)
    step = _step(max(p[3] for p in every) - min(p[2] for p in every))
    low = math.floor(min(p[2] for p in every) / step)
    high = max(math.ceil(max(p[3] for p in every) / step), low + 1)

    def across(x: float) -> float:
        share = (math.log10(x) - first) / (last - first)
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    def down(y: float) -> float:
        share = (y / step - low) / (high - low)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 1)

    left, right = across(10**first), across(10**last)
    bottom, top = down(low * step), down(high * step)
    parts = []
    for k in range(low, high + 1):
        y = down(k * step)
        parts.append(_grid(left, y, right, y))
        parts.append(_text(left - 8, y + 4, f"{k * step:g}", "end"))
    for decade in range(first, last + 1):
        x = across(10**decade)
        parts.append(_grid(x, bottom, x, top))
        parts.append(_text(x, bottom + 26, f"{10**decade:,}", "middle"))
    parts.append(_text((left + right) / 2, _HEIGHT - 8, x_title, "middle"))
    parts.append(_text(left, top - 12, y_title, "start"))
    for line in lines:
        places = [(across(x), down(y), down(a), down(b)) for x, y, a, b in line.points]
        parts += _drawn(line, places)
    picture = element(
        "svg",
        *parts,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=f"{y_title} against {x_title}; the table below has the numbers",
    )
    legend = element("div", *map(_legend, lines), class_="legend")
    return element("div", picture, legend, class_="chart")


def _step(span: float) -> float:
    """A round step that divides the span into about five parts."""
    if not span:
        return 1
    power = 10 ** math.floor(math.log10(span))
    return next(k * power for k in (0.2, 0.5, 1, 2) if span / (k * power) <= 6)


def _drawn(
    line: Line, places: Sequence[tuple[float, float, float, float]]
) -> list[Html]:
    colour = f"stroke:var(--{line.colour});fill:none;stroke-width:2"
    if line.dashed:
        colour += ";stroke-dasharray:2 5;opacity:.75"
    corners = " ".join(f"{x},{y}" for x, y, *_ in places)
    parts = [element("polyline", points=corners, style=colour)]
    if line.dashed:
        return parts
    for (x, y, low, high), point in zip(places, line.points, strict=True):
        if low != high:
            ends = f"M{x},{low}V{high}M{x - 4},{low}h8M{x - 4},{high}h8"
            parts.append(element("path", d=ends, style=colour))
        said = f"{line.label}: {point[1]:.4g} at {point[0]:.4g}"
        dot = {"cx": str(x), "cy": str(y), "r": "4"}
        title = element("title", said)
        parts.append(
            element("circle", title, style=f"fill:var(--{line.colour})", **dot)
        )
    return parts


def _legend(line: Line) -> Html:
    style = f"stroke:var(--{line.colour});stroke-width:2"
    if line.dashed:
        style += ";stroke-dasharray:2 5"
    stroke = element("line", x1="0", x2="34", y1="6", y2="6", style=style)
    sample = element("svg", stroke, viewBox="0 0 34 12", aria_hidden="true")
    return element("span", join([sample, line.label]))


def _grid(x1: float, y1: float, x2: float, y2: float) -> Html:
    ends = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    return element(
        "line", class_="grid", **{name: str(end) for name, end in ends.items()}
    )


def _text(x: float, y: float, text: str, anchor: str) -> Html:
    return element("text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor)
