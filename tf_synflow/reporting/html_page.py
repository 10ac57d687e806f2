"""HTML pages, each in one file that loads nothing else.

Text that goes into a page is escaped, unless it is `Html`. Only `element` and `join`
make `Html`. So the name of a layer cannot act as HTML code. The page also tells the
browser to load nothing and to run no script but its own.
"""

import base64
import hashlib
import html
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

from tf_synflow.files.whole import write_text


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(tag: str, *content: str, **attributes: str) -> Html:
    """An HTML element.

    Args:
      tag: Name of the element.
      *content: Content of the element; it is escaped unless it is `Html`.
      **attributes: Attributes of the element; their values are escaped. `_` at the end
        of a name is left out (`class_`), and `_` inside a name becomes `-`.
    """
    names = {name: name.rstrip("_").replace("_", "-") for name in attributes}
    head = "".join(
        f' {names[name]}="{html.escape(value)}"' for name, value in attributes.items()
    )
    return Html(f"<{tag}{head}>{join(content)}</{tag}>")


def join(parts: Iterable[str], between: str = "") -> Html:
    """Joins parts into one text; each part is escaped unless it is `Html`."""
    return Html(
        between.join(
            part if isinstance(part, Html) else html.escape(part) for part in parts
        )
    )


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of a table.

    Attributes:
      value: The value that the table is sorted by. None if it is not known.
      shown: The text in the cell. Defaults to the value, with commas if it is a number.
    """

    value: int | float | str | None
    shown: str | None = None

    def html(self) -> Html:
        """The cell as HTML."""
        shown = self.shown
        if self.value is None:
            shown = "?"
        elif shown is None:
            shown = self.value if isinstance(self.value, str) else f"{self.value:,}"
        value = "" if self.value is None else str(self.value)
        extra = {"class_": "text"} if isinstance(self.value, str) else {}
        return element("td", shown, data_value=value, **extra)


def table(
    titles: Mapping[str, bool], rows: Sequence[Sequence[Cell]], marked: set[int]
) -> Html:
    """A table; a click on the title of a column sorts it.

    Args:
      titles: Title of each column to whether the column holds text.
      rows: The cells of each row.
      marked: Numbers of the rows that are coloured as a warning, counted from 0.
    """
    head = [
        element(
            "th",
            element("button", title, type="button"),
            scope="col",
            **({"class_": "text"} if is_text else {}),
        )
        for title, is_text in titles.items()
    ]
    body = [
        element(
            "tr",
            *(cell.html() for cell in row),
            **({"class_": "empty"} if number in marked else {}),
        )
        for number, row in enumerate(rows)
    ]
    inside = element(
        "table",
        element("thead", element("tr", *head)),
        element("tbody", join(body, "\n")),
        class_="sortable",
    )
    # If the table is wider than the window, it can be scrolled with the keyboard.
    return element("div", inside, class_="scroll", tabindex="0")


def bar(text: str, length: float, mark: float | None = None) -> Html:
    """A number with a bar beside it.

    Args:
      text: The number.
      length: Length of the bar, from 0 to 1.
      mark: Place on the bar where a second number is marked, from 0 to 1. Defaults to
        None: no mark.
    """
    inside = [element("div", class_="fill", style=f"width:{100 * length:.1f}%")]
    if mark is not None:
        inside.append(element("div", class_="mark", style=f"left:{100 * mark:.1f}%"))
    track = element("div", *inside, class_="track")
    return element("div", element("span", text), track, class_="measure")


def card(label: str, value: str, *details: str) -> Html:
    """A box for a total: a label, the value, and lines with details."""
    return element(
        "div",
        element("div", label, class_="label"),
        element("div", value, class_="value"),
        *(element("div", detail, class_="detail") for detail in details),
        class_="card",
    )


def page(title: str, parts: Sequence[str]) -> str:
    """A whole page.

    Args:
      title: Title of the window.
      parts: What the page shows, from top to bottom.
    """
    template, style, script = (
        (resources.files(__package__) / "page" / name).read_text("utf-8")
        for name in ("page.html", "style.css", "sorting.js")
    )
    seen = hashlib.sha256(script.encode()).digest()
    return Template(template).substitute(
        title=html.escape(title),
        style=style,
        body=join(parts, "\n"),
        script=script,
        script_digest=base64.b64encode(seen).decode(),
    )


def write_page(path: str | os.PathLike[str], text: str) -> None:
    """Writes a page to a file, whole or not at all.

    Raises:
      FileNotFoundError: The folder of `path` does not exist.
      ValueError: `path` does not end in .html.
    """
    if Path(path).suffix != ".html":
        raise ValueError(f"the name of a page ends in .html, got {str(path)!r}")
    write_text(path, text)
