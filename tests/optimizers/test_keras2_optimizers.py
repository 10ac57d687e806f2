"""GRDA against its equations in plain numpy."""

import numpy as np
import pytest
import tensorflow as tf
from nets import images, layers, randomise, residual_net

import tf_synflow
from tf_synflow.keras2.imports import keras
from tf_synflow.optimizers import GRDA, GaripovDecay


def in_numpy(w, gradients, rates, c, mu):
    """All w_n, from the equations."""
    threshold, v, found = 0.0, w.copy(), []
    for n, (g, lr) in enumerate(zip(gradients, rates, strict=True), 1):
        threshold += c * lr ** (mu + 0.5) * (n**mu - (n - 1) ** mu)
        v = v - lr * g
        found.append(np.sign(v) * np.maximum(np.abs(v) - threshold, 0))
    return found


def steps(optimizer, start, gradients, changes=()):
    variable = tf.Variable(start)
    found = []
    for number, gradient in enumerate(gradients):
        if number in changes:
            optimizer.learning_rate = changes[number]
        optimizer.apply_gradients([(tf.constant(gradient), variable)])
        found.append(variable.numpy())
    return found


def trial(seed=0, count=200, dtype="float64"):
    generator = np.random.default_rng(seed)
    start = generator.standard_normal((7, 5)).astype(dtype)
    return start, generator.standard_normal((count, 7, 5)).astype(dtype)


@pytest.mark.parametrize("mu", [0.4, 0.501, 0.51, 0.75, 0.99])
@pytest.mark.parametrize("c", [0.0, 0.005, 0.1])
def test_two_hundred_steps_with_a_drop_of_the_learning_rate(mu, c):
    start, gradients = trial()
    found = steps(GRDA(0.1, c=c, mu=mu), start, gradients, {100: 0.01})
    expected = in_numpy(start, gradients, [0.1] * 100 + [0.01] * 100, c, mu)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
    if c == 0.1:
        assert 0 < np.count_nonzero(found[-1] == 0) < start.size
        np.testing.assert_array_equal(found[-1] == 0, expected[-1] == 0)


def garipov(rate, epochs, steps):
    """The learning rate at each step, as a function of the epoch from 1 on."""
    found = []
    for epoch in range(1, epochs + 1):
        done = epoch / epochs
        if done <= 0.5:
            factor = 1.0
        elif done <= 0.9:
            factor = 1.0 - (done - 0.5) / 0.4 * 0.99
        else:
            factor = 0.01
        found += [rate * factor] * steps
    return found


def test_four_hundred_steps_of_the_papers_smallest_mu_at_the_papers_learning_rate():
    """mu = 0.4 with the learning rate of Garipov et al., 40 epochs of 10 steps."""
    start, gradients = trial(count=400)
    for c, zero in ((0.0, False), (0.02, True)):
        optimizer = GRDA(GaripovDecay(0.1, epochs=40, steps=10), c=c, mu=0.4)
        found = steps(optimizer, start, gradients)
        expected = in_numpy(start, gradients, garipov(0.1, 40, 10), c, 0.4)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
        zeros = [w == 0 for w in found], [w == 0 for w in expected]
        np.testing.assert_array_equal(*zeros)
        assert np.any(zeros[1]) == zero


@pytest.mark.parametrize(("epochs", "steps"), [(1, 3), (2, 1), (7, 4), (10, 2)])
def test_the_learning_rate_of_garipov_at_every_step(epochs, steps):
    schedule = GaripovDecay(0.1, epochs, steps)
    found = [float(schedule(tf.constant(n, tf.int64))) for n in range(epochs * steps)]
    np.testing.assert_allclose(found, garipov(0.1, epochs, steps), rtol=1e-15)
    again = keras.optimizers.schedules.deserialize(
        keras.optimizers.schedules.serialize(schedule)
    )
    assert again.get_config() == schedule.get_config()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ((-1, 2, 3), ValueError, "learning_rate must be finite and not negative"),
        ((0.1, 0, 3), ValueError, "epochs must be at least 1, got 0"),
        ((0.1, 2, 1.5), TypeError, "steps must be a whole number, got 1.5"),
    ],
)
def test_a_bad_learning_rate_of_garipov_is_refused(settings, error, message):
    with pytest.raises(error, match=message):
        GaripovDecay(*settings)


