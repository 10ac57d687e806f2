"""Filter pruning: scores by hand, exact counts, what goes with a filter, rounds."""

import math
from fractions import Fraction

import numpy as np
import pytest
import tensorflow as tf
from nets import images, layers, randomise, residual_net

import tf_synflow
from tf_synflow import models
from tf_synflow.frameworks import read
from tf_synflow.keras2.imports import keras
from tf_synflow.pruning.filter_rounds import in_rounds

NEEDS_DATA = (
    *("loss_preservation", "small_magnitude_loss_preservation"),
    *("gradient_norm_preservation", "grasp"),
)


def chain():
    """Convolution, BatchNorm after ReLU, depthwise, pointwise, Flatten, two Dense."""
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(5, 3, padding="same", name="a"),
            layers.ReLU(),
            layers.BatchNormalization(name="bn"),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.Conv2D(4, 1, activation="relu", name="b"),
            layers.Flatten(),
            layers.Dense(6, activation="relu", name="c"),
            layers.Dense(3, name="logits"),
        ]
    )


def policy(criterion="magnitude", **settings):
    return tf_synflow.PruningPolicy(
        criterion, granularity="filter", progress=False, **settings
    )


def kernels(model):
    return {n: v.numpy() for n, v in read(model).weights.items()}


@pytest.mark.parametrize("criterion", NEEDS_DATA)
def test_scores_are_those_of_the_paper_by_finite_differences(criterion, float64):
    """Sums over a filter of w g or w (H g), g and H g by differences in float64."""
    inputs = keras.Input((3,))
    x = layers.Dense(4, activation="tanh", name="a")(inputs)
    model = randomise(keras.Model(inputs, layers.Dense(3, name="b")(x)))
    generator = np.random.default_rng(1)
    x, y = generator.standard_normal((7, 3)), generator.integers(0, 3, 7)
    of_loss = "loss_preservation" in criterion
    temperature = 5 if of_loss else 200 if criterion == "grasp" else 1
    weights = [w.numpy() for w in model.weights]
    shapes = [w.shape for w in weights]

    def loss(vector):
        a, p, b, q = (
            part.reshape(shape)
            for part, shape in zip(
                np.split(vector, np.cumsum([w.size for w in weights])[:-1]),
                shapes,
                strict=True,
            )
        )
        logits = (np.tanh(x @ a + p) @ b + q) / temperature
        logits = logits - logits.max(1, keepdims=True)
        chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        return -np.log(chances[np.arange(7), y]).mean()

    start = np.concatenate([w.ravel() for w in weights])

    def gradient(vector, step=1e-4):  # by both kernels and both biases
        found = np.zeros(vector.size)
        for i in range(vector.size):
            e = np.zeros(vector.size)
            e[i] = step
            # Fourth order, so that rounding and curvature are both small.
            near, far = (loss(vector + k * e) - loss(vector - k * e) for k in (1, 2))
            found[i] = (8 * near - far) / (12 * step)
        return found

    g = gradient(start)
    if of_loss:
        change = np.abs(start * g)
        change *= np.abs(start) if "small" in criterion else 1
    else:
        t = 1e-4 / np.linalg.norm(g)
        change = start * (gradient(start + t * g) - gradient(start - t * g)) / (2 * t)
    wanted = change[:12].reshape(3, 4).sum(0)
    if criterion == "gradient_norm_preservation":
        wanted = np.abs(wanted)
    found = policy(criterion, dtype="float64").score(model, (x, y))
    assert list(found) == ["a/kernel"]
    wanted /= abs(wanted.sum())
    np.testing.assert_allclose(found["a/kernel"], wanted, rtol=2e-3)


def test_magnitude_is_the_norm_of_a_filter_and_random_is_normal():
    model = randomise(chain())
    found = policy().score(model)
    weights = kernels(model)
    assert list(found) == ["a/kernel", "b/kernel", "c/kernel"]
    for name, scores in found.items():
        for filter, score in enumerate(scores):
            norm = math.sqrt(
                sum(float(w) ** 2 for w in weights[name][..., filter].flat)
            )
            assert score == pytest.approx(norm, rel=1e-6)
    wide = keras.Sequential([keras.Input((9,)), layers.Dense(4000), layers.Dense(1)])
    (draws,) = policy("random", seed=3).score(wide).values()
    assert abs(draws.mean()) < 0.06 and abs(draws.std() - 1) < 0.04
    again = policy("random", seed=3).score(wide)
    np.testing.assert_array_equal(draws, next(iter(again.values())))


