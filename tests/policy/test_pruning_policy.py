import os
import re
import subprocess
import sys

import numpy as np
import pytest
from nets import layers, randomise, residual_net

import tf_synflow
from tf_synflow.keras2.imports import keras, tfmot
from tf_synflow.masks.counts import kept_count
from tf_synflow.policy.collapse import notice


def policy(**settings):
    return tf_synflow.PruningPolicy(**{"iterations": 3, **settings})


def count(masks):
    return sum(int(mask.sum()) for mask in masks.values())


SIZE = 2 * 27 + 9 + 48 + 64  # conv1 3x3x2x3, conv2 1x1x3x3, conv3 2x2x3x4, fc 16x4


@pytest.mark.parametrize("criterion", ["synflow", "magnitude", "random"])
@pytest.mark.parametrize("scope", ["global", "local"])
@pytest.mark.parametrize("schedule", ["exponential", "linear"])
@pytest.mark.parametrize("ratio", [1, 0, 1.5, 0.3, 4, 0.75, 12.5])
def test_counts_are_exact_for_every_setting(criterion, scope, schedule, ratio):
    model = randomise(residual_net())
    settings = {"criterion": criterion, "scope": scope, "schedule": schedule}
    masks = policy(**settings).masks(model, ratio)
    if scope == "global":
        assert count(masks) == kept_count(SIZE, ratio)
    for mask in masks.values():
        assert mask.dtype == bool
        if scope == "local":
            assert mask.sum() == kept_count(mask.size, ratio)


def test_ratio_and_fraction_are_one_request():
    model = randomise(residual_net())
    a, b = policy().masks(model, 25), policy().masks(model, 0.96)
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_magnitude_keeps_the_largest():
    model = randomise(residual_net())
    masks = policy(criterion="magnitude", iterations=1).masks(model, 4)
    weights = [model.get_layer(n.split("/")[0]).kernel.numpy() for n in masks]
    flat = np.abs(np.concatenate([w.ravel() for w in weights]))
    kept = np.concatenate([mask.ravel() for mask in masks.values()])
    assert flat[kept].min() > flat[~kept].max()


def test_random_is_repeatable_by_seed_and_survivors_keep_their_scores():
    model = residual_net()
    once = policy(criterion="random", iterations=1, seed=3).masks(model, 8)
    often = policy(criterion="random", iterations=9, seed=3).masks(model, 8)
    other = policy(criterion="random", seed=4).masks(model, 8)
    assert all(np.array_equal(once[n], often[n]) for n in once)
    assert any((once[n] != other[n]).any() for n in once)


def test_default_iterations_are_the_criterions_own():
    assert tf_synflow.PruningPolicy().iterations == 100
    assert tf_synflow.PruningPolicy(criterion="magnitude").iterations == 1


def test_exclude_and_layer_types_leave_weights_out_of_the_count():
    model = randomise(residual_net())
    masks = policy(exclude=["fc"]).masks(model, 4)
    assert list(masks) == ["conv1/kernel", "conv2/kernel", "conv3/kernel"]
    assert count(masks) == kept_count(SIZE - 64, 4)
    masks = policy(layer_types=[layers.Dense]).masks(model, 4)
    assert list(masks) == ["fc/kernel"]


def test_a_pruned_model_goes_on_from_its_masks():
    model = randomise(residual_net())
    first = tf_synflow.prune(model, 2, iterations=3)
    before = tf_synflow.get_masks(first)
    after = policy().masks(first, 8)
    assert count(after) == kept_count(SIZE, 8)
    assert all((after[name] <= before[name]).all() for name in before)
    same = policy().masks(first, 2)
    assert all(np.array_equal(same[name], before[name]) for name in before)


