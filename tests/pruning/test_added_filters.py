"""Filters that are added to those of other layers: they count, and are zeroed."""

import math

import numpy as np
import pytest
import tensorflow as tf
from nets import randomise

import tf_synflow
from tf_synflow import models
from tf_synflow.frameworks import keras_named, read
from tf_synflow.keras2.imports import keras
from tf_synflow.policy.added_filters import added_filters, hold_zero
from tf_synflow.pruning.filter_rounds import Counting, in_rounds

POLICY = tf_synflow.PruningPolicy("magnitude", granularity="filter", progress=False)
ADDED = ("conv1b", "conv2b", "shortcut")
WIDTHS = {"stem": 6, "conv1a": 8, "conv1b": 6, "conv2a": 10, "conv2b": 9, "shortcut": 9}


def small_resnet(which="tf_keras", gates=None):
    """Two residual blocks, the second with a shortcut of its own.

    `gates` multiplies what is added, channel by channel: so the paper removes filters.
    """
    framework = keras_named(which)
    layers = framework.layers

    def conv(x, name, size=3, stride=1):
        x = layers.Conv2D(
            WIDTHS[name], size, stride, padding="same", use_bias=False, name=name
        )(x)
        return layers.BatchNormalization(name=f"{name}_bn")(x)

    def gated(x, name):
        return x if gates is None else x * gates[name].astype("float32")

    inputs = framework.Input((4, 4, 2))
    x = layers.ReLU()(conv(inputs, "stem"))
    y = conv(layers.ReLU()(conv(x, "conv1a")), "conv1b")
    x = layers.ReLU()(layers.Add()([gated(y, "conv1b"), x]))
    y = conv(layers.ReLU()(conv(x, "conv2a", stride=2)), "conv2b")
    shortcut = gated(conv(x, "shortcut", size=1, stride=2), "shortcut")
    x = layers.ReLU()(layers.Add()([gated(y, "conv2b"), shortcut]))
    x = layers.Dense(3, name="fc")(layers.GlobalAveragePooling2D()(x))
    return framework.Model(inputs, x)


def nothing(network):
    pass


def kept(masks):
    return {n: masks[f"{n}/kernel"].any((0, 1, 2)) for n in WIDTHS}


def norms(model):
    weights = read(model).weights
    return {
        n: np.sqrt((weights[f"{n}/kernel"].numpy() ** 2).sum((0, 1, 2))) for n in WIDTHS
    }


def test_all_filters_of_resnet_56_count_as_in_the_paper():
    network = read(models.ResNet56())
    filters = Counting(zero_added=True).task(POLICY, network, None).filters
    assert len(filters.sizes) == 57
    assert sum(filters.sizes.values()) == 16 + 18 * 16 + 18 * 32 + 32 + 18 * 64 + 64
    assert filters.fixed == {"stem_conv/kernel"}
    assert len(filters.added) == 27 + 2
    kernel = "stage2_block1_shortcut"
    assert added_filters(network, network.prunable)[f"{kernel}/kernel"] == (
        f"{kernel}/kernel",
        f"{kernel}_bn/gamma",
        f"{kernel}_bn/beta",
    )


@pytest.mark.parametrize("which", ["tf_keras", "keras"])
def test_one_round_removes_the_lowest_of_all_filters(which):
    model = small_resnet(which)
    found = norms(model)
    small, masks = in_rounds(
        model, 0.6, nothing, 1, POLICY, None, Counting(zero_added=True)
    )
    # By hand: the stem stays, and the best of each layer.
    ranked = sorted(
        (norm, place, name, i)
        for place, (name, own) in enumerate(found.items())
        for i, norm in enumerate(own)
        if name != "stem" and i != own.argmax()
    )
    gone = {(name, i) for *_, name, i in ranked[: math.floor(0.6 * 48)]}
    flags = kept(masks)
    assert {(n, i) for n in WIDTHS for i in np.flatnonzero(~flags[n])} == gone
    # Those that are added are 0, and as many; the others are gone.
    for name in WIDTHS:
        layer = small.get_layer(name)
        width = WIDTHS[name] if name in (*ADDED, "stem") else flags[name].sum()
        assert layer.filters == width
        if name in ADDED:
            norm = small.get_layer(f"{name}_bn")
            for values in (layer.kernel.numpy().any((0, 1, 2)), norm.gamma.numpy()):
                np.testing.assert_array_equal(values != 0, flags[name])


def test_a_zeroed_filter_adds_nothing_and_training_leaves_it_so(float64):
    """The same as 0/1 gates before Add, in both modes, and after steps of momentum."""
    model = randomise(small_resnet())
    small, masks = in_rounds(
        model, 0.4, nothing, 1, POLICY, None, Counting(zero_added=True)
    )
    flags = kept(masks)
    assert not all(flags[name].all() for name in ADDED)
    gates = {name: flags[name] for name in ADDED}
    gated = small_resnet(gates=gates)
    # The filters that are cut read nothing there.
    weights = {n: v.numpy() for n, v in read(model).weights.items()}
    for name, mask in masks.items():
        weights[name] = weights[name] * mask
    for name, variable in read(gated).weights.items():
        cut = name.split("_bn")[0]
        if "_bn" in name and cut in ("conv1a", "conv2a") and "variance" not in name:
            weights[name] = weights[name] * flags[cut]
        variable.assign(weights[name])
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((8, 4, 4, 2)), generator.integers(0, 3, 8)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for network in (small, gated):
        network.compile(tf_synflow.optimizers.SGD(0.01, l2=1e-3), loss)
    for _ in range(2):
        for training in (False, True):
            np.testing.assert_allclose(
                small(x, training=training), gated(x, training=training), rtol=1e-9
            )
        for network in (small, gated):
            network.fit(x, y, epochs=4, batch_size=8, verbose=0)
        for name in ADDED:
            norm, kernel = small.get_layer(f"{name}_bn"), small.get_layer(name).kernel
            for values in (
                norm.gamma.numpy(),
                norm.beta.numpy(),
                *kernel.numpy().reshape(-1, WIDTHS[name]),
            ):
                assert not values[~flags[name]].any()


