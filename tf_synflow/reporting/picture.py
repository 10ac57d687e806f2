"""Matplotlib without a screen, and the picture of a report."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_synflow.files.whole import written_whole

# Okabe and Ito's colours, which the colour-blind can tell apart.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#999999"


def pyplot() -> Any:
    """Matplotlib's pyplot without a screen; an error says how to install it."""
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "pictures need matplotlib, which is not installed: "
            "pip install 'tf_synflow[demo]'"
        ) from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def report_figure(
    path: str | os.PathLike[str],
    title: str,
    layers: Sequence[Mapping[str, Any]],
    totals: Mapping[str, Any],
) -> None:
    """Draws the density and the effective density of each layer.

    Args:
      path: The file, .png or .svg.
      title: Text above the picture.
      layers: See `Report.layers`.
      totals: See `Report.totals`.
    """
    path = Path(path)
    if path.suffix not in (".png", ".svg"):
        raise ValueError(f"a picture's name ends in .png or .svg, got {str(path)!r}")
    plt = pyplot()
    figure, axes = plt.subplots(
        figsize=(7, max(2.4, 0.2 * len(layers) + 1)), layout="constrained"
    )
    axes.set_title(title)
    _densities(axes, layers, totals["prunable"]["density"])
    if totals["effective"] is not None:
        values = [100 * row["effective_density"] for row in layers]
        axes.plot(
            values, range(len(layers)), "|", color="black", label="on a path", ms=6
        )
    axes.legend(loc="upper left", fontsize=8, bbox_to_anchor=(1, 1), frameon=False)
    with written_whole(path) as aside:
        figure.savefig(aside, dpi=130)
    plt.close(figure)


def _densities(axes: Any, layers: Sequence[Mapping[str, Any]], whole: float) -> None:
    """A bar for each layer, on a logarithmic axis, and a line for the network."""
    names = [row["name"].removesuffix("/kernel") for row in layers]
    axes.barh(names, [100 * row["density"] for row in layers], color=BLUE)
    axes.axvline(100 * whole, color=ORANGE, label=f"whole network: {100 * whole:.3g} %")
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("weights kept (%)")
    axes.tick_params(axis="y", labelsize=7)
