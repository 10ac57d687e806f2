"""Masked and shrunk networks side by side: the same function, and how much smaller.

python scripts/benchmarks/shrinking.py
python scripts/benchmarks/shrinking.py --train --models=vgg16_bn:100 --ratios=10,100

Each network is pruned by SynFlow and shrunk; the outputs of both on random images, in
training and in inference mode, are compared before training and after --steps steps of
the masked one. With --train both are trained alike, and their kernels compared. Beside
both stands the control, the masked network with weights that differ by a rounding: deep
networks, and training, amplify any difference. Lines of a Markdown table are printed as
they come.
"""

import sys

import numpy as np
import tensorflow as tf
from absl import app, flags

import tf_synflow
from tf_synflow import frameworks, models
from tf_synflow.commands.plain_errors import in_one_line
from tf_synflow.flow.paths import on_paths
from tf_synflow.keras2.imports import keras

_MODELS = flags.DEFINE_list(
    "models",
    ["vgg16_bn:100", "resnet20:10", "resnet56:10", "resnet18:10", "mobilenet:10"]
    + ["densenet:10"],
    "Networks, as name:classes.",
)
_RATIOS = flags.DEFINE_list("ratios", ["10", "100"], "Compression ratios.")
_DTYPE = flags.DEFINE_enum("dtype", "float64", ["float64", "float32"], "Computes in.")
_IMAGES = flags.DEFINE_integer("images", 256, "Random images to compare by.")
_STEPS = flags.DEFINE_integer("steps", 200, "Of training, before comparing again.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Images a step.")
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 1e-3, "Of SGD with momentum.")
_SIZE = flags.DEFINE_integer("size", 32, "Height and width of the images.")
_TRAIN = flags.DEFINE_bool("train", False, "Train the small network too, and compare.")


