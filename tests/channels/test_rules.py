"""What `register_channels` says of a layer, `shrink` holds to."""

import numpy as np
import pytest
import tensorflow as tf
from nets import randomise

import tf_synflow
from tf_synflow.keras2.imports import keras

layers = keras.layers


class Scale(layers.Layer):
    """y = x * scale, a scale for each channel."""

    def build(self, shape):
        self.scale = self.add_weight("scale", (shape[-1],))

    def call(self, x):
        return x * self.scale


class Shift(layers.Layer):
    """y = x + shift: a channel that is 0 does not give 0."""

    def build(self, shape):
        self.shift = self.add_weight("shift", (shape[-1],))

    def call(self, x):
        return x + self.shift


class Mix(layers.Layer):
    """y = x W + b, with names that Keras's Dense does not use."""

    def __init__(self, width, **more):
        super().__init__(**more)
        self.width = width

    def build(self, shape):
        self.w = self.add_weight("w", (shape[-1], self.width))
        self.b = self.add_weight("b", (self.width,))

    def call(self, x):
        return x @ self.w + self.b

    def get_config(self):
        return {**super().get_config(), "width": self.width}


def network(make):
    """Dense 6, the layer, Dense 3; half of the first layer's units are pruned."""
    inputs = keras.Input((5,))
    x = make()(layers.Dense(6, use_bias=False, name="first")(inputs))
    model = randomise(keras.Model(inputs, layers.Dense(3, name="last")(x)))
    mask = np.ones((5, 6), bool)
    mask[:, ::2] = False
    return tf_synflow.apply_masks(model, {"first/kernel": mask})


def shapes(model):
    weights = tf_synflow.strip(model).weights
    return {weight.name.split(":")[0]: tuple(weight.shape) for weight in weights}


def same(one, other):
    x = np.random.default_rng(0).standard_normal((9, 5)).astype("float32")
    np.testing.assert_allclose(one(x), other(x), rtol=1e-5, atol=1e-5)


def test_a_layer_is_cut_once_it_is_registered():
    pruned = network(lambda: Scale(name="scale"))
    assert shapes(tf_synflow.shrink(pruned))["first/kernel"] == (5, 6)
    tf_synflow.register_channels(Scale, {"scale": -1})
    small = tf_synflow.shrink(pruned)
    assert shapes(small)["first/kernel"] == (5, 3)
    assert shapes(small)["scale/scale"] == (3,)
    assert shapes(small)["last/kernel"] == (3, 3)
    same(pruned, small)
    whole, expected = tf_synflow.expand(small, pruned), tf_synflow.strip(pruned)
    kept = np.arange(6) % 2 == 1
    np.testing.assert_array_equal(
        whole.get_layer("scale").scale.numpy()[kept],
        expected.get_layer("scale").scale.numpy()[kept],
    )
    same(whole, pruned)


@pytest.mark.parametrize("keeps_zero", [True, False])
def test_a_layer_that_adds_something_keeps_channels_of_zeros(keeps_zero):
    pruned = network(lambda: Shift(name="shift"))
    tf_synflow.register_channels(Shift, {"shift": -1}, keeps_zero=keeps_zero)
    small = tf_synflow.shrink(pruned)
    width = shapes(small)["first/kernel"][1]
    if keeps_zero:  # what was said is not true, and it was believed
        assert width == 3
        assert not np.allclose(pruned(np.ones((1, 5))), small(np.ones((1, 5))))
    else:
        same(pruned, small)


def test_a_kernel_of_another_name_is_cut_on_both_sides():
    tf_synflow.register_channels(Mix, {"b": -1}, kernel="w", size="width")
    inputs = keras.Input((5,))
    x = layers.Dense(6, use_bias=False, name="first")(inputs)
    x = Mix(4, name="mix")(x)
    model = randomise(keras.Model(inputs, layers.Dense(3, name="last")(x)))
    model.get_layer("last").kernel.assign(
        model.get_layer("last").kernel * tf.constant([[1.0], [0.0], [1.0], [1.0]])
    )
    masks = {
        "first/kernel": np.ones((5, 6), bool),
        "last/kernel": np.ones((4, 3), bool),
    }
    masks["first/kernel"][:, :2] = masks["last/kernel"][1] = False
    pruned = tf_synflow.apply_masks(model, masks)
    small = tf_synflow.shrink(pruned)
    assert shapes(small)["mix/w"] == (4, 3)
    assert shapes(small)["mix/b"] == (3,)
    assert small.get_layer("mix").width == 3
    same(pruned, small)


def test_what_cannot_be_registered_is_refused():
    with pytest.raises(TypeError, match="Dense"):
        tf_synflow.register_channels("Dense")
    with pytest.raises(ValueError, match="must be counted from the end"):
        tf_synflow.register_channels(Scale, {"scale": 0})