@pytest.mark.parametrize("invert", [False, True])
def test_no_flow_from_the_start_is_said_and_counts_are_still_exact(invert):
    model = randomise(residual_net())
    model.get_layer("fc").kernel.assign(np.zeros((16, 4)))
    own = policy(invert=invert)
    why = "flow is 0 before .* by their position .* values of fc/kernel are all 0: give"
    with pytest.warns(UserWarning, match=why):
        scores = own.score(model)
    assert all((score == 0).all() for score in scores.values())
    with pytest.warns(UserWarning, match=why) as caught:
        assert count(own.masks(model, 4)) == kept_count(SIZE, 4)
    assert len([w for w in caught if "flow is 0" in str(w.message)]) == 1
    said = [str(w.message) for w in caught]
    (message,) = (text for text in said if text.startswith("pruning has left"))
    assert "values of fc/kernel were all 0 before pruning" in message
    assert ('criterion="synflow"' in message) == invert


def test_no_flow_for_other_reasons():
    model = randomise(residual_net())
    model.get_layer("bn").gamma.assign(np.zeros(3))
    with pytest.warns(UserWarning, match="The values of bn/gamma are all 0"):
        policy().score(model)
    masks = policy().masks(randomise(residual_net()), 1)
    masks["conv3/kernel"][:] = False
    pruned = tf_synflow.apply_masks(residual_net(), masks)
    with pytest.warns(UserWarning, match="Nothing is kept of conv3/kernel: prune the"):
        policy().score(pruned)
    model = keras.Sequential([layers.Dense(2, input_shape=(2,)), layers.Dense(1)])
    model.layers[0].kernel.assign([[1, 0], [1, 0]])
    model.layers[1].kernel.assign([[0], [1]])
    with pytest.warns(UserWarning, match="Look for units whose weights are all 0"):
        policy().score(model)


def test_a_head_of_zeros_among_others_is_said_to_be_why_it_is_cut():
    inputs = keras.Input((4,))
    heads = [layers.Dense(3, name=name)(inputs) for name in "ab"]
    model = randomise(keras.Model(inputs, heads))
    model.get_layer("b").kernel.assign(np.zeros((4, 3)))
    why = "to one of the outputs, .* values of b/kernel were all 0 before pruning"
    with pytest.warns(tf_synflow.LayerCollapseWarning, match=why):
        policy().masks(model, 2)


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"iterations": 1}, r"lower ratio, or more iterations \(SynFlow's own are 100"),
        ({"iterations": 100}, "take a lower ratio$"),
        ({"iterations": 100, "scope": "local"}, 'ratio, or scope="global"$'),
        ({"criterion": "magnitude"}, 'ratio, or criterion="synflow", which keeps'),
        ({"invert": True}, 'criterion="synflow" without invert, which keeps a path'),
    ],
)
def test_advice_after_a_collapse_is_no_advice_to_do_what_was_done(settings, advice):
    model = randomise(residual_net())
    masks = policy(criterion="magnitude").masks(model, 1)
    after = {**masks, "fc/kernel": np.zeros((16, 4), bool)}
    task = policy(**settings).prepare(model)
    with pytest.warns(tf_synflow.LayerCollapseWarning, match=advice):
        notice(task.problem, masks, after, "warn", task._advice())


def nested():
    base = keras.Sequential(
        [layers.Dense(4, name="a", input_shape=(3,)), layers.Dense(4, name="b")],
        name="base",
    )
    inputs = keras.Input((3,))
    x = layers.Dense(4, name="a")(base(inputs))
    x = layers.Dense(4, name="base_a")(x)
    return randomise(keras.Model(inputs, layers.Dense(2, name="head")(x)))


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        (["base"], ["a", "base_a", "head"]),
        (["base/*"], ["a", "base_a", "head"]),
        (["bas?"], ["a", "base_a", "head"]),
        (["base/a"], ["base/b", "a", "base_a", "head"]),
        (["a"], ["base/a", "base/b", "base_a", "head"]),
        (["*a"], ["base/b", "head"]),
        (["base", "h*", "base/b"], ["a", "base_a"]),
        (["[ab]"], ["base/a", "base/b", "base_a", "head"]),
    ],
)
def test_exclude_takes_nested_models_and_patterns(exclude, left):
    model, own = nested(), policy(exclude=exclude)
    assert list(own.masks(model, 2)) == [f"{name}/kernel" for name in left]
    wrapped = tfmot.sparsity.keras.prune_low_magnitude(model, pruning_policy=own)
    assert list(tf_synflow.get_masks(wrapped)) == [f"{name}/kernel" for name in left]


