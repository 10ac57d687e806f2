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

# Two devices each, for the checks that need them. Read before JAX is imported.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

import tf_synflow
from tf_synflow.commands.plain_errors import in_one_line
from tf_synflow.files.whole import write_text
from tf_synflow.frameworks import keras_named

Rows = list[dict[str, Any]]

BACKEND = keras.backend.backend()

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
    """A network by its name, in one of the Kerases; "small" is `small_net`."""
    if name == "small":
        return small_net(keras_named(kind))
    return tf_synflow.models.build(name, (32, 32, 3), 10, keras=kind)


def small_net(k: Any = keras) -> Any:
    """Convolutions, a residual, BatchNormalization; 8x8x3 images, 10 classes."""
    layers = k.layers
    inputs = k.Input((8, 8, 3))
    x = layers.Conv2D(16, 3, padding="same", name="conv1")(inputs)
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.ReLU(name="relu1")(x)
    y = layers.Conv2D(16, 3, padding="same", name="conv2")(x)
    x = layers.ReLU(name="relu2")(x + y)
    x = layers.Conv2D(24, 3, activation="relu", name="conv3")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return k.Model(inputs, layers.Dense(10, name="fc")(x))


def pair(name: str) -> tuple[Any, Any]:
    """A network of Keras 2 and one of Keras 3 with the same weights."""
    old, new = built(name, "tf_keras"), built(name)
    new.set_weights(old.get_weights())
    return old, new


def noise(name: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels for a network."""
    generator, size = np.random.default_rng(0), 8 if name == "small" else 32
    images = generator.random((count, size, size, 3)).astype("float32")
    return images, generator.integers(0, 10, count)


def compared(name: str, what: str, find: Callable[[Any], Any]) -> dict[str, Any]:
    """How masks that `find` gives of both differ, and its seconds."""
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
    """SynFlow's masks."""
    for name in _NETWORKS.value:
        for ratio in map(float, _RATIOS.value):
            policy = tf_synflow.PruningPolicy(
                iterations=_ITERATIONS.value, progress=False, on_collapse="ignore"
            )
            yield compared(
                name, f"ratio {ratio:g}", lambda m, p=policy, r=ratio: p.masks(m, r)
            )


def data() -> Iterator[dict[str, Any]]:
    """Masks of criteria that need data, and of filters."""
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


class Watch(keras.callbacks.Callback):
    """Keeps the largest pruned weight that was there after any step."""

    def __init__(self, pruned: dict[str, np.ndarray]):
        """Takes the masks."""
        super().__init__()
        self.pruned, self.worst = pruned, 0.0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Looks."""
        self.worst = max(self.worst, largest_pruned(self.model, self.pruned))


def kernels(model: Any) -> dict[str, np.ndarray]:
    """Name to value of every weight."""
    return {
        f"{layer.name}/{variable.name}": variable.numpy()
        for layer in model.layers
        for variable in layer.weights
    }


def largest_pruned(model: Any, pruned: dict[str, np.ndarray]) -> float:
    """The largest absolute value among pruned weights."""
    now = kernels(model)
    return max(float(abs(now[n][~mask]).max(initial=0)) for n, mask in pruned.items())


def training() -> Iterator[dict[str, Any]]:
    """The largest pruned weight by optimizers and ways to train."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((64, 8, 8, 3)).astype("float32")
    y = generator.integers(0, 10, 64)
    optimizers = keras.optimizers
    ema = {"use_ema": True, "ema_overwrite_frequency": 3}
    ways: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
        "SGD": (lambda: optimizers.SGD(0.1), {}),
        "Nesterov": (lambda: optimizers.SGD(0.1, 0.9, nesterov=True), {}),
        "SGD of this library": (
            lambda: tf_synflow.optimizers.SGD(0.1, l2=1e-4, keras="keras"),
            {},
        ),
        "Adam": (lambda: optimizers.Adam(0.01), {}),
        "AdamW": (lambda: optimizers.AdamW(0.01, weight_decay=0.1), {}),
        "averages (use_ema)": (lambda: optimizers.SGD(0.1, use_ema=True), {}),
        "averages, put back": (lambda: optimizers.SGD(0.1, **ema), {}),
        "2 gradients a step": (
            lambda: optimizers.SGD(0.1, 0.9, gradient_accumulation_steps=2),
            {},
        ),
        "clipped": (lambda: optimizers.Adam(0.01, global_clipnorm=0.1), {}),
        "run_eagerly": (lambda: optimizers.SGD(0.1, 0.9), {"run_eagerly": True}),
    }
    if BACKEND != "torch":  # PyTorch would compile with a compiler of the machine's
        ways["jit_compile"] = (lambda: optimizers.SGD(0.1, 0.9), {"jit_compile": True})

    def fit(model: Any, optimizer: Any, options: dict[str, Any]) -> float:
        model.compile(optimizer, _loss(), **options)
        watch = Watch(tf_synflow.get_masks(model))
        # Both orders: before and after whoever looks.
        callbacks = [tf_synflow.PruningCallback(), watch]
        model.fit(x, y, 16, 2, verbose=0, callbacks=callbacks)
        return watch.worst

    for name, (make, options) in ways.items():
        yield _trained(name, small_net, lambda m, o=make, w=options: fit(m, o(), w))
    for kind in ("mixed_float16", "mixed_bfloat16"):
        keras.config.set_dtype_policy(kind)
        try:
            yield _trained(kind, small_net, lambda m: fit(m, optimizers.SGD(0.1), {}))
        finally:
            keras.config.set_dtype_policy("float32")

    def no_callback(model: Any) -> float:
        model.compile(optimizers.SGD(0.1, 0.9), _loss())
        watch = Watch(tf_synflow.get_masks(model))
        model.fit(x, y, 16, 2, verbose=0, callbacks=[watch])
        return watch.worst

    yield _trained("fit without our callback", small_net, no_callback)

    def batches(model: Any) -> float:
        model.compile(optimizers.SGD(0.1, 0.9), _loss())
        masks = tf_synflow.get_masks(model)
        worst = 0.0
        for _ in range(6):
            model.train_on_batch(x, y)
            worst = max(worst, largest_pruned(model, masks))
        return worst

    yield _trained("train_on_batch", small_net, batches)
    yield _trained("a loop of one's own", small_net, lambda m: LOOPS[BACKEND](m, x, y))
    if BACKEND == "torch":
        yield _trained("torch.optim, zero_pruned", small_net, lambda m: _torch(m, x, y))
    yield from _devices(fit)


