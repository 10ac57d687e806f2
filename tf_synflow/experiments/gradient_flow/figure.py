"""The picture of what pruning does to a network's training."""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tf_synflow.experiments.gradient_flow.measure import MOVED, Tables
from tf_synflow.files.whole import written_whole
from tf_synflow.reporting.picture import pyplot

Row = dict[str, Any]


def loss_change(row: Row) -> float:
    """How much pruning raised the loss."""
    return row["loss_after"] - row["loss_before"]


def gradient_factor(row: Row) -> float:
    """The factor by which pruning changed the squared norm of the gradient."""
    return row["gradient_after"] / row["gradient_before"]


def next_loss(row: Row) -> float:
    """The mean training loss of the first epoch after pruning."""
    return row["training_1"]


MEASURES: dict[str, tuple[Callable[[Row], float], str]] = {
    "loss after pruning minus before": (loss_change, "symlog"),
    "$|g|^2$ after pruning over before": (gradient_factor, "log"),
    "training loss, next epoch": (next_loss, "log"),
}


def draw(path: Path, title: str, tables: Tables) -> None:
    """Draws the tables: a column for each epoch, a row for each measure.

    The first three rows show the measures against the ratio. The fourth row shows the
    rank correlations, the fifth the share of each layer that is kept at the highest
    ratio. Lines are means over the seeds. Bars reach from the lowest to the highest
    seed.

    Args:
      path: The PNG or SVG file.
      title: Text above the picture.
      tables: The tables that `measure` returned.
    """
    plt = pyplot()
    epochs = sorted({row["epoch"] for row in tables.prunings})
    names = [n for n in _names(tables.prunings, "criterion") if n != "dense"]
    colours = dict(zip(names, plt.get_cmap("tab10").colors, strict=False))
    figure, axes = plt.subplots(
        5,
        len(epochs),
        figsize=(4.2 * len(epochs), 19),
        layout="constrained",
        squeeze=False,
        height_ratios=[1, 1, 1, 1.25, 1],
    )
    figure.suptitle(title)
    for column, epoch in enumerate(epochs):
        axes[0, column].set_title(f"after epoch {epoch}")
        prunings = [row for row in tables.prunings if row["epoch"] == epoch]
        for place, (label, (value, scale)) in enumerate(MEASURES.items()):
            axis = axes[place, column]
            _lines(axis, prunings, value, colours)
            axis.set_yscale(scale, **({"linthresh": 0.01} if scale == "symlog" else {}))
            axis.set_xlabel("removed")
            axis.grid(alpha=0.3)
            if column == 0:
                axis.set_ylabel(label)
        own = [row for row in tables.correlations if row["epoch"] == epoch]
        # The second column needs names too: from there on, "moved before" is one of
        # them.
        _matrix(axes[3, column], own, named=column < 2)
        layers = [row for row in tables.layers if row["epoch"] == epoch]
        _layers(axes[4, column], layers, colours)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    axes[4, 0].set_ylabel("kept of the layer, at the highest ratio")
    with written_whole(path) as aside:
        figure.savefig(aside, dpi=100)
    plt.close(figure)


def _names(rows: Sequence[Row], key: str) -> list[str]:
    return list(dict.fromkeys(row[key] for row in rows))


def _lines(
    axis: Any, rows: list[Row], value: Callable[[Row], float], colours: dict
) -> None:
    for criterion, colour in colours.items():
        own = [row for row in rows if row["criterion"] == criterion]
        ratios = sorted({row["ratio"] for row in own})
        groups = [[value(row) for row in own if row["ratio"] == r] for r in ratios]
        means = [statistics.mean(group) for group in groups]
        reach = [
            [mean - min(g) for mean, g in zip(means, groups, strict=True)],
            [max(g) - mean for mean, g in zip(means, groups, strict=True)],
        ]
        axis.errorbar(
            ratios, means, reach, color=colour, label=criterion, marker="o", ms=3, lw=1
        )
    dense = [value(row) for row in rows if row["criterion"] == "dense"]
    axis.axhline(statistics.mean(dense), color="black", lw=0.8, ls=":", label="dense")
    axis.set_xticks(ratios, [f"{ratio:.0%}" for ratio in ratios])


def mean_correlations(rows: Sequence[Row]) -> dict[tuple[str, str], float]:
    """Pair of names, in both orders, to the mean correlation over the seeds."""
    groups: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        groups.setdefault((row["one"], row["other"]), []).append(row["spearman"])
    means = {pair: statistics.mean(group) for pair, group in groups.items()}
    return means | {pair[::-1]: mean for pair, mean in means.items()}


def _matrix(axis: Any, rows: list[Row], named: bool) -> None:
    means = mean_correlations(rows)
    names = list(dict.fromkeys(name for pair in means for name in pair))
    names.sort(key=lambda name: name in MOVED)
    table = [[means.get((a, b), 1.0) for b in names] for a in names]
    axis.imshow(table, vmin=-1, vmax=1, cmap="RdBu_r")
    for (i, j), mean in np.ndenumerate(table):
        colour = "white" if abs(mean) > 0.6 else "black"
        axis.text(
            j, i, f"{mean:.2f}", ha="center", va="center", fontsize=6, color=colour
        )
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axis.set_yticks(
        range(len(names)), names if named else [""] * len(names), fontsize=7
    )


def _layers(axis: Any, rows: list[Row], colours: dict) -> None:
    highest = max(row["ratio"] for row in rows)
    names = _names(rows, "layer")
    for criterion, colour in colours.items():
        own = [
            row
            for row in rows
            if row["criterion"] == criterion and row["ratio"] == highest
        ]
        means = [
            statistics.mean(
                row["kept"] / row["size"] for row in own if row["layer"] == name
            )
            for name in names
        ]
        axis.plot(range(1, len(names) + 1), means, color=colour, marker="o", ms=3, lw=1)
    axis.set_xlabel("layer")
    axis.set_ylim(-0.03, 1.03)
    axis.grid(alpha=0.3)
