"""Shrunk networks against the masked ones they come from: the same function."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nets import images, layers, randomise
from published_masks import load_published

import tf_synflow
from tf_synflow.frameworks import read
from tf_synflow.keras2.imports import keras

pytestmark = pytest.mark.usefixtures("float64")


def random_masks(model, density, seed, whole=0.5):
    """Random masks, of which whole channels, in and out, are empty as well."""
    generator = np.random.default_rng(seed)
    masks = {}
    network = read(model)
    for name in network.prunable:
        mask = generator.random(network.weights[name].shape) < density
        for axis in (-1, -2):
            lost = generator.random(mask.shape[axis]) < whole * (1 - density)
            np.moveaxis(mask, axis, 0)[lost] = False
        masks[name] = mask
    return masks


def untrained(model):
    """No biases, no offsets, no moving means: as a network is before training."""
    for variable in model.weights:
        if any(part in variable.name for part in ("bias", "beta", "moving_mean")):
            variable.assign(tf.zeros_like(variable))
    return model


def outputs(model, inputs):
    """In inference and in training mode, in which BatchNormalization averages."""
    before = model.get_weights()
    both = [model(inputs, training=training) for training in (False, True)]
    model.set_weights(before)
    return [y.numpy() for y in tf.nest.flatten(both)]


def same_function(one, other, count=5, seed=0):
    generator = np.random.default_rng(seed)
    inputs = [generator.standard_normal((count, *t.shape[1:])) for t in one.inputs]
    inputs = inputs if len(inputs) > 1 else inputs[0]
    for a, b in zip(outputs(one, inputs), outputs(other, inputs), strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-12 * max(1, np.abs(a).max()))


def same_weights(one, other):
    pairs = read(one).weights, read(other).weights
    assert list(pairs[0]) == list(pairs[1])
    for name, variable in pairs[0].items():
        assert variable.numpy().tobytes() == pairs[1][name].numpy().tobytes(), name


def width(model, name):
    for call in read(model).calls:
        if call.name == name:
            return getattr(call.layer, "filters", None) or call.layer.units
    raise KeyError(name)


def chain(*between):
    """A convolution of six channels, some layers, and a head that reads them."""
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(6, 3, padding="same", name="conv")(inputs)
    for layer in between:
        x = layer(x)
    x = layers.Conv2D(4, 2, name="last")(x)
    return keras.Model(inputs, layers.Dense(3, name="fc")(layers.Flatten()(x)))


def with_dead_channels(model, fed=(2,), reads=(4,)):
    """Masks by which nothing feeds some channels of "conv", and nobody reads others."""
    network = read(model)
    masks = {n: np.ones(network.weights[n].shape, bool) for n in network.prunable}
    masks["conv/kernel"][..., list(fed)] = False
    masks["last/kernel"][:, :, list(reads)] = False
    return tf_synflow.apply_masks(model, masks)


def between():
    """Layers that let channels through, one list after the other."""
    L = layers
    return {
        "batch norm": [L.BatchNormalization()],
        "activations": [L.ReLU(), L.LeakyReLU(), L.ELU(), L.Activation("tanh")],
        "prelu": [L.PReLU(alpha_initializer="uniform")],
        "shared prelu": [L.PReLU("uniform", shared_axes=[1, 2])],
        "pooling": [L.MaxPooling2D(2, 1), L.AveragePooling2D(2, 1)],
        "padding": [L.ZeroPadding2D(1), L.Cropping2D(1), L.UpSampling2D(2)],
        "depthwise": [L.DepthwiseConv2D(3, padding="same", use_bias=False)],
        "nested": [
            keras.Sequential([keras.Input((6, 6, 6)), L.ReLU(), L.BatchNormalization()])
        ],
        "dropout": [L.Dropout(0.0), L.SpatialDropout2D(0.0), L.GaussianDropout(0.0)],
    }


@pytest.mark.parametrize("name", between())
def test_dead_channels_go_out_of_every_layer_that_carries_them(name):
    model = untrained(randomise(chain(*between()[name])))
    pruned = with_dead_channels(model)
    small = tf_synflow.shrink(pruned)
    assert type(small) is type(pruned)
    assert width(small, "conv") == 4
    assert tf_synflow.get_masks(small)["last/kernel"].shape == (2, 2, 4, 4)
    same_function(pruned, small)
    same_weights(tf_synflow.expand(small, pruned), pruned)
    assert len(small.layers) == len(pruned.layers)


@pytest.mark.parametrize("name", between())
def test_constants_of_a_trained_network_are_carried_on_exactly(name):
    """With biases, offsets, means: what is not fed stays, what is not read goes."""
    pruned = with_dead_channels(randomise(chain(*between()[name])))
    small = tf_synflow.shrink(pruned)
    assert width(small, "conv") == 5
    same_function(pruned, small)
    same_weights(tf_synflow.expand(small, pruned), pruned)


KEEPS = {
    "layer norm": lambda: layers.LayerNormalization(),
    "softmax": lambda: layers.Softmax(),
    "softmax in an activation": lambda: layers.Activation("softmax"),
    "grouped": lambda: layers.Conv2D(6, 3, groups=2, padding="same"),
    "noise": lambda: layers.GaussianNoise(0.0),
    "permuted": lambda: layers.Permute((3, 2, 1)),
    "multiplied depthwise": lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
    "penalised": lambda: layers.ActivityRegularization(0.1),
    "penalised conv": lambda: layers.DepthwiseConv2D(3, activity_regularizer="l2"),
    "a function": lambda: layers.Lambda(lambda x: x - tf.reduce_mean(x, -1, True)),
}


@pytest.mark.parametrize("name", KEEPS)
def test_layers_that_mix_or_are_not_known_keep_their_channels(name):
    pruned = with_dead_channels(untrained(randomise(chain(KEEPS[name]()))))
    small = tf_synflow.shrink(pruned)
    assert width(small, "conv") == 6
    same_weights(pruned, small)
    if name != "a function":
        same_function(pruned, small)


@pytest.mark.parametrize("activation", ["sigmoid", "softplus", "exponential"])
def test_what_an_activation_makes_of_zero_is_kept(activation):
    pruned = with_dead_channels(
        untrained(randomise(chain(layers.Activation(activation))))
    )
    small = tf_synflow.shrink(pruned)
    assert width(small, "conv") == 5  # the one that nobody reads is gone
    same_function(pruned, small)


def test_a_channel_that_feeds_only_dead_ones_dies_with_them_by_hand():
    inputs = keras.Input((3,))
    x = layers.Dense(3, use_bias=False, name="a")(inputs)
    x = layers.Dense(3, use_bias=False, name="b")(x)
    model = keras.Model(inputs, layers.Dense(2, name="c")(x))
    a, b, c = (np.ones(shape, bool) for shape in ((3, 3), (3, 3), (3, 2)))
    c[0] = False  # nobody reads b's first
    b[2] = False  # a's last feeds nothing
    b[1, 1:] = False  # and a's second only b's first
    masks = {"a/kernel": a, "b/kernel": b, "c/kernel": c}
    pruned = tf_synflow.apply_masks(randomise(model), masks)
    small = tf_synflow.shrink(pruned)
    kernels = {n: v.numpy() for n, v in read(pruned).weights.items()}
    found = {n: v.numpy() for n, v in read(small).weights.items()}
    np.testing.assert_array_equal(found["a/kernel"], kernels["a/kernel"][:, :1])
    np.testing.assert_array_equal(found["b/kernel"], kernels["b/kernel"][:1, 1:])
    np.testing.assert_array_equal(found["c/kernel"], kernels["c/kernel"][1:])
    same_function(pruned, small)


def test_a_bias_of_a_channel_that_nobody_feeds_is_no_reason_for_others_to_stay():
    """Dense with biases: the constant of one channel feeds the next; others go."""
    inputs = keras.Input((3,))
    x = layers.Dense(4, name="a")(inputs)
    x = layers.Dense(4, name="b")(x)
    model = randomise(keras.Model(inputs, layers.Dense(2, name="c")(x)))
    for name in ("a", "b"):
        bias = model.get_layer(name).bias
        bias.assign([0.5, 0, 0, 0] if name == "a" else [0, 0, 0, 0])
    a, b, c = (np.ones(shape, bool) for shape in ((3, 4), (4, 4), (4, 2)))
    a[:, :2] = False  # a's first has a bias, a's second nothing at all
    b[:, 1] = False
    b[0, 1] = True  # b's second is fed by a's constant only
    b[:, 2] = False  # b's third by nothing
    masks = {"a/kernel": a, "b/kernel": b, "c/kernel": c}
    pruned = tf_synflow.apply_masks(model, masks)
    small = tf_synflow.shrink(pruned)
    assert (width(small, "a"), width(small, "b")) == (3, 3)
    same_function(pruned, small)


def test_an_add_loses_a_channel_only_if_it_is_dead_in_all_branches():
    inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(5, 3, padding="same", use_bias=False, name="one")(inputs)
    y = layers.Conv2D(5, 1, use_bias=False, name="two")(inputs)
    x = layers.ReLU()(layers.Add()([x, y]))
    model = keras.Model(inputs, layers.Dense(2, name="fc")(layers.Flatten()(x)))
    masks = {
        f"{n}/kernel": np.ones(model.get_layer(n).kernel.shape, bool)
        for n in ("one", "two", "fc")
    }
    masks["one/kernel"][..., [0, 1]] = False
    masks["two/kernel"][..., [1, 2]] = False
    pruned = tf_synflow.apply_masks(randomise(model), masks)
    small = tf_synflow.shrink(pruned)
    assert (width(small, "one"), width(small, "two")) == (4, 4)
    assert tf_synflow.get_masks(small)["fc/kernel"].shape == (64, 2)
    same_function(pruned, small)


def test_a_branch_that_is_dead_altogether_keeps_one_channel():
    inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(5, 3, padding="same", use_bias=False, name="one")(inputs)
    y = layers.Conv2D(3, 1, use_bias=False, name="two")(inputs)
    x = layers.Concatenate()([x, y])
    model = keras.Model(inputs, layers.Dense(2, name="fc")(layers.Flatten()(x)))
    masks = {"two/kernel": np.zeros((1, 1, 2, 3), bool)}
    pruned = tf_synflow.apply_masks(randomise(model), masks)
    small = tf_synflow.shrink(pruned)
    assert (width(small, "one"), width(small, "two")) == (5, 1)
    same_function(pruned, small)
    same_weights(tf_synflow.expand(small, pruned), pruned)


def test_a_strided_1x1_convolution_reads_sixteen_channels_at_least():
    """TensorFlow 2.21 writes past the end of its memory for others, in float32."""
    inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(40, 1, use_bias=False, name="conv")(inputs)
    x = layers.Conv2D(3, 1, 2, name="strided")(x)
    model = keras.Model(inputs, layers.Dense(2, name="fc")(layers.Flatten()(x)))
    for alive, left in ((5, 16), (16, 16), (17, 32), (33, 40)):
        mask = np.zeros((1, 1, 2, 40), bool)
        mask[..., 40 - alive :] = True
        pruned = tf_synflow.apply_masks(randomise(model), {"conv/kernel": mask})
        small = tf_synflow.shrink(pruned)
        assert width(small, "conv") == left
        same_function(pruned, small)


def test_layers_have_a_multiple_of_the_channels_asked_for_or_all():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(20, 3, use_bias=False, name="a")(inputs)
    x = layers.Conv2D(40, 1, use_bias=False, name="b")(layers.ReLU()(x))
    y = layers.Conv2D(30, 1, use_bias=False, name="c")(x)
    y = layers.Add()([y, layers.Conv2D(30, 1, use_bias=False, name="d")(x)])
    x = layers.Concatenate()([x, layers.BatchNormalization()(y)])
    x = layers.Conv2D(4, 6, name="last")(x)
    model = untrained(randomise(keras.Model(inputs, layers.Flatten()(x))))
    left = {"a": 9, "b": 16, "c": 3, "d": 5}  # those of d are others than those of c
    masks = {
        f"{name}/kernel": np.ones(variable.shape, bool)
        for name in ("a", "b", "c", "d")
        for variable in [model.get_layer(name).kernel]
    }
    for name, count in left.items():
        first = 10 if name == "d" else 0
        masks[f"{name}/kernel"][:] = False
        masks[f"{name}/kernel"][..., first : first + count] = True
    pruned = tf_synflow.apply_masks(model, masks)
    for of, widths in ((1, (9, 16, 8)), (8, (16, 16, 8)), (16, (16, 16, 16))):
        small = tf_synflow.shrink(pruned, multiple_of=np.uint8(of))
        assert tuple(width(small, name) for name in "abc") == widths
        assert width(small, "d") == widths[2]
        same_function(pruned, small)
        same_weights(tf_synflow.expand(small, pruned, multiple_of=of), pruned)
    assert width(tf_synflow.shrink(pruned, 32), "a") == 20  # all that there are
    with pytest.raises(ValueError, match="what shrink.original, 1. gives"):
        tf_synflow.expand(small, pruned)
    with pytest.raises(ValueError, match="multiple_of must be at least 1, got 0"):
        tf_synflow.shrink(pruned, 0)
    with pytest.raises(TypeError, match="multiple_of must be a whole number"):
        tf_synflow.expand(small, pruned, 1.5)


def test_channels_that_a_strided_convolution_reads_twice_count_twice():
    inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(36, 1, use_bias=False, name="conv")(inputs)
    x = layers.Concatenate()([layers.ReLU()(x), layers.Activation("tanh")(x)])
    x = layers.Conv2D(3, 1, 2, name="strided")(x)
    model = keras.Model(inputs, layers.Dense(2, name="fc")(layers.Flatten()(x)))
    for alive, left in ((8, 8), (9, 16), (17, 24), (33, 36)):
        mask = np.zeros((1, 1, 2, 36), bool)
        mask[..., :alive] = True
        pruned = tf_synflow.apply_masks(randomise(model), {"conv/kernel": mask})
        small = tf_synflow.shrink(pruned)
        assert width(small, "conv") == left
        same_function(pruned, small)


def shared_and_nested():
    """A nested model that is called twice, with a layer that is shared inside it."""
    first, second = keras.Input((4, 4, 2)), keras.Input((4, 4, 3))
    inner = z = keras.Input((4, 4, 5))
    twice = layers.Conv2D(5, 1, use_bias=False, name="twice")
    z = layers.ReLU()(twice(layers.ReLU()(twice(z))))
    block = keras.Model(inner, layers.BatchNormalization()(z), name="block")
    x = block(layers.Conv2D(5, 3, padding="same", use_bias=False, name="a")(first))
    y = block(layers.Conv2D(5, 1, use_bias=False, name="b")(second))
    x = layers.Multiply()([x, y])
    side = layers.Dense(2, name="side")(layers.GlobalAveragePooling2D()(y))
    return keras.Model([first, second], [layers.Dense(3)(layers.Flatten()(x)), side])


@pytest.mark.parametrize("seed", range(4))
def test_shared_layers_nested_models_several_inputs_and_outputs(seed):
    model = randomise(shared_and_nested(), seed)
    model = untrained(model) if seed % 2 else model
    masks = random_masks(model, 0.3, seed)
    for name in ("a", "b", "block/twice"):  # a channel that is dead everywhere
        masks[f"{name}/kernel"][..., 1] = False
        masks[f"{name}/kernel"][..., 1, :] &= name != "block/twice"
    pruned = tf_synflow.apply_masks(model, masks)
    small = tf_synflow.shrink(pruned)
    if seed % 2:
        assert width(small, "block/twice") < 5
    same_function(pruned, small)
    same_weights(tf_synflow.expand(small, pruned), pruned)


def weighed(x, gate):
    """Squeeze and excite: a weight for each channel from all of them."""
    y = layers.GlobalAveragePooling2D(keepdims=True)(x)
    y = layers.Conv2D(3, 1, use_bias=False, name="squeeze", activation="relu")(y)
    y = layers.Conv2D(x.shape[-1], 1, use_bias=False, name="gate")(y)
    return x * gate(y)


GATES = {
    "sigmoid": tf.sigmoid,
    "hard sigmoid": lambda x: tf.nn.relu6(x + 3) / 6,
    "fused": lambda x: layers.Activation("hard_sigmoid")(x),
    "rescaled": lambda x: layers.ReLU(6.0)(layers.Rescaling(1 / 6, 0.5)(x)),
}


def gated(name):
    """A pruned network with a hard swish and a gate."""
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(6, 3, use_bias=False, name="conv")(inputs)
    x = x * tf.nn.relu6(x + 3.0) * (1 / 6)  # hard swish
    x = layers.Conv2D(4, 2, name="last")(weighed(x, GATES[name]))
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    masks = {
        f"{n}/kernel": np.ones(model.get_layer(n).kernel.shape, bool)
        for n in ("conv", "squeeze", "gate", "last")
    }
    masks["conv/kernel"][..., 2] = False  # nothing feeds this
    masks["last/kernel"][:, :, 4] = False  # nobody reads these when they are weighed,
    masks["last/kernel"][:, :, 5] = masks["squeeze/kernel"][:, :, 5] = False
    masks["gate/kernel"][..., 3] = False  # and this gate is always 1/2
    return tf_synflow.apply_masks(randomise(model), masks)


@pytest.mark.parametrize("name", GATES)
def test_a_gate_goes_with_the_channel_that_it_weighs(name):
    """A gate of 1/2 is fed by no weight; times a channel that is 0 it is 0."""
    pruned = gated(name)
    small = tf_synflow.shrink(pruned)
    assert [width(small, n) for n in ("conv", "squeeze", "gate")] == [4, 3, 4]
    same_function(pruned, small)
    same_weights(tf_synflow.expand(small, pruned), pruned)


def test_training_a_small_network_with_gates_is_training_the_masked_one():
    pruned = gated("hard sigmoid")
    small = steps(tf_synflow.shrink(pruned), 5)
    same_function(tf_synflow.expand(small, pruned), steps(pruned, 5))


def test_a_gate_that_is_zero_takes_what_it_weighs_along():
    inputs = keras.Input((5,))
    x = layers.Dense(6, name="x")(inputs)
    gate = layers.Dense(6, activation="tanh", name="gate")(inputs)
    one = layers.Dense(1, name="one")(inputs)  # weighs all channels alike
    first = layers.Dense(3, name="first")(x * gate * one)
    model = keras.Model(inputs, [first, layers.Dense(2, name="second")(x)])
    model = untrained(randomise(model))
    masks = {
        f"{n}/kernel": np.ones(model.get_layer(n).kernel.shape, bool)
        for n in ("x", "gate", "one", "first", "second")
    }
    masks["gate/kernel"][:, [1, 2]] = False
    masks["second/kernel"][1] = False  # the second channel, unlike the third
    pruned = tf_synflow.apply_masks(model, masks)
    small = tf_synflow.shrink(pruned)
    assert [width(small, n) for n in ("x", "gate", "one")] == [5, 5, 1]
    same_function(pruned, small)
    descend(small, 0, 5)  # the third channel of the gate does not come to life
    same_function(tf_synflow.expand(small, pruned), small)
    masks["one/kernel"][:] = False  # now nothing is left of the first output
    pruned = tf_synflow.apply_masks(model, masks)
    small = tf_synflow.shrink(pruned)
    assert [width(small, n) for n in ("x", "gate", "one")] == [5, 5, 1]
    same_function(pruned, small)


def test_a_branch_that_a_gate_closes_may_come_to_life_beside_another():
    """What is added to a product that is 0 keeps it; so its gate has to be whole."""
    inputs = keras.Input((5,))
    x = layers.Dense(6, name="x")(inputs)
    hidden = layers.Dense(4, activation="tanh", name="hidden")(inputs)
    gate = layers.Dense(6, activation="sigmoid", name="gate")(hidden)
    x = layers.Add()([x * gate, layers.Dense(6, name="side")(inputs)])
    model = keras.Model(inputs, layers.Dense(2, name="last")(x))
    model = untrained(randomise(model))
    masks = {"x/kernel": np.ones((5, 6), bool), "gate/kernel": np.ones((4, 6), bool)}
    masks["x/kernel"][:, 0] = False  # its bias will learn
    masks["gate/kernel"][3, 1:] = False
    pruned = tf_synflow.apply_masks(model, masks)
    small = tf_synflow.shrink(pruned)
    assert [width(small, n) for n in ("x", "hidden", "gate")] == [6, 4, 6]
    whole = tf_synflow.expand(steps(small, 5), pruned)
    same_function(whole, steps(pruned, 5))
    assert abs(pruned.get_layer("prune_low_magnitude_x").layer.bias[0]) > 1e-3


# How many channels stay of six, of which nothing feeds one, and nobody reads another.
OPERATORS = {
    "activations": (lambda x: tf.nn.gelu(tf.tanh(tf.abs(-x))), 4),
    "constants": (lambda x: (x * 2 / 3) ** 2 - tf.maximum(x, 0.0), 4),
    "a constant for each row": (lambda x: x * np.arange(1.0, 5)[:, None, None], 4),
    "silu": (lambda x: x * tf.sigmoid(x), 4),
    "swish with an offset": (lambda x: x * (tf.exp(x) + 1), 4),
    "an offset": (lambda x: x + 1, 5),
    "an offset that is gone": (lambda x: (x + 1) - 1, 5),
    "transposed": (lambda x: tf.nn.relu(tf.transpose(x, (0, 2, 1, 3))), 4),
    "there and back": (
        lambda x: tf.transpose(tf.nn.relu(tf.transpose(x, (0, 3, 1, 2))), (0, 2, 3, 1)),
        4,
    ),
    "means": (lambda x: x - tf.reduce_mean(x, (1, 2), keepdims=True), 4),
    "more axes": (lambda x: tf.squeeze(tf.expand_dims(x, 2), 2), 4),
    "sums": (lambda x: tf.add_n([x, tf.square(x), tf.minimum(x, x * x)]), 4),
    "padded": (lambda x: tf.pad(x, [[0, 0], [1, 1], [0, 2], [0, 0]]), 4),
    "padded by one": (
        lambda x: tf.pad(x, 2 * [[0, 0]] + [[1, 0], [0, 0]], "CONSTANT", 1),
        5,
    ),
    "cut": (lambda x: x[:, 1:, ::-1] + tf.roll(x, 1, 1)[:, 1:], 4),
    "above each other": (lambda x: tf.concat([x, tf.nn.relu(x)], 1), 4),
    "side by side": (lambda x: tf.concat([x, tf.nn.relu(x)], -1), 4),
    "pooled": (lambda x: tf.nn.avg_pool2d(x, 2, 1, "SAME"), 4),
    "one for all": (lambda x: x * layers.Conv2D(1, 1, activation="sigmoid")(x), 5),
    "dropped": (lambda x: tf.nn.dropout(x, 0.0), 4),
    "sigmoid": (lambda x: tf.sigmoid(x), 5),
    "a constant for each channel": (lambda x: x * np.arange(1.0, 7), 6),
    "softmax": (lambda x: tf.nn.softmax(x), 6),
    "reversed": (lambda x: x[..., ::-1], 6),
    "rolled": (lambda x: tf.roll(x, 6, -1), 6),
    "a mean of channels": (lambda x: x - tf.reduce_mean(x, -1, keepdims=True), 6),
    "halves": (lambda x: x[..., :3], 6),
    "pooled across": (
        lambda x: tf.nn.avg_pool2d(tf.transpose(x, (0, 3, 1, 2)), (3, 1), 1, "SAME"),
        6,
    ),
    "a quotient": (lambda x: x / (x + 1), 6),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_channels_go_through_operators_that_keep_them_apart(name):
    function, left = OPERATORS[name]
    inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(6, 1, use_bias=False, name="conv")(inputs)
    x = function(x)
    model = randomise(keras.Model(inputs, layers.Conv2D(3, 1, name="last")(x)))
    masks = {"conv/kernel": np.ones((1, 1, 2, 6), bool)}
    masks["conv/kernel"][..., 2] = False
    masks["last/kernel"] = np.ones((1, 1, x.shape[-1], 3), bool)
    masks["last/kernel"][:, :, 4::6] = False
    pruned = tf_synflow.apply_masks(model, masks)
    small = tf_synflow.shrink(pruned)
    assert width(small, "conv") == left
    same_function(pruned, small)
    same_weights(tf_synflow.expand(small, pruned), pruned)


KINDS = "conv add concat separable depthwise transposed nested gate pool".split()
KINDS += ["operators", "product", "first"]


@st.composite
def networks(draw):
    """Convolutions of every kind, branches, gates, nested models, a head."""
    inputs = x = keras.Input((6, 6, draw(st.integers(1, 3))))
    for _ in range(draw(st.integers(1, 5))):
        wide = draw(st.integers(2, 6))
        bias = draw(st.booleans())
        kind = draw(st.sampled_from(KINDS))
        if kind == "conv":
            x = layers.Conv2D(wide, 3, draw(st.integers(1, 2)), "same", use_bias=bias)(
                x
            )
            x = layers.ReLU()(layers.BatchNormalization()(x))
        elif kind == "add":
            y = layers.Conv2D(x.shape[-1], 1, use_bias=bias)(x)
            x = layers.Add()([x, layers.BatchNormalization()(y)])
        elif kind == "concat":
            x = layers.Concatenate()([x, layers.Conv2D(wide, 1, use_bias=bias)(x)])
        elif kind == "separable":
            kwargs = {"padding": "same", "activation": "tanh", "use_bias": bias}
            x = layers.SeparableConv2D(wide, 3, **kwargs)(x)
        elif kind == "depthwise":
            x = layers.DepthwiseConv2D(3, padding="same", use_bias=bias)(x)
        elif kind == "transposed":
            x = layers.Conv2DTranspose(wide, 2, 2, use_bias=bias)(x)
            x = layers.MaxPooling2D(2)(x)
        elif kind == "nested":
            inner = keras.Input(x.shape[1:])
            y = layers.Conv2D(wide, 2, padding="same", use_bias=bias)(inner)
            x = keras.Model(inner, layers.LeakyReLU()(y))(x)
        elif kind == "gate":
            y = layers.GlobalAveragePooling2D()(x)
            y = layers.Dense(x.shape[-1], activation="sigmoid", use_bias=bias)(y)
            y = layers.Reshape((1, 1, x.shape[-1]))(y)
            x = layers.Multiply()([x, y])
        elif kind == "operators":
            y = layers.Conv2D(x.shape[-1], 1, use_bias=bias)(x)
            x = y * tf.nn.relu6(y + 3) / 6 - tf.reduce_mean(x, (1, 2), keepdims=True)
        elif kind == "product":
            y = layers.Conv2D(x.shape[-1], 3, padding="same", use_bias=bias)(x)
            x = x * y * layers.Conv2D(1, 1, use_bias=bias)(x)
        elif kind == "first":
            x = layers.Conv2D(wide, 1, use_bias=bias)(x)
            x = layers.BatchNormalization(axis=1)(layers.Permute((3, 1, 2))(x))
            x = layers.PReLU("uniform", shared_axes=[2])(x)
            x = tf.transpose(x, (0, 2, 3, 1))
        else:
            x = layers.AveragePooling2D(2, 1, padding="same")(x)
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    model = randomise(model, seed=draw(st.integers(0, 99)))
    return model if draw(st.booleans()) else untrained(model)


SETTINGS = settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)


@SETTINGS
@given(
    model=networks(),
    density=st.sampled_from([0.05, 0.2, 0.5, 0.9]),
    seed=st.integers(0, 99),
    of=st.sampled_from([1, 1, 2, 3]),
    left_out=st.integers(0, 5),
)
def test_random_networks_keep_their_function(model, density, seed, of, left_out):
    masks = random_masks(model, density, seed)
    if left_out < len(masks) - 1:
        del masks[list(masks)[left_out]]  # a layer that is not pruned
    pruned = tf_synflow.apply_masks(model, masks)
    before = [variable.numpy() for variable in pruned.weights]
    small = tf_synflow.shrink(pruned, of)
    assert small.count_params() <= pruned.count_params()
    same_function(pruned, small, seed=seed)
    whole = tf_synflow.expand(small, pruned, of)
    same_weights(whole, pruned)
    masks = tf_synflow.get_masks(pruned)
    found = tf_synflow.get_masks(whole)
    assert all((found[name] == mask).all() for name, mask in masks.items())
    # Nothing that conducts is lost, but for what weighs a channel that is 0.
    kept = [tf_synflow.report(m).totals["effective"] for m in (pruned, small)]
    gated = any("multiply" in call.name for call in read(model).calls)
    assert kept[0] >= kept[1] if gated else kept[0] == kept[1]
    for variable, value in zip(pruned.weights, before, strict=True):
        assert variable.numpy().tobytes() == value.tobytes()
    # A stripped model shrinks as far, but for what no mask would keep dead.
    stripped = tf_synflow.strip(pruned)
    plain = tf_synflow.shrink(stripped, of)
    assert not any("mask" in variable.name for variable in plain.weights)
    more = read(plain).weights
    for name, variable in read(small).weights.items():
        assert all(np.less_equal(variable.shape, more[name].shape)), name
    same_function(plain, small, seed=seed)
    # Trained a little, what was kept beside the living does not come to life.
    for one, original in ((small, pruned), (plain, stripped)):
        descend(one, seed)
        whole = tf_synflow.expand(one, original, of)
        same_function(whole, one, seed=seed)


@pytest.mark.parametrize("of", [1, 4])
@pytest.mark.parametrize("stripped", [False, True])
def test_what_is_kept_though_dead_stays_dead_or_keeps_what_it_would_wake(stripped, of):
    """Two heads, of which one has no mask, read channels that nothing feeds."""
    inputs = keras.Input((12,))
    x = layers.Dense(9, activation="tanh", name="a")(inputs)
    x = layers.Dense(9, activation="tanh", name="b")(x)
    side = layers.Dense(2, name="side")(inputs)
    heads = [layers.Dense(n, name=name)(x) for n, name in ((5, "c"), (3, "loose"))]
    last = layers.Dense(2, name="last")(heads[0])
    model = keras.Model(inputs, [layers.Add()([last, side]), heads[1]])
    model = untrained(randomise(model))
    masks = {
        f"{name}/kernel": np.ones(model.get_layer(name).kernel.shape, bool)
        for name in ("a", "b", "c", "last", "side")
    }
    masks["a/kernel"][:, 3:] = False
    masks["b/kernel"][:3, 2:] = False  # all but two of b's are fed by dead ones only
    masks["c/kernel"][:2, 1:] = False  # and all but one of c's by dead ones of b
    if of == 1:
        masks["b/kernel"][:] = False  # not one of b's lives, and one has to stay
    original = tf_synflow.apply_masks(model, masks)
    original = tf_synflow.strip(original) if stripped else original
    small = tf_synflow.shrink(original, of)
    same_function(original, small)
    before = outputs(small, np.ones((1, 12)))[0]
    descend(small, 0, 5)
    same_function(tf_synflow.expand(small, original, of), small)
    assert np.abs(outputs(small, np.ones((1, 12)))[0] - before).max() > 1e-3


def descend(model, seed, count=2):
    """Some steps of gradient descent, on whatever makes every output move."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        x = [generator.standard_normal((4, *t.shape[1:])) for t in model.inputs]
        with tf.GradientTape() as tape:
            outputs = tf.nest.flatten(model(x, training=True))
            loss = sum(tf.reduce_mean((y - 1) ** 2) for y in outputs)
        variables = model.trainable_variables
        for v, g in zip(variables, tape.gradient(loss, variables), strict=True):
            if g is not None:
                value = v - 0.05 * g / (1e-9 + tf.reduce_max(tf.abs(g)))
                v.assign(v.constraint(value) if v.constraint else value)


