"""The picture of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_synflow.files.whole import written_whole
from tf_synflow.reporting.picture import BLUE, GREY, _densities, pyplot


def run_figure(
    path: Path,
    title: str,
    layers: Sequence[Mapping[str, Any]],
    history: Sequence[Mapping[str, float]],
) -> None:
    """Draws the density of each layer and the accuracy of each epoch.

    Args:
      path: The PNG file.
      title: Text above the picture.
      layers: See `Report.layers`.
      history: Rows of `history.csv`.
    """
    plt = pyplot()
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11, max(3.6, 0.2 * len(layers))), layout="constrained"
    )
    figure.suptitle(title)
    kept = sum(row["kept"] for row in layers) / sum(row["size"] for row in layers)
    _densities(left, layers, kept)
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
