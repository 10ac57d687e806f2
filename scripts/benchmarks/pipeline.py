"""How fast the input pipeline is, beside the network that it feeds.

python scripts/benchmarks/pipeline.py

Images of noise in CIFAR-10's number and size, cropped, mirrored and normalised; and
training steps of a network on one batch, so that nothing waits for images. In turn.
"""

import statistics
import time

import numpy as np
from absl import app, flags

from tf_synflow import models
from tf_synflow.commands.plain_errors import in_one_line
from tf_synflow.experiments.data import Dataset
from tf_synflow.experiments.recipe import Recipe, optimizer
from tf_synflow.keras2.imports import keras

_MODEL = flags.DEFINE_enum("model", "resnet20", sorted(models.MODELS), "Network.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Images a step.", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 3, "How often each is timed.", lower_bound=1)
IMAGES, STEPS = 50_000, 40


def _noise(count: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, 32, 32, 3)).astype("uint8")
    return images, generator.integers(0, 10, count)


@in_one_line
def main(argv: list[str]) -> None:
    """Times the input pipeline and the network."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    size = _BATCH_SIZE.value
    channels = (0.5,) * 3
    data = Dataset(
        _noise(IMAGES), _noise(256), 10, 255.0, channels, channels, 4, mirrored=True
    )
    model = models.build(_MODEL.value, data.input_shape, 10)
    recipe = Recipe(1, size, 0.1, 0, decay="constant", weight_decay=1e-4)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer(recipe, 1), loss)
    batches = iter(data.training(size, seed=0))
    one = next(batches)
    model.train_on_batch(*one)
    fed, eaten = [], []
    for _ in range(_REPEATS.value):
        start = time.perf_counter()
        for _ in range(10 * STEPS):
            next(batches)
        fed.append(10 * STEPS * size / (time.perf_counter() - start))
        # The pipeline makes batches ahead. After this pause it is full, and idle.
        time.sleep(1)
        start = time.perf_counter()
        for _ in range(STEPS):
            model.train_on_batch(*one)
        eaten.append(STEPS * size / (time.perf_counter() - start))
    for name, rates in (("pipeline", fed), (_MODEL.value, eaten)):
        print(
            f"{name}: {statistics.median(rates):,.0f} images a second "
            f"({min(rates):,.0f} to {max(rates):,.0f})"
        )
    ratios = [f / e for f, e in zip(fed, eaten, strict=True)]
    print(f"pipeline / {_MODEL.value}: {min(ratios):.1f} to {max(ratios):.1f}")


if __name__ == "__main__":
    app.run(main)