def steps(model, count, seed=0):
    x, y = images(model, 16 * count, seed)
    optimizer = keras.optimizers.legacy.SGD(0.05, 0.9, nesterov=True)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)
    model.fit(
        x.astype("float64"),
        y,
        batch_size=16,
        shuffle=False,
        verbose=0,
        callbacks=[tf_synflow.PruningCallback()],
    )
    return model


def test_training_the_small_network_is_training_the_masked_one():
    """Where no channel is read that nobody feeds, 30 steps give the same kernels."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="a")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="bn")(x))
    x = layers.Conv2D(8, 3, 2, padding="same", name="b")(x)
    y = layers.Conv2D(8, 3, padding="same", name="c")(x)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.Add()([x, y])))
    model = keras.Model(inputs, layers.Dense(4, name="fc")(x))
    masks = random_masks(model, 0.6, 3, whole=0)
    masks["a/kernel"][..., :3] = False  # nothing feeds these ...
    masks["b/kernel"][:, :, :3] = False  # ... and nobody reads them
    masks["c/kernel"][:, :, 1] = masks["fc/kernel"][1] = (
        False  # nobody reads b's second
    )
    pruned = tf_synflow.apply_masks(model, masks)
    small = tf_synflow.shrink(pruned)
    assert (width(small, "a"), width(small, "b")) == (5, 7)
    trained = steps(small, 30)
    whole = read(tf_synflow.expand(trained, pruned)).weights
    wanted = read(steps(pruned, 30)).weights
    before = read(model).weights
    for name in masks:
        live = masks[name].copy()
        if name in ("b/kernel", "c/kernel"):
            live[..., 1] = False  # what nobody reads is trained by nobody
        if name == "a/kernel":
            assert not live[..., :3].any()
        a, b = whole[name].numpy()[live], wanted[name].numpy()[live]
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9)
        assert np.abs(a - before[name].numpy()[live]).max() > 1e-3
    # The trained network shrinks as well, offsets and averages and all.
    same_function(pruned, tf_synflow.shrink(pruned))


def test_what_trains_in_a_small_network_with_dead_layers_is_the_same_expanded():
    """Two dead layers in a row keep a channel each, and neither may come to life."""
    inputs = keras.Input((6,))
    x = layers.Dense(8, activation="tanh", name="a")(inputs)
    x = layers.Dense(8, activation="tanh", name="b")(x)
    x = layers.Concatenate()([inputs, x])
    model = keras.Model(inputs, layers.Dense(3, name="c")(x))
    masks = {"a/kernel": np.zeros((6, 8)), "b/kernel": np.ones((8, 8))}
    pruned = tf_synflow.apply_masks(model, masks)
    small = tf_synflow.shrink(pruned)
    assert (width(small, "a"), width(small, "b")) == (1, 1)
    same_weights(tf_synflow.expand(small, pruned), pruned)
    small.compile(keras.optimizers.legacy.SGD(0.5), "mse")
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((32, 6)), generator.standard_normal((32, 3)) + 2
    small.fit(x, y, epochs=5, verbose=0)
    same_function(tf_synflow.expand(small, pruned), small)


def test_a_nested_model_that_is_called_with_a_dictionary():
    a, b = keras.Input((4,), name="a"), keras.Input((7,), name="b")
    x = layers.Concatenate()([layers.Dense(3)(a), layers.Dense(3)(b)])
    nested = keras.Model([b, a], x)
    inputs = keras.Input((5,))
    given = {
        "a": layers.Dense(4, name="fa", use_bias=False)(inputs),
        "b": layers.Dense(7, name="fb", use_bias=False)(inputs),
    }
    model = keras.Model(inputs, nested(given))
    masks = {"fa/kernel": np.zeros((5, 4)), "fb/kernel": np.zeros((5, 7))}
    masks["fa/kernel"][:, :2] = masks["fb/kernel"][:, 2:] = 1
    pruned = tf_synflow.apply_masks(model, masks)
    small = tf_synflow.shrink(pruned)
    assert (width(small, "fa"), width(small, "fb")) == (2, 5)
    same_function(pruned, small)


@keras.utils.register_keras_serializable()
def glu(x):
    one, other = tf.split(x, 2, -1)
    return one * tf.sigmoid(other)


def several(x):
    """Two outputs of different sizes."""
    one, other = tf.split(x, [2, 4], -1)
    return layers.Concatenate()([layers.Conv2D(3, 1)(one), layers.Conv2D(3, 1)(other)])


class Windows(layers.Layer):
    kernel_size = 3

    def call(self, x):
        return x


def twice(x):
    shared = layers.Reshape((36, 6))
    y = shared(layers.Conv2D(6, 1)(x))
    return layers.Reshape((6, 6, 6))(layers.Add()([shared(x), y]))


ODD = {
    "several outputs": several,
    "halved by an activation": lambda x: layers.Activation(glu)(x),
    "halved when fused": lambda x: layers.Conv2D(8, 1, activation=glu)(x),
    "a kernel size of its own": lambda x: Windows()(x),
    "reshaped twice": twice,
    "scalar weights": lambda x: layers.Normalization(mean=0.5, variance=2.0)(x),
    "scalar variables": lambda x: layers.Normalization()(x),
    "constant arrays": lambda x: layers.DepthwiseConv2D(
        1, depthwise_initializer=keras.initializers.Constant(6 * [1.0])
    )(x),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_layers_are_no_hindrance(name):
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(6, 3, padding="same", name="conv", use_bias=False)(inputs)
    x = layers.Flatten()(ODD[name](x))
    model = keras.Model(inputs, layers.Dense(3)(x))
    mask = np.ones((3, 3, 2, 6), bool)
    mask[..., 2] = False
    pruned = tf_synflow.apply_masks(model, {"conv/kernel": mask})
    small = tf_synflow.shrink(pruned)
    same_function(pruned, small)
    same_weights(tf_synflow.expand(small, pruned), pruned)
    left = tf_synflow.report(pruned).totals["shrunk"]["parameters"]
    assert left == tf_synflow.strip(small).count_params()


def test_two_strided_1x1_convolutions_that_overlap():
    inputs = keras.Input((4, 4, 2))
    one = layers.Conv2D(32, 1, use_bias=False, name="one")(inputs)
    two = layers.Conv2D(32, 1, use_bias=False, name="two")(inputs)
    x = layers.Conv2D(3, 1, 2, name="both")(layers.Concatenate()([one, two]))
    y = layers.Conv2D(3, 1, 2, name="first")(one)
    model = keras.Model(inputs, layers.Flatten()(layers.Concatenate()([x, y])))
    masks = {f"{name}/kernel": np.zeros((1, 1, 2, 32), bool) for name in ("one", "two")}
    masks["one/kernel"][..., :6] = masks["two/kernel"][..., :10] = True
    pruned = tf_synflow.apply_masks(model, masks)
    small = tf_synflow.shrink(pruned)
    kernels = read(small).weights
    assert [kernels[f"{n}/kernel"].shape[2] % 16 for n in ("both", "first")] == [0, 0]
    same_function(pruned, small)


def test_expand_refuses_what_does_not_fit():
    model = untrained(randomise(chain(layers.BatchNormalization())))
    pruned = with_dead_channels(model)
    small = tf_synflow.shrink(pruned)
    other = with_dead_channels(model, fed=(1, 3))
    with pytest.raises(
        ValueError, match="'conv/kernel' has shape .3, 3, 2, 4., expected"
    ):
        tf_synflow.expand(small, other)
    with pytest.raises(ValueError, match="expected"):
        tf_synflow.expand(pruned, pruned)
    masks = tf_synflow.get_masks(pruned)
    masks["last/kernel"][0, 0, 0] = False
    with pytest.raises(ValueError, match="the masks of the small model are not those"):
        tf_synflow.expand(small, tf_synflow.apply_masks(model, masks))
    with pytest.raises(ValueError, match="not stripped"):
        tf_synflow.expand(tf_synflow.strip(small), pruned)
    with pytest.raises(TypeError, match="expected a built Sequential or functional"):
        tf_synflow.shrink("model")


@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_a_small_network_is_saved_and_loaded_like_any(ending, tmp_path):
    pruned = with_dead_channels(
        untrained(randomise(chain(layers.BatchNormalization())))
    )
    small = tf_synflow.shrink(pruned)
    path = tmp_path / f"small{ending}"
    small.save(path)
    loaded = tf_synflow.load_model(path)
    assert width(loaded, "conv") == width(small, "conv") == 4
    same_weights(loaded, small)
    same_weights(tf_synflow.expand(loaded, pruned), pruned)


def test_a_small_network_on_two_devices(two_devices):
    with two_devices.scope():
        model = untrained(randomise(chain(layers.BatchNormalization())))
    pruned = with_dead_channels(model)
    small = tf_synflow.shrink(pruned)
    assert width(small, "conv") == 4
    small.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = images(small, 8)
    small.fit(x, y, verbose=0, callbacks=[tf_synflow.PruningCallback()])
    whole = tf_synflow.expand(small, pruned)
    assert whole.get_layer("prune_low_magnitude_conv").layer.filters == 6


def test_the_authors_masks_of_vgg11_leave_these_widths():
    """Counted from the published masks: filters with a weight in and a reader."""
    model = tf_synflow.models.VGG11()
    masks = load_published(model, "vgg11_bn_exp2.npz")
    pruned = tf_synflow.apply_masks(model, masks)
    small = tf_synflow.shrink(pruned)
    arrays = list(tf_synflow.get_masks(pruned).values())
    alive = [np.ones(3, bool)]  # forwards, then backwards
    for mask in arrays:
        into = mask.reshape(-1, *mask.shape[-2:]).any(0)
        alive.append((into & alive[-1][:, None]).any(0))
    for k in range(len(arrays) - 1, 0, -1):
        into = arrays[k].reshape(-1, *arrays[k].shape[-2:]).any(0)
        alive[k] &= (into & alive[k + 1]).any(1)
    widths = [int(flags.sum()) for flags in alive[1:]]
    found = [mask.shape[-1] for mask in tf_synflow.get_masks(small).values()]
    assert found == [*widths[:-1], 10]
    totals = tf_synflow.report(pruned).totals
    assert totals["shrunk"]["parameters"] == tf_synflow.strip(small).count_params()
    again = tf_synflow.report(small).totals
    assert again["macs"] == totals["shrunk"]["macs"]
    assert again["parameters"]["size"] == totals["shrunk"]["parameters"] < 6e5
    assert "After shrink: " in str(tf_synflow.report(pruned))
    assert "Shrunk" not in str(tf_synflow.report(small))


@pytest.mark.parametrize("ending", [".tflite", ""])
def test_a_small_network_is_exported_as_any(ending, tmp_path):
    keras.backend.set_floatx("float32")
    keras.mixed_precision.set_global_policy("float32")
    model = untrained(randomise(chain(layers.BatchNormalization(), layers.ReLU())))
    pruned = with_dead_channels(model)
    found = [
        tf_synflow.export(m, tmp_path / f"{name}{ending}")
        for name, m in (("whole", pruned), ("small", tf_synflow.shrink(pruned)))
    ]
    assert found[1].parameters < found[0].parameters
    assert found[1].difference <= 1e-5 * found[1].largest_output
    assert found[1].largest_output == pytest.approx(found[0].largest_output, rel=1e-5)


def either_way(first):
    """A network with its channels first or last: convolutions, a gate, branches."""
    own = {"data_format": "channels_first" if first else "channels_last"}
    axis = 1 if first else -1
    inputs = keras.Input((3, 7, 8) if first else (7, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="a", **own)(inputs)
    x = layers.ReLU()(layers.BatchNormalization(axis=axis, name="bn")(x))
    x = layers.PReLU("uniform", shared_axes=[2, 3] if first else [1, 2])(x)
    x = layers.MaxPooling2D(2, **own)(layers.ZeroPadding2D(1, **own)(x))
    y = layers.GlobalAveragePooling2D(**own)(x)
    y = layers.Dense(8, activation="sigmoid", name="gate")(y)
    y = layers.Reshape((8, 1, 1) if first else (1, 1, 8))(y)
    x = layers.Multiply()([x, y])
    x = layers.DepthwiseConv2D(2, use_bias=False, name="depthwise", **own)(x)
    y = layers.SeparableConv2D(4, 1, use_bias=False, name="separable", **own)(x)
    x = layers.Concatenate(axis=axis)([x, y])
    y = layers.Conv2D(12, 1, name="side", **own)(x)
    x = layers.Add()([y, layers.Conv2DTranspose(12, 1, name="transposed", **own)(x)])
    x = layers.Flatten(**own)(layers.Conv2D(5, 2, use_bias=False, name="c", **own)(x))
    return keras.Model(inputs, layers.Dense(2, name="fc")(x))


def compiled(model, x, training):
    """TensorFlow's CPU kernels want channels last; its compiler does not."""
    return tf.function(lambda x: model(x, training=training), jit_compile=True)(x)


