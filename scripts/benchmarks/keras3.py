"""Shows that Keras 3 models are pruned as those of Keras 2 are, on any backend.

KERAS_BACKEND=jax python scripts/benchmarks/keras3.py
KERAS_BACKEND=torch python scripts/benchmarks/keras3.py --checks=training,shrink

Each check prints lines of a Markdown table as they come; --output writes all as JSON.
The checks are:

- masks: SynFlow's masks of a Keras 3 network and of one of Keras 2 with the same
  weights, and the seconds that both took.
- data: the same for criteria that need data, and for filters.
- training: the largest pruned weight that was seen after any step, by optimizers and
  ways to train, and how many of the kept weights moved.
- shrink: outputs of a shrunk network and of the pruned one, before training and after
  50 steps; and whether expand gives the pruned weights back. Training amplifies any
  difference, so the control, a pruned network whose weights differ in the last binary
  digit, stands beside them.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

# Some checks need two devices. JAX reads this variable when it is imported.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags
from keras3_training import BACKEND, cross_entropy, small_net, training

import tf_synflow
from tf_synflow.commands.plain_errors import in_one_line
from tf_synflow.files.whole import write_text
from tf_synflow.frameworks import keras_named

Rows = list[dict[str, Any]]

_CHECKS = flags.DEFINE_list(
    "checks", ["masks", "data", "training", "shrink"], "Which checks to make."
)
_NETWORKS = flags.DEFINE_list(
    "networks",
    ["vgg11_bn", "vgg16_bn", "resnet20"],
    'Networks whose masks to compare; "small" has three convolutions.',
)
_RATIOS = flags.DEFINE_list("ratios", ["10", "100"], "Compression ratios.")
_ITERATIONS = flags.DEFINE_integer("iterations", 100, "Of SynFlow.", lower_bound=1)
_DATA_NETWORKS = flags.DEFINE_list(
    "data_networks", ["resnet20", "vgg13_bn"], "Networks for the criteria with data."
)
_SHRUNK = flags.DEFINE_list(
    "shrunk", ["vgg11_bn", "resnet20", "mobilenet"], "Networks to shrink."
)
_STEPS = flags.DEFINE_integer("steps", 50, "Steps of training of shrunk networks.")
_RATE = flags.DEFINE_float("learning_rate", 1e-5, "Learning rate for them.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file for the results.")


def built(name: str, kind: str = "keras") -> Any:
    """Builds a network by its name, in Keras 3 or Keras 2; "small" is `small_net`."""
    if name == "small":
        return small_net(keras_named(kind))
    return tf_synflow.models.build(name, (32, 32, 3), 10, keras=kind)


def pair(name: str) -> tuple[Any, Any]:
    """Builds a network in Keras 2 and in Keras 3, with the same weights."""
    old, new = built(name, "tf_keras"), built(name)
    new.set_weights(old.get_weights())
    return old, new


def noise(name: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws images and labels for a network."""
    generator, size = np.random.default_rng(0), 8 if name == "small" else 32
    images = generator.random((count, size, size, 3)).astype("float32")
    return images, generator.integers(0, 10, count)


def compared(name: str, what: str, find: Callable[[Any], Any]) -> dict[str, Any]:
    """Compares the masks that `find` gives for a network in Keras 2 and in Keras 3.

    Returns:
      A row of the table: the number of places that differ, and the seconds that `find`
      took in each Keras.
    """
    seconds, found = [], []
    for model in pair(name):
        start = time.perf_counter()
        found.append(find(model))
        seconds.append(time.perf_counter() - start)
    old, new = found
    return {
        "network": name,
        "masks": what,
        "kept": int(sum(mask.sum() for mask in new.values())),
        "differing": int(sum((old[n] != new[n]).sum() for n in old)),
        "same names": list(old) == list(new),
        "seconds in Keras 2": round(seconds[0], 1),
        "in Keras 3": round(seconds[1], 1),
    }


