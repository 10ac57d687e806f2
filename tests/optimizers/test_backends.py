"""GRDA inside `fit` of Keras 3 on each backend, in processes of their own."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

BACKENDS = [
    backend
    for backend in ("tensorflow", "jax", "torch")
    if importlib.util.find_spec(backend)
]

# A linear network with the squared error, whose gradients can be written down.
PROGRAM = """
import keras, numpy as np
from tf_synflow.optimizers import GRDA, GaripovDecay
keras.utils.set_random_seed(0)
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(30)])
now = keras.ops.convert_to_numpy
weights = [now(v).astype("float64") for v in model.trainable_variables]
schedule = GaripovDecay(0.1, 4, 5, keras="keras")
model.compile(GRDA(schedule, 0.1, 0.4, keras="keras"), "mse")
draws = np.random.default_rng(0).random((10, 34), "float32")
x, y = draws[:, :4], draws[:, 4:]
model.fit(x, y, batch_size=2, epochs=4, shuffle=False, verbose=0)
duals, level = [w.copy() for w in weights], 0.0
for n in range(1, 21):
    done = (1 + (n - 1) // 5) / 4
    rate = 0.1 * min(max(1 - (done - 0.5) / 0.4 * 0.99, 0.01), 1)
    level += 0.1 * rate**0.9 * (n**0.4 - (n - 1) ** 0.4)
    batch = slice(2 * ((n - 1) % 5), 2 * ((n - 1) % 5) + 2)
    slope = 2 * (x[batch] @ weights[0] + weights[1] - y[batch]) / 60
    duals[0] -= rate * x[batch].T @ slope
    duals[1] -= rate * slope.sum(0)
    weights = [np.sign(v) * np.maximum(np.abs(v) - level, 0) for v in duals]
for found, want in zip(model.trainable_variables, weights, strict=True):
    np.testing.assert_allclose(now(found), want, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(now(found) == 0, want == 0)
assert 5 < np.count_nonzero(weights[0] == 0) < 60
print("holds on", keras.backend.backend())
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_twenty_steps_are_those_of_the_equations(backend):
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    words = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.stdout == f"holds on {backend}\n", done.stderr[-2000:]
