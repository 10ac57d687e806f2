"""Finds the compression ratio at which each criterion empties a layer.

python scripts/benchmarks/collapse.py --output=collapse.csv

A network of the papers, new weights for each seed, images of standard normal noise and
random labels for the criteria that need data.
"""

import time

import numpy as np
from absl import app, flags
from tqdm.auto import tqdm

import tf_synflow
from tf_synflow import models
from tf_synflow.commands.plain_errors import in_one_line
from tf_synflow.criteria import CRITERIA, DATA_FREE
from tf_synflow.experiments.collapse import first_collapse
from tf_synflow.files.whole import write_csv
from tf_synflow.keras2.imports import keras

_MODEL = flags.DEFINE_enum("model", "vgg16_bn", sorted(models.MODELS), "Network.")
_SIZE = flags.DEFINE_integer("size", 32, "Height and width of the images.")
_CLASSES = flags.DEFINE_integer("classes", 100, "Number of classes.")
_CRITERIA = flags.DEFINE_list("criteria", list(CRITERIA), "Which to try.")
_ITERATIONS = flags.DEFINE_integer(
    "iterations", None, "Defaults to the criterion's own: 100 for SynFlow, 1 otherwise."
)
_IMAGES = flags.DEFINE_integer(
    "images", None, "Defaults to ten for each class.", lower_bound=1
)
_SEEDS = flags.DEFINE_integer("seeds", 3, "How many seeds, from 0.", lower_bound=1)
_DTYPE = flags.DEFINE_enum("dtype", "float64", ["float64", "float32"], "Computes in.")
_FIRST = flags.DEFINE_float("first", 1.0, "First alpha, log10 of the ratio.")
_LAST = flags.DEFINE_float("last", 6.0, "Last alpha.")
_STEP = flags.DEFINE_float("step", 0.25, "Step of alpha.", lower_bound=0.01)
_OUTPUT = flags.DEFINE_string("output", None, "CSV file for the results.")


def _data() -> tuple[np.ndarray, np.ndarray]:
    count = _IMAGES.value or 10 * _CLASSES.value
    generator = np.random.default_rng(0)
    shape = (count, _SIZE.value, _SIZE.value, 3)
    images = generator.standard_normal(shape).astype("float32")
    return images, generator.integers(0, _CLASSES.value, count)


def _row(criterion: str, seed: int, data: object) -> dict[str, object]:
    keras.utils.set_random_seed(seed)
    shape = (_SIZE.value, _SIZE.value, 3)
    model = models.build(_MODEL.value, shape, _CLASSES.value)
    policy = tf_synflow.PruningPolicy(
        criterion,
        iterations=_ITERATIONS.value,
        dtype=_DTYPE.value,
        seed=seed,
        on_collapse="ignore",
    )
    steps = round((_LAST.value - _FIRST.value) / _STEP.value)
    alphas = [_FIRST.value + _STEP.value * step for step in range(steps + 1)]
    start = time.perf_counter()
    needed = None if criterion in DATA_FREE else data
    found = first_collapse(
        model, policy, alphas, needed, lambda a: tqdm(a, unit="ratio", leave=False)
    )
    return {
        "criterion": criterion,
        "iterations": policy.iterations,
        "seed": seed,
        "first_alpha": "none" if found.alpha is None else f"{found.alpha:g}",
        "emptied": " ".join(found.layers),
        "seconds": f"{time.perf_counter() - start:.1f}",
    }


@in_one_line
def main(argv: list[str]) -> None:
    """Finds the first ratio that empties a layer, for every criterion and seed."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    unknown = [name for name in _CRITERIA.value if name not in CRITERIA]
    if unknown:
        raise app.UsageError(f"--criteria: {unknown}; there are {list(CRITERIA)}")
    data = _data()
    rows = []
    for criterion in _CRITERIA.value:
        for seed in range(_SEEDS.value):
            rows.append(_row(criterion, seed, data))
            print(*rows[-1].values(), sep=", ", flush=True)
            if _OUTPUT.value:
                write_csv(_OUTPUT.value, rows)


if __name__ == "__main__":
    app.run(main)