def masks() -> Iterator[dict[str, Any]]:
    """Compares SynFlow's masks of both Kerases."""
    for name in _NETWORKS.value:
        for ratio in map(float, _RATIOS.value):
            policy = tf_synflow.PruningPolicy(
                iterations=_ITERATIONS.value, progress=False, on_collapse="ignore"
            )
            yield compared(
                name, f"ratio {ratio:g}", lambda m, p=policy, r=ratio: p.masks(m, r)
            )


def data() -> Iterator[dict[str, Any]]:
    """Compares masks of criteria that need data, and masks of filters."""
    cases = [
        *((criterion, "weight") for criterion in ("snip", "grasp", "magnitude")),
        *((criterion, "filter") for criterion in ("magnitude", "loss_preservation")),
    ]
    for name in _DATA_NETWORKS.value:
        batch = noise(name, 20)
        for criterion, granularity in cases:
            policy = tf_synflow.PruningPolicy(
                criterion,
                granularity=granularity,
                progress=False,
                on_collapse="ignore",
            )
            ratio = 10 if granularity == "weight" else 0.5
            yield compared(
                name,
                f"{criterion} ({granularity}s), ratio {ratio:g}",
                lambda m, p=policy, r=ratio, b=batch: p.masks(m, r, b),
            )


def shrink() -> Iterator[dict[str, Any]]:
    """Compares the outputs of shrunk networks with those of pruned networks."""
    for name in _SHRUNK.value:
        x, y = noise(name, 32)
        keras.utils.set_random_seed(0)
        model = built(name)
        pruned = tf_synflow.prune(
            model, 100, progress=False, iterations=_ITERATIONS.value
        )
        small = tf_synflow.shrink(pruned)
        whole = tf_synflow.expand(small, pruned)
        masks = tf_synflow.get_masks(pruned)
        # Train copies: `pruned` is compared with what `expand` gave.
        twin, control = (tf_synflow.apply_masks(pruned, masks) for _ in range(2))
        for variable in control.trainable_variables:
            value = variable.numpy()
            variable.assign(np.where(value == 0, value, np.nextafter(value, np.inf)))
        before = _difference(pruned, small, x)
        for trained in (twin, small, control):
            trained.compile(keras.optimizers.SGD(_RATE.value, 0.9), cross_entropy())
            # Each epoch has one batch. With JAX this is faster than train_on_batch.
            trained.fit(x, y, len(x), _STEPS.value, shuffle=False, verbose=0)
        steps = f"{_STEPS.value} steps"
        yield {
            "network": name,
            "parameters": pruned.count_params(),
            "shrunk": small.count_params(),
            "outputs differ by": before,
            f"both trained {steps}": _difference(twin, small, x),
            "control: a rounding of the weights": _difference(twin, control, x),
            f"trained {steps}, then shrunk": _difference(
                twin, tf_synflow.shrink(twin), x
            ),
            "expand gives back": all(
                np.array_equal(a, b)
                for a, b in zip(whole.get_weights(), pruned.get_weights(), strict=True)
            ),
        }


def _difference(one: Any, other: Any, x: np.ndarray) -> float:
    a, b = (keras.ops.convert_to_numpy(m(x, training=False)) for m in (one, other))
    return float(abs(a - b).max() / abs(a).max())


CHECKS = {
    "masks": masks,
    "data": data,
    "training": training,
    "shrink": shrink,
}


@in_one_line
def main(argv: list[str]) -> None:
    """Makes the checks that the flags name."""
    if unknown := sorted(set(_CHECKS.value) - set(CHECKS)):
        sys.exit(f"keras3.py: there is no check {unknown}; there are {list(CHECKS)}")
    if BACKEND == "tensorflow":
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * 2,
        )
    found: dict[str, Rows] = {}
    for check in _CHECKS.value:
        print(f"\n{check}, Keras {keras.__version__} on {BACKEND}", flush=True)
        found[check] = []
        for row in CHECKS[check]():
            if not found[check]:
                print(f"| {' | '.join(row)} |")
                print("|---" * len(row) + "|")
            cells = [
                f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()
            ]
            print(f"| {' | '.join(cells)} |", flush=True)
            found[check].append(row)
    if _OUTPUT.value:
        write_text(_OUTPUT.value, json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)
