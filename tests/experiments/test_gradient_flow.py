"""What pruning does to training: measured values against values computed otherwise."""

import csv
import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from nets import randomise
from programs import answers

import tf_synflow
from tf_synflow import models
from tf_synflow.experiments.data import Dataset
from tf_synflow.experiments.gradient_flow.bench import Bench, Training
from tf_synflow.experiments.gradient_flow.figure import mean_correlations
from tf_synflow.experiments.gradient_flow.identities import identities
from tf_synflow.experiments.gradient_flow.measure import Plan, measure, ranks
from tf_synflow.frameworks import read
from tf_synflow.keras2.imports import keras

TRAINING = Training(
    batch_size=10, learning_rate=0.1, weight_decay=1e-4, temperature=5.0
)


def data(size=6, count=40):
    generator = np.random.default_rng(0)
    x = generator.random((count, size, size, 3), "float32")
    y = generator.integers(0, 4, count)
    return Dataset((x, y), (x[:8], y[:8]), classes=4)


def net():
    layers = keras.layers
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, use_bias=False, name="a")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="bn")(x))
    x = layers.Conv2D(5, 3, use_bias=False, name="b")(x)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return keras.Model(inputs, layers.Dense(4, name="fc")(x))


def test_both_equations_hold_along_a_smooth_flow_and_kinks_break_the_second():
    rows = identities(data(8), images=20, times=3)
    assert [row["network"] for row in rows] == ["smooth"] * 3 + ["kinked"] * 3
    largest = {
        key: max(abs(row[key]) for row in rows if row["network"] == "smooth")
        for key in ("first", "second")
    }
    for row in rows[:3]:
        for key, size in largest.items():
            assert abs(row[key] - row[f"{key}_formula"]) < 1e-6 * size
    for row in rows[3:]:
        assert row["first"] == pytest.approx(row["first_formula"], rel=0.05)
    # Not the same number in another guise: both change along the flow.
    assert len({round(row["second"], 6) for row in rows}) == 6
    assert rows[2]["loss"] < rows[0]["loss"]


def test_loss_gradient_and_training_are_those_of_keras_with_masks():
    """A pruned model trained by Keras's own loop, and derivatives by its own tape."""
    training = dataclasses.replace(TRAINING, weight_decay=0.01, seed=2)
    model, twin = randomise(net()), net()
    twin.set_weights(model.get_weights())
    bench = Bench(model, data(), 16, training)
    masks = tf_synflow.PruningPolicy("magnitude").masks(twin, 0.6)
    bench.prune(masks)
    pruned = tf_synflow.apply_masks(twin, masks)
    x, y = bench.sample
    for temperature, loss, gradient in (
        (5.0, bench.measure().loss, bench.measure().gradient),
        (1.0, bench.measure().loss_at_1, bench.measure().gradient_at_1),
    ):
        plain = tf_synflow.strip(pruned)
        with tf.GradientTape() as tape:
            logits = plain(x, training=False) / temperature
            chances = tf.nn.softmax(logits).numpy()
            wanted = -np.log(chances[np.arange(16), y]).mean()
            value = keras.losses.sparse_categorical_crossentropy(y, logits, True)
            value = tf.reduce_mean(value)
        names = {id(v): n for n, v in read(plain).weights.items()}
        squares = [
            (g.numpy() * masks.get(names[id(v)], 1)) ** 2
            for g, v in zip(
                tape.gradient(value, plain.trainable_variables),
                plain.trainable_variables,
                strict=True,
            )
        ]
        assert loss == pytest.approx(wanted, rel=1e-5)
        assert gradient == pytest.approx(sum(s.sum() for s in squares), rel=1e-4)
    losses = bench.train(3, 2)
    compiled = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    pruned.compile(
        tf_synflow.optimizers.SGD(0.1, nesterov=False, l2=0.01),
        lambda y, z: compiled(y, z / 5),
    )
    history = pruned.fit(
        data().training(10, 2, 3),
        steps_per_epoch=4,
        epochs=2,
        verbose=0,
        callbacks=[tf_synflow.PruningCallback()],
    )
    np.testing.assert_allclose(losses, history.history["loss"], rtol=1e-4)
    found = read(tf_synflow.strip(pruned)).weights
    for name, variable in bench.network.weights.items():
        np.testing.assert_allclose(variable, found[name], rtol=1e-3, atol=1e-5)
    assert all((bench.kernels()[n][~mask] == 0).all() for n, mask in masks.items())


