"""Paths and curvature against a tiny network that is written in NumPy."""

import builtins
import itertools

import numpy as np
import pytest
from nets import layers, residual_net

from tf_synflow.experiments.data import Dataset
from tf_synflow.experiments.directional.curvature import (
    eigsh,
    random_share,
    share,
    top_eigenvectors,
)
from tf_synflow.experiments.directional.flat import FlatNetwork
from tf_synflow.experiments.directional.paths import (
    along,
    bezier,
    fitted_middle,
    straight,
)
from tf_synflow.experiments.directional.solutions import pruned_by_magnitude, train
from tf_synflow.experiments.recipe import Recipe
from tf_synflow.keras2.imports import keras
from tf_synflow.optimizers import GRDA

HIDDEN, CLASSES, INPUTS = 3, 4, 4
GENERATOR = np.random.default_rng(0)
# Images reach a network as float32 numbers.
X = GENERATOR.standard_normal((30, 2, 2, 1)).astype("float32").astype("float64")
# Labels that a linear classifier would give, and a few others.
Y = np.argmax(X.reshape(30, -1) @ GENERATOR.standard_normal((INPUTS, CLASSES)), -1)
Y[::7] = 0
DATA = Dataset((X[:20], Y[:20]), (X[20:], Y[20:]), CLASSES)


def tiny(activation="tanh", units=HIDDEN):
    return keras.Sequential(
        [
            keras.Input((2, 2, 1)),
            layers.Flatten(),
            layers.Dense(units, activation, name="hidden"),
            layers.Dense(CLASSES, name="out"),
        ]
    )


def in_numpy(vector, x, y):
    """The mean cross-entropy of `tiny`."""
    ends = np.cumsum([INPUTS * HIDDEN, HIDDEN, HIDDEN * CLASSES])
    a, b, c, d = np.split(vector, ends)
    hidden = np.tanh(x.reshape(len(x), -1) @ a.reshape(INPUTS, HIDDEN) + b)
    logits = hidden @ c.reshape(HIDDEN, CLASSES) + d
    logits -= logits.max(-1, keepdims=True)
    chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    loss = -np.log(chances[np.arange(len(y)), y]).mean()
    return loss, (chances.argmax(-1) == y).mean()


def dense_hessian(vector):
    """By central differences of the loss in NumPy."""
    size, step = len(vector), 1e-3
    unit = step * np.eye(size)
    found = np.zeros((size, size))
    for i, j in itertools.product(range(size), repeat=2):
        for s, t in itertools.product((1, -1), repeat=2):
            moved = vector + s * unit[i] + t * unit[j]
            found[i, j] += s * t * in_numpy(moved, X[:20], Y[:20])[0]
    return found / (4 * step**2)


@pytest.fixture
def flat(float64):
    network = FlatNetwork(tiny(), DATA)
    assert network.size == 31
    return network


@pytest.fixture
def weights():
    return np.random.default_rng(1).standard_normal(31)


def test_loss_and_accuracy_are_those_of_the_formulas(flat, weights):
    for which, part in (("train", slice(20)), ("test", slice(20, None))):
        want = in_numpy(weights, X[part], Y[part])
        assert flat.quality(weights, which) == pytest.approx(want, rel=1e-12)
    np.testing.assert_array_equal(flat.vector(), weights)
    parts = flat.parts(weights)
    assert [(n, p.shape) for n, p in parts.items()] == [
        ("hidden/kernel", (4, 3)),
        ("hidden/bias", (3,)),
        ("out/kernel", (3, 4)),
        ("out/bias", (4,)),
    ]
    np.testing.assert_array_equal(parts["hidden/bias"], weights[12:15])


def test_the_gradient_is_that_of_finite_differences(flat, weights):
    found = flat.gradient(weights, X[:7].astype("float32"), Y[:7])
    for i, unit in enumerate(1e-5 * np.eye(31)):
        up, down = (in_numpy(weights + s * unit, X[:7], Y[:7])[0] for s in (1, -1))
        assert found[i] == pytest.approx((up - down) / 2e-5, abs=1e-8)


@pytest.mark.parametrize("batch", [2048, 8])
def test_products_and_top_eigenvectors_are_those_of_the_dense_hessian(
    flat, weights, batch, monkeypatch
):
    """In one batch or in several, the last of which is smaller."""
    monkeypatch.setattr("tf_synflow.experiments.directional.flat._BATCH", batch)
    hessian = dense_hessian(weights)
    direction = np.random.default_rng(2).standard_normal(31)
    flat.set(weights)
    np.testing.assert_allclose(
        flat.hessian_times(direction), hessian @ direction, atol=2e-6
    )
    values, vectors = top_eigenvectors(flat, weights, 5)
    all_values, all_vectors = np.linalg.eigh(hessian)
    np.testing.assert_allclose(values, all_values[::-1][:5], rtol=1e-4)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(5), atol=1e-8)
    top = all_vectors[:, ::-1][:, :5]
    np.testing.assert_allclose(np.abs(np.sum(vectors * top, 0)), 1, atol=1e-4)
    inside = np.sqrt(sum(float(u @ direction) ** 2 for u in top.T))
    want = inside / np.sqrt((direction**2).sum())
    assert share(direction, vectors) == pytest.approx(want, rel=1e-3)
    again = top_eigenvectors(flat, weights, 5)
    np.testing.assert_array_equal(again[1], vectors)


