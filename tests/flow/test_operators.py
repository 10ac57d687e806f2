"""Operators and layers that SynFlow takes or refuses, one by one.

The oracle shares no code with the library and knows no derivative. Each operator stands
in a small network: a convolution with the kernel `a` (and another, `c`, if the operator
reads two signals), the operator, and a Dense layer with the kernel `b`. NumPy computes
the flow R of the linear twin, and the score of a weight is what R loses when the weight
is set to 0.
"""

import functools

import numpy as np
import pytest
import tensorflow as tf
from nets import layers, randomise

import tf_synflow
from tf_synflow.flow.linear_parts import LINEAR_PARTS
from tf_synflow.flow.parts.images import resized as resized_by
from tf_synflow.keras2.imports import keras

pytestmark = pytest.mark.filterwarnings("ignore:The following Variables")

SHAPE = (5, 4, 1)
CHANNELS = 4
K = keras.backend

# Constants of the networks: for entries, channels and pairs of channels.
_random = np.random.default_rng(5)
FOUR = _random.standard_normal(CHANNELS).astype("float32")
MATRIX = _random.standard_normal((CHANNELS, 3)).astype("float32")
WINDOW = _random.standard_normal((2, 2, CHANNELS, 3)).astype("float32")
ONE_EACH = _random.standard_normal((2, 2, CHANNELS, 1)).astype("float32")
BLANK = np.zeros((5, 4, CHANNELS))


def resized(x, height, width, share):
    """Each new pixel as a weighted mean of the old ones."""
    by_row = shares(x.shape[0], height, share)
    by_column = shares(x.shape[1], width, share)
    return np.einsum("ir,jc,rcd->ijd", by_row, by_column, x)


@functools.cache
def shares(old, new, share):
    """Matrix (new, old)."""
    matrix = np.zeros((new, old))
    for pixel in range(new):
        for source, part in share(pixel, old, new):
            matrix[pixel, source] += part
    return matrix


def bilinear(i, old, new):
    """(old pixel, share) for new pixel i: half-pixel centres, the border goes on."""
    place = min(max((i + 0.5) * old / new - 0.5, 0), old - 1)
    low = int(place)
    return [(low, 1 - (place - low)), (min(low + 1, old - 1), place - low)]


def area(i, old, new):
    start, end = i * old / new, (i + 1) * old / new
    found = [(k, min(end, k + 1) - max(start, k)) for k in range(old)]
    return [(k, part / (end - start)) for k, part in found if part > 0]


def nearest(i, old, new):
    return [(int((i + 0.5) * old / new), 1.0)]


def pooled(x, size, step, what):
    return np.array(
        [
            [
                what(x[i : i + size, j : j + size], axis=(0, 1))
                for j in range(0, x.shape[1] - size + 1, step)
            ]
            for i in range(0, x.shape[0] - size + 1, step)
        ]
    )


def filtered(x, window):
    """A convolution without padding."""
    size = window.shape[0]
    return np.array(
        [
            [
                np.einsum("abi,abio->o", x[i : i + size, j : j + size], window)
                for j in range(x.shape[1] - size + 1)
            ]
            for i in range(x.shape[0] - size + 1)
        ]
    )


def depth_to_space(x):
    blocks = x.reshape(*x.shape[:2], 2, 2, -1).transpose(0, 2, 1, 3, 4)
    return blocks.reshape(2 * x.shape[0], 2 * x.shape[1], -1)


