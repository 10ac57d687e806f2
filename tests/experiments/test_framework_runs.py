"""Runs of the gradient flow framework: its loss, best epoch, zeroed filters."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from nets import layers, randomise

import tf_synflow
from tf_synflow.experiments import run as experiment
from tf_synflow.experiments import training
from tf_synflow.experiments.data import Dataset
from tf_synflow.experiments.recipe import Recipe, TemperedCrossentropy, optimizer
from tf_synflow.experiments.settings import Place, Pruning
from tf_synflow.frameworks import read
from tf_synflow.keras2.imports import keras
from tf_synflow.pruning.filter_rounds import Counting

POLICY = tf_synflow.PruningPolicy("grasp", granularity="filter")
RECIPE = Recipe(
    *(3, 16, 0.1, 0), decay="constant", nesterov=False, temperature=5.0, save_best=True
)


def net():
    """A residual block, on 8x8 images."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, use_bias=False, name="stem")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.5, name="stem_bn")(x))
    y = layers.Conv2D(8, 3, padding="same", activation="relu", name="a")(x)
    y = layers.Conv2D(6, 3, padding="same", name="b")(y)
    y = layers.BatchNormalization(momentum=0.5, name="b_bn")(y)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.Add()([x, y])))
    return keras.Model(inputs, layers.Dense(10, name="fc")(x))


@pytest.fixture
def noise(monkeypatch):
    generator = np.random.default_rng(0)
    x = generator.random((32, 8, 8, 3), "float32")
    data = Dataset((x, np.arange(32) % 10), (x[:20], np.arange(20) % 10), 10)
    monkeypatch.setattr(experiment.data_lib, "load", lambda *_: data)
    monkeypatch.setattr(experiment.models, "build", lambda *_: net())
    return data


def run(folder, **changes):
    pruning = Pruning(0.5, POLICY, images=16, rounds=2, counting=Counting(True))
    return experiment.run(
        folder,
        model="small",
        dataset="noise",
        pruning=dataclasses.replace(pruning, **changes),
        recipe=RECIPE,
        place=Place(mean=(0.5,), std=(0.5, 0.25, 0.5)),
        flags={},
    )


