"""Draws the figures of the SynFlow paper from tables."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_synflow.files.whole import written_whole
from tf_synflow.reporting.picture import BLUE, GREY, ORANGE, pyplot

# Okabe and Ito's colours again. Each criterion has its own marker, for print without
# colours.
STYLES = {
    "synflow": ("SynFlow", ORANGE, "o"),
    "magnitude": ("magnitude", BLUE, "s"),
    "random": ("random", GREY, "x"),
    "snip": ("SNIP", "#009E73", "^"),
    "grasp": ("GraSP", "#CC79A7", "v"),
    "loss_preservation": ("loss preservation", "#56B4E9", "<"),
    "small_magnitude_loss_preservation": ("small magnitude", "#E69F00", ">"),
    "gradient_norm_preservation": ("gradient norm", "black", "d"),
}

Rows = Sequence[Mapping[str, Any]]


def accuracy_figure(path: Path, rows: Rows, published: Rows, which: str) -> None:
    """Figures 1 and 6: accuracy against compression, a panel for each network and data.

    Args:
      path: .png or .svg.
      rows: See `paper_tables.accuracies`.
      published: See `paper_tables.published`; drawn dashed and pale.
      which: "final" or "best": which accuracy it is, for the title of the axis.
    """
    panels = sorted({(row["dataset"], row["model"]) for row in rows})
    with _picture(path, len(panels)) as axes:
        for place, (dataset, model) in zip(axes, panels, strict=True):
            place.set_title(f"{model} on {dataset}")
            for source, style in ((published, ":"), (rows, "-")):
                own = [
                    r for r in source if (r["dataset"], r["model"]) == (dataset, model)
                ]
                dense = [r for r in own if r["alpha"] == 0]
                for name, group in _by(own, "criterion"):
                    label, colour, marker = STYLES[name]
                    known = {r["alpha"] for r in group}
                    group = [r for r in dense if 0 not in known][:1] + group
                    x = [10 ** r["alpha"] for r in group]
                    off = [
                        [r["mean"] - r["min"] for r in group],
                        [r["max"] - r["mean"] for r in group],
                    ]
                    ours = style == "-"
                    place.errorbar(
                        x, [r["mean"] for r in group], off, color=colour, capsize=2,
                        linestyle=style, marker=marker, markersize=5 if ours else 0,
                        alpha=1 if ours else 0.6,
                        label=label if ours else f"{label}, published",
                    )  # fmt: skip
            place.set_xscale("log")
            place.set_xlabel("compression ratio (prunable / kept weights)")
            place.set_ylabel(f"{which} test accuracy, top-1 (%)")
            place.grid(alpha=0.3)
            place.legend(fontsize=7)


def densities_figure(path: Path, rows: Rows) -> None:
    """Figure 2: what is left of each layer, a panel for each criterion."""
    with _picture(path, len(_by(rows, "criterion"))) as axes:
        for place, (name, group) in zip(axes, _by(rows, "criterion"), strict=True):
            place.set_title(STYLES[name][0])
            alphas = _by(group, "alpha")
            for k, (alpha, layers) in enumerate(alphas):
                shade = 0.25 + 0.75 * k / max(len(alphas) - 1, 1)
                # A logarithmic axis has no 0, so an emptied layer is drawn at the
                # bottom.
                kept = [max(r["density"], 1e-7) for r in layers]
                place.plot(
                    [r["layer"] for r in layers], kept, color=ORANGE, alpha=shade,
                    marker="o", markersize=3, label=f"ratio $10^{{{alpha:g}}}$",
                )  # fmt: skip
            place.set_yscale("log")
            place.set_ylim(5e-8, 1.5)
            place.set_xlabel("layer")
            place.set_ylabel("weights kept (share; emptied: $10^{-7}$)")
            place.grid(alpha=0.3)
        place.legend(fontsize=7)


def conservation_figure(path: Path, rows: Rows) -> None:
    """Figure 3: scores into each hidden unit against scores out of it."""
    with _picture(path, len(_by(rows, "criterion"))) as axes:
        for place, (name, group) in zip(axes, _by(rows, "criterion"), strict=True):
            x = [abs(r["incoming"]) for r in group]
            y = [abs(r["outgoing"]) for r in group]
            place.set_title(STYLES[name][0] + (", signed" if name == "snip" else ""))
            place.plot(x, x, color=GREY, linewidth=1, label="equal")
            place.plot(x, y, ".", color=STYLES[name][1], markersize=3)
            place.set_xscale("log")
            place.set_yscale("log")
            for axis in (place.xaxis, place.yaxis):  # for axes of only a decade or two
                axis.set_minor_formatter("")
            place.set_xlabel("|sum of incoming scores|")
            place.set_ylabel("|sum of outgoing scores|")
            place.legend(fontsize=7)


def sizes_figure(path: Path, rows: Rows) -> None:
    """Figure 4: the mean score of a layer against its size."""
    with _picture(path, 1) as (place,):
        for name, group in _by(rows, "criterion"):
            label, colour, marker = STYLES[name]
            whole = sum(r["score"] * r["size"] for r in group)
            place.plot(
                [r["size"] for r in group], [r["score"] / whole for r in group],
                linestyle="none", marker=marker, color=colour, label=label,
            )  # fmt: skip
        place.set_xscale("log")
        place.set_yscale("log")
        place.set_xlabel("weights of the layer")
        place.set_ylabel("mean |score| (over the total)")
        place.grid(alpha=0.3)
        place.legend(fontsize=8)


def steps_figure(path: Path, rows: Rows) -> None:
    """Figure 7: the most that a step removes, against the number of iterations."""
    with _picture(path, 1) as (place,):
        for (schedule, series), line in zip(
            _by(rows, "schedule"), ("-", "--"), strict=False
        ):
            for (alpha, group), marker in zip(
                _by(series, "alpha"), "os^vd", strict=False
            ):
                place.plot(
                    [r["iterations"] for r in group], [r["share"] for r in group],
                    linestyle=line, marker=marker, label=f"{schedule}, $10^{alpha:g}$",
                    color=ORANGE if schedule == "exponential" else BLUE,
                )  # fmt: skip
        place.axhline(1, color=GREY, linewidth=1)
        place.set_xscale("log")
        place.set_yscale("log")
        place.set_xlabel("iterations")
        place.set_ylabel("most that a step removes, over R")
        place.legend(fontsize=7)


def _by(rows: Rows, column: str) -> list[tuple[Any, list[Mapping[str, Any]]]]:
    """Groups rows by the value of a column, in the order in which values appear."""
    groups: dict[Any, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row[column], []).append(row)
    return list(groups.items())


@contextlib.contextmanager
def _picture(path: Path, panels: int) -> Iterator[list[Any]]:
    """Gives axes, at most three in a row, and writes the picture at the end."""
    plt = pyplot()
    columns = min(panels, 3)
    lines = -(-panels // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(4.8 * columns, 3.8 * lines), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    flat = list(axes.flat)
    for unused in flat[panels:]:
        unused.axis("off")
    yield flat[:panels]
    with written_whole(path) as aside:
        figure.savefig(aside, dpi=130)
    plt.close(figure)
