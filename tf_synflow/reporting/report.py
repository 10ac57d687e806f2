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
      layers: A dictionary for each prunable weight tensor. `name` and `shape` are those
        of the tensor. `size` and `kept` are the numbers of all weights and of kept
        weights, and `density` is kept / size. `effective` is the number of weights on a
        path from input to output, and `effective_density` is effective / size.
        `channels` and `dead_channels` are the numbers of all output channels and of
        those on no path. `macs` and `sparse_macs` are the multiply-adds for one input,
        of all weights and of kept weights. A layer that is called twice counts twice.
      totals: A dictionary for the whole network. `prunable` and `parameters` are
        dictionaries of `size`, `kept`, `density` and `compression` (size / kept; None
        if nothing is kept), for the prunable weights and for all parameters.
        `not_prunable` has the `size` of all other parameters, and their `kernels` that
        stay dense, name to size. `shrunk` has the `parameters` and `macs` that are left
        once `shrink` has taken out dead channels; its `unfed_channels` is the number of
        those channels that are read, though nothing feeds them. `effective`,
        `effective_density`, `channels` and `dead_channels` are those of the prunable
        weights. `macs` and `sparse_macs` are those of all layers, prunable or not, and
        `speedup` is their ratio, which is theoretical. `uncounted` lists the layers
        whose multiply-adds are not known and not included. `emptied` lists the weight
        tensors with no kept weight. `connected` says whether every output can still be
        reached from an input. A value that cannot be known is None; `notes` say why.
      notes: Sentences about values that are not known or need an explanation.
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
        """The report as plain Python objects."""
        return {
            "model": self.model,
            "layers": self.layers,
            "totals": self.totals,
            "notes": self.notes,
        }

    def to_json(self) -> str:
        """The report as JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def plot(self, path: str | PathLike[str]) -> None:
        """Draws the density and effective density of each layer to a PNG or SVG file.

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
