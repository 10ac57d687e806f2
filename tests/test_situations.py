"""Networks as users build them: pruned, stripped, shrunk, each against a hand copy."""

import numpy as np
import pytest
import tensorflow as tf
from nets import layers, masked_by_hand

import tf_synflow
from tf_synflow.keras2.imports import keras


@keras.saving.register_keras_serializable("situations")
class Sampling(layers.Layer):
    """A sample from the latent normal distribution, with noise that never changes."""

    def call(self, inputs):
        mean, log_variance = inputs
        noise = tf.random.stateless_normal(tf.shape(mean), (1, 2), dtype=mean.dtype)
        return mean + tf.exp(log_variance / 2) * noise


def vae():
    inputs = keras.Input((6,))
    h = layers.Dense(8, activation="relu", name="h")(inputs)
    mean, log_variance = layers.Dense(2, name="m")(h), layers.Dense(2, name="v")(h)
    z = Sampling(name="z")([mean, log_variance])
    x = layers.Dense(8, activation="relu", name="d")(z)
    model = keras.Model(inputs, layers.Dense(6, name="out")(x))
    divergence = -0.5 * tf.reduce_mean(
        1 + log_variance - tf.square(mean) - tf.exp(log_variance)
    )
    model.add_loss(divergence)
    model.add_metric(divergence, name="divergence", aggregation="mean")
    return model


def siamese():
    branch_input = keras.Input((6,))
    x = layers.Dense(8, activation="relu", name="b1")(branch_input)
    x = layers.Dense(8, activation="relu", name="b2", activity_regularizer="l2")(x)
    branch = keras.Model(branch_input, x, name="branch")
    left, right = keras.Input((6,), name="left"), keras.Input((6,), name="right")
    x = layers.Subtract(name="difference")([branch(left), branch(right)])
    return keras.Model([left, right], layers.Dense(1, name="out")(x))


def discriminator():
    inputs = keras.Input((6,))
    x = layers.Dense(8, activation="relu", name="d1")(inputs)
    return keras.Model(inputs, layers.Dense(1, name="d2")(x), name="discriminator")


def gan(judge=None):
    noise = keras.Input((3,))
    x = layers.Dense(8, activation="relu", name="g1")(noise)
    generator = keras.Model(noise, layers.Dense(6, name="g2")(x), name="generator")
    judge = discriminator() if judge is None else judge
    judge.trainable = False
    noise = keras.Input((3,))
    return keras.Model(noise, judge(generator(noise)))


def frozen_base():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(8, 3, use_bias=False, name="c1")(inputs)
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.Conv2D(8, 3, activation="relu", name="c2")(layers.ReLU()(x))
    base = keras.Model(inputs, x, name="base")
    base.trainable = False
    inputs = keras.Input((6, 6, 2))
    x = layers.GlobalAveragePooling2D(name="pool")(base(inputs, training=False))
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


def u_net():
    def conv(filters, name):
        return layers.Conv2D(filters, 3, padding="same", activation="relu", name=name)

    inputs = keras.Input((8, 8, 1))
    wide = conv(4, "down")(inputs)
    x = conv(8, "bottom")(layers.MaxPooling2D(name="pool")(wide))
    x = conv(4, "up")(layers.UpSampling2D(name="upsample")(x))
    x = layers.Concatenate(name="skip")([wide, x])
    return keras.Model(inputs, layers.Conv2D(2, 1, name="out")(conv(4, "last")(x)))


def ecg():
    x = inputs = keras.Input((32, 1))
    for number, filters in enumerate((8, 8)):
        x = layers.Conv1D(filters, 5, use_bias=False, name=f"c{number}")(x)
        x = layers.BatchNormalization(name=f"bn{number}")(x)
        x = layers.MaxPooling1D(name=f"pool{number}")(layers.ReLU()(x))
    x = layers.GlobalAveragePooling1D(name="mean")(x)
    return keras.Model(inputs, layers.Dense(3, name="out")(x))


def masked_gru():
    inputs = keras.Input((4, 3))
    x = layers.Masking(name="masking")(inputs)
    x = layers.Dense(8, activation="relu", name="before")(x)
    x = layers.GRU(5, unroll=True, name="gru")(x)
    x = layers.Dense(8, activation="relu", name="after")(x)
    return keras.Model(inputs, layers.Dense(2, name="out")(x))


