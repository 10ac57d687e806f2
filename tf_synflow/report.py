"""What is left of a network, by layer and in total: table, dictionary, picture."""

import json
import math
from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np

from tf_synflow import figures
from tf_synflow.collapse import emptied
from tf_synflow.graph import Graph, flatten, named_weights
from tf_synflow.masks import Masks
from tf_synflow.multiply_adds import uses_of_weights
from tf_synflow.reach import on_paths
from tf_synflow.shrinking import shrunk_shapes
from tf_synflow.wrapping import masks_of, prunable_weights, revived


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
        and over all parameters; `shrunk`, the `parameters` and `macs` that are left
        once `shrink` has taken out dead channels, and `unfed_channels`, those of them
        that are read, though nothing feeds them; `effective` and `effective_density`
        of the prunable ones; `channels`, `dead_channels`; `macs`, `sparse_macs` and
        `speedup`, their ratio, which is theoretical, over all layers, prunable or not;
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
        figures.report_figure(path, self.model, self.layers, self.totals)

    def __str__(self) -> str:
        """The table."""
        header = ("weight", "shape", "kept", "of", "density", "effective")
        header += ("dead channels", "MACs", "of them kept")
        rows = [
            (
                row["name"],
                "x".join(map(str, row["shape"])),
                f"{row['kept']:,}",
                f"{row['size']:,}",
                _percent(row["density"]),
                _percent(row["effective_density"]),
                _of(row["dead_channels"], row["channels"]),
                _count(row["macs"]),
                _count(row["sparse_macs"]),
            )
            for row in self.layers
        ]
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
                f"({_percent(part['density'])}"
                + (f", {times:.4g} times fewer)" if times else ")")
            )
        if totals["effective"] is not None:
            lines.append(
                f"On a path from input to output: {totals['effective']:,} "
                f"({_percent(totals['effective_density'])}); dead channels: "
                f"{_of(totals['dead_channels'], totals['channels'])}"
            )
        if totals["macs"] is not None:
            lines.append(
                f"Multiply-adds: {_count(totals['macs'])}, of kept weights "
                f"{_count(totals['sparse_macs'])}"
                + (
                    f" (in theory {totals['speedup']:.4g} times faster)"
                    if totals["speedup"]
                    else ""
                )
            )
        left, macs = totals["shrunk"]["parameters"], totals["shrunk"]["macs"]
        whole = totals["parameters"]["size"]
        if left < whole:
            share = f" ({_percent(macs / totals['macs'])})" if macs else ""
            lines.append(
                f"Shrunk to its living channels: {left:,} parameters "
                f"({_percent(left / whole)}), {_count(macs)} multiply-adds{share}"
            )
        if totals["emptied"]:
            lines.append(f"Nothing is left of: {', '.join(totals['emptied'])}")
        if totals["connected"] is not None:
            lines.append(
                "Input and output are connected"
                if totals["connected"]
                else "NOT CONNECTED: some output cannot be reached from any input"
            )
        return lines


def report(model: Any) -> Report:
    """Says what is left of a network.

    ```python
    print(tf_synflow.report(pruned))
    tf_synflow.report(pruned).plot("densities.png")
    ```

    Args:
      model: A built Sequential or functional tf_keras model: pruned, stripped or plain.
        A weight counts as kept if its mask says so; or, where there is no mask or the
        model computes without it, if it is not zero. It is not changed.

    Returns:
      The `Report`.

    Raises:
      TypeError: `model` is no tf_keras model.
      ValueError: It is subclassed or not built, or nothing in it could be pruned.
    """
    graph = flatten(model)
    masks = _kept(graph)
    if not masks:
        raise ValueError(
            f"model {model.name!r} has no weight that could be pruned, so there is "
            "nothing to report"
        )
    notes = []
    try:
        effective, connected = on_paths(graph, masks)
    except ValueError as error:
        effective, connected = None, None
        notes.append(f"Paths from input to output are not known: {error}")
    positions, uncounted = uses_of_weights(graph)
    if uncounted:
        notes.append(f"Multiply-adds leave out: {', '.join(uncounted)}")
    if back := revived(graph):
        notes.append(
            f"{back:,} weights were pruned inside fit but are not zero now, and count "
            "as kept: weights from before pruning were loaded"
        )
    rows = [
        _row(name, mask, positions[name], effective and effective[name], graph)
        for name, mask in masks.items()
    ]
    totals = _totals(graph, rows, positions)
    totals |= {
        "shrunk": _shrunk(graph, positions, totals["macs"] is not None),
        "uncounted": uncounted,
        "emptied": emptied(masks),
        "connected": connected,
    }
    return Report(model.name, rows, totals, notes)