def space_to_depth(x):
    rows, columns, channels = x.shape
    blocks = x.reshape(rows // 2, 2, columns // 2, 2, channels)
    return blocks.transpose(0, 2, 1, 3, 4).reshape(rows // 2, columns // 2, -1)


def twice(x):
    return 2 * x


def same(x):
    return x


def up(method):
    return layers.UpSampling2D((2, 3), interpolation=method)


# Name to what Keras is given and what NumPy computes of the same signals. Signals are
# (rows, columns, channels) in NumPy, with a batch axis before them in Keras.
LAYERS = {
    "UpSampling2D bilinear": (
        lambda x: up("bilinear")(x),
        lambda x: resized(x, 10, 12, bilinear),
    ),
    "UpSampling2D nearest": (
        lambda x: up("nearest")(x),
        lambda x: resized(x, 10, 12, nearest),
    ),
    "UpSampling2D area": (
        lambda x: up("area")(x),
        lambda x: resized(x, 10, 12, area),
    ),
    "Resizing bilinear": (
        lambda x: layers.Resizing(3, 7)(x),
        lambda x: resized(x, 3, 7, bilinear),
    ),
    "Resizing nearest": (
        lambda x: layers.Resizing(3, 7, "nearest")(x),
        lambda x: resized(x, 3, 7, nearest),
    ),
    "Resizing area": (
        lambda x: layers.Resizing(3, 7, "area")(x),
        lambda x: resized(x, 3, 7, area),
    ),
    "Resizing crop_to_aspect_ratio": (
        lambda x: layers.Resizing(6, 9, crop_to_aspect_ratio=True)(x),
        lambda x: resized(x[1:3], 6, 9, bilinear),
    ),
    "CenterCrop": (
        lambda x: layers.CenterCrop(2, 3)(x),
        lambda x: x[1:3, 0:3],
    ),
    "CenterCrop of a smaller image": (
        lambda x: layers.CenterCrop(6, 3)(x),
        lambda x: resized(x[:, 1:3], 6, 3, bilinear),
    ),
    "RandomCrop": (
        lambda x: layers.RandomCrop(3, 3)(x),
        lambda x: resized(x[0:4], 3, 3, bilinear),
    ),
    "RandomHeight": (
        lambda x: layers.Reshape((5, 4, 4))(layers.RandomHeight(0.2)(x)),
        same,
    ),
    "Masking": (lambda x: layers.Masking()(layers.Reshape((20, 4))(x)), same),
    "Maximum": (lambda x, y: layers.Maximum()([x, y]), lambda x, y: x + y),
    "Minimum": (lambda x, y: layers.Minimum()([x, y]), lambda x, y: x + y),
    "Dot with a constant": (
        lambda x: layers.Dot((3, 1))([x, tf.constant(MATRIX[None])]),
        lambda x: x @ abs(MATRIX),
    ),
    "Dot with a constant, normalised": (
        lambda x: layers.Dot(-1, normalize=True)(
            [layers.Flatten()(layers.GlobalAveragePooling2D()(x)), FOUR[None]]
        ),
        lambda x: x.mean((0, 1)) @ abs(FOUR / np.linalg.norm(FOUR.astype(float))),
    ),
    "Multiply with a constant": (
        lambda x: layers.Multiply()([x, tf.constant(FOUR)]),
        lambda x: x * abs(FOUR),
    ),
    "Average with a constant": (
        lambda x: layers.Average()([x, tf.constant(FOUR)]),
        lambda x: x / 2,
    ),
    "Concatenate with zeros_like": (
        lambda x: layers.Concatenate()([tf.zeros_like(x), x]),
        lambda x: np.concatenate([BLANK, x], -1),
    ),
    "Concatenate with ones_like": (
        lambda x: layers.Concatenate(1)([x, tf.ones_like(x)]),
        lambda x: np.concatenate([x, BLANK]),
    ),
    "Dense of zeros_like, added": (
        lambda x: layers.Add()([x, layers.Dense(4, name="of_zeros")(tf.zeros_like(x))]),
        same,
    ),
}
OPERATORS = {
    "tf.maximum(x, 0)": (lambda x: tf.maximum(x, 0.0), same),
    "tf.maximum(x, y)": (lambda x, y: tf.maximum(x, y), lambda x, y: x + y),
    "tf.minimum(x, y)": (lambda x, y: tf.minimum(x, y), lambda x, y: x + y),
    "tf.reduce_max": (lambda x: tf.reduce_max(x, [1, 2]), lambda x: x.max((0, 1))),
    "tf.reduce_min": (
        lambda x: tf.reduce_min(x, 1, keepdims=True),
        lambda x: x.max(0),
    ),
    "tf.nn.max_pool2d": (
        lambda x: tf.nn.max_pool2d(x, 3, 1, "VALID"),
        lambda x: pooled(x, 3, 1, np.max),
    ),
    "tf.nn.max_pool": (
        lambda x: tf.nn.max_pool(x, 2, 2, "VALID"),
        lambda x: pooled(x, 2, 2, np.max),
    ),
    "tf.nn.avg_pool": (
        lambda x: tf.nn.avg_pool(x, 2, 1, "VALID"),
        lambda x: pooled(x, 2, 1, np.mean),
    ),
    "K.pool2d": (
        lambda x: K.pool2d(x, (2, 2), (2, 2), pool_mode="max"),
        lambda x: pooled(x, 2, 2, np.max),
    ),
    "tf.nn.depth_to_space": (lambda x: tf.nn.depth_to_space(x, 2), depth_to_space),
    "tf.nn.space_to_depth": (
        lambda x: tf.nn.space_to_depth(x[:, :4], 2),
        lambda x: space_to_depth(x[:4]),
    ),
    "tf.image.resize": (
        lambda x: tf.image.resize(x, (3, 7)),
        lambda x: resized(x, 3, 7, bilinear),
    ),
    "tf.image.resize nearest": (
        lambda x: tf.image.resize(x, (3, 7), method="nearest"),
        lambda x: resized(x, 3, 7, nearest),
    ),
    "tf.image.resize area": (
        lambda x: tf.image.resize(x, (3, 7), method="area"),
        lambda x: resized(x, 3, 7, area),
    ),
    "tf.image.resize by tf.shape": (
        lambda x: tf.image.resize(x, 2 * tf.shape(x)[1:3] + 1),
        lambda x: resized(x, 11, 9, bilinear),
    ),
    "tf.image.resize, aspect ratio kept": (
        lambda x: tf.image.resize(x, (10, 10), preserve_aspect_ratio=True),
        lambda x: resized(x, 10, 8, bilinear),
    ),
    "tf.roll": (lambda x: tf.roll(x, 2, 1), lambda x: np.roll(x, 2, 0)),
    "tf.reverse": (lambda x: tf.reverse(x, [1]), lambda x: x[::-1]),
    "tf.image.flip_left_right": (
        lambda x: tf.image.flip_left_right(x),
        lambda x: x[:, ::-1],
    ),
    "tf.zeros_like": (lambda x: x + tf.zeros_like(x), same),
    "tf.ones_like as a factor": (lambda x: x * (3 * tf.ones_like(x)), lambda x: 3 * x),
    "tf.concat with zeros_like": (
        lambda x: tf.concat([x, tf.zeros_like(x)[:, :1]], 1),
        lambda x: np.concatenate([x, BLANK[:1]]),
    ),
    "tf.concat with a token": (
        lambda x: tf.concat([tf.ones([tf.shape(x)[0], 1, 4, 4]), x], 1),
        lambda x: np.concatenate([BLANK[:1], x]),
    ),
    "tf.stack with a constant": (
        lambda x: tf.stack([x, tf.fill(tf.shape(x), 2.0)], 1),
        lambda x: np.stack([x, BLANK]),
    ),
    "tf.pad with ones": (
        lambda x: tf.pad(x, [[0, 0], [1, 0], [0, 0], [0, 0]], constant_values=1.0),
        lambda x: np.concatenate([BLANK[:1], x]),
    ),
    "tf.nn.log_softmax": (lambda x: tf.nn.log_softmax(x), same),
    "tf.math.l2_normalize": (lambda x: tf.math.l2_normalize(x, -1), same),
    "tf.nn.softsign": (lambda x: tf.nn.softsign(x), same),
    "tf.nn.bias_add": (lambda x: tf.nn.bias_add(x, FOUR), same),
    "tf.ensure_shape": (lambda x: tf.ensure_shape(x, (None, 5, 4, 4)), same),
    "reshape by tf.shape": (
        lambda x: tf.reshape(x, [tf.shape(x)[0], 20 * tf.shape(x)[3]]),
        same,
    ),
    "reshape by tf.concat of shapes": (
        lambda x: tf.reshape(x, tf.concat([tf.shape(x)[:1], [4, 20]], 0)),
        same,
    ),
    "reshape by K.shape": (
        lambda x: K.reshape(x, (-1, K.shape(x)[1] * K.shape(x)[2], 4)),
        same,
    ),
    "division by tf.shape": (
        lambda x: tf.reduce_sum(x, 1) / tf.cast(tf.shape(x)[1], "float32"),
        lambda x: x.mean(0),
    ),
    "x * 0.1": (lambda x: x * 0.1, lambda x: x * 0.1),
    "x * c, channel by channel": (lambda x: x * FOUR, lambda x: x * abs(FOUR)),
    "x * a list": (
        lambda x: x * [1.0, -2.0, 3.0, 4.0],
        lambda x: x * [1.0, 2.0, 3.0, 4.0],
    ),
    "tf.multiply(x, y=2)": (lambda x: tf.multiply(x, y=2.0), twice),
    "tf.math.scalar_mul": (lambda x: tf.math.scalar_mul(-2.0, x), twice),
    "x / c": (lambda x: x / FOUR, lambda x: x / abs(FOUR.astype(float))),
    "x + c, broadcast": (
        lambda x: tf.reduce_mean(x, -1, keepdims=True) + FOUR,
        lambda x: np.repeat(x.mean(-1, keepdims=True), 4, -1),
    ),
    "tf.matmul with a constant": (
        lambda x: tf.matmul(x, MATRIX),
        lambda x: x @ abs(MATRIX),
    ),
    "constant @ x": (
        lambda x: tf.matmul(MATRIX, x, transpose_a=True),
        lambda x: np.einsum("po,rpc->roc", abs(MATRIX), x),
    ),
    "matmul by a variable": (
        lambda x: x @ tf.Variable(MATRIX, trainable=False),
        lambda x: x @ abs(MATRIX),
    ),
    "tf.tensordot with a constant": (
        lambda x: tf.tensordot(x, MATRIX, [[-1], [0]]),
        lambda x: x @ abs(MATRIX),
    ),
    "tf.einsum with a constant": (
        lambda x: tf.einsum("brpc,co->bpo", x, MATRIX),
        lambda x: x.sum(0) @ abs(MATRIX),
    ),
    "K.dot with a constant": (
        lambda x: K.dot(x, tf.constant(MATRIX)),
        lambda x: x @ abs(MATRIX),
    ),
    "tf.nn.conv2d with a constant": (
        lambda x: tf.nn.conv2d(x, WINDOW, 1, "VALID"),
        lambda x: filtered(x, abs(WINDOW)),
    ),
    "tf.nn.depthwise_conv2d with a constant": (
        lambda x: tf.nn.depthwise_conv2d(x, ONE_EACH, [1, 1, 1, 1], "VALID"),
        lambda x: filtered(x, abs(ONE_EACH) * np.eye(4)),
    ),
    "tf.square": (lambda x: tf.square(x), twice),
    "x ** 3": (lambda x: x**3, lambda x: 3 * x),
    "x * x": (lambda x: x * x, twice),
    "tf.sqrt": (lambda x: tf.sqrt(x), lambda x: x / 2),
    "tf.exp": (lambda x: tf.exp(x), same),
    "tf.math.log": (lambda x: tf.math.log(x), same),
    "tf.math.squared_difference": (
        lambda x, y: tf.math.squared_difference(x, y),
        lambda x, y: 2 * (x + y),
    ),
    "tf.square(x - y)": (lambda x, y: tf.square(x - y), lambda x, y: 2 * (x + y)),
    "x * tf.sqrt(y)": (lambda x, y: x * tf.sqrt(y), lambda x, y: x + y / 2),
    "noise from tf.random.normal": (
        lambda x, y: x + tf.exp(0.5 * y) * tf.random.normal(tf.shape(x)),
        lambda x, y: x + y / 2,
    ),
    "tf.cumsum": (lambda x: tf.cumsum(x, 1), lambda x: x.cumsum(0)),
    "tf.image.extract_patches": (
        lambda x: tf.image.extract_patches(
            x, [1, 2, 2, 1], [1, 2, 2, 1], [1, 1, 1, 1], "VALID"
        ),
        lambda x: space_to_depth(x[:4]),
    ),
    "tf.image.central_crop": (
        lambda x: tf.image.central_crop(x, 0.5),
        lambda x: x[1:4, 1:3],
    ),
}
TAKEN = LAYERS | OPERATORS


def convolved(x, kernel):
    """A 3x3 convolution with zeros around, in NumPy."""
    rows, columns, _ = x.shape
    padded = np.pad(x, [(1, 1), (1, 1), (0, 0)])
    return sum(
        padded[a : a + rows, b : b + columns] @ kernel[a, b]
        for a in range(3)
        for b in range(3)
    )


def network(operator):
    """The operator's network, and the names of its kernels."""
    inputs = keras.Input(SHAPE)
    names = "ac"[: operator.__code__.co_argcount]
    signals = [
        layers.Conv2D(CHANNELS, 3, padding="same", name=name)(inputs) for name in names
    ]
    x = layers.Flatten()(operator(*signals))
    model = keras.Model(inputs, layers.Dense(2, name="b")(x))
    return randomise(model), [*names, "b"]


@pytest.mark.parametrize("name", TAKEN)
def test_a_score_is_what_the_flow_loses_without_the_weight(name):
    operator, linear_part = TAKEN[name]
    model, names = network(operator)
    kernels = {n: abs(model.get_layer(n).kernel.numpy().astype(float)) for n in names}

    def flow():
        signals = [convolved(np.ones(SHAPE), kernels[n]) for n in names[:-1]]
        return (linear_part(*signals).ravel() @ kernels["b"]).sum()

    whole = flow()
    assert whole > 0
    scores = tf_synflow.PruningPolicy().score(model)
    for name, kernel in kernels.items():
        lost = np.empty(kernel.shape)
        for index in np.ndindex(kernel.shape):
            weight, kernel[index] = kernel[index], 0
            lost[index] = whole - flow()
            kernel[index] = weight
        # The difference of two flows is known to a few digits of the flow.
        np.testing.assert_allclose(
            scores[f"{name}/kernel"], lost, rtol=0, atol=1e-12 * whole
        )


REFUSED = {
    "UpSampling2D bicubic": (lambda x: up("bicubic")(x), "interpolates by 'bicubic'"),
    "Resizing lanczos3": (
        lambda x: layers.Resizing(3, 3, "lanczos3")(x),
        "interpolates by 'lanczos3'; known are nearest, bilinear, area",
    ),
    "Dot of two signals": (
        lambda x, y: layers.Dot(3)([x, y]),
        "multiplies two signals and sums the products over an axis",
    ),
    "tf.matmul(x, y)": (
        lambda x, y: tf.matmul(x, y, transpose_b=True),
        "multiplies two signals and sums the products over an axis",
    ),
    "tf.einsum(x, y)": (
        lambda x, y: tf.einsum("brpc,brpd->bcd", x, y),
        "multiplies two signals and sums the products over an axis",
    ),
    "tf.image.resize bicubic": (
        lambda x: tf.image.resize(x, (3, 3), method="bicubic"),
        "known are the methods nearest, bilinear, area, without antialias",
    ),
    "tf.image.resize antialias": (
        lambda x: tf.image.resize(x, (3, 3), antialias=True),
        "known are the methods nearest, bilinear, area, without antialias",
    ),
    "1 / x": (lambda x: 1 / x, "divides by a signal; to normalise"),
    "x / y": (lambda x, y: x / y, "divides by a signal; to normalise"),
    "x / tf.reduce_sum(x)": (
        lambda x: x / tf.reduce_sum(x),
        "divides by a signal; to normalise",
    ),
    "tf.math.rsqrt": (lambda x: tf.math.rsqrt(x), "divides by a signal"),
    "x ** -1": (lambda x: x**-1.0, "exponent is not a constant above 0"),
    "2 ** x": (lambda x: 2.0**x, "exponent is not a constant above 0"),
    "x ** y": (lambda x, y: x**y, "exponent is not a constant above 0"),
    "channels first": (
        lambda x: tf.nn.max_pool2d(x, 2, 1, "SAME", data_format="NCHW"),
        "cannot compute it on the CPU with channels first",
    ),
    "three dimensions": (
        lambda x: tf.nn.max_pool3d(x[..., None], 2, 1, "SAME"),
        "pools three dimensions in float32 only",
    ),
    "tf.norm": (lambda x: tf.norm(x, axis=1), r"'tf[^']*norm' \(.*norm\) has no known"),
    "tf.where": (
        lambda x, y: tf.where(tf.zeros_like(x) > 0, x, y),
        r"\(where\) has no known linear part",
    ),
    "tf.gather by a signal": (
        lambda x: tf.gather(FOUR, tf.cast(x, "int32")),
        r"gather\) has no known linear part",
    ),
    "tf.reduce_prod": (
        lambda x: tf.reduce_prod(x, 1),
        r"reduce_prod\) has no known linear part",
    ),
    "Lambda": (
        lambda x: layers.Lambda(lambda x: 2 * x, name="mine")(x),
        r"holds a Python function, which SynFlow cannot look into.*a layer class of "
        r"your own.*register_linear_part\(\w*Layer, rule\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_linear_part_is_refused_in_words_that_fit(name):
    operator, words = REFUSED[name]
    with pytest.raises(ValueError, match=f"has no known linear part.*{words}|{words}"):
        tf_synflow.PruningPolicy().score(network(operator)[0])


@pytest.mark.parametrize("method", ["nearest", "bilinear", "area"])
def test_an_interpolation_is_that_of_tensorflow(method):
    generator = np.random.default_rng(0)
    for old, new in [((5, 4), (10, 12)), ((7, 9), (3, 4)), ((6, 1), (4, 5))]:
        x = generator.random((1, *old, 2))
        found = resized_by(tf.constant(x), new, method)
        expected = tf.image.resize(x.astype("float32"), new, method)
        assert found.dtype == tf.float64
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)  # float32
        ones = resized_by(tf.ones((1, *old, 1), tf.float64), new, method)
        np.testing.assert_allclose(ones, np.ones((1, *new, 1)), rtol=1e-15)


@pytest.mark.parametrize(
    "layer",
    [
        layers.Resizing(6, 9, crop_to_aspect_ratio=True),
        layers.Resizing(9, 4, crop_to_aspect_ratio=True),
        layers.CenterCrop(2, 3),
        layers.CenterCrop(6, 3),
        layers.RandomCrop(3, 3),
        layers.UpSampling2D((2, 3), interpolation="bilinear"),
    ],
)
def test_a_layer_for_images_is_that_of_keras_outside_of_training(layer):
    training = {"training": False} if isinstance(layer, layers.RandomCrop) else {}
    x = np.random.default_rng(0).random((1, 5, 8, 2))
    expected = layer(x.astype("float32"), **training)
    found = LINEAR_PARTS[type(layer).__name__](layer, tf.constant(x), {})
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)  # float32


def test_channels_first_are_interpolated_like_channels_last():
    x = np.random.default_rng(0).random((1, 5, 4, 2))
    first = layers.UpSampling2D(
        2, interpolation="bilinear", data_format="channels_first"
    )
    x_first = tf.constant(x.transpose(0, 3, 1, 2))
    found = LINEAR_PARTS["UpSampling2D"](first, x_first, {})
    expected = resized(x[0], 10, 8, bilinear).transpose(2, 0, 1)
    np.testing.assert_allclose(found[0], expected, rtol=1e-14)


def test_masks_do_not_depend_on_channels_being_cut_before_an_interpolation():
    """The loop cuts dead channels out; the scores of the whole network do not."""
    inputs = keras.Input((4, 4, 1))
    x = layers.Conv2D(6, 3, padding="same", name="a")(inputs)
    x = layers.UpSampling2D(2, interpolation="bilinear")(x)
    x = layers.Conv2D(6, 3, name="c")(layers.Masking()(layers.Resizing(5, 7)(x)))
    x = layers.Conv2D(6, 3, name="d")(layers.CenterCrop(4, 4)(x))
    model = randomise(
        keras.Model(inputs, layers.Dense(2, name="b")(layers.Flatten()(x)))
    )
    masks = tf_synflow.PruningPolicy(iterations=3).masks(model, 20)
    assert not masks["c/kernel"].any((0, 1, 3)).all()
    kept = {name: np.ones(mask.shape, bool) for name, mask in masks.items()}
    size = sum(mask.size for mask in kept.values())
    for k in (1, 2, 3):
        plain = keras.models.clone_model(model)
        plain.set_weights(model.get_weights())
        for name, mask in kept.items():
            kernel = plain.get_layer(name.split("/")[0]).kernel
            kernel.assign(kernel * mask)
        scores = tf_synflow.PruningPolicy().score(plain)
        flat = np.concatenate([scores[name].ravel() for name in kept])
        flags = np.concatenate([mask.ravel() for mask in kept.values()])
        count = size - int((1 - 20 ** (-k / 3)) * size)
        order = np.lexsort((np.arange(size), -np.where(flags, flat, -1)))
        flags = np.isin(np.arange(size), order[:count])
        parts = np.split(flags, np.cumsum([m.size for m in kept.values()])[:-1])
        kept = {n: p.reshape(kept[n].shape) for n, p in zip(kept, parts, strict=True)}
    for name, mask in masks.items():
        np.testing.assert_array_equal(mask, kept[name], err_msg=name)


def test_a_number_passes_into_a_nested_model():
    x, size = keras.Input((6,)), keras.Input((), dtype="int32", batch_size=2)
    inner = keras.Model([x, size], tf.reshape(x, (-1, size[1] // 2, 2)), name="inner")
    inputs = keras.Input((3,))
    y = layers.Dense(6, name="a", use_bias=False)(inputs)
    y = layers.Dense(2, name="b", use_bias=False)(inner([y, tf.shape(y)]))
    model = randomise(keras.Model(inputs, y))
    for variable in model.weights:
        variable.assign(abs(variable))
    scores = tf_synflow.PruningPolicy().score(model)
    flow = float(tf.reduce_sum(model(np.ones((1, 3), "float32"))))
    assert scores["a/kernel"].sum() == pytest.approx(flow, rel=1e-6)
    assert scores["b/kernel"].sum() == pytest.approx(flow, rel=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "x * c, channel by channel",
        "tf.matmul with a constant",
        "tf.nn.conv2d with a constant",
        "tf.pad with ones",
        "tf.concat with a token",
        "tf.image.resize by tf.shape",
    ],
)
def test_a_copy_of_the_model_has_the_same_scores(name):
    """Keras turns the constants of a copied or loaded model into lists."""
    model, _ = network(TAKEN[name][0])
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    expected = tf_synflow.PruningPolicy().score(model)
    for weight, score in tf_synflow.PruningPolicy().score(copy).items():
        np.testing.assert_array_equal(score, expected[weight])


MAXIMA = {
    "tf.reduce_max": lambda x: tf.reduce_max(layers.AveragePooling2D(2, 1)(x), [1, 2]),
    "tf.reduce_min": lambda x: tf.reduce_min(layers.AveragePooling2D(2, 1)(x), 1),
    "tf.nn.max_pool2d": lambda x: tf.nn.max_pool2d(x, 2, 2, "VALID"),
    "tf.nn.max_pool": lambda x: tf.nn.max_pool(x, 2, 2, "VALID"),
    "tf.nn.max_pool1d": lambda x: tf.nn.max_pool1d(x[:, 0], 4, 4, "VALID"),
    "K.pool2d": lambda x: K.pool2d(x, (2, 2), (2, 2), pool_mode="max"),
}


@pytest.mark.parametrize("name", MAXIMA)
def test_every_weight_before_a_maximum_lies_on_a_path(name):
    """A path leads through each signal, though only the largest is let through."""
    inputs = keras.Input((3,))
    x = layers.Reshape((4, 4, 1))(layers.Dense(16, name="a")(inputs))
    x = layers.Flatten()(MAXIMA[name](x))
    model = keras.Model(inputs, layers.Dense(2, name="b")(x))
    masks = {
        f"{n}/kernel": np.ones(model.get_layer(n).kernel.shape, bool) for n in "ab"
    }
    masks["a/kernel"][:, 5] = False
    report = tf_synflow.report(tf_synflow.apply_masks(model, masks))
    effective = {layer["name"]: layer["effective"] for layer in report.layers}
    # max_pool1d reads 4 of the 16 units; the others read all, one of which is cut off.
    read = 4 if "1d" in name else 15
    assert effective["a/kernel"] == 3 * read
    assert effective["b/kernel"] == masks["b/kernel"].size