@pytest.mark.parametrize(
    ("criterion", "ratio"),
    [
        ("magnitude", 1),
        ("magnitude", 1.5),
        *((c, r) for c in ("magnitude", "random", *NEEDS_DATA) for r in (0.4, 3)),
    ],
)
def test_exactly_so_many_filters_are_left_and_all_of_the_others_goes(criterion, ratio):
    model = randomise(chain())
    data = images(model, 12) if criterion in NEEDS_DATA else None
    own = policy(criterion)
    scores = own.score(model, data)
    masks = own.masks(model, ratio, data)
    fraction = Fraction(str(ratio))
    removed = math.floor(15 * (1 - 1 / fraction if fraction >= 1 else fraction))
    left = {name: masks[name].reshape(-1, n.size).any(0) for name, n in scores.items()}
    assert sum(int(flags.sum()) for flags in left.values()) == 15 - removed
    # The highest scores are left: every filter above every one that is gone, but for
    # the one that each layer keeps.
    kept = [s for n in scores for s, k in zip(scores[n], left[n], strict=True) if k]
    gone = [s for n in scores for s, k in zip(scores[n], left[n], strict=True) if not k]
    spared = sum(k < max(gone, default=-np.inf) for k in kept)
    assert spared <= sum(flags.sum() == 1 for flags in left.values())
    # A filter goes whole, and with it all that reads it; nothing else does.
    positions = np.tile(left["b/kernel"], 16)
    expected = {
        "a/kernel": np.ones((3, 3, 2, 5), bool) & left["a/kernel"],
        "b/kernel": left["a/kernel"][:, None]
        & left["b/kernel"]
        & np.ones((1, 1, 5, 4), bool),
        "c/kernel": positions[:, None] & left["c/kernel"],
        "logits/kernel": left["c/kernel"][:, None] & np.ones((6, 3), bool),
    }
    assert list(masks) == list(expected)
    for name, mask in expected.items():
        np.testing.assert_array_equal(masks[name], mask)
    # Depthwise filters, scales, offsets and statistics go with them in the small one.
    pruned = tf_synflow.prune(model, ratio, policy=own, data=data)
    small = tf_synflow.shrink(pruned)
    found = kernels(tf_synflow.strip(small))
    for name in (
        "bn/gamma",
        "bn/beta",
        "bn/moving_mean",
        "bn/moving_variance",
        "a/bias",
    ):
        np.testing.assert_array_equal(
            found[name], kernels(model)[name][left["a/kernel"]]
        )
    np.testing.assert_array_equal(
        found["depthwise/depthwise_kernel"],
        kernels(model)["depthwise/depthwise_kernel"][:, :, left["a/kernel"]],
    )
    assert all(mask.all() for mask in tf_synflow.get_masks(small).values())
    x = images(model, 6)[0]
    a, b = (m(x, training=False).numpy() for m in (pruned, small))
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(a).max())


def test_what_is_missing_is_said_before_anything_is_trained():
    def train(network):
        raise AssertionError("trained")

    with pytest.raises(ValueError, match="needs data"):
        tf_synflow.prune_filters(
            chain(), 0.5, train, policy=policy("loss_preservation")
        )


def test_a_layer_that_is_emptied_already_has_no_filter_to_choose_from():
    masks = tf_synflow.PruningPolicy("magnitude").masks(chain(), 1)
    masks["b/kernel"][:] = False
    pruned = tf_synflow.apply_masks(chain(), masks)
    with pytest.raises(ValueError, match="none of the 4 filters of 'b/kernel'"):
        policy(scope="local").masks(pruned, 2)


