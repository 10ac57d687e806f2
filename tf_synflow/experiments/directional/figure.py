"""The figure of directional pruning, drawn from the tables of `study`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_synflow.experiments.directional.study import Tables
from tf_synflow.files.whole import written_whole
from tf_synflow.reporting.picture import BLUE, GREY, ORANGE, pyplot

# Okabe and Ito's colours again, one for each mu.
_COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

Rows = Sequence[Mapping[str, Any]]


def directional_figure(path: Path, title: str, tables: Tables) -> None:
    """Draws the paths to SGD's solution, the shares over the epochs, and the zeros.

    Args:
      path: .png or .svg.
      title: Text above the picture.
      tables: See `study`.
    """
    plt = pyplot()
    figure, places = plt.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
    figure.suptitle(title)
    mus = sorted({row["mu"] for row in tables.shares})
    colours = {mu: _COLOURS[n % len(_COLOURS)] for n, mu in enumerate(mus)}
    _paths(places[0], tables.paths, colours)
    _shares(places[1], tables.shares, colours)
    _layers(places[2], tables.layers, colours)
    with written_whole(path) as aside:
        figure.savefig(aside, dpi=130)
    plt.close(figure)


def _paths(place: Any, rows: Rows, colours: Mapping[float, str]) -> None:
    styles = {
        ("grda", "bezier"): ("-", "Bezier"),
        ("grda", "straight"): ("--", "straight"),
        ("magnitude", "straight"): (":", "magnitude-pruned, straight"),
    }
    for mu, colour in colours.items():
        for (network, shape), (line, label) in styles.items():
            own = [
                row
                for row in rows
                if (row["network"], row["path"], row["mu"]) == (network, shape, mu)
            ]
            place.plot(
                [row["t"] for row in own], [row["train_loss"] for row in own],
                color=colour, linestyle=line, label=f"$\\mu$ = {mu:g}, {label}",
            )  # fmt: skip
    place.set_yscale("log")
    # Room for the legend below the lines.
    place.set_ylim(bottom=min(row["train_loss"] for row in rows) / 300)
    place.set_title("training loss on the way to SGD")
    place.set_xlabel("t (0: the pruned network, 1: SGD)")
    place.set_ylabel("training loss")
    place.grid(alpha=0.3)
    place.legend(fontsize=7, loc="lower left")


def _shares(place: Any, rows: Rows, colours: Mapping[float, str]) -> None:
    for mu, colour in colours.items():
        for network, line, label in (
            ("grda", "-", "GRDA"),
            ("magnitude", ":", "magnitude-pruned"),
        ):
            own = [r for r in rows if (r["network"], r["mu"]) == (network, mu)]
            place.plot(
                [row["epoch"] for row in own], [row["share"] for row in own],
                color=colour, linestyle=line, marker="o", markersize=3,
                label=f"$\\mu$ = {mu:g}, {label}",
            )  # fmt: skip
    place.axhline(
        rows[0]["random_share"], color=GREY, label="random direction, $\\sqrt{k/d}$"
    )
    place.set_xscale("log")
    place.set_yscale("log")
    place.set_title("share of $w - w_{SGD}$ in the top eigenvectors")
    place.set_xlabel("epoch")
    place.set_ylabel("$|P(w - w_{SGD})| / |w - w_{SGD}|$")
    place.grid(alpha=0.3)
    place.legend(fontsize=7)


def _layers(place: Any, rows: Rows, colours: Mapping[float, str]) -> None:
    for mu, colour in colours.items():
        for network, line, label in (
            ("grda", "-", "GRDA"),
            ("magnitude", ":", "magnitude-pruned"),
        ):
            own = [
                row
                for row in rows
                if (row["network"], row["mu"]) == (network, mu)
                and row["weight"].endswith("kernel")
            ]
            place.plot(
                [row["weight"].removesuffix("/kernel") for row in own],
                [100 * row["zeros"] / row["size"] for row in own],
                color=colour, linestyle=line, marker="o", markersize=4,
                label=f"$\\mu$ = {mu:g}, {label}",
            )  # fmt: skip
    place.set_title("zeros of each kernel")
    place.set_ylabel("weights that are 0 (%)")
    place.set_ylim(-3, 103)
    place.tick_params(axis="x", labelsize=8, rotation=90 if len(own) > 6 else 0)
    place.grid(alpha=0.3)
    place.legend(fontsize=7)
