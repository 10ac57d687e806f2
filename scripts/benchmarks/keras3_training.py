"""Ways to train a pruned Keras 3 model: the largest pruned weight after any step.

A part of keras3.py, which prints it as a table.
"""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tf_synflow

BACKEND = keras.backend.backend()


def small_net(k: Any = keras) -> Any:
    """Builds a small residual network for images of 8x8x3 and 10 classes.

    It has convolutions and BatchNormalization.
    """
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


class Watch(keras.callbacks.Callback):
    """Keeps the largest absolute value that any pruned weight had after any step.

    Attributes:
      pruned: Name to mask, False where a weight is pruned.
      worst: The largest value so far.
    """

    def __init__(self, pruned: dict[str, np.ndarray]):
        """Makes the callback.

        Args:
          pruned: Name to mask, False where a weight is pruned.
        """
        super().__init__()
        self.pruned, self.worst = pruned, 0.0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Looks at the pruned weights after a step."""
        self.worst = max(self.worst, largest_pruned(self.model, self.pruned))


def kernels(model: Any) -> dict[str, np.ndarray]:
    """Gives every weight of a model, name to value."""
    return {
        f"{layer.name}/{variable.name}": variable.numpy()
        for layer in model.layers
        for variable in layer.weights
    }


def largest_pruned(model: Any, pruned: dict[str, np.ndarray]) -> float:
    """Gives the largest absolute value among pruned weights."""
    now = kernels(model)
    return max(float(abs(now[n][~mask]).max(initial=0)) for n, mask in pruned.items())


def training() -> Iterator[dict[str, Any]]:
    """Yields the largest pruned weight for each optimizer and each way to train."""
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
    if BACKEND != "torch":  # PyTorch would use a compiler of the machine
        ways["jit_compile"] = (lambda: optimizers.SGD(0.1, 0.9), {"jit_compile": True})

    def fit(model: Any, optimizer: Any, options: dict[str, Any]) -> float:
        model.compile(optimizer, cross_entropy(), **options)
        watch = Watch(tf_synflow.get_masks(model))
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
        model.compile(optimizers.SGD(0.1, 0.9), cross_entropy())
        watch = Watch(tf_synflow.get_masks(model))
        model.fit(x, y, 16, 2, verbose=0, callbacks=[watch])
        return watch.worst

    yield _trained("fit without our callback", small_net, no_callback)

    def batches(model: Any) -> float:
        model.compile(optimizers.SGD(0.1, 0.9), cross_entropy())
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


def cross_entropy() -> Any:
    """Gives the cross-entropy of logits."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _tensorflow_loop(model: Any, x: np.ndarray, y: np.ndarray) -> float:
    optimizer, loss = keras.optimizers.Adam(0.01), cross_entropy()
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

    optimizer, loss = keras.optimizers.Adam(0.01), cross_entropy()
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

    optimizer, loss = keras.optimizers.Adam(0.01), cross_entropy()
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

    optimizer, loss = torch.optim.Adam(model.parameters(), 0.01), cross_entropy()
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
    """Trains on two devices, on backends that can share a model between them."""
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