def _trained(
    name: str, build: Callable[[], Any], train: Callable[[Any], float]
) -> dict[str, Any]:
    keras.utils.set_random_seed(0)
    model = tf_synflow.prune(build(), 5, criterion="magnitude")
    pruned, before = tf_synflow.get_masks(model), kernels(model)
    worst = train(model)
    now = kernels(model)
    return {
        "trained by": name,
        "largest pruned weight": max(worst, largest_pruned(model, pruned)),
        "kept": int(sum(mask.sum() for mask in pruned.values())),
        "of them moved": int(
            sum((now[n] != before[n])[mask].sum() for n, mask in pruned.items())
        ),
    }


def _loss() -> Any:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _tensorflow_loop(model: Any, x: np.ndarray, y: np.ndarray) -> float:
    optimizer, loss = keras.optimizers.Adam(0.01), _loss()
    masks, worst = tf_synflow.get_masks(model), 0.0

    @tf.function
    def step() -> None:
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(value, variables), variables)

    optimizer.build(model.trainable_variables)
    for _ in range(6):
        step()
        worst = max(worst, largest_pruned(model, masks))
    return worst


def _jax_loop(model: Any, x: np.ndarray, y: np.ndarray) -> float:
    import jax

    optimizer, loss = keras.optimizers.Adam(0.01), _loss()
    masks, worst = tf_synflow.get_masks(model), 0.0
    optimizer.build(model.trainable_variables)

    def value(trainable: Any, rest: Any) -> Any:
        outputs, rest = model.stateless_call(trainable, rest, x, training=True)
        return loss(y, outputs), rest

    @jax.jit
    def step(trainable: Any, rest: Any, state: Any) -> Any:
        slopes, rest = jax.grad(value, has_aux=True)(trainable, rest)
        trainable, state = optimizer.stateless_apply(state, slopes, trainable)
        return trainable, rest, state

    def values(variables: Any) -> list[Any]:
        return [variable.value for variable in variables]

    trainable = values(model.trainable_variables)
    rest = values(model.non_trainable_variables)
    state = values(optimizer.variables)
    for _ in range(6):
        trainable, rest, state = step(trainable, rest, state)
        for variable, new in zip(model.trainable_variables, trainable, strict=True):
            variable.assign(np.asarray(new))
        worst = max(worst, largest_pruned(model, masks))
    return worst


