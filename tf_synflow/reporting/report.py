"""What is left of a network, as a table, a page, a dictionary or JSON."""

import json
from os import PathLike
from typing import Any

from tf_synflow.policy.dense import listed
from tf_synflow.reporting.html_page import write_page
from tf_synflow.reporting.html_report import report_page
from tf_synflow.reporting.numbers import count, percent
from tf_synflow.reporting.picture import report_figure


class Report:
    """What is left of a network; prints as a table.

    Attributes:
      model: Name of the model.
      layers: A dictionary for each prunable weight tensor: `name`, `shape`, `size` and
        `kept` (weights), `density` (kept / size), `effective` (weights that lie on a
        path from input to output), `effective_density`, `channels` and `dead_channels`
        (output channels in all, and those on no path), `macs` and `sparse_macs`
        (multiply-adds for one input, of all weights and of those kept; a layer that is
        called twice counts twice).
      totals: `prunable` and `parameters`, dictionaries of `size`, `kept`, `density` and
        `compression` (size / kept; None if nothing is kept) over the prunable weights
        and over all parameters; `not_prunable`, the `size` of all other parameters, and
        the `kernels` among them that stay dense, name to size; `shrunk`, the
        `parameters` and `macs` left once `shrink` has taken out dead channels, and
        `unfed_channels`, those of them that are read, though nothing feeds them;
        `effective` and `effective_density` of the prunable ones; `channels`,
        `dead_channels`; `macs`, `sparse_macs` and `speedup`, their ratio, which is
        theoretical, over all layers, prunable or not;
        `uncounted`, the layers whose multiply-adds are not known and not in it;
        `emptied`, the weight tensors of which nothing is left; `connected`, whether
        every output can still be reached from an input. What cannot be known is None
        (the reason is in `notes`).
      notes: Sentences on what could not be found out.
    """

    def __init__(
        self,
        model: str,
        layers: list[dict[str, Any]],
        totals: dict[str, Any],
        notes: list[str],
    ):
        """Made by `report`."""
        self.model = model
        self.layers = layers
        self.totals = totals
        self.notes = notes

    def to_dict(self) -> dict[str, Any]:
        """All of it, as plain Python objects."""
        return {
            "model": self.model,
            "layers": self.layers,
            "totals": self.totals,
            "notes": self.notes,
        }

    def to_json(self) -> str:
        """All of it, as JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def plot(self, path: str | PathLike[str]) -> None:
        """Draws the density of each layer, and the effective one, to a PNG or SVG file.

        Raises:
          FileNotFoundError: The folder of `path` does not exist.
          ModuleNotFoundError: matplotlib is not installed.
          ValueError: `path` ends neither in .png nor in .svg.
        """
        report_figure(path, self.model, self.layers, self.totals)

    def to_html(self, path: str | PathLike[str]) -> None:
        """Writes one page of HTML: totals, warnings, and a table that can be sorted.

        The page is one file. It opens without a network, in light and dark mode.

        Raises:
          FileNotFoundError: The folder of `path` does not exist.
          ValueError: `path` does not end in .html.
        """
        write_page(path, report_page(self.model, self.layers, self.totals, self.notes))

    def __str__(self) -> str:
        """The table."""
        header = (
            *("weight", "shape", "kept", "of", "density", "effective"),
            *("dead channels", "MACs", "of them kept"),
        )
        rows = [
            (
                row["name"],
                "x".join(map(str, row["shape"])),
                f"{row['kept']:,}",
                f"{row['size']:,}",
                percent(row["density"]),
                percent(row["effective_density"]),
                _of(row["dead_channels"], row["channels"]),
                count(row["macs"]),
                count(row["sparse_macs"]),
            )
            for row in self.layers
        ]
        rest = self.totals["not_prunable"]["size"]
        if rest:
            rows.append(
                ("(not prunable)", "", f"{rest:,}", f"{rest:,}", percent(1.0))
                + ("",) * 4
            )
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        lines = [_line(header, widths), "=" * (sum(widths) + 2 * len(widths) - 2)]
        lines += [_line(row, widths) for row in rows]
        return "\n".join(
            [f"Model: {self.model}", *lines, lines[1], *self._summary(), *self.notes]
        )

    def _summary(self) -> list[str]:
        totals = self.totals
        lines = []
        for what in ("prunable", "parameters"):
            part = totals[what]
            name = "Prunable weights" if what == "prunable" else "All parameters"
            times = part["compression"]
            lines.append(
                f"{name}: {part['kept']:,} of {part['size']:,} kept "
                f"({percent(part['density'])}"
                + (f", {times:.4g} times fewer)" if times else ")")
            )
        if kernels := totals["not_prunable"]["kernels"]:
            lines.append(f"Kernels that stay dense: {listed(kernels)}")
        if totals["effective"] is not None:
            lines.append(
                f"On a path from input to output: {totals['effective']:,} "
                f"({percent(totals['effective_density'])}); dead channels: "
                f"{_of(totals['dead_channels'], totals['channels'])}"
            )
        if totals["macs"] is not None:
            lines.append(
                f"Multiply-adds: {count(totals['macs'])}, of kept weights "
                f"{count(totals['sparse_macs'])}"
                + (
                    f" (in theory {totals['speedup']:.4g} times faster)"
                    if totals["speedup"]
                    else ""
                )
            )
        left, macs = totals["shrunk"]["parameters"], totals["shrunk"]["macs"]
        whole = totals["parameters"]["size"]
        if left < whole:
            share = f" ({percent(macs / totals['macs'])})" if macs else ""
            lines.append(
                f"After shrink: {left:,} parameters "
                f"({percent(left / whole)}), {count(macs)} multiply-adds{share}"
            )
        if totals["emptied"]:
            lines.append(f"No weight is kept in: {', '.join(totals['emptied'])}")
        if totals["connected"] is not None:
            lines.append(
                "Input and output are connected"
                if totals["connected"]
                else "NOT CONNECTED: some output cannot be reached from any input"
            )
        return lines


def _of(part: int | None, whole: int) -> str:
    return "?" if part is None else f"{part:,} of {whole:,}"


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    return "  ".join(
        [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
    ).rstrip()