def test_exclude_names_all_that_is_not_there():
    message = "exclude names 'bases', 'c/\\*', but the model has no such layer; it has"
    with pytest.raises(ValueError, match=message):
        policy(exclude=["bases", "a", "c/*"]).masks(nested(), 2)


def test_conservation_on_vgg16():
    """Theorems 1, 2: a layer's scores add up to R; units pass on what they get."""
    model = tf_synflow.models.VGG16(classes=100)
    scores = tf_synflow.PruningPolicy().score(model)
    assert len(scores) == 14
    totals = np.array([score.sum() for score in scores.values()])
    np.testing.assert_allclose(totals, totals[0], rtol=1e-12)
    *convolutions, dense = scores.values()
    incoming = [score.sum((0, 1, 2)) for score in convolutions]
    outgoing = [score.sum((0, 1, 3)) for score in convolutions[1:]] + [dense.sum(1)]
    for into, out in zip(incoming, outgoing, strict=True):
        np.testing.assert_allclose(into, out, rtol=1e-9)


def test_conservation_across_a_residual_add():
    """The totals of the branches add up to that of the cut."""
    scores = policy().score(randomise(residual_net()))
    totals = {name.split("/")[0]: score.sum() for name, score in scores.items()}
    np.testing.assert_allclose(totals["conv1"], totals["conv3"], rtol=1e-12)
    np.testing.assert_allclose(totals["fc"], totals["conv3"], rtol=1e-12)
    assert 0 < totals["conv2"] < totals["conv1"]


TO_A_FILE = """
import sys, tf_keras, tf_synflow
tf_keras.utils.set_random_seed(5)
model = tf_synflow.models.VGG11()
pruned = tf_synflow.prune(model, ratio=100, iterations=8)
tf_synflow.save_masks(sys.argv[1], tf_synflow.get_masks(pruned))
"""


def test_two_processes_give_byte_identical_masks(tmp_path, monkeypatch):
    """This process and another one, in which sets and hashes have another order."""
    files = [tmp_path / "a.npz", tmp_path / "b.npz"]
    other = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    environment = {"TF_USE_LEGACY_KERAS": "1", "PYTHONHASHSEED": other}
    subprocess.run(
        [sys.executable, "-c", TO_A_FILE, files[0]],
        check=True,
        env={**os.environ, **environment},
    )
    monkeypatch.setattr(sys, "argv", ["-c", str(files[1])])
    exec(TO_A_FILE, {})
    assert files[0].read_bytes() == files[1].read_bytes()


def test_it_is_a_policy_for_tfmot():
    own = policy(exclude=["conv2"])
    assert isinstance(own, tfmot.sparsity.keras.PruningPolicy)
    wrapped = tfmot.sparsity.keras.prune_low_magnitude(
        residual_net(), pruning_policy=own
    )
    assert list(tf_synflow.get_masks(wrapped)) == [
        "conv1/kernel",
        "conv3/kernel",
        "fc/kernel",
    ]


def test_prune_takes_a_policy_or_its_settings():
    model = randomise(residual_net())
    by_policy = tf_synflow.prune(model, 4, policy=policy(scope="local"))
    by_settings = tf_synflow.prune(model, 4, iterations=3, scope="local")
    a, b = tf_synflow.get_masks(by_policy), tf_synflow.get_masks(by_settings)
    assert all(np.array_equal(a[name], b[name]) for name in a)


def local_on_global(model):
    """Of conv1, a global ranking has left less than a local one asks for."""
    model = tf_synflow.strip(model)  # a copy
    conv1 = model.get_layer("conv1").kernel
    conv1.assign(conv1 * 1e-3)
    settings = {"criterion": "magnitude", "iterations": 1}
    return policy(**settings, scope="local").masks(
        tf_synflow.prune(model, 4, **settings), 5
    )