def test_training_again_from_the_same_weights_is_the_same():
    bench = Bench(randomise(net()), data(), 16, TRAINING)
    start = bench.weights()
    first = bench.train(0, 2)
    bench.restore(start)
    assert bench.train(0, 2) == first


def test_calibrated_statistics_are_those_of_the_sample():
    bench = Bench(randomise(net()), data(), 16, TRAINING)
    bench.calibrate()
    weights = {n: v.numpy() for n, v in bench.network.weights.items()}
    x = tf.nn.conv2d(bench.sample[0], weights["a/kernel"], 1, "VALID").numpy()
    np.testing.assert_allclose(weights["bn/moving_mean"], x.mean((0, 1, 2)), rtol=1e-4)
    variance = x.var((0, 1, 2))
    np.testing.assert_allclose(weights["bn/moving_variance"], variance, rtol=0.02)
    assert bench.network.layers()["bn"].layer.momentum == 0.99


@pytest.mark.parametrize("granularity", ["weight", "filter"])
def test_the_tables_hold_what_the_policies_prune(granularity, monkeypatch):
    monkeypatch.setitem(models.MODELS, "net", lambda **_: net())
    criteria = ("magnitude", "loss_preservation", "grasp_t1", "random")
    plan = Plan(
        model="net",
        criteria=criteria,
        epochs=(0, 1),
        ratios=(0.5,),
        seeds=(0, 1),
        images=12,
        after=1,
        granularity=granularity,
        training=TRAINING,
    )
    units = []
    tables = measure(plan, data(), lambda work: (units.append(u) or u for u in work))
    assert len(units) == plan.units() == 2 * 2 * 5
    assert len(tables.prunings) == 20
    dense = [row for row in tables.prunings if row["criterion"] == "dense"]
    assert all(row["loss_after"] == row["loss_before"] for row in dense)
    # At epoch 0 of seed 0, by the library's own policies.
    keras.utils.set_random_seed(0)
    bench = Bench(net(), data(), 12, TRAINING)
    bench.calibrate()
    for criterion in criteria:
        policy = plan.policy(criterion, 0)
        masks = policy.masks(bench.network.model, 0.5, bench.sample)
        wanted = {name: int(mask.sum()) for name, mask in masks.items()}
        found = {
            row["layer"]: row["kept"]
            for row in tables.layers
            if (row["seed"], row["epoch"], row["criterion"]) == (0, 0, criterion)
        }
        assert found == wanted
    means = mean_correlations(tables.correlations)
    assert means["magnitude", "random"] == means["random", "magnitude"]
    pairs = {(row["one"], row["other"]) for row in tables.correlations}
    assert len(pairs) == 10 + 5  # five of epoch 0, and "moved before" with them later


def test_ranks_of_equal_values_are_shared():
    np.testing.assert_array_equal(ranks(np.array([3.0, 1, 3, 2])), [3.5, 1, 3.5, 2])


PLAN = Plan(
    model="resnet8",
    criteria=("magnitude",),
    epochs=(0, 1),
    ratios=(0.5,),
    seeds=(0,),
    images=8,
    after=1,
    granularity="weight",
    training=TRAINING,
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(epochs=(5, 1)), "epochs must be whole numbers from 0 on, rising"),
        (dict(epochs=()), "epochs must list at least one value"),
        (dict(criteria=()), "criteria must list at least one value"),
        (dict(seeds=(1, 1)), r"none of them twice, got \(1, 1\)"),
        (dict(criteria=("snip_t1",)), "only grasp_t1 has T = 1"),
        (dict(ratios=(0.5, 2)), "shares to remove within 0 and 1"),
        (dict(criteria=("none",)), "unknown criterion 'none'"),
        (dict(granularity="filter", criteria=("snip",)), "has no form for filters"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PLAN, **change)


def test_the_program_writes_tables_and_pictures(tmp_path):
    output = tmp_path / "out"
    words = ["--epochs=0,1", "--ratios=0.5,0.8", "--seeds=0", "--after=1", "--images=8"]
    words += ["--criteria=magnitude,random", "--train_images=16", "--image_size=8"]
    ((said, error),) = answers([["gradient_flow", *words, f"--output={output}"]])
    assert error.endswith("exit 0\n"), error
    assert "magnitude, 1, 80%:" in said and "smooth network:" in said
    for name, count in (("prunings", 10), ("correlations", 9), ("equations", 20)):
        with open(f"{output}_{name}.csv", newline="") as file:
            assert len(list(csv.DictReader(file))) == count
    assert output.with_suffix(".png").stat().st_size > 50_000
    assert output.with_suffix(".svg").is_file()