def _torch_loop(model: Any, x: np.ndarray, y: np.ndarray) -> float:
    import torch

    optimizer, loss = keras.optimizers.Adam(0.01), _loss()
    masks, worst = tf_synflow.get_masks(model), 0.0
    for _ in range(6):
        model.zero_grad()
        loss(torch.tensor(y), model(torch.tensor(x), training=True)).backward()
        variables = model.trainable_variables
        slopes = [variable.value.grad for variable in variables]
        with torch.no_grad():
            optimizer.apply(slopes, variables)
        worst = max(worst, largest_pruned(model, masks))
    return worst


LOOPS = {"tensorflow": _tensorflow_loop, "jax": _jax_loop, "torch": _torch_loop}


def _torch(model: Any, x: np.ndarray, y: np.ndarray) -> float:
    import torch

    optimizer, loss = torch.optim.Adam(model.parameters(), 0.01), _loss()
    masks, worst, back = tf_synflow.get_masks(model), 0.0, 0
    for _ in range(6):
        optimizer.zero_grad()
        loss(torch.tensor(y), model(torch.tensor(x), training=True)).backward()
        optimizer.step()
        back += tf_synflow.zero_pruned(model)
        worst = max(worst, largest_pruned(model, masks))
    assert back, "torch.optim was expected to move pruned weights"
    return worst


def _devices(fit: Callable[..., float]) -> Iterator[dict[str, Any]]:
    """Training on two devices, where the backend has them."""
    if BACKEND == "tensorflow":
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

        def build() -> Any:
            with strategy.scope():
                return small_net()

        def train(model: Any) -> float:
            with strategy.scope():
                optimizer = keras.optimizers.SGD(0.1, 0.9)
            return fit(model, optimizer, {})

        yield _trained("two devices, MirroredStrategy", build, train)
    if BACKEND == "jax":
        devices = keras.distribution.list_devices()
        mesh = keras.distribution.DeviceMesh((len(devices),), ["batch"], devices)
        layout = keras.distribution.LayoutMap(mesh)
        layout["conv.*/kernel"] = (None, None, None, "batch")
        for name, distribution in (
            ("DataParallel", keras.distribution.DataParallel(devices=devices)),
            (
                "ModelParallel",
                keras.distribution.ModelParallel(
                    layout_map=layout, batch_dim_name="batch"
                ),
            ),
        ):
            keras.distribution.set_distribution(distribution)
            try:
                yield _trained(
                    f"{len(devices)} devices, {name}",
                    small_net,
                    lambda m: fit(m, keras.optimizers.SGD(0.1, 0.9), {}),
                )
            finally:
                keras.distribution.set_distribution(None)


def shrink() -> Iterator[dict[str, Any]]:
    """Outputs of shrunk and of pruned networks."""
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
        # Copies of the pruned one: the other is what expand went back to.
        twin, control = (tf_synflow.apply_masks(pruned, masks) for _ in range(2))
        for variable in control.trainable_variables:
            value = variable.numpy()
            variable.assign(np.where(value == 0, value, np.nextafter(value, np.inf)))
        before = _difference(pruned, small, x)
        for trained in (twin, small, control):
            trained.compile(keras.optimizers.SGD(_RATE.value, 0.9), _loss())
            # An epoch of one batch each. With JAX that is faster than train_on_batch.
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