def bad_variance(model):
    model = keras.models.clone_model(model)
    model.get_layer("bn").moving_variance.assign([1, np.nan, 1])
    return model


def without_weights():
    return keras.Sequential([layers.Input((3,)), layers.ReLU()])


def not_finite():
    model = residual_net()
    model.get_layer("fc").bias.assign([0, 0, 0, np.nan])  # a bias does not matter
    model.get_layer("fc").kernel.assign(np.full((16, 4), np.inf))
    return model


BAD = [
    (lambda m: policy().masks(m, float("nan")), ValueError, "finite and not negative"),
    (lambda m: policy().masks(m, -3), ValueError, "got -3"),
    (lambda m: policy().masks(m, float("inf")), ValueError, "got inf"),
    (
        lambda m: policy().masks(m, "ten"),
        TypeError,
        "ratio must be a number, got 'ten'",
    ),
    (lambda m: policy().masks(m, 100), ValueError, "weight in each is 58.333333 "),
    (
        lambda m: policy(criterion="snipe"),
        ValueError,
        "unknown criterion 'snipe'; there",
    ),
    (lambda m: policy(schedule="cubic"), ValueError, "'exponential', 'linear'"),
    (lambda m: policy(scope="layer"), ValueError, "'global', 'local'"),
    (lambda m: policy(iterations=0), ValueError, "at least 1, got 0"),
    (lambda m: policy(iterations=2.5), TypeError, "whole number, got 2.5"),
    (lambda m: policy(exclude="fc"), TypeError, r"write exclude=\['fc'\]"),
    (
        lambda m: policy(exclude=["fcc"]).masks(m, 2),
        ValueError,
        "no such layer; it has",
    ),
    (
        lambda m: policy().masks(tf_synflow.prune(m, 4, iterations=2), 2),
        ValueError,
        "ask for a ratio of at least 3.97",
    ),
    (lambda m: local_on_global(m), ValueError, "weight 'conv1/kernel' is pruned to"),
    (lambda m: policy(layer_types="Dense"), TypeError, "layer classes, got 'D'"),
    (lambda m: policy(dtype="float16"), ValueError, "unknown dtype 'float16'"),
    (lambda m: policy().masks(bad_variance(m), 2), ValueError, "flow is nan: a Batch"),
    (
        lambda m: policy().masks(without_weights(), 2),
        ValueError,
        "no weight that may be",
    ),
    (lambda m: policy().masks(not_finite(), 2), ValueError, "'fc/kernel' holds NaN or"),
    (
        lambda m: tf_synflow.prune(m, 2, policy=policy(), scope="local"),
        TypeError,
        "scope",
    ),
    (
        lambda m: tf_synflow.prune(m, 2, policy="snip"),
        TypeError,
        "must be a tf_synflow.P",
    ),
    (lambda m: tf_synflow.prune(m, 2, criteria="snip"), TypeError, "criteria"),
]


@pytest.mark.parametrize(("use", "kind", "message"), BAD)
def test_bad_input_is_refused_and_changes_nothing(use, kind, message):
    model = residual_net()
    before = [w.copy() for w in model.get_weights()]
    with pytest.raises(kind, match=message):
        use(model)
    for a, b in zip(before, model.get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()


def number_in(error):
    return float(re.search(r"(?:each is|at least) ([0-9.]+)", str(error.value))[1])


def test_the_ratios_named_in_errors_work():
    model = randomise(residual_net())
    with pytest.raises(ValueError, match="the highest ratio that can") as error:
        policy().masks(model, 100)
    assert count(policy().masks(model, number_in(error))) == 4
    pruned = tf_synflow.prune(model, 7, iterations=2)
    now = count(tf_synflow.get_masks(pruned))
    with pytest.raises(ValueError, match="or ask for a ratio of at least") as error:
        policy().masks(pruned, 6.5)
    assert count(policy().masks(pruned, number_in(error))) == now


def test_repr_is_the_call_that_makes_it():
    assert repr(policy()).startswith(
        "PruningPolicy(criterion='synflow', iterations=3, schedule='exponential'"
    )