def test_no_layer_loses_more_than_95_percent():
    wide = [layers.Dense(n, use_bias=False) for n in (100, 100, 2)]
    model = keras.Sequential([keras.Input((3,)), *wide])
    wide[0].kernel.assign(wide[0].kernel * 1e-6)  # all would be taken from the first
    masks = policy().masks(model, 0.5)
    first, second, _ = (mask.any(0).sum() for mask in masks.values())
    assert (first, second) == (5, 95)
    found = policy().masks(model, 20)
    assert [mask.any(0).sum() for mask in found.values()][:2] == [5, 5]
    with pytest.raises(
        ValueError, match=r"keep 9 of the 200 .* 10 stay.* ratio is 22.222222"
    ):
        policy().masks(model, 0.955)
    local = policy(scope="local").masks(model, 0.5)
    assert [mask.any(0).sum() for mask in local.values()][:2] == [50, 50]
    with pytest.raises(ValueError, match="4 of the 100 filters of 'dense.*kernel'"):
        policy(scope="local").masks(model, 0.96)


def test_what_is_added_to_other_layers_stays_and_so_do_outputs():
    model = randomise(residual_net())
    assert list(policy().score(model)) == ["conv3/kernel"]
    scores = policy().score(models.ResNet20())
    assert len(scores) == 9 and all("conv1" in name for name in scores)
    assert len(policy().score(models.MobileNet())) == 14
    assert len(policy().score(models.build("vgg13_bn_last", (32, 32, 3), 10))) == 10


def test_a_network_without_such_filters_is_refused():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    with pytest.raises(ValueError, match="no filter that may be pruned"):
        policy().score(model)


def test_iterated_pruning_goes_on_from_what_is_left():
    model = randomise(chain())
    once = policy(iterations=4).masks(model, 3)
    assert (
        sum(once[n].reshape(-1, once[n].shape[-1]).any(0).sum() for n in list(once)[:3])
        == 5
    )
    half = tf_synflow.prune(model, 1.5, policy=policy())
    then = policy().masks(half, 3)
    before = tf_synflow.get_masks(half)
    assert not any((then[name] & ~before[name]).any() for name in then)
    with pytest.raises(ValueError, match="has only 10 left"):
        policy().masks(half, 1.2)


@pytest.mark.parametrize("criterion", ["synflow", "snip", lambda model, data: {}])
def test_criteria_without_a_form_for_filters_are_refused(criterion):
    with pytest.raises(ValueError, match="has no form for filters; those that have"):
        policy(criterion)


@pytest.mark.parametrize("rounds", [1, 2, 5])
@pytest.mark.parametrize("ratio", [0.5, 4])
def test_rounds_remove_the_shares_of_the_paper(rounds, ratio):
    model = randomise(chain())
    counts = []

    def train(network):
        assert not any("mask" in variable.name for variable in network.weights)
        widths = [network.get_layer(n).get_config() for n in "abc"]
        counts.append([c.get("filters", c.get("units")) for c in widths])
        for variable in network.trainable_variables:
            variable.assign_add(tf.ones_like(variable))

    small, masks = in_rounds(model, ratio, train, rounds, policy(), None)
    train(small)
    # p_k of what is left, with whole filters: never off by a filter.
    p = Fraction(ratio) if ratio < 1 else 1 - 1 / Fraction(ratio)
    left = Fraction(15)
    for k, count in enumerate(counts):
        assert 0 <= sum(count) - left < 1
        left *= 1 - p / ((k + 1) * p + rounds * (1 - p))
    assert len(counts) == rounds + 1 and sum(counts[0]) == 15
    # The masks are those of the model that was given, and the weights went on.
    widths = [
        masks[f"{n}/kernel"].reshape(-1, w).any(0).sum()
        for n, w in zip("abc", (5, 4, 6), strict=True)
    ]
    assert widths == counts[-1]
    whole = kernels(model)
    found = kernels(small)
    for name, mask in masks.items():
        np.testing.assert_allclose(
            np.sort(found[name].ravel()),
            np.sort(whole[name][mask] + rounds + 1),
            rtol=1e-5,
        )


def wide_chain():
    """Layers of 40 and 100 filters, of which 2 and 5 stay at least, and the outputs."""
    return keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(40, name="a"),
            layers.Dense(100, name="b"),
            layers.Dense(2, name="logits"),
        ]
    )