def densenet(input_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """Builds a network like DenseNet-BC for small images.

    It has three blocks of four layers, with growth 12.
    """
    layers = keras.layers

    def conv(x: object, width: int, window: int) -> object:
        x = layers.ReLU()(layers.BatchNormalization()(x))
        return layers.Conv2D(
            width,
            window,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
        )(x)

    inputs = keras.Input(input_shape)
    x = layers.Conv2D(24, 3, padding="same", use_bias=False)(inputs)
    for block in range(3):
        for _ in range(4):
            x = layers.Concatenate()([x, conv(conv(x, 48, 1), 12, 3)])
        if block < 2:
            x = layers.AveragePooling2D(2)(conv(x, x.shape[-1] // 2, 1))
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.BatchNormalization()(x)))
    return keras.Model(inputs, layers.Dense(classes)(x), name="densenet")


def _build(name: str) -> keras.Model:
    keras.utils.set_random_seed(0)
    kind, classes = name.split(":")
    shape = (_SIZE.value, _SIZE.value, 3)
    if kind == "densenet":
        return densenet(shape, int(classes))
    return models.build(kind, shape, int(classes))


def _outputs(model: keras.Model, images: np.ndarray, training: bool) -> np.ndarray:
    """Gives the outputs of a copy: in training, BatchNormalization changes averages."""
    return tf_synflow.strip(model)(tf.constant(images), training=training).numpy()


def difference(pruned: keras.Model, small: keras.Model, images: np.ndarray) -> float:
    """Gives the largest difference between outputs, over the largest output.

    It is the larger one of training and inference mode.
    """
    found = []
    for training in (False, True):
        a, b = (_outputs(model, images, training) for model in (pruned, small))
        found.append(float(np.abs(a - b).max() / np.abs(a).max()))
    return max(found)


def train(model: keras.Model, classes: int) -> keras.Model:
    """Trains a model by SGD with momentum, for --steps steps.

    The random images are the same for every model.
    """
    generator = np.random.default_rng(1)
    model.compile(
        tf_synflow.optimizers.SGD(_LEARNING_RATE.value),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    shape = (_STEPS.value * _BATCH_SIZE.value, _SIZE.value, _SIZE.value, 3)
    model.fit(
        generator.standard_normal(shape).astype(_DTYPE.value),
        generator.integers(0, classes, shape[0]),
        batch_size=_BATCH_SIZE.value,
        shuffle=False,
        verbose=0,
        callbacks=[tf_synflow.PruningCallback()],
    )
    return model


def rounded(model: keras.Model) -> keras.Model:
    """Gives a copy of a model whose weights differ in the last binary digit."""
    copy = tf_synflow.apply_masks(model, tf_synflow.get_masks(model))
    generator = np.random.default_rng(2)
    for variable in copy.trainable_variables:
        value = variable.numpy()
        sign = generator.choice([-np.inf, np.inf], value.shape).astype(value.dtype)
        variable.assign(np.where(value == 0, value, np.nextafter(value, sign)))
    return copy


def kernels_apart(
    pruned: keras.Model, whole: keras.Model, conducting: dict[str, np.ndarray]
) -> float:
    """Gives the largest difference between the kernels of two models.

    Args:
      pruned: One model.
      whole: The other one.
      conducting: Name to mask, True for the weights to compare.

    Returns:
      The largest difference between weights, over the largest weight of the kernel;
      the maximum over all kernels.
    """
    pairs = [frameworks.read(model).weights for model in (pruned, whole)]
    worst = 0.0
    for name, mask in conducting.items():
        a, b = (variables[name].numpy()[mask] for variables in pairs)
        if a.size:
            worst = max(worst, float(np.abs(a - b).max() / np.abs(a).max()))
    return worst


def compare(name: str, ratio: str, images: np.ndarray) -> list[str]:
    """Gives the cells of a network's row in the table."""
    classes = int(name.split(":")[1])
    policy = tf_synflow.PruningPolicy(on_collapse="ignore", progress=False)
    pruned = tf_synflow.prune(_build(name), float(ratio), policy=policy)
    small, close = tf_synflow.shrink(pruned), rounded(pruned)
    totals = tf_synflow.report(pruned).totals
    shrunk, parameters = totals["shrunk"], totals["parameters"]["size"]
    cells = [name, ratio, f"{shrunk['parameters'] / parameters:.2%}"]
    cells.append(f"{shrunk['macs'] / totals['macs']:.2%}")
    cells += [f"{difference(pruned, other, images):.1e}" for other in (small, close)]
    network = frameworks.read(pruned)
    conducting = on_paths(network, network.masks)[0]
    others = []
    if _TRAIN.value:
        others.append(tf_synflow.expand(train(small, classes), pruned))
        others.append(train(close, classes))
    if _STEPS.value:
        train(pruned, classes)
        after = difference(pruned, tf_synflow.shrink(pruned), images)
        cells.append(f"{after:.1e}")
        cells += [f"{kernels_apart(pruned, o, conducting):.1e}" for o in others]
    blank = [""] * (9 - len(cells))
    return [*cells, *blank, str(shrunk["unfed_channels"])]


@in_one_line
def main(argv: list[str]) -> None:
    """Compares every network at every ratio."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    unknown = {n.split(":")[0] for n in _MODELS.value} - {"densenet", *models.MODELS}
    if unknown:
        sys.exit(f"shrinking.py: there are no networks {sorted(unknown)}")
    if _TRAIN.value and not _STEPS.value:
        sys.exit("shrinking.py: --train wants --steps above 0")
    keras.backend.set_floatx(_DTYPE.value)
    head = ["network", "ratio", "parameters left", "multiply-adds left"]
    head += ["outputs differ by", "control", f"after {_STEPS.value} steps"]
    head += ["kernels differ by", "control", "read but not fed"]
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|", flush=True)
    shape = (_IMAGES.value, _SIZE.value, _SIZE.value, 3)
    images = np.random.default_rng(0).standard_normal(shape).astype(_DTYPE.value)
    for name in _MODELS.value:
        for ratio in _RATIOS.value:
            print(f"| {' | '.join(compare(name, ratio, images))} |", flush=True)


if __name__ == "__main__":
    app.run(main)