@pytest.mark.usefixtures("noise")
def test_zeroed_filters_stay_so_also_when_a_run_goes_on(tmp_path, monkeypatch):
    """Stopped within the last training, it ends with the same bytes."""
    results = run(tmp_path / "a")
    assert results["prune"]["filters"] == {"prunable": 20, "kept": 10}
    masks = tf_synflow.load_masks(tmp_path / "a" / "masks.npz")
    kept = masks["b/kernel"].any((0, 1, 2))
    assert kept.size == 6 and not kept.all()
    models = {}
    for name in ("model", "best"):
        model = tf_synflow.load_model(tmp_path / "a" / f"{name}.keras")
        norm, kernel = model.get_layer("b_bn"), model.get_layer("b").kernel
        assert kernel.shape[-1] == 6
        assert model.get_layer("a").filters == masks["a/kernel"].any((0, 1, 2)).sum()
        for values in (kernel.numpy().any((0, 1, 2)), norm.gamma.numpy()):
            np.testing.assert_array_equal(values != 0, kept)
        models[name] = model.get_weights()
    saved = training.SparsityCallback.on_epoch_end
    left = [1]

    def stopped(self, epoch, logs=None):
        if self.model.get_layer("a").filters < 8 and epoch == 1 and left:
            left.pop()
            raise KeyboardInterrupt
        return saved(self, epoch, logs)

    monkeypatch.setattr(training.SparsityCallback, "on_epoch_end", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b")
    monkeypatch.undo()
    monkeypatch.setattr(experiment.data_lib, "load", lambda *_: _again())
    monkeypatch.setattr(experiment.models, "build", lambda *_: net())
    run(tmp_path / "b")
    for name, weights in models.items():
        again = tf_synflow.load_model(tmp_path / "b" / f"{name}.keras").get_weights()
        assert [w.tobytes() for w in again] == [w.tobytes() for w in weights]


def _again():
    x = np.random.default_rng(0).random((32, 8, 8, 3), "float32")
    return Dataset((x, np.arange(32) % 10), (x[:20], np.arange(20) % 10), 10)


def test_the_best_model_is_that_of_the_best_epoch(noise, tmp_path):
    """Its accuracy, evaluated anew, is the best of the history."""
    results = run(tmp_path / "run")
    history = experiment.read_history(tmp_path / "run")
    accuracies = [row["val_accuracy"] for row in history]
    train = results["train"]
    assert train["best_accuracy"] == max(accuracies)
    assert train["best_epoch"] == 1 + accuracies.index(max(accuracies))
    data = noise.scaled_by((0.5,), (0.5, 0.25, 0.5))
    for name, wanted in (("best", max(accuracies)), ("model", accuracies[-1])):
        model = tf_synflow.load_model(tmp_path / "run" / f"{name}.keras")
        logits = model.predict(data.testing(), verbose=0)
        assert (logits.argmax(1) == data.test[1]).mean() == pytest.approx(wanted)
    assert not (tmp_path / "run" / "level_1" / "best.keras").exists()


@pytest.mark.usefixtures("noise")
def test_the_temperature_of_training_is_not_that_of_scoring(tmp_path, monkeypatch):
    """GraSP divides logits by 200, not by 1,000, though training divides them by 5."""
    losses = []
    policy_class = type(POLICY)
    prepare = policy_class.problem

    def watched(self, network, data=None):
        losses.append(self.loss)
        return prepare(self, network, data)

    monkeypatch.setattr(policy_class, "problem", watched)
    run(tmp_path / "run")
    kinds = {type(loss) for loss in losses if loss is not None}
    assert kinds == {keras.losses.SparseCategoricalCrossentropy}


@pytest.mark.parametrize("temperature", [1.0, 5.0, 0.3])
def test_the_training_loss_is_that_of_the_formula(temperature):
    generator = np.random.default_rng(1)
    logits, labels = 9 * generator.standard_normal((7, 4)), generator.integers(0, 4, 7)
    chances = np.exp(logits / temperature)
    chances /= chances.sum(1, keepdims=True)
    wanted = -np.log(chances[np.arange(7), labels]).mean()
    found = TemperedCrossentropy(temperature)(labels, tf.constant(logits))
    assert float(found) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_makes_no_sense_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature must be above 0"):
        TemperedCrossentropy(temperature)


def test_momentum_is_plain_if_asked():
    """Three steps by hand: b = 0.9 b + g, w = w - 0.1 b; Nesterov's differs."""
    for nesterov in (False, True):
        recipe = dataclasses.replace(RECIPE, nesterov=nesterov)
        own, w, b = tf.Variable(1.0), 1.0, 0.0
        stepper = optimizer(recipe, steps=4)
        for g in (1.0, -2.0, 0.5):
            stepper.apply_gradients([(tf.constant(g), own)])
            b = 0.9 * b + g
            w -= 0.1 * (g + 0.9 * b if nesterov else b)
        assert float(own) == pytest.approx(w, rel=1e-6)


def test_images_are_scaled_as_asked(noise):
    images = noise.scaled_by((0.5,), (0.5, 0.25, 0.5)).normalised(noise.test[0])
    wanted = (noise.test[0] - 0.5) / np.array([0.5, 0.25, 0.5])
    np.testing.assert_allclose(images, wanted, rtol=1e-5, atol=1e-6)
    assert noise.scaled_by(None, None) == noise
    with pytest.raises(ValueError, match=r"mean=\[1, 2\]: expected one number"):
        noise.scaled_by((1, 2), None)
    with pytest.raises(ValueError, match="std finite and above 0"):
        noise.scaled_by(None, (0.0,))


def test_images_are_resized_by_averages():
    x = randomise_images()
    small = Dataset((x, np.zeros(3, int)), (x, np.zeros(3, int)), 1).resized(4)
    wanted = x.reshape(3, 4, 2, 4, 2, 1).mean((2, 4))
    np.testing.assert_allclose(small.train[0], wanted, rtol=1e-5)
    assert small.input_shape == (4, 4, 1)


def randomise_images():
    return np.random.default_rng(0).random((3, 8, 8, 1), "float32")


def test_what_is_of_rounds_is_refused_without_them():
    for counting in (Counting(zero_added=True), Counting(whole_percents=True)):
        with pytest.raises(ValueError, match="are of rounds: give rounds=1"):
            Pruning(0.5, POLICY, counting=counting).check()


def test_a_trained_network_with_zeroed_filters_is_read_as_any_other():
    """What is held at zero is no mask: nothing is counted as pruned for it."""
    model = randomise(net())
    from tf_synflow.policy.added_filters import hold_zero

    hold_zero(model, {"b/kernel": np.arange(6) > 2})
    assert read(model).masks == {}
