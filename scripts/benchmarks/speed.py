"""Times dense, masked and shrunk networks, in turn, so that drifts of speed cancel.

python scripts/benchmarks/speed.py --models=vgg16_bn:100 --ratios=10,100,1000

A masked network computes with its zeros; a shrunk one, masks and wrappers still on,
has only the channels that live. Plain, the control, is the same without masks and
wrappers. Rounded, masks and wrappers on, has more channels, each layer a multiple of
--multiple_of. A training step is `train_on_batch` with SGD; inference is the compiled
forward pass.
"""

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from absl import app, flags
from tqdm.auto import tqdm

import tf_synflow
from tf_synflow import models
from tf_synflow.commands.plain_errors import in_one_line
from tf_synflow.keras2.imports import keras

_MODELS = flags.DEFINE_list("models", ["vgg16_bn:100"], "Networks, as name:classes.")
_RATIOS = flags.DEFINE_list("ratios", ["10", "100", "1000"], "Compression ratios.")
_MULTIPLE_OF = flags.DEFINE_integer(
    "multiple_of", 16, "Of channels, when rounded.", lower_bound=1
)
_SIZE = flags.DEFINE_integer("size", 32, "Height and width of the images.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "Of each, in turn.", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 0.5, "At least, of calls of a kind in a row.")
_SMALLER = ("shrunk", "plain", "rounded")


def _tasks(model: keras.Model, classes: int) -> dict[str, Callable[[], None]]:
    """Gives the functions to time, by name."""
    generator = np.random.default_rng(0)
    shape = (_SIZE.value, _SIZE.value, 3)
    images = tf.constant(generator.standard_normal((128, *shape)).astype("float32"))
    labels = tf.constant(generator.integers(0, classes, 128))
    model.compile(
        tf_synflow.optimizers.SGD(1e-4),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    infer = tf.function(lambda x: model(x, training=False))
    return {
        "training step, batch 128": lambda: model.train_on_batch(images, labels),
        "inference, batch 1": lambda: infer(images[:1]).numpy(),
        "inference, batch 128": lambda: infer(images).numpy(),
    }


def _seconds(task: Callable[[], None]) -> float:
    """Measures the seconds of one call, from calls that fill --seconds in all."""
    calls, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < _SECONDS.value or not calls:
        task()
        calls += 1
    return passed / calls


def _spread(values: list[float]) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


def measure(name: str, ratio: str) -> None:
    """Times a network at one ratio, and prints a row of the table for each task."""
    kind, classes = name.split(":")
    keras.utils.set_random_seed(0)
    dense = models.build(kind, (_SIZE.value, _SIZE.value, 3), int(classes))
    policy = tf_synflow.PruningPolicy(on_collapse="ignore")
    masked = tf_synflow.prune(dense, float(ratio), policy=policy)
    shrunk = tf_synflow.shrink(masked)
    kinds = [dense, masked, shrunk, tf_synflow.strip(shrunk)]
    kinds.append(tf_synflow.shrink(masked, _MULTIPLE_OF.value))
    tasks = [_tasks(model, int(classes)) for model in kinds]
    for task in tasks[0]:
        times: list[list[float]] = [[] for _ in tasks]
        for own in tasks:
            own[task]()  # traces the task before it is timed
        for _ in tqdm(range(_REPEATS.value), desc=f"ratio {ratio}, {task}"):
            for found, own in zip(times, tasks, strict=True):
                found.append(_seconds(own[task]))
        cells = [_spread([1000 * t for t in found]) for found in times]
        for smaller in times[2:]:
            faster = [a / b for a, b in zip(times[0], smaller, strict=True)]
            cells.append(_spread(faster))
        tqdm.write(f"| {name} | {ratio} | {task} | {' | '.join(cells)} |")


@in_one_line
def main(argv: list[str]) -> None:
    """Times the networks of the flags at all ratios."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    unknown = {name.split(":")[0] for name in _MODELS.value} - models.MODELS.keys()
    if unknown:
        sys.exit(f"speed.py: there are no networks {sorted(unknown)}")
    head = ["network", "ratio", ""]
    head += [f"{kind}, ms" for kind in ("dense", "masked", *_SMALLER)]
    head += [f"dense / {kind}" for kind in _SMALLER]
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|", flush=True)
    for name in _MODELS.value:
        for ratio in _RATIOS.value:
            measure(name, ratio)


if __name__ == "__main__":
    app.run(main)