# Builder, criterion, weights of which no channel is taken out.
SITUATIONS = [
    (vae, "magnitude", ["m/kernel", "v/kernel", "out/kernel"]),
    (siamese, "synflow", ["out/kernel"]),
    (gan, "synflow", ["generator/g2/kernel", "discriminator/d2/kernel"]),
    (frozen_base, "synflow", ["head/kernel"]),
    (u_net, "synflow", ["out/kernel"]),
    (ecg, "synflow", ["out/kernel"]),
    (masked_gru, "magnitude", ["out/kernel"]),
]


def batch(model):
    generator = np.random.default_rng(1)
    shapes = [(8, *tensor.shape[1:]) for tensor in model.inputs]
    x = [generator.standard_normal(shape).astype("float32") for shape in shapes]
    if len(shapes[0]) == 3:
        x[0][:, 2:] = 0  # padding, to Masking
    target = (8, *model.output_shape[1:])
    return x, generator.standard_normal(target).astype("float32")


def agree(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("build", "criterion", "whole"), SITUATIONS)
def test_pruned_stripped_and_shrunk_equal_a_copy_masked_by_hand(
    build, criterion, whole, tmp_path
):
    model = build()
    policy = tf_synflow.PruningPolicy(criterion=criterion, iterations=2)
    masks = policy.masks(model, 2)
    for name in masks.keys() - set(whole):
        masks[name][..., 0] = False  # a dead channel, for `shrink` to take out
    pruned = tf_synflow.apply_masks(model, masks)
    by_hand = masked_by_hand(build, model, masks)
    small = tf_synflow.shrink(pruned)
    assert small.count_params() < pruned.count_params()
    x, y = batch(model)
    networks = [by_hand, pruned, tf_synflow.strip(pruned), small]
    if build in (vae, masked_gru):
        pruned.save(tmp_path / "pruned.keras")
        networks.append(tf_synflow.load_model(tmp_path / "pruned.keras"))
    for network in networks:
        network.compile(keras.optimizers.SGD(0.01), "mse", run_eagerly=True)
        agree(network(x), by_hand(x))
    expected = by_hand.evaluate(x, y, verbose=0, return_dict=True)
    assert expected["loss"] > 0
    for network in networks[1:]:
        found = network.evaluate(x, y, verbose=0, return_dict=True)
        assert found.keys() == expected.keys()
        agree([found[key] for key in expected], list(expected.values()))

    # A step of training, after which the copy is masked by hand again.
    losses = [n.train_on_batch(x, y, return_dict=True)["loss"] for n in networks]
    agree(losses, losses[0])
    by_hand = masked_by_hand(build, by_hand, masks)
    for network in (pruned, *networks[3:]):
        agree(network(x), by_hand(x))


def test_a_discriminator_that_two_models_share_is_shared_after_pruning():
    judge = discriminator()
    model = gan(judge)
    before = [weight.copy() for weight in model.get_weights()]
    pruned = tf_synflow.prune(model, 2, iterations=2)
    masks = tf_synflow.get_masks(pruned)
    pruned_judge = pruned.get_layer("discriminator")
    x, y = batch(judge)
    apart = tf_synflow.apply_masks(
        judge,
        {name[14:]: m for name, m in masks.items() if name.startswith("discriminator")},
    )
    agree(pruned_judge(x), apart(x))

    noise = np.ones((8, 3), "float32")
    old = pruned(noise).numpy()
    pruned_judge.trainable = True
    pruned_judge.compile("sgd", "mse", run_eagerly=True)
    pruned_judge.fit(x, y, verbose=0, callbacks=[tf_synflow.PruningCallback()])
    assert np.abs(pruned(noise) - old).max() > 1e-3
    for name, mask in tf_synflow.get_masks(pruned).items():
        np.testing.assert_array_equal(mask, masks[name])
    for one, other in zip(before, model.get_weights(), strict=True):
        assert one.tobytes() == other.tobytes()


def test_a_frozen_base_stays_frozen():
    model = frozen_base()
    pruned = tf_synflow.prune(model, 2, iterations=2)
    for network in (pruned, tf_synflow.strip(pruned), tf_synflow.shrink(pruned)):
        base = network.get_layer("base")
        assert not base.trainable
        frozen = [weight.copy() for weight in base.get_weights()]
        network.compile("sgd", "mse", run_eagerly=True)
        network.train_on_batch(*batch(model))
        assert len(network.trainable_weights) == 2
        for one, other in zip(frozen, base.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