def test_training_of_keras_3_leaves_zeroed_filters_so():
    small, masks = in_rounds(
        small_resnet("keras"), 0.6, nothing, 1, POLICY, None, Counting(zero_added=True)
    )
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((8, 4, 4, 2)), generator.integers(0, 3, 8)
    losses = keras_named("keras").losses
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    small.compile(tf_synflow.optimizers.SGD(0.1, keras="keras"), loss)
    small.fit(x, y, epochs=3, verbose=0)
    for name, flags in kept(masks).items():
        if name in ADDED:
            beta = small.get_layer(f"{name}_bn").beta.numpy()
            assert not beta[~flags].any() and beta[flags].any()


@pytest.mark.parametrize("rounds", [1, 5, 25])
@pytest.mark.parametrize("percents", [False, True])
def test_rounds_leave_as_many_filters_as_the_formula_says(rounds, percents):
    counts = []

    def train(network):
        counts.append(sum(int((own > 0).sum()) for own in norms(network).values()))

    small, masks = in_rounds(
        small_resnet(), 0.6, train, rounds, POLICY, None, Counting(True, percents)
    )
    counts.append(sum(int(flags.sum()) for flags in kept(masks).values()))
    expected, left, percent = [48], 1.0, 100
    for k in range(1, rounds + 1):
        share = 0.6 / (k * 0.6 + rounds * 0.4)
        left *= 1 - share
        percent = int(percent * (1 - share) + 1e-9)
        of = percent / 100 if percents else left
        expected.append(48 - math.floor((1 - of) * 48 + 1e-9))
    assert counts == expected
    assert [norms(small)[name].size for name in ADDED] == [WIDTHS[n] for n in ADDED]


@pytest.mark.parametrize(
    ("ratio", "percents"),
    [(0.6, {1: 40, 5: 38, 25: 32}), (0.75, {1: 25, 5: 23, 25: 18})],
)
def test_whole_percents_are_those_of_the_authors_program(ratio, percents):
    from tf_synflow.masks.counts import pruned_fraction

    for rounds, left in percents.items():
        counting, removed = Counting(True, True), pruned_fraction(ratio)
        assert counting.kept_after(rounds, rounds, removed, 100) == left


def test_too_high_a_ratio_says_what_stays():
    with pytest.raises(ValueError, match="11 stay at least: one of each layer"):
        tf_synflow.prune_filters(
            small_resnet(), 0.9, pytest.fail, policy=POLICY, zero_added=True
        )


def test_a_network_whose_only_filters_are_added_ones():
    """Those of the first convolution are added to without a bias of their own."""
    inputs = keras.Input((4, 4, 2))
    layers = keras.layers
    x = layers.Conv2D(4, 3, padding="same", name="a")(inputs)
    y = layers.Conv2D(4, 3, padding="same", name="b")(x)
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, y]))
    model = keras.Model(inputs, layers.Dense(2, name="fc")(x))
    with pytest.raises(ValueError, match="no filter that may be pruned"):
        POLICY.masks(model, 1.2)
    small = tf_synflow.prune_filters(
        model, 0.25, nothing, policy=POLICY, zero_added=True
    )
    left = np.abs(small.get_layer("b").kernel.numpy()).sum((0, 1, 2)) > 0
    assert left.sum() == 2 and small.get_layer("a").filters == 4


@pytest.mark.parametrize("which", ["tf_keras", "keras"])
def test_a_model_with_held_filters_is_pruned_by_weights_saved_and_stripped(
    which, tmp_path
):
    framework = keras_named(which)
    model = small_resnet(which)
    flags = np.arange(6) != 2
    hold_zero(model, {"conv1b/kernel": flags})
    images = np.random.default_rng(0).random((8, 4, 4, 2), "float32")
    model.compile(framework.optimizers.SGD(0.1), "mse")
    policy = tf_synflow.PruningPolicy("magnitude", progress=False)
    callback = tf_synflow.PruningCallback(2, policy)
    model.fit(images, np.ones((8, 3)), verbose=0, callbacks=[callback])
    assert not norms(model)["conv1b"][2]
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = tf_synflow.load_model(path)
    np.testing.assert_array_equal(norms(loaded)["conv1b"], norms(model)["conv1b"])
    plain = tf_synflow.strip(model)
    again = tmp_path / "plain.keras"
    plain.save(again)
    text = framework.models.load_model(again, compile=False).to_json()
    assert "tf_synflow" not in text and "HoldZero" not in text


def test_an_activation_or_a_second_reader_leaves_a_filter_where_it_is():
    """relu(conv) + x is added too, but not what Add reads: only Add may follow."""
    inputs = keras.Input((4, 4, 2))
    layers = keras.layers
    x = layers.Conv2D(3, 3, padding="same", name="a")(inputs)
    y = layers.Conv2D(3, 3, padding="same", activation="tanh", name="b")(x)
    z = layers.Conv2D(3, 3, padding="same", name="c")(y)
    x = layers.Add()([x, y, z])
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    network = read(model)
    assert added_filters(network, network.prunable) == {
        "c/kernel": ("c/kernel", "c/bias")
    }
    hold_zero(model, {"c/kernel": np.array([True, False, True])})
    for values in (model.get_layer("c").bias, model.get_layer("c").kernel):
        assert not tf.gather(values, [1], axis=-1).numpy().any()
