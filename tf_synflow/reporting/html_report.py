"""A report as a page of HTML: totals, warnings, and a table of the layers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tf_synflow.reporting.html_page import Cell, Html, bar, card, element, page, table
from tf_synflow.reporting.numbers import count, percent

_TITLES = {
    "#": False,
    "weight": True,
    "shape": True,
    "kept": False,
    "of": False,
    "density": False,
    "on a path": False,
    "alive channels": False,
    "of channels": False,
    "multiply-adds": False,
    "those of kept weights": False,
}


def report_page(
    model: str,
    layers: Sequence[Mapping[str, Any]],
    totals: Mapping[str, Any],
    notes: Sequence[str],
) -> str:
    """The page of a report; for the arguments see `Report`."""
    lowest = _lowest_decade(layers)
    rows = [_row(number, layer, lowest) for number, layer in enumerate(layers, 1)]
    emptied = {number for number, layer in enumerate(layers) if not layer["kept"]}
    return page(
        f"{model}: what is left",
        [
            element("h1", model),
            element("p", "What is left of this network.", class_="faint"),
            element("div", *_cards(totals), class_="cards"),
            *_warnings(totals, notes),
            element("h2", "Weights, layer by layer"),
            element(
                "p",
                "Click a title to sort. The bar of the density is logarithmic, from "
                f"{100 * 10**lowest:g} % to 100 %; the mark on it is the density of "
                "the weights on a path from input to output. The bar of the alive "
                "channels is linear. A coloured row has no kept weight.",
                class_="faint",
            ),
            table(_TITLES, rows, emptied),
        ],
    )


def _lowest_decade(layers: Sequence[Mapping[str, Any]]) -> int:
    """The power of 10 at which bars begin, so low that every kept layer has a bar."""
    kept = [row["effective_density"] or row["density"] for row in layers if row["kept"]]
    return min([-1, *(math.ceil(math.log10(density)) - 1 for density in kept)])


def _length(density: float, lowest: int) -> float:
    return 1 - math.log10(density) / lowest if density else 0


def _row(number: int, layer: Mapping[str, Any], lowest: int) -> list[Cell]:
    effective, density = layer["effective_density"], layer["density"]
    mark = None if effective is None else _length(effective, lowest)
    channels, dead = layer["channels"], layer["dead_channels"]
    alive = None if dead is None else channels - dead
    return [
        Cell(value=number),
        Cell(value=layer["name"]),
        Cell(value="x".join(map(str, layer["shape"]))),
        Cell(value=layer["kept"]),
        Cell(value=layer["size"]),
        Cell(
            value=density, shown=bar(percent(density), _length(density, lowest), mark)
        ),
        Cell(value=layer["effective"]),
        Cell(
            value=alive,
            shown=None if alive is None else bar(f"{alive:,}", alive / channels),
        ),
        Cell(value=channels),
        Cell(value=layer["macs"], shown=count(layer["macs"])),
        Cell(value=layer["sparse_macs"], shown=count(layer["sparse_macs"])),
    ]


def _cards(totals: Mapping[str, Any]) -> list[Html]:
    prunable, every = totals["prunable"], totals["parameters"]
    ratio = prunable["compression"]
    cards = [
        card(
            "Prunable weights kept",
            f"{prunable['kept']:,}",
            f"of {prunable['size']:,} ({percent(prunable['density'])})",
            f"compression ratio {ratio:.4g}" if ratio else "nothing is kept",
        ),
        card(
            "All parameters kept",
            f"{every['kept']:,}",
            f"of {every['size']:,} ({percent(every['density'])})",
        ),
    ]
    if totals["effective"] is not None:
        dead, channels = totals["dead_channels"], totals["channels"]
        cards += [
            card(
                "Weights on a path",
                f"{totals['effective']:,}",
                f"{percent(totals['effective_density'])} of the prunable weights",
            ),
            card("Alive channels", f"{channels - dead:,}", f"of {channels:,}"),
        ]
    if totals["macs"] is not None:
        cards.append(
            card(
                "Multiply-adds of kept weights",
                count(totals["sparse_macs"]),
                f"of {count(totals['macs'])} "
                f"({percent(totals['sparse_macs'] / totals['macs'])})",
            )
        )
    return [*cards, _after_shrink(totals)]


def _after_shrink(totals: Mapping[str, Any]) -> Html:
    left, macs = totals["shrunk"]["parameters"], totals["shrunk"]["macs"]
    details = [f"parameters ({percent(left / totals['parameters']['size'])})"]
    if macs is not None:
        share = percent(macs / totals["macs"])
        details.append(f"and {count(macs)} multiply-adds ({share})")
    return card("After shrink", f"{left:,}", *details)


def _warnings(totals: Mapping[str, Any], notes: Sequence[str]) -> list[Html]:
    found = []
    emptied, connected = totals["emptied"], totals["connected"]
    if connected is False:
        found.append(
            element(
                "p",
                "Not connected: some output cannot be reached from any input. Prune at "
                "a lower ratio, or with another criterion.",
                class_="bad",
            )
        )
    elif connected:
        found.append(element("p", "Input and output are connected.", class_="good"))
    if emptied:
        text = f"No weight is kept in {len(emptied)} tensors: {', '.join(emptied)}."
        found.append(element("p", text, class_="note"))
    unfed = totals["shrunk"]["unfed_channels"]
    if unfed:
        found.append(
            element(
                "p",
                f"{unfed:,} channels are read by kept weights, but nothing feeds them; "
                "shrink takes them out.",
                class_="note",
            )
        )
    return found + [element("p", note, class_="note") for note in notes]
