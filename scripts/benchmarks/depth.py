"""Proves what docs/measurements.md says: scores neither overflow nor underflow.

python scripts/benchmarks/depth.py            # under twenty minutes on two cores

Prints a line for each proof, and fails at the first that does not hold.
"""

import resource
import sys
import time

import numpy as np
from absl import app

import tf_synflow
from tf_synflow.commands.plain_errors import in_one_line
from tf_synflow.flow import linear_twin
from tf_synflow.keras2.imports import keras
from tf_synflow.masks.counts import kept_count
from tf_synflow.network.copies import deep_graphs


def deep_dense(depth: int, factor: float) -> keras.Model:
    """Builds a chain of Dense layers of width 4, with all weights times `factor`."""
    keras.utils.set_random_seed(0)
    inputs = x = keras.Input((4,))
    for _ in range(depth):
        x = keras.layers.Dense(4, use_bias=False)(x)
    with deep_graphs():
        model = keras.Model(inputs, x)
    for variable in model.weights:
        variable.assign(variable * factor)
    return model


def same(a: dict, b: dict) -> bool:
    """Whether two sets of masks are the same in every bit."""
    return all(
        x.tobytes() == y.tobytes() for x, y in zip(a.values(), b.values(), strict=True)
    )


def prove(what: str, holds: bool) -> None:
    """Prints whether a statement holds, and ends the program if it does not."""
    print(f"{'holds' if holds else 'FAILS'}  {what}", flush=True)
    if not holds:
        sys.exit(1)


def scaling_changes_no_bit() -> None:
    """Compares masks with and without scaling, for ResNet-56 and ResNet-110.

    The flow of these networks is within the range of float64, so the loop works without
    scaling too.
    """
    normalised = linear_twin.normalised
    for depth in (56, 110):
        keras.utils.set_random_seed(0)
        model = tf_synflow.models.resnet(depth)
        masks = tf_synflow.PruningPolicy().masks(model, 100)
        linear_twin.normalised = lambda signal: signal
        unscaled = tf_synflow.PruningPolicy().masks(model, 100)
        linear_twin.normalised = normalised
        prove(
            f"ResNet-{depth}, ratio 100, 100 iterations: masks with and without "
            "scaling are the same in every bit",
            same(masks, unscaled),
        )


def three_thousand_layers() -> None:
    """Compares the masks of a chain of 3,000 layers for weights of unlike sizes."""
    policy = tf_synflow.PruningPolicy(iterations=10)
    masks = policy.masks(deep_dense(3000, 1.0), 4)
    for factor, text in ((2.0**60, "2^60"), (2.0**-60, "2^-60")):
        prove(
            f"3,000 Dense layers, all weights times {text}: the same masks",
            same(masks, policy.masks(deep_dense(3000, factor), 4)),
        )


def resnet_1202() -> None:
    """Checks scores and masks of ResNet-1202, the deepest network of the papers."""
    keras.utils.set_random_seed(0)
    model = tf_synflow.models.ResNet1202()
    for dtype in ("float64", "float32"):
        policy = tf_synflow.PruningPolicy(dtype=dtype)
        scores = policy.score(model)
        finite = all(np.isfinite(score).all() for score in scores.values())
        start = time.perf_counter()
        masks = policy.masks(model, 100)
        seconds = time.perf_counter() - start
        kept = sum(int(mask.sum()) for mask in masks.values())
        empty = [name for name, mask in masks.items() if not mask.any()]
        flow = _flow_under(model, masks)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        prove(
            f"ResNet-1202 in {dtype}, ratio 100: scores finite (log2 scale "
            f"{scores.log2_scale}), {kept:,} of {19_334_192:,} weights kept as asked, "
            f"input and output connected; layers emptied: {empty}; {seconds:.0f} s, "
            f"peak of the process so far {peak:.1f} GB",
            finite and flow and kept == kept_count(19_334_192, 100),
        )


def _flow_under(model: keras.Model, masks: dict) -> bool:
    """Whether masks leave any flow, that is, a path from input to output."""
    whole = model.get_weights()
    for name, mask in masks.items():
        kernel = model.get_layer(name.split("/")[0]).kernel
        kernel.assign(kernel * mask)
    after = tf_synflow.PruningPolicy().score(model)
    model.set_weights(whole)
    return any((score > 0).any() for score in after.values())


@in_one_line
def main(argv: list[str]) -> None:
    """Runs the proofs."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    scaling_changes_no_bit()
    three_thousand_layers()
    resnet_1202()


if __name__ == "__main__":
    app.run(main)
