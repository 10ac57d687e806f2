"""SynFlow at any depth, and its fast loop against scoring and masking in turn."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import layers, randomise, residual_net

import tf_synflow
from tf_synflow.criteria import CRITERIA, Problem
from tf_synflow.flow import linear_twin
from tf_synflow.frameworks import read
from tf_synflow.keras2.imports import keras
from tf_synflow.masks import counts as masks_lib
from tf_synflow.masks.selection import iterate
from tf_synflow.network.copies import deep_graphs


def step_by_step(model, ratio, iterations, schedule="exponential", scope="global"):
    """Algorithm 1 to the letter: every score of the whole network, every time."""
    policy = tf_synflow.PruningPolicy()
    task = policy.prepare(model)
    steps = masks_lib.plan(task.start, ratio, iterations, schedule, scope)
    return iterate(CRITERIA["synflow"](task.problem), task.start, steps)


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, mask in expected.items():
        np.testing.assert_array_equal(found[name], mask, err_msg=name)


def dense_net_like(blocks=3, growth=3):
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3, padding="same", name="stem")(inputs)
    for number in range(blocks):
        y = layers.BatchNormalization(name=f"bn{number}")(x)
        y = layers.Conv2D(growth, 3, padding="same", name=f"conv{number}")(y)
        x = layers.Concatenate()([x, layers.ReLU()(y)])
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(6, 1, name="transition")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.SeparableConv2D(5, 3, strides=2, name="separable")(x)
    return keras.Model(inputs, layers.Dense(4, name="fc")(layers.Flatten()(x)))


def two_streams():
    """Shared layers, two inputs, two outputs, groups, a transposed convolution."""
    shared = layers.Conv2D(4, 3, padding="same", name="shared")
    left, right = keras.Input((6, 6, 4)), keras.Input((6, 6, 4))
    x, y = shared(left), shared(shared(right))
    joined = layers.Average()([x, y])
    up = layers.Conv2DTranspose(6, 2, strides=2, name="up")(joined)
    grouped = layers.Conv2D(4, 3, groups=2, name="grouped")(up)
    out1 = layers.Dense(3, name="out1")(layers.GlobalAveragePooling2D()(grouped))
    out2 = layers.Dense(2, name="out2")(layers.Flatten()(layers.Reshape((36, 4))(x)))
    return keras.Model([left, right], [out1, out2])


NETS = [residual_net, dense_net_like, two_streams]


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("scope", ["global", "local"])
@pytest.mark.parametrize(
    ("schedule", "ratio", "iterations"),
    [
        ("exponential", 3, 10),
        ("exponential", 12, 25),
        ("linear", 3, 10),
        ("linear", 12, 25),
        ("linear", 12, 1),
    ],
)
def test_the_fast_loop_gives_the_masks_of_algorithm_1(
    net, schedule, scope, ratio, iterations
):
    model = randomise(net(), seed=iterations)
    policy = tf_synflow.PruningPolicy(
        iterations=iterations, schedule=schedule, scope=scope
    )
    expected = step_by_step(model, ratio, iterations, schedule, scope)
    assert_same(policy.masks(model, ratio), expected)


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_the_fast_loop_on_random_networks(data):
    draw = data.draw
    inputs = x = keras.Input((6, 6, draw(st.integers(1, 3))))
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["conv", "residual", "concat", "pool"]))
        width = draw(st.integers(1, 6))
        if kind == "conv":
            x = layers.Conv2D(width, draw(st.sampled_from([1, 3])), padding="same")(x)
        elif kind == "residual":
            y = layers.Conv2D(x.shape[-1], 3, padding="same")(x)
            x = layers.Add()([x, layers.BatchNormalization()(y)])
        elif kind == "concat":
            x = layers.Concatenate()([x, layers.Conv2D(width, 1)(x)])
        elif min(x.shape[1:3]) > 1:
            x = layers.MaxPooling2D(2)(x)
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    randomise(model, seed=draw(st.integers(0, 99)))
    network = read(model)
    for kernel in (network.weights[name] for name in network.prunable):
        if draw(st.booleans()):  # weights of one value tie; zeros are dead from birth
            kernel.assign(np.sign(np.round(kernel.numpy())))
    ratio = draw(st.sampled_from([1.3, 2, 5]))
    policy = tf_synflow.PruningPolicy(iterations=6)
    try:
        policy.prepare(model).check(ratio)
    except ValueError:
        return  # fewer weights than layers would be left
    found = policy.masks(model, ratio)
    size = sum(mask.size for mask in found.values())
    kept = sum(int(mask.sum()) for mask in found.values())
    assert kept == masks_lib.kept_count(size, ratio)
    if not any(len(np.unique(np.abs(w))) < w.size for w in _kernels(model)):
        assert_same(found, step_by_step(model, ratio, 6))


def _kernels(model):
    network = read(model)
    return [network.weights[name].numpy() for name in network.prunable]


def test_a_pruned_model_goes_on_as_algorithm_1_does():
    pruned = tf_synflow.prune(randomise(dense_net_like()), 2, iterations=5)
    policy = tf_synflow.PruningPolicy(iterations=5)
    assert_same(policy.masks(pruned, 6), step_by_step(pruned, 6, 5))


@pytest.mark.parametrize("model", ["vgg11_bn", "resnet20"])
def test_the_fast_loop_on_the_papers_networks(model):
    model = tf_synflow.models.build(model, (32, 32, 3), 10)
    policy = tf_synflow.PruningPolicy(iterations=12)
    assert_same(policy.masks(model, 100), step_by_step(model, 100, 12))


def unscaled(monkeypatch):
    monkeypatch.setattr(linear_twin, "normalised", lambda signal: signal)


@pytest.mark.parametrize("net", [*NETS, tf_synflow.models.ResNet56])
def test_scaling_changes_no_bit_of_a_score(net, monkeypatch):
    model = randomise(net())
    scaled = tf_synflow.PruningPolicy().score(model)
    assert scaled.log2_scale == 0
    unscaled(monkeypatch)
    for name, score in tf_synflow.PruningPolicy().score(model).items():
        assert score.tobytes() == scaled[name].tobytes()


def test_scaling_changes_no_bit_of_a_mask(monkeypatch):
    model = tf_synflow.models.ResNet56()
    policy = tf_synflow.PruningPolicy(iterations=4)
    scaled = policy.masks(model, 30)
    unscaled(monkeypatch)
    assert_same(policy.masks(model, 30), scaled)


def deep_dense(depth, factor=1.0):
    keras.utils.set_random_seed(0)
    inputs = x = keras.Input((4,))
    for number in range(depth):
        x = layers.Dense(4, use_bias=False, name=f"d{number}")(x)
    with deep_graphs():
        model = keras.Model(inputs, x)
    for variable in model.weights:
        variable.assign(variable * factor)
    return model


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_hundred_layers_and_weights_of_any_size(dtype):
    policy = tf_synflow.PruningPolicy(iterations=4, dtype=dtype)
    expected = policy.masks(deep_dense(100), 3)
    assert sum(mask.sum() for mask in expected.values()) == 534
    for factor in (2.0**60, 2.0**-60):
        assert_same(policy.masks(deep_dense(100, factor), 3), expected)


def test_the_common_scale_is_given_where_float64_cannot_hold_the_flow():
    shallow, deep = deep_dense(5), deep_dense(5, 2.0**120)
    policy = tf_synflow.PruningPolicy()
    flow = policy.score(shallow)
    assert flow.log2_scale == 0
    for name, score in policy.score(deep).items():
        assert score.tobytes() == np.ldexp(flow[name], 600).tobytes()
    deeper = policy.score(deep_dense(12, 2.0**120))
    assert deeper.log2_scale > 1000
    reference = policy.score(deep_dense(12))
    for name, score in deeper.items():
        expected = np.ldexp(reference[name], 12 * 120 - deeper.log2_scale)
        assert score.tobytes() == expected.tobytes()


def branching(depth):
    """x -> relu(x W) + x V, `depth` times: 2**depth paths between any two units."""
    keras.utils.set_random_seed(1)
    inputs = x = keras.Input((2,))
    for number in range(depth):
        y = layers.Dense(2, activation="relu", name=f"w{number}")(x)
        z = layers.Dense(2, name=f"v{number}")(x)
        x = layers.Add()([y, z])
    with deep_graphs():
        return keras.Model(inputs, x)


def test_a_branching_net_of_200_layers_against_exact_arithmetic():
    depth = 200
    model = branching(depth)
    weights = {n: v.numpy() for n, v in read(model).weights.items()}
    weights = {n: w for n, w in weights.items() if n.endswith("kernel")}
    exact = {
        n: np.vectorize(Fraction)(np.abs(w.astype(float))) for n, w in weights.items()
    }
    signals, joint = [np.array([Fraction(1)] * 2)], []
    for number in range(depth):
        joint.append(exact[f"w{number}/kernel"] + exact[f"v{number}/kernel"])
        signals.append(signals[-1] @ joint[-1])
    back, forward, backward = np.array([Fraction(1)] * 2), {}, {}
    for number in reversed(range(depth)):
        for kind in "wv":
            forward[f"{kind}{number}/kernel"] = signals[number]
            backward[f"{kind}{number}/kernel"] = back
        back = joint[number] @ back
    assert_exact_ranks(model, exact, forward, backward)


def densely(depth):
    """Each layer reads all before it, as in DenseNet; 200 signals of one channel."""
    keras.utils.set_random_seed(2)
    inputs = x = keras.Input((2,))
    for number in range(depth):
        y = layers.Dense(1, name=f"d{number}")(x)
        x = layers.Concatenate()([x, y])
    with deep_graphs():
        return keras.Model(inputs, layers.Dense(1, name="out")(x))


def test_a_dense_net_of_200_layers_against_exact_arithmetic():
    depth = 200
    model = densely(depth)
    variables = read(model).weights
    exact = {
        n: np.vectorize(Fraction)(np.abs(v.numpy().astype(float)))
        for n, v in variables.items()
        if n.endswith("kernel")
    }
    signals = [Fraction(1), Fraction(1)]
    for number in range(depth):
        column = exact[f"d{number}/kernel"][:, 0]
        signals.append(sum(w * s for w, s in zip(column, signals, strict=True)))
    back = list(exact["out/kernel"][:, 0])
    forward = {"out/kernel": signals}
    backward = {"out/kernel": [Fraction(1)]}
    for number in reversed(range(depth)):
        flow = back[number + 2]
        forward[f"d{number}/kernel"] = signals[: number + 2]
        backward[f"d{number}/kernel"] = [flow]
        for place, w in enumerate(exact[f"d{number}/kernel"][:, 0]):
            back[place] += w * flow
    assert_exact_ranks(model, exact, forward, backward)


def assert_exact_ranks(model, exact, forward, backward):
    """The library ranks the weights as exact arithmetic does."""
    scores = tf_synflow.PruningPolicy().score(model)
    truth = [
        forward[name][i] * weight * backward[name][j]
        for name in scores
        for (i, j), weight in np.ndenumerate(exact[name])
    ]
    found = np.concatenate([score.ravel() for score in scores.values()])
    order = sorted(range(len(truth)), key=truth.__getitem__)
    np.testing.assert_array_equal(np.argsort(found, kind="stable"), order)
    # As shares of their sums, for the library may give them times a power of two.
    total, true_total = sum(map(Fraction, found.tolist())), sum(truth)
    ratios = [
        Fraction(share) * true_total / (total * true)
        for share, true in zip(found.tolist(), truth, strict=True)
    ]
    assert max(abs(float(ratio - 1)) for ratio in ratios) < 1e-12


def test_float32_is_finite_and_exact_in_count_where_plain_float32_is_not():
    model = tf_synflow.models.ResNet56()
    policy = tf_synflow.PruningPolicy(iterations=5, dtype="float32")
    scores = policy.score(model)
    assert all(np.isfinite(score).all() for score in scores.values())
    masks = policy.masks(model, 50)
    kept = sum(int(mask.sum()) for mask in masks.values())
    assert kept == masks_lib.kept_count(851_504, 50)


def test_the_scorer_is_given_its_names_in_the_models_order():
    model = residual_net()
    problem = tf_synflow.PruningPolicy().prepare(model).problem
    assert isinstance(problem, Problem)
    assert list(problem.weights) == [
        "conv1/kernel",
        "conv2/kernel",
        "conv3/kernel",
        "fc/kernel",
    ]
