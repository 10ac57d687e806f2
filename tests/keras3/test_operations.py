"""Operations of Keras 3: what they are translated to computes the same."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import tf_synflow
from tf_synflow.frameworks import read
from tf_synflow.network import filled, is_operator

layers, ops = keras.layers, keras.ops

CONSTANT = np.linspace(0.5, 2, 4).astype("float32")
MATRIX = np.linspace(-1, 1, 12).reshape(4, 3).astype("float32")
KERNEL = np.linspace(-1, 1, 2 * 2 * 4 * 3).reshape(2, 2, 4, 3).astype("float32")

# Of a signal of shape (batch, 6, 8, 4), positive.
OPERATIONS = {
    "add": lambda x: x + 1.5,
    "add_array": lambda x: x + CONSTANT,
    "right_add": lambda x: 1.5 + x,
    "add_itself": lambda x: x + ops.relu(x),
    "subtract": lambda x: 3.0 - x,
    "multiply": lambda x: x * CONSTANT,
    "right_multiply": lambda x: 2 * x,
    "right_power": lambda x: 2**x,
    "divide": lambda x: ops.divide(x, 3.0),
    "true_divide": lambda x: x / CONSTANT,
    "negative": lambda x: -x,
    "power": lambda x: x**2,
    "square": ops.square,
    "sqrt": ops.sqrt,
    "absolute": ops.abs,
    "maximum": lambda x: ops.maximum(x, 0.5),
    "minimum": lambda x: ops.minimum(x, ops.square(x)),
    "matmul": lambda x: x @ MATRIX,
    "get_item": lambda x: x[:, 1:4, ..., ::2],
    "get_item_new_axis": lambda x: x[:, None, 2],
    "exp": ops.exp,
    "expm1": ops.expm1,
    "log": ops.log,
    "log1p": ops.log1p,
    "sin": ops.sin,
    "cos": ops.cos,
    "sinh": ops.sinh,
    "arctan": ops.arctan,
    "arcsinh": ops.arcsinh,
    "erf": ops.erf,
    "sign": ops.sign,
    "tanh": ops.tanh,
    "sigmoid": ops.sigmoid,
    "log_sigmoid": ops.log_sigmoid,
    "relu": ops.relu,
    "relu6": ops.relu6,
    "selu": ops.selu,
    "silu": ops.silu,
    "elu": lambda x: ops.elu(x - 1),
    "elu_scaled": lambda x: ops.elu(x - 1, 0.3),
    "gelu": ops.gelu,
    "gelu_exact": lambda x: ops.gelu(x, approximate=False),
    "leaky_relu": lambda x: ops.leaky_relu(x - 1, 0.3),
    "softplus": ops.softplus,
    "softsign": ops.softsign,
    "hard_sigmoid": lambda x: ops.hard_sigmoid(x - 1),
    "hard_silu": lambda x: ops.hard_silu(x - 1),
    "softmax": ops.softmax,
    "log_softmax": lambda x: ops.log_softmax(x, axis=1),
    "normalize": lambda x: ops.normalize(x, axis=-1, order=2),
    "mean": lambda x: ops.mean(x, axis=(1, 2)),
    "mean_keepdims": lambda x: ops.mean(x, axis=1, keepdims=True),
    "sum": lambda x: ops.sum(x, axis=-1),
    "max": lambda x: ops.max(x, axis=1),
    "min": lambda x: ops.min(x, axis=(1, 2)),
    "amax": lambda x: ops.amax(x, axis=1),
    "reshape": lambda x: ops.reshape(x, (-1, 48, 4)),
    "transpose": lambda x: ops.transpose(x, (0, 2, 1, 3)),
    "swapaxes": lambda x: ops.swapaxes(x, 1, -1),
    "moveaxis": lambda x: ops.moveaxis(x, (1, 3), (3, 2)),
    "squeeze": lambda x: ops.squeeze(x[:, 2:3], axis=1),
    "expand_dims": lambda x: ops.expand_dims(x, 2),
    "concatenate": lambda x: ops.concatenate([x, 2 * x], axis=-1),
    "stack": lambda x: ops.stack([x, 2 * x], axis=1),
    "split": lambda x: ops.split(x, 2, axis=1)[1],
    "split_at": lambda x: ops.split(x, [1, 4], axis=2)[1],
    "unstack": lambda x: ops.unstack(x, axis=3)[2],
    "tile": lambda x: ops.tile(x, (1, 2, 1, 3)),
    "repeat": lambda x: ops.repeat(x, 2, axis=2),
    "pad": lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0))),
    "pad_reflect": lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 0), (0, 0)), "reflect"),
    "take": lambda x: ops.take(x, [0, 2, 2], axis=1),
    "flip": lambda x: ops.flip(x, axis=2),
    "roll": lambda x: ops.roll(x, 2, axis=1),
    "cumsum": lambda x: ops.cumsum(x, axis=1),
    "clip": lambda x: ops.clip(x, 0.2, 1.0),
    "cast": lambda x: ops.cast(x, "float32"),
    "einsum": lambda x: ops.einsum("bhwc,cd->bhwd", x, MATRIX),
    "tensordot": lambda x: ops.tensordot(x, MATRIX, axes=1),
    "average_pool": lambda x: ops.average_pool(x, 2, 2),
    "max_pool": lambda x: ops.max_pool(x, (2, 3), 1, "same"),
    "conv": lambda x: ops.conv(x, KERNEL, 2, "same"),
    "resize": lambda x: ops.image.resize(x, (12, 16)),
    "resize_nearest": lambda x: ops.image.resize(x, (3, 4), interpolation="nearest"),
    "zeros_like": lambda x: x + ops.zeros_like(x),
    "stop_gradient": ops.stop_gradient,
}


def model_of(operation):
    inputs = keras.Input((6, 8, 4))
    return keras.Model(inputs, operation(inputs))


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_translation_computes_what_keras_computes(name):
    model = model_of(OPERATIONS[name])
    x = np.random.default_rng(0).random((2, 6, 8, 4)).astype("float32") + 0.1
    network = read(model)
    assert all(map(is_operator, network.calls))
    tensors = {network.inputs[0]: tf.constant(x)}
    for call in network.calls:
        arguments = filled(call.arguments, tensors), filled(call.options, tensors)
        outputs = tf.nest.flatten(call.layer.call(*arguments[0], **arguments[1]))
        tensors.update(zip(call.outputs, outputs, strict=True))
    (number,) = network.outputs
    np.testing.assert_allclose(tensors[number], model(x), rtol=2e-6, atol=2e-6)


# Keras 3 and TensorFlow's operator in Keras 2.
BESIDE = {
    "gate": (lambda x: x * ops.sigmoid(x), lambda x: x * tf.sigmoid(x)),
    "square": (lambda x: x**2, lambda x: x**2),
    "offset": (lambda x: 2 * x - 1, lambda x: 2 * x - 1),
    "mean": (lambda x: ops.mean(x, (1, 2)), lambda x: tf.reduce_mean(x, (1, 2))),
    "slice": (lambda x: x[:, ::2], lambda x: x[:, ::2]),
    "max": (lambda x: ops.max(x, 1), lambda x: tf.reduce_max(x, 1)),
    "matmul": (lambda x: x @ MATRIX, lambda x: tf.matmul(x, MATRIX)),
    "concat": (lambda x: ops.concatenate([x, x], 1), lambda x: tf.concat([x, x], 1)),
    "pad": (
        lambda x: ops.pad(x, [[0, 0], [1, 1], [0, 0], [0, 0]], constant_values=5.0),
        lambda x: tf.pad(x, [[0, 0], [1, 1], [0, 0], [0, 0]], constant_values=5.0),
    ),
    "clip": (lambda x: ops.clip(x, 0, 1), lambda x: tf.clip_by_value(x, 0, 1)),
    "resize": (
        lambda x: ops.image.resize(x, (9, 9)),
        lambda x: tf.image.resize(x, (9, 9)),
    ),
}


@pytest.mark.parametrize("name", BESIDE)
def test_synflow_scores_are_those_of_the_operator_in_keras_2(name):
    def build(k, operation):
        inputs = k.Input((6, 8, 2))
        x = k.layers.Conv2D(4, 3, name="conv")(inputs)
        x = k.layers.Flatten(name="flat")(operation(x))
        return k.Model(inputs, k.layers.Dense(3, name="out")(x))

    new, old = build(keras, BESIDE[name][0]), build(tf_keras, BESIDE[name][1])
    old.set_weights(new.get_weights())
    policy = tf_synflow.PruningPolicy()
    one, other = policy.score(new), policy.score(old)
    assert list(one) == list(other)
    for weight in one:
        assert one[weight].any()
        np.testing.assert_array_equal(one[weight], other[weight])


def test_a_split_of_channels_that_are_cut_while_pruning():
    inputs = keras.Input((6,))
    x = ops.split(layers.Dense(12, name="a")(inputs), [5], axis=-1)[1]
    x = ops.hard_sigmoid(layers.Dense(8, name="b")(x))
    model = keras.Model(inputs, layers.Dense(3, name="c")(x))
    masks = tf_synflow.get_masks(tf_synflow.prune(model, 10, progress=False))
    assert sum(mask.sum() for mask in masks.values()) == 16
    assert not masks["a/kernel"][:, :5].any()  # what the split leaves out


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        (lambda x: 1.0 / x, r"keras.ops.true_divide.*it divides by a signal"),
        (ops.reciprocal, r"keras.ops.reciprocal.*it divides by a signal"),
        (lambda x: x @ ops.transpose(x, (0, 1, 3, 2)), "multiplies two signals"),
        (lambda x: x**-1.0, r"keras.ops.power.*not a constant above 0"),
        (
            lambda x: ops.cumprod(x, axis=1),
            r"operator 'cumprod\w*' \(keras.ops.cumprod\)",
        ),
        (lambda x: ops.where(x > 0, x, 0.0), r"keras.ops.where"),
        (lambda x: ops.image.resize(x, (3, 4), antialias=True), "without antialias"),
        (lambda x: ops.matmul(x, np.ones(4, "float32")), "keras.ops.matmul"),
        (lambda x: ops.take(x, -1, axis=1), "keras.ops.take"),
        (lambda x: ops.roll(x, 2), "keras.ops.roll"),
    ],
)
def test_operations_without_a_linear_part_are_refused_by_name(operation, words):
    inputs = keras.Input((6, 8, 2))
    x = layers.Flatten()(operation(layers.Conv2D(4, 3)(inputs)))
    model = keras.Model(inputs, layers.Dense(2)(x))
    with pytest.raises(ValueError, match=words) as refused:
        tf_synflow.prune(model, 2)
    assert "no known linear part" in str(refused.value)
    assert "register_linear_part" in str(refused.value)
    # Other criteria do not look at them.
    assert tf_synflow.get_masks(tf_synflow.prune(model, 2, criterion="magnitude"))
