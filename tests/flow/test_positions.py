"""Equal positions once: the same scores and masks as with all positions computed."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from nets import layers, randomise

import tf_synflow
from tf_synflow import models
from tf_synflow.flow import position_rules, positions
from tf_synflow.flow.loop import network_twin
from tf_synflow.flow.patches import cut_out
from tf_synflow.flow.positions import Spread, Window
from tf_synflow.frameworks import read
from tf_synflow.keras2.imports import keras


def kind(name, axes):
    """The layer of this name for so many axes of positions."""
    return getattr(layers, f"{name}{axes}D")


def scores(model, monkeypatch, spread):
    with monkeypatch.context() as patch:
        if not spread:
            patch.setattr(position_rules, "rule_of", lambda part: everywhere)
        return tf_synflow.PruningPolicy(progress=False).score(model)


everywhere = position_rules.everywhere


def check(model, monkeypatch):
    spread, whole = (scores(model, monkeypatch, own) for own in (True, False))
    assert spread.log2_scale == whole.log2_scale
    for name, score in whole.items():
        np.testing.assert_allclose(spread[name], score, rtol=1e-12, atol=0)
    assert sum(score.sum() for score in whole.values()) > 0


# A layer by the name of its kind; `draw` gives numbers in a range.


def convolution(draw, x, axes):
    taps, dilation = draw(1, 3), draw(1, 2)
    room = min(x.shape[1:-1]) > (taps - 1) * dilation
    options = {
        "padding": "valid" if room and draw(0, 1) else "same",
        "strides": draw(1, 3) if dilation == 1 else 1,
        "dilation_rate": dilation,
    }
    return kind("Conv", axes)(draw(1, 3), taps, **options)(x)


def pooling(draw, x, axes):
    window = draw(1, 3)
    padding = "valid" if min(x.shape[1:-1]) >= window and draw(0, 1) else "same"
    name = "MaxPooling" if draw(0, 1) else "AveragePooling"
    return kind(name, axes)(window, draw(1, 3), padding)(x)


def depthwise(draw, x, axes):
    if axes == 3:
        return convolution(draw, x, axes)
    name = "DepthwiseConv" if draw(0, 1) else "SeparableConv"
    own = () if name == "DepthwiseConv" else (draw(1, 3),)
    return kind(name, axes)(*own, 3, strides=draw(1, 2), padding="same")(x)


def padding(draw, x, axes):
    amounts = [(draw(0, 2), draw(0, 2)) for _ in range(axes)]
    return kind("ZeroPadding", axes)(amounts[0] if axes == 1 else amounts)(x)


def cropping(draw, x, axes):
    if min(x.shape[1:-1]) < 4:
        return x
    amounts = [(draw(0, 1), draw(0, 2)) for _ in range(axes)]
    return kind("Cropping", axes)(amounts[0] if axes == 1 else amounts)(x)


def upsampling(draw, x, axes):
    if max(x.shape[1:-1]) > 12:
        return x
    return kind("UpSampling", axes)(draw(1, 2) if axes == 1 else [draw(1, 2)] * axes)(x)


def normalisation(draw, x, axes):
    return layers.ReLU()(layers.BatchNormalization()(x))


def branches(draw, x, axes):
    branch = kind("Conv", axes)(x.shape[-1], 3, padding="same")(x)
    merge = (layers.Add, layers.Concatenate, layers.Maximum)[draw(0, 2)]
    return merge()([x, branch])


def gate(draw, x, axes):
    pooled = kind("GlobalAveragePooling", axes)(keepdims=True)(x)
    return layers.Multiply()([x, layers.Dense(x.shape[-1])(pooled)])


def operators(draw, x, axes):
    return tf.nn.relu(x * 2.0) + x


def sizes(draw, x, axes):
    """Layers that read all positions."""
    return layers.Permute([*range(2, axes + 1), 1, axes + 1])(x)


STEPS = (convolution, pooling, depthwise, padding, cropping, upsampling)
STEPS += (normalisation, branches, gate, operators, sizes)


@st.composite
def networks(draw):
    axes = draw(st.sampled_from([1, 2, 2, 3]))

    def number(low, high):
        return draw(st.integers(low, high))

    most = {1: 23, 2: 13, 3: 8}[axes]
    inputs = [
        keras.Input([*(number(3, most) for _ in range(axes)), number(1, 2)])
        for _ in range(number(1, 2))
    ]
    ends = []
    shared = kind("Conv", axes)(2, 3, padding="same")
    for x in inputs:
        if x.shape[-1] == inputs[0].shape[-1]:
            x = shared(x)
        for step in draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=6)):
            x = step(number, x, axes)
        last = number(0, 2)
        if last < 2:
            name = ("GlobalAveragePooling", "GlobalMaxPooling")[last]
            ends.append(kind(name, axes)()(x))
        else:
            ends.append(layers.Flatten()(x))
    y = ends[0] if len(ends) == 1 else layers.Concatenate()(ends)
    inner = keras.Model(inputs, layers.Dense(2)(y))
    outer = [keras.Input(tensor.shape[1:]) for tensor in inputs]
    model = keras.Model(outer, inner(outer))
    return randomise(model, seed=number(0, 1000))


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(model=networks())
def test_random_networks_have_the_same_scores_and_masks(model):
    with pytest.MonkeyPatch.context() as monkeypatch:
        check(model, monkeypatch)
        policy = tf_synflow.PruningPolicy(
            iterations=1, progress=False, on_collapse="ignore"
        )
        masks = policy.masks(model, 3)
        monkeypatch.setattr(position_rules, "rule_of", lambda part: everywhere)
        known, scores = policy.masks(model, 3), policy.score(model)
    flat = [
        np.concatenate([own[name].ravel() for name in known])
        for own in (masks, known, scores)
    ]
    differ = flat[0] != flat[1]
    event("masks differ at a tie" if differ.any() else "masks equal in every bit")
    # Weights of one path have equal scores, and rounding decides which of them goes.
    lowest = flat[2][flat[1]].min()
    np.testing.assert_allclose(flat[2][differ], lowest, rtol=1e-12)


@pytest.mark.parametrize(
    "name, size",
    [("vgg11_bn", 32), ("resnet20", 32), ("resnet20", 33), ("mobilenet", 32)],
)
def test_networks_of_the_paper(name, size, monkeypatch):
    check(models.build(name, (size, size, 3), 10), monkeypatch)


def positions_of(model):
    """Computed positions of the largest axis after each call of a layer, by name."""
    network, found = read(model), {}
    original = position_rules.rule_of

    def watched(part):
        rule = original(part)

        def run(layer, apply, spreads):
            results = rule(layer, apply, spreads)
            found[layer.name] = results[0].tensor.shape[1]
            return results

        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(position_rules, "rule_of", watched)
        weights = {n: network.weights[n].numpy() for n in network.prunable}
        twin, sizes = network_twin(network, weights)
        twin.flow({name: tf.constant(w.array) for name, w in sizes.items()})
    return found


def test_a_map_has_two_more_rows_after_each_convolution():
    model = keras.Sequential([keras.Input((100, 100, 3))])
    for number in range(4):
        model.add(layers.Conv2D(2, 3, padding="same", name=f"c{number}"))
    model.add(layers.GlobalAveragePooling2D(name="end"))
    found = positions_of(model)
    assert [found[f"c{n}"] for n in range(4)] == [3, 5, 7, 9]


def test_an_image_sixteen_times_larger_costs_the_same():
    found = []
    for size in (224, 896):  # the convolutions of VGG-16, narrow
        model = keras.Sequential([keras.Input((size, size, 3))])
        for stage, count in enumerate((2, 2, 3, 3, 3)):
            for n in range(count):
                model.add(layers.Conv2D(2, 3, padding="same", name=f"c{stage}{n}"))
            model.add(layers.MaxPooling2D())
        model.add(layers.GlobalAveragePooling2D())
        found.append(positions_of(model))
    convolutions = [name for name in found[0] if name.startswith("c")]
    assert len(convolutions) == 13
    for name in convolutions:
        assert found[1][name] <= found[0][name] + 1 < 17, name


def test_a_gather_and_its_gradient_are_those_of_tensorflow():
    generator = np.random.default_rng(0)
    x = tf.constant(generator.random((1, 4, 5, 3)))
    ways = {1: np.array([3, 0, 0, 2, 2, 2]), 2: np.array([0, 4, 4])}
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        found = positions.gathered(x, ways)
        known = tf.gather(tf.gather(x, ways[1], axis=1), ways[2], axis=2)
        factor = tf.constant(generator.random(known.shape))
        ends = tf.reduce_sum(found * factor), tf.reduce_sum(known * factor)
    np.testing.assert_array_equal(found, known)
    one, other = (tape.gradient(end, x).numpy() for end in ends)
    np.testing.assert_allclose(one, other, rtol=1e-14)
    turned = positions.gathered(tf.transpose(x, [0, 3, 1, 2]), {2: ways[1], 3: ways[2]})
    np.testing.assert_array_equal(turned, tf.transpose(known, [0, 3, 1, 2]))


@pytest.mark.parametrize("taps", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("before", [0, 1])
def test_windows_by_hand(taps, stride, dilation, before):
    """Against a loop over outputs and taps, with rows that repeat."""
    index = np.array([0, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 4, 4, 4, 4, 4, 4, 4, 5])
    rows = np.arange(1.0, 7.0)
    kernel = np.array([1.0, 10.0, 100.0])[:taps]
    span = (taps - 1) * dilation + 1
    outputs = (index.size + 2 * before - span) // stride + 1
    window = Window(taps, stride, dilation, before, outputs)
    padded = np.pad(rows[index], before)

    def by_hand(signal, count):
        return [
            sum(kernel[n] * signal[o * stride + n * dilation] for n in range(taps))
            for o in range(count)
        ]

    expected = by_hand(padded, outputs)
    spread = Spread(tf.constant(rows[None, :, None]), (None, index, None))
    patches, places = cut_out(spread, {1: window})
    found = patches.times(tf.constant(kernel[:, None, None])).numpy()[0, :, 0]
    np.testing.assert_array_equal(found[places[1]], expected)
    left, places = positions.thinned(index, window)
    small = by_hand(np.pad(rows[left], before), places.max() + 1)
    np.testing.assert_array_equal(np.array(small)[places], expected)
    assert found.size <= len(set(expected)) + 4 or dilation > 1