def _kept(graph: Graph) -> Masks:
    """Name to mask of every prunable weight: the mask it has, or where it is not 0."""
    now = masks_of(graph)
    masks = {}
    for call in graph.calls:
        for short, variable in prunable_weights(call.layer).items():
            name = f"{call.name}/{short}"
            masks[name] = now[name] if name in now else variable.numpy() != 0
    return masks


def _row(
    name: str,
    mask: np.ndarray,
    positions: int | None,
    effective: np.ndarray | None,
    graph: Graph,
) -> dict[str, Any]:
    kept, size = int(np.count_nonzero(mask)), mask.size
    row: dict[str, Any] = {
        "name": name,
        "shape": list(mask.shape),
        "size": size,
        "kept": kept,
        "density": kept / size,
        "effective": None,
        "effective_density": None,
        "channels": mask.shape[_channel_axis(name, graph)],
        "dead_channels": None,
        "macs": None if positions is None else size * positions,
        "sparse_macs": None if positions is None else kept * positions,
    }
    if effective is not None:
        channels = np.moveaxis(effective, _channel_axis(name, graph), 0)
        alive = channels.reshape(row["channels"], -1).any(1)
        row["effective"] = int(np.count_nonzero(effective))
        row["effective_density"] = row["effective"] / size
        row["dead_channels"] = int(np.count_nonzero(~alive))
    return row


def _channel_axis(name: str, graph: Graph) -> int:
    """The axis of a weight along which its output channels lie."""
    layer = next(c.layer for c in graph.calls if c.name == name.rpartition("/")[0])
    return -2 if "Transpose" in type(layer).__name__ else -1


def _totals(
    graph: Graph,
    rows: list[dict[str, Any]],
    positions: Mapping[str, int | None],
) -> dict[str, Any]:
    variables = named_weights(graph)
    sizes = {name: v.shape.num_elements() for name, v in variables.items()}
    size, kept = (sum(row[key] for row in rows) for key in ("size", "kept"))
    every = sum(sizes.values())
    # A size that is not fixed makes a total unknown; a layer of no known kind does not.
    known = all(row["macs"] is not None for row in rows)
    macs = sum(sizes[name] * (uses or 0) for name, uses in positions.items())
    pruned = sum(row["macs"] - row["sparse_macs"] for row in rows) if known else 0
    counted = rows[0]["effective"] is not None
    effective = sum(row["effective"] for row in rows) if counted else None
    return {
        "prunable": _part(size, kept),
        "parameters": _part(every, every - size + kept),
        "effective": effective,
        "effective_density": effective / size if counted else None,
        "channels": sum(row["channels"] for row in rows),
        "dead_channels": sum(r["dead_channels"] for r in rows) if counted else None,
        "macs": macs if known else None,
        "sparse_macs": macs - pruned if known else None,
        "speedup": macs / (macs - pruned) if known and macs > pruned else None,
    }


def _shrunk(
    graph: Graph, positions: Mapping[str, int | None], known: bool
) -> dict[str, Any]:
    shapes, unfed = shrunk_shapes(graph)
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    macs = sum(sizes[name] * (uses or 0) for name, uses in positions.items())
    return {
        "parameters": sum(sizes.values()),
        "macs": macs if known else None,
        "unfed_channels": unfed,
    }


def _part(size: int, kept: int) -> dict[str, Any]:
    return {
        "size": size,
        "kept": kept,
        "density": kept / size,
        "compression": size / kept if kept else None,
    }


def _percent(fraction: float | None) -> str:
    return "?" if fraction is None else f"{100 * fraction:.4g} %"


def _of(part: int | None, whole: int) -> str:
    return "?" if part is None else f"{part:,} of {whole:,}"


def _count(number: int | None) -> str:
    if number is None:
        return "?"
    for size, unit in ((10**9, "G"), (10**6, "M")):
        if number >= 10 * size or (number >= size and unit == "G"):
            return f"{number / size:.4g} {unit}"
    return f"{number:,}"


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    return "  ".join(
        [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
    ).rstrip()