def test_shares_of_known_directions():
    axes = np.eye(9)[:, [2, 5]]
    assert share(np.eye(9)[5], axes) == 1
    assert share(np.eye(9)[0], axes) == 0
    assert share(np.array([0, 0, 3, 0, 0, 0, 4, 0, 0]), axes) == pytest.approx(0.6)
    assert share(np.zeros(9), axes) == 0
    draws = np.random.default_rng(0).standard_normal((20_000, 9))
    squares = [share(draw, axes) ** 2 for draw in draws]
    assert np.sqrt(np.mean(squares)) == pytest.approx(random_share(2, 9), rel=0.01)
    assert random_share(10, 13_706) == pytest.approx(0.0270, abs=5e-5)


def test_paths_begin_and_end_where_they_should(flat):
    first, middle, last = np.random.default_rng(3).standard_normal((3, 31))
    for curve in (straight(first, last), bezier(first, middle, last)):
        assert curve(0.0).tobytes() == first.tobytes()
        assert curve(1.0).tobytes() == last.tobytes()
        rows = along(flat, curve, 5)
        assert [row["t"] for row in rows] == [0, 0.25, 0.5, 0.75, 1]
        for row in rows:
            loss, accuracy = in_numpy(curve(row["t"]), X[:20], Y[:20])
            assert row["train_loss"] == pytest.approx(loss, rel=1e-12)
            assert row["train_accuracy"] == accuracy
            loss, accuracy = in_numpy(curve(row["t"]), X[20:], Y[20:])
            assert row["test_loss"] == pytest.approx(loss, rel=1e-12)
            assert row["test_accuracy"] == accuracy
    np.testing.assert_allclose(straight(first, last)(0.25), 0.75 * first + 0.25 * last)
    half = bezier(first, middle, last)(0.5)
    np.testing.assert_allclose(half, (first + 2 * middle + last) / 4)


class Bar:
    """Counts what it is told."""

    count = 0

    def update(self):
        self.count += 1


def test_a_curve_goes_round_what_the_straight_line_runs_into(float64):
    """Two networks that compute the same, their hidden units in another order."""
    units = 12
    model = tiny(units=units)
    recipe = Recipe(300, 5, 0.1, seed=0, decay="constant", momentum=0.0)
    (one,) = train(model, DATA, recipe, [300], Bar()).values()
    parts = np.split(one, np.cumsum([INPUTS * units, units, units * CLASSES]))
    order = np.roll(np.arange(units), 1)
    other = np.concatenate(
        [
            parts[0].reshape(INPUTS, units)[:, order].ravel(),
            parts[1][order],
            parts[2].reshape(units, CLASSES)[order].ravel(),
            parts[3],
        ]
    )
    flat = FlatNetwork(model, DATA)
    loss = flat.quality(one).loss
    assert loss == pytest.approx(flat.quality(other).loss) and loss < 0.02
    bar = Bar()
    how = {"epochs": 100, "batch_size": 5, "learning_rate": 0.1, "seed": 0}
    middle = fitted_middle(flat, one, other, DATA, **how, progress=bar)
    assert bar.count == 100
    line, curve = (
        max(row["train_loss"] for row in along(flat, path, 21))
        for path in (straight(one, other), bezier(one, middle, other))
    )
    assert line > 5 * loss and curve < line / 2


def test_the_smallest_weights_are_pruned():
    vector = np.array([3.0, -1.0, 0.0, 1.0, -2.0, 1.0])
    for zeros, want in [
        (0, vector),
        (1, vector),
        (3, [3, 0, 0, 0, -2, 1]),
        (5, [3, 0, 0, 0, 0, 0]),
        (6, np.zeros(6)),
    ]:
        np.testing.assert_array_equal(pruned_by_magnitude(vector, zeros), want)
    assert vector[1] == -1


def test_training_is_that_of_keras_on_the_same_batches():
    model, twin = tiny("relu"), tiny("relu")
    twin.set_weights(model.get_weights())
    before = np.concatenate([w.ravel() for w in model.get_weights()])
    recipe = Recipe(4, 8, 0.1, seed=5, decay="constant", grda=(0.02, 0.6))
    bar = Bar()
    kept = train(model, DATA, recipe, [0, 2, 4], bar)
    assert list(kept) == [0, 2, 4] and bar.count == 4
    np.testing.assert_array_equal(kept[0], before)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    twin.compile(GRDA(0.1, c=0.02, mu=0.6), loss)
    for epochs in (2, 4):
        batches = DATA.training(8, 5, first_epoch=epochs - 2)
        twin.fit(batches, steps_per_epoch=3, epochs=2, verbose=0)
        want = np.concatenate([w.ravel() for w in twin.get_weights()])
        np.testing.assert_allclose(kept[epochs], want, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(kept[epochs] == 0, want == 0)
    assert 0 < np.count_nonzero(kept[4] == 0) < 31


def test_networks_with_running_statistics_are_refused():
    with pytest.raises(ValueError, match="has BatchNormalization .'bn'."):
        FlatNetwork(residual_net(), DATA)


def test_without_scipy_it_says_what_to_install(monkeypatch):
    import_module = builtins.__import__

    def without(name, *rest):
        if name.startswith("scipy"):
            raise ModuleNotFoundError(name)
        return import_module(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'tf_synflow\[demo\]'"):
        eigsh()