def test_channels_first_shrinks_as_channels_last():
    last, first = either_way(False), either_way(True)
    randomise(last)
    for name, variable in read(last).weights.items():
        value = variable.numpy()
        other = read(first).weights[name.replace("p_re_lu", "p_re_lu_1")]
        other.assign(value.reshape(other.shape))
        if any(part in name for part in ("moving_mean", "beta", "bias")):
            variable.assign(tf.zeros_like(variable))
            other.assign(variable)
    masks = {}
    for name in ("a", "gate", "transposed", "c", "fc"):
        shape = last.get_layer(name).kernel.shape
        masks[f"{name}/kernel"] = np.random.default_rng(0).random(shape) < 0.9
    masks["separable/pointwise_kernel"] = np.ones((1, 1, 8, 4), bool)
    masks["a/kernel"][..., :4] = False  # nothing feeds these
    masks["separable/pointwise_kernel"][..., 0] = False
    masks["side/kernel"] = np.ones((1, 1, 12, 12), bool)
    masks["side/kernel"][..., [0, 1, 2]] = False
    masks["transposed/kernel"][:, :, [0, 1, 8]] = False
    masks["c/kernel"][..., 3] = False
    pruned = [tf_synflow.apply_masks(model, masks) for model in (last, first)]
    small = [tf_synflow.shrink(model) for model in pruned]
    wanted = ("a", 4), ("gate", 4), ("transposed", 10), ("c", 4)
    for name, size in wanted:
        assert width(small[0], name) == width(small[1], name) == size, name
    pairs = [read(model).weights.values() for model in small]
    for one, other in zip(*pairs, strict=True):
        np.testing.assert_array_equal(
            np.squeeze(one.numpy()), np.squeeze(other.numpy()), one.name
        )
    same_function(pruned[0], small[0])
    same_weights(tf_synflow.expand(small[1], pruned[1]), pruned[1])
    x = np.random.default_rng(0).standard_normal((2, 3, 7, 8))
    one, other = (compiled(model, x, False) for model in (pruned[1], small[1]))
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)
    again = pruned[0](np.moveaxis(x, 1, -1))
    np.testing.assert_allclose(one, again, rtol=0, atol=1e-12)


def test_channels_that_are_flattened_one_by_one():
    """A Flatten of channels first: the positions of a channel in a row."""
    inputs = keras.Input((2, 2, 2))
    own = {"data_format": "channels_first", "name": "conv"}
    x = layers.Flatten()(layers.Conv2DTranspose(6, 1, **own)(inputs))
    y = layers.Dense(24, name="side")(layers.Flatten()(inputs))
    x = layers.Activation("tanh")(layers.Add()([x, y]))
    model = keras.Model(inputs, layers.Dense(3, name="fc")(x))
    model = untrained(randomise(model))
    masks = {
        f"{n}/kernel": np.ones(model.get_layer(n).kernel.shape, bool)
        for n in ("conv", "side", "fc")
    }
    masks["fc/kernel"][4:8] = masks["fc/kernel"][9:11] = False  # one channel, and half
    masks["conv/kernel"][:, :, 3:5] = False
    masks["side/kernel"][:, 12:17] = False
    pruned = tf_synflow.apply_masks(model, masks)
    small = tf_synflow.shrink(pruned)
    assert (width(small, "conv"), width(small, "side")) == (4, 16)
    same_function(pruned, small)
    same_weights(tf_synflow.expand(small, pruned), pruned)
