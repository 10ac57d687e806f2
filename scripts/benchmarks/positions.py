"""Draws how many of the positions of each convolution SynFlow computes.

python scripts/benchmarks/positions.py --output=docs/positions.png
"""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from absl import app, flags

from tf_synflow import frameworks, models
from tf_synflow.commands.plain_errors import in_one_line
from tf_synflow.files.whole import written_whole
from tf_synflow.flow import position_rules
from tf_synflow.flow.loop import network_twin

_OUTPUT = flags.DEFINE_string("output", "positions.png", "PNG file to write.")
_SIZE = flags.DEFINE_integer("size", 224, "Height and width of the images, in pixels.")
_NETWORKS = {"VGG-16": "vgg16_bn", "ResNet-50": "resnet50"}


def counted(network: Any) -> list[tuple[str, int, int]]:
    """Gives the name, the positions and the computed positions of each convolution."""
    found: list[tuple[str, int, int]] = []
    original = position_rules.rule_of

    def watched(part: Callable) -> Callable:
        rule = original(part)

        def run(layer: Any, apply: Callable, spreads: list) -> list:
            results = rule(layer, apply, spreads)
            if type(layer).__name__ == "Conv2D":
                tensor, indices = results[0]
                sizes = tensor.shape[1:-1].as_list()
                whole = [
                    size if index is None else index.size
                    for size, index in zip(
                        sizes, (indices or [None] * 4)[1:-1], strict=True
                    )
                ]
                found.append((layer.name, int(np.prod(whole)), int(np.prod(sizes))))
            return results

        return run

    position_rules.rule_of = watched
    try:
        weights = {name: network.weights[name].numpy() for name in network.prunable}
        twin, sizes = network_twin(network, weights, dtype="float32")
        twin.flow({name: tf.constant(own.array) for name, own in sizes.items()})
    finally:
        position_rules.rule_of = original
    return found


@in_one_line
def main(argv: list[str]) -> None:
    """Draws the positions of both networks, and prints the totals."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 1, figsize=(9, 6.5), layout="constrained")
    for title, axis in zip(_NETWORKS, axes, strict=True):
        model = models.build(_NETWORKS[title], (_SIZE.value, _SIZE.value, 3), 1000)
        found = counted(frameworks.read(model))
        names, whole, computed = zip(*found, strict=True)
        places = np.arange(len(names))
        axis.bar(places, whole, color="0.85", label="positions of the map")
        axis.bar(places, computed, color="tab:blue", label="computed once each")
        axis.set(
            yscale="log",
            ylabel="positions",
            title=f"{title}, {_SIZE.value} x {_SIZE.value}: "
            f"{sum(computed):,} of {sum(whole):,} positions computed",
            xlabel="convolutions, in the order in which they are applied",
        )
        axis.margins(x=0.01)
        axis.set_xticks([])
        axis.legend(frameon=False, ncols=2, loc="upper right")
        print(f"{title}: {sum(computed):,} of {sum(whole):,}", file=sys.stdout)
    with written_whole(_OUTPUT.value) as aside:
        figure.savefig(aside, dpi=120, format="png")


if __name__ == "__main__":
    app.run(main)
