"""Small networks and what goes with them, for all tests."""

import numpy as np

from tf_synflow.keras2.imports import keras

layers = keras.layers


def residual_net(classes=4):
    """Conv, BatchNorm, a residual Add, a strided Conv, Flatten, Dense: 4x4x2 images."""
    inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(3, 3, padding="same", activation="relu", name="conv1")(inputs)
    x = layers.BatchNormalization(name="bn")(x)
    y = layers.Conv2D(3, 1, name="conv2")(x)
    x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.Conv2D(4, 2, strides=2, name="conv3")(x)
    outputs = layers.Dense(classes, name="fc")(layers.Flatten()(x))
    return keras.Model(inputs, outputs, name="residual_net")


def randomise(model, seed=0):
    """Gives every variable a random value, variances a positive one."""
    generator = np.random.default_rng(seed)
    for variable in model.weights:
        value = generator.standard_normal(variable.shape)
        variable.assign(np.abs(value) + 0.1 if "variance" in variable.name else value)
    return model


def images(model, count, seed=0):
    """Random images and labels that fit the model."""
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((count, *model.input_shape[1:])).astype("float32")
    return x, generator.integers(0, model.output_shape[-1], count)


def masked_by_hand(build, model, masks):
    """A second model from `build` with the weights of `model`, pruned ones zeroed."""
    twin = build()
    twin.set_weights(model.get_weights())
    for name, mask in masks.items():
        *path, short = name.split("/")
        layer = twin
        for part in path:  # of what is in a recurrent layer, the name says enough
            layer = layer.get_layer(part) if isinstance(layer, keras.Model) else layer
        [kernel] = [w for w in layer.weights if w.name.endswith(f"/{short}:0")]
        kernel.assign(kernel.numpy() * mask)
    return twin