def test_a_schedule_counts_the_steps():
    start, gradients = trial()
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([99], [0.125, 0.0625])
    found = steps(GRDA(schedule, c=0.1, mu=0.6), start, gradients)
    rates = [0.125] * 100 + [0.0625] * 100
    expected = in_numpy(start, gradients, rates, 0.1, 0.6)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


def test_the_threshold_is_exact_after_a_million_steps_in_float32():
    optimizer = GRDA(0.1, c=1e-3, mu=0.51)
    variable = tf.Variable(np.float32([5.0]))
    optimizer.build([variable])
    n = 1_000_000
    optimizer.iterations.assign(n - 1)
    optimizer._duals[0].assign([5.0])
    optimizer._thresholds[0].assign(1e-3 * 0.1**1.01 * (n - 1) ** 0.51)
    optimizer.apply_gradients([(tf.zeros(1), variable)])
    level = float(optimizer._thresholds[0])
    assert abs(level - 1e-3 * 0.1**1.01 * n**0.51) < 1e-15


@pytest.mark.parametrize("jit", [False, True])
def test_a_traced_step_is_the_same(jit):
    start, gradients = trial(count=20)
    optimizer, variable = GRDA(0.1, c=0.1, mu=0.7), tf.Variable(start)
    optimizer.build([variable])

    @tf.function(jit_compile=jit)
    def step(gradient):
        optimizer.apply_gradients([(gradient, variable)])

    for gradient in gradients:
        step(tf.constant(gradient))
    expected = in_numpy(start, gradients, [0.1] * 20, 0.1, 0.7)[-1]
    np.testing.assert_allclose(variable.numpy(), expected, rtol=0, atol=1e-10)


def compiled(model, **settings):
    settings = {"learning_rate": 0.1, "c": 0.05, "mu": 0.7, **settings}
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(GRDA(**settings), loss)
    return model


def in_float64():
    inputs = keras.Input((4, 4, 2), dtype="float64")
    x = layers.Conv2D(3, 3, activation="relu", dtype="float64", name="conv")(inputs)
    x = layers.Flatten()(x)
    return keras.Model(inputs, layers.Dense(4, dtype="float64", name="fc")(x))


def test_two_replicas_are_one(two_devices):
    one = compiled(in_float64())
    with two_devices.scope():
        two = compiled(in_float64())
    two.set_weights(one.get_weights())
    x, y = images(one, 64)
    for model in (one, two):
        model.fit(x, y, batch_size=16, epochs=10, shuffle=False, verbose=0)
    zeros = 0
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(a == 0, b == 0)
        zeros += np.count_nonzero(a == 0)
    assert zeros > 10


def halves(model, path, load):
    """Trains 100 steps, saves, loads, and trains 100 more."""
    x, y = images(model, 800)
    first, second = (x[:400], y[:400]), (x[400:], y[400:])
    settings = {"batch_size": 4, "shuffle": False, "verbose": 0}
    model.fit(*first, **settings)
    resumed = load(model, path)
    assert int(resumed.optimizer.iterations) == 100
    resumed.fit(*second, **settings)
    model.fit(*second, **settings)
    return model, resumed


def from_file(ending):
    def load(model, path):
        model.save(path / f"model{ending}")
        return keras.models.load_model(path / f"model{ending}")

    return load


def from_checkpoint(model, path):
    tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(path / "ckpt")
    new = compiled(residual_net(), learning_rate=model.optimizer._learning_rate)
    checkpoint = tf.train.Checkpoint(model=new, optimizer=new.optimizer)
    checkpoint.restore(tf.train.latest_checkpoint(path))
    return new


