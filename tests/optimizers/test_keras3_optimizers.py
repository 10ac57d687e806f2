"""The optimizers of Keras 3 against their equations in NumPy."""

import keras
import numpy as np
import pytest

import tf_synflow

GENERATOR = np.random.default_rng(0)
START = GENERATOR.standard_normal((5, 7)).astype("float32")
GRADIENTS = GENERATOR.standard_normal((300, 5, 7)).astype("float32")


def steps(optimizer, rates=()):
    """The weights after each step; `rates` maps steps to learning rates set before."""
    variable = keras.Variable(START)
    optimizer.build([variable])
    found = []
    for number, gradient in enumerate(GRADIENTS):
        if number in rates:
            optimizer.learning_rate = rates[number]
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        found.append(variable.numpy().copy())
    return found


@pytest.mark.parametrize("mu", [0.4, 0.51, 0.75])
def test_grda_follows_its_equations_when_the_learning_rate_changes(mu):
    c, rate = 0.05, 0.1
    found = steps(
        tf_synflow.optimizers.GRDA(rate, c=c, mu=mu, keras="keras"), {100: 0.01}
    )
    v, threshold = START.astype("float64"), 0.0
    for n, (gradient, weights) in enumerate(zip(GRADIENTS, found, strict=True), 1):
        rate = 0.1 if n <= 100 else 0.01
        threshold += c * rate ** (mu + 0.5) * (n**mu - (n - 1) ** mu)
        v -= rate * gradient
        want = np.sign(v) * np.maximum(np.abs(v) - threshold, 0)
        np.testing.assert_allclose(weights, want, rtol=2e-5, atol=2e-6)
        clear = np.abs(np.abs(v) - threshold) > 1e-5
        np.testing.assert_array_equal((weights == 0)[clear], (want == 0)[clear])
    assert 0 < np.count_nonzero(found[-1] == 0) < START.size


@pytest.fixture
def doubles():
    """Keras 3 computes in float64 meanwhile."""
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx("float32")


@pytest.mark.usefixtures("doubles")
def test_in_float64_it_follows_the_equations_to_all_digits():
    """mu = 0.4 with the learning rate of Garipov et al., 40 epochs of 10 steps."""
    optimizers = tf_synflow.optimizers
    start = GENERATOR.standard_normal((5, 7))
    gradients = GENERATOR.standard_normal((400, 5, 7))
    schedule = optimizers.GaripovDecay(0.1, epochs=40, steps=10, keras="keras")
    optimizer = optimizers.GRDA(schedule, c=0.05, mu=0.4, keras="keras")
    variable = keras.Variable(start, dtype="float64")
    optimizer.build([variable])
    v, threshold, zeros = start.copy(), 0.0, 0
    for n, gradient in enumerate(gradients, 1):
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        done = (1 + (n - 1) // 10) / 40
        factor = 1.0 if done <= 0.5 else max(1 - 0.99 * (done - 0.5) / 0.4, 0.01)
        rate = 0.1 * factor
        threshold += 0.05 * rate**0.9 * (n**0.4 - (n - 1) ** 0.4)
        v -= rate * gradient
        want = np.sign(v) * np.maximum(np.abs(v) - threshold, 0)
        found = variable.numpy()
        np.testing.assert_allclose(found, want, rtol=0, atol=1e-10)
        np.testing.assert_array_equal(found == 0, want == 0)
        zeros += np.count_nonzero(want == 0)
    assert zeros > 100


def test_the_learning_rate_of_garipov_survives_saving():
    schedules = keras.optimizers.schedules
    schedule = tf_synflow.optimizers.GaripovDecay(0.1, 10, 3, keras="keras")
    again = schedules.deserialize(schedules.serialize(schedule))
    rates = [float(again(step)) for step in (0, 14, 15, 26, 29)]
    want = [0.1, 0.1, 0.1 * (1 - 0.99 / 4), 0.001, 0.001]
    np.testing.assert_allclose(rates, want, rtol=1e-5)


def test_the_threshold_does_not_drift_over_very_many_steps():
    """A sum of 20,000 small numbers, which float32 alone would get wrong by 1e-5."""
    optimizer = tf_synflow.optimizers.GRDA(0.1, c=1e-3, mu=0.51, keras="keras")
    variable = keras.Variable(np.ones(1, "float32"))
    optimizer.build([variable])
    zero = keras.ops.zeros(1)
    count = 20_000

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        @tf.function
        def run():
            for _ in tf.range(count):
                optimizer.apply([zero], [variable])

        run()
    want = 1e-3 * 0.1**1.01 * count**0.51
    assert optimizer._thresholds[0].numpy() == pytest.approx(want, rel=3e-7)
    assert variable.numpy()[0] == pytest.approx(1 - want, rel=3e-7)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("l2", [0.0, 0.01])
def test_sgd_follows_its_equations(nesterov, l2):
    optimizer = tf_synflow.optimizers.SGD(0.1, 0.9, nesterov, l2, keras="keras")
    found = steps(optimizer, {50: 0.02})
    w, b = START.astype("float64"), 0.0
    for n, (gradient, weights) in enumerate(zip(GRADIENTS, found, strict=True)):
        rate = 0.1 if n < 50 else 0.02
        d = gradient + l2 * w
        b = 0.9 * b + d
        w = w - rate * (d + 0.9 * b if nesterov else b)
        np.testing.assert_allclose(weights, w, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["SGD", "GRDA"])
def test_training_goes_on_from_a_file_as_if_it_had_not_stopped(name, tmp_path):
    x = GENERATOR.random((16, 4)).astype("float32")

    def model():
        keras.utils.set_random_seed(0)
        made = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        optimizer = getattr(tf_synflow.optimizers, name)(0.1, keras="keras")
        made.compile(optimizer, "mse")
        return made

    whole, first = model(), model()
    whole.fit(x, x[:, :3], 4, 4, shuffle=False, verbose=0)
    first.fit(x, x[:, :3], 4, 2, shuffle=False, verbose=0)
    first.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    again.fit(x, x[:, :3], 4, 2, shuffle=False, verbose=0)
    for one, other in zip(whole.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: tf_synflow.optimizers.GRDA(mu=1, keras="keras"), "mu must be within"),
        (
            lambda: tf_synflow.optimizers.GRDA(weight_decay=0.1, keras="keras"),
            "takes no weight_decay=0.1",
        ),
        (lambda: tf_synflow.optimizers.SGD(l2=-1, keras="keras"), "l2 must be finite"),
        (lambda: tf_synflow.optimizers.SGD(keras="keras3"), "unknown keras 'keras3'"),
    ],
)
def test_bad_settings_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