@pytest.mark.parametrize(
    ("scope", "highest"),
    # Together: 140 / r > 6. Each by itself: 100 / r > 4 holds below 25, 40 / r > 1 too.
    [("global", 23.333333), ("local", 24.999999)],
)
def test_the_highest_ratio_of_filters_is_so(scope, highest):
    model, own = wide_chain(), policy(scope=scope)
    with pytest.raises(ValueError, match=f"highest ratio is {highest} "):
        own.masks(model, 60)
    masks = own.masks(model, highest)
    left = [masks[f"{name}/kernel"].any(0).sum() for name in "ab"]
    assert left == [2, 5]
    with pytest.raises(ValueError, match="highest ratio is"):
        own.masks(model, round(highest + 1e-6, 6))


def test_the_lowest_ratio_of_filters_is_enough_for_every_layer():
    """a has 20 of 40 filters left, b 25 of 100: it takes 4."""
    model = wide_chain()
    masks = tf_synflow.PruningPolicy("magnitude").masks(model, 1)
    masks["a/kernel"][:, 20:] = False
    masks["b/kernel"][:, 25:] = False
    pruned = tf_synflow.apply_masks(model, masks)
    for scope, lowest in (("local", "4.0"), ("global", "3.111112")):
        with pytest.raises(ValueError, match=f"a ratio of at least {lowest}$"):
            policy(scope=scope).masks(pruned, 1.5)
        policy(scope=scope).masks(pruned, float(lowest))


def test_rounds_refuse_what_they_cannot_do():
    model = randomise(chain())
    cases = [
        (dict(train=None), TypeError, "train must be a function"),
        (dict(rounds=0), ValueError, "rounds must be at least 1, got 0"),
        (dict(rounds=1.5), TypeError, "rounds must be a whole number, got 1.5"),
        (dict(policy=3), TypeError, "must be a tf_synflow.PruningPolicy"),
        (dict(policy=tf_synflow.PruningPolicy("magnitude")), ValueError, "wants gran"),
        (dict(ratio=200), ValueError, "3 stay at least"),
        (
            dict(model=tf_synflow.prune(model, 2, iterations=2)),
            ValueError,
            "by weights",
        ),
    ]
    for change, error, message in cases:
        given = {"model": model, "ratio": 2, "train": pytest.fail, **change}
        with pytest.raises(error, match=message):
            tf_synflow.prune_filters(**given)
    with pytest.raises(ValueError, match="there is prune_filters"):
        tf_synflow.prune_with_rewinding(model, 2, print, 1, policy=policy())


def test_filters_go_through_operators_and_those_of_a_gate_stay():
    """A hard swish, x times an operator of x, has one maker; a gate has another."""
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(5, 3, use_bias=False, name="a")(inputs)
    x = x * tf.nn.relu6(x + 3.0) / 6
    x = layers.Conv2D(4, 1, activation="relu", name="b")(x)
    y = layers.GlobalAveragePooling2D(keepdims=True)(x)
    y = layers.Conv2D(3, 1, activation="relu", name="squeeze")(y)
    x = x * layers.Conv2D(4, 1, activation="sigmoid", name="gate")(y)
    x = layers.Dense(3, name="logits")(layers.Flatten()(x))
    model = randomise(keras.Model(inputs, x))
    own = policy()
    scores = own.score(model)
    assert {name: s.size for name, s in scores.items()} == {
        "a/kernel": 5,
        "squeeze/kernel": 3,
    }
    masks = own.masks(model, 2)
    kept = [masks[f"{n}/kernel"].any((0, 1, 2)) for n in ("a", "squeeze")]
    assert sum(flags.sum() for flags in kept) == 4
    # With a filter goes what reads it, behind the operators too.
    wanted = np.broadcast_to(kept[0][:, None], (5, 4))
    np.testing.assert_array_equal(masks["b/kernel"][0, 0], wanted)
    small = tf_synflow.shrink(tf_synflow.apply_masks(model, masks))
    left = {n: m.shape[-1] for n, m in tf_synflow.get_masks(small).items()}
    assert (left["a/kernel"], left["squeeze/kernel"]) == tuple(f.sum() for f in kept)