@pytest.mark.parametrize(
    "load", [from_file(".keras"), from_file(".h5"), from_checkpoint]
)
def test_saved_at_step_100_it_goes_on_with_the_same_weights(load, tmp_path):
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([150], [0.1, 0.01])
    model = compiled(residual_net(), learning_rate=schedule)
    undisturbed, resumed = halves(model, tmp_path, load)
    zeros = 0
    for a, b in zip(undisturbed.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
        zeros += np.count_nonzero(a == 0)
    assert zeros > 10
    assert resumed.optimizer.get_config()["mu"] == 0.7


def test_weights_loaded_after_it_was_built_are_where_it_starts():
    start, gradients = trial(count=5)
    optimizer, variable = GRDA(0.1, c=0.1, mu=0.6), tf.Variable(np.zeros_like(start))
    optimizer.build([variable])
    variable.assign(start)
    for gradient in gradients:
        optimizer.apply_gradients([(tf.constant(gradient), variable)])
    expected = in_numpy(start, gradients, [0.1] * 5, 0.1, 0.6)[-1]
    np.testing.assert_allclose(variable.numpy(), expected, rtol=0, atol=1e-12)


def test_pruned_weights_stay_pruned_beside_it():
    model = randomise(residual_net())
    pruned = compiled(tf_synflow.prune(model, 4, iterations=2))
    masks = tf_synflow.get_masks(pruned)
    callbacks = [tf_synflow.PruningCallback()]
    pruned.fit(*images(model, 64), epochs=2, verbose=0, callbacks=callbacks)
    stripped = tf_synflow.strip(pruned)
    for name, mask in masks.items():
        kernel = stripped.get_layer(name.split("/")[0]).kernel.numpy()
        assert (kernel[~mask] == 0).all()


def test_the_callback_counts_the_zeros_of_all_trainable_weights():
    model = compiled(residual_net())
    x, y = images(model, 64)
    callbacks = [tf_synflow.SparsityCallback()]
    fitted = model.fit(x, y, batch_size=2, epochs=3, verbose=0, callbacks=callbacks)
    history = fitted.history["sparsity"]
    flat = np.concatenate([v.numpy().ravel() for v in model.trainable_variables])
    assert history[-1] == (flat == 0).mean()
    assert 0 < history[0] < history[1] < history[2] < 1


def test_sparse_gradients_are_refused_by_name():
    model = keras.Sequential(
        [layers.Input((3,)), layers.Embedding(5, 2, name="words"), layers.Flatten()]
    )
    model.compile(GRDA(), "mse")
    with pytest.raises(ValueError, match=r"sparse gradient for 'words/embeddings:0'"):
        model.fit(np.ones((4, 3)), np.ones((4, 6)), verbose=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"c": -1e-9}, "c must be finite and not negative, got -1e-09"),
        ({"c": float("nan")}, "c must be finite"),
        ({"learning_rate": -0.1}, "learning_rate must be finite and not negative"),
        ({"learning_rate": float("nan")}, "learning_rate must be finite"),
        ({"mu": 0}, r"mu must be within \(0, 1\), got 0"),
        ({"mu": 1}, "got 1"),
        ({"mu": float("nan")}, "got nan"),
        ({"weight_decay": 1e-4}, "takes no weight_decay=0.0001"),
        ({"use_ema": True}, "takes no use_ema"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        GRDA(**settings)


def test_a_variable_whose_first_gradient_comes_late_starts_from_its_weights():
    first, late = tf.Variable([1.0, 2.0]), tf.Variable([3.0, 4.0])
    optimizer = GRDA(0.1, c=0.0)
    optimizer.build([first, late])
    optimizer.apply_gradients([(tf.ones(2), first)])
    optimizer.apply_gradients([(tf.ones(2), late)])
    np.testing.assert_allclose(late.numpy(), [2.9, 3.9], rtol=1e-6)


@pytest.mark.parametrize("options", [{"steps_per_execution": 4}, {"jit_compile": True}])
def test_it_trains_however_keras_runs_the_step(options):
    one, other = in_float64(), in_float64()
    other.set_weights(one.get_weights())
    x, y = images(one, 64)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for model, how in ((one, {}), (other, options)):
        model.compile(GRDA(0.1, c=0.05, mu=0.7), loss, **how)
        model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_learning_rates_can_be_set_by_a_callback():
    model = in_float64()
    model.compile(GRDA(0.5), "mse")
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch: 0.125)
    x, y = images(model, 8)
    model.fit(x, np.eye(4)[y], verbose=0, callbacks=[scheduler])
    assert float(model.optimizer.learning_rate) == 0.125
