"""Pictures of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_synflow.files import written_whole

# Okabe and Ito's colours, which the colour-blind can tell apart.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#999999"


def pyplot() -> Any:
    """Matplotlib's pyplot without a screen, or a plain word on how to get it."""
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


def run_figure(
    path: Path,
    title: str,
    layers: Sequence[Mapping[str, Any]],
    history: Sequence[Mapping[str, float]],
) -> None:
    """Draws the density of each layer and the accuracy of each epoch.

    Args:
      path: The PNG file.
      title: Above the picture.
      layers: Rows of `report.layer_rows`.
      history: Rows of `history.csv`.
    """
    plt = pyplot()
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11, max(3.6, 0.2 * len(layers))), layout="constrained"
    )
    figure.suptitle(title)
    names = [row["name"].removesuffix("/kernel") for row in layers]
    kept = sum(row["kept"] for row in layers) / sum(row["size"] for row in layers)
    left.barh(names, [100 * row["density"] for row in layers], color=BLUE)
    left.axvline(100 * kept, color=ORANGE, label=f"whole network: {100 * kept:.3g} %")
    left.invert_yaxis()
    left.set_xscale("log")
    left.set_xlabel("weights kept (%)")
    left.tick_params(axis="y", labelsize=7)
    left.legend(loc="lower right", fontsize=8, bbox_to_anchor=(1, 1), frameon=False)
    epochs = [row["epoch"] for row in history]
    for key, label, style in (
        ("accuracy", "training", {"color": GREY, "linestyle": "--"}),
        ("val_accuracy", "test", {"color": BLUE, "marker": "o", "markersize": 3}),
    ):
        right.plot(epochs, [100 * row[key] for row in history], label=label, **style)
    right.set_xlabel("epoch")
    right.set_ylabel("accuracy (%)")
    right.xaxis.get_major_locator().set_params(integer=True)
    right.legend(loc="lower right")
    right.grid(alpha=0.3)
    with written_whole(path) as aside:
        figure.savefig(aside, dpi=130)
    plt.close(figure)
