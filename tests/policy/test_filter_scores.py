"""Scores of filters of a small VGG, MobileNet and ResNet, by all five measures.

The oracle knows nothing of the library, nor of TensorFlow: a network in NumPy whose
first derivatives are taken with complex steps and second ones by differences of these,
in 80 bits. Only the weights come from Keras. Networks are smooth (tanh), so that
derivatives are everywhere what differences say; images are 4x4.
"""

import numpy as np
import pytest
from nets import layers, randomise

import tf_synflow
from tf_synflow.keras2.imports import keras
from tf_synflow.masks.counts import kept_count

CRITERIA = (
    *("magnitude", "loss_preservation", "small_magnitude_loss_preservation"),
    *("gradient_norm_preservation", "grasp"),
)
TEMPERATURE = {"gradient_norm_preservation": 1, "grasp": 200}


def convolve(x, kernel, depthwise=False):
    """Convolution with zeros around, image by image and place by place."""
    size = kernel.shape[0]
    pad = size // 2
    padded = np.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
    height, width = x.shape[1:3]
    total = 0
    for i in range(size):
        for j in range(size):
            patch = padded[:, i : i + height, j : j + width]
            if depthwise:
                total = total + patch * kernel[i, j, :, 0]
            else:
                total = total + patch @ kernel[i, j]
    return total


def normalise(x, w, name):
    gamma, beta, mean, variance = (
        w[f"{name}/{short}"]
        for short in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    return gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta


def halve(x):
    n, height, width, channels = x.shape
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).mean((2, 4))


def vgg(w, x):
    x = normalise(np.tanh(convolve(x, w["a/kernel"])), w, "bn1")
    x = normalise(np.tanh(convolve(halve(x), w["b/kernel"])), w, "bn2")
    return x.reshape(len(x), -1) @ w["out/kernel"] + w["out/bias"]


def mobilenet(w, x):
    x = np.tanh(normalise(convolve(x, w["a/kernel"]), w, "bn1"))
    x = convolve(x, w["depthwise/depthwise_kernel"], depthwise=True)
    x = np.tanh(normalise(x, w, "bn2"))
    x = np.tanh(normalise(convolve(x, w["b/kernel"]), w, "bn3"))
    return x.mean((1, 2)) @ w["out/kernel"] + w["out/bias"]


def resnet(w, x):
    x = np.tanh(normalise(convolve(x, w["stem/kernel"]), w, "bn0"))
    y = np.tanh(normalise(convolve(x, w["a/kernel"]), w, "bn1"))
    y = normalise(convolve(y, w["b/kernel"]), w, "bn2")
    shortcut = normalise(convolve(x, w["shortcut/kernel"]), w, "bn3")
    x = np.tanh(y + shortcut)
    return x.mean((1, 2)) @ w["out/kernel"] + w["out/bias"]


def conv(width, size, name):
    return layers.Conv2D(width, size, padding="same", use_bias=False, name=name)


def norm(name):
    return layers.BatchNormalization(name=name)


def in_keras(name):
    """The same networks in Keras, and the kernels whose filters may be pruned."""
    inputs = keras.Input((4, 4, 2))
    tanh = keras.activations.tanh
    if name == "vgg":
        x = norm("bn1")(tanh(conv(3, 3, "a")(inputs)))
        x = layers.AveragePooling2D()(x)
        x = layers.Flatten()(norm("bn2")(tanh(conv(3, 3, "b")(x))))
        return inputs, x, ["a", "b"]
    if name == "mobilenet":
        x = tanh(norm("bn1")(conv(4, 3, "a")(inputs)))
        x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(
            x
        )
        x = tanh(norm("bn3")(conv(5, 1, "b")(tanh(norm("bn2")(x)))))
        return inputs, layers.GlobalAveragePooling2D()(x), ["a", "b"]
    x = tanh(norm("bn0")(conv(3, 3, "stem")(inputs)))
    y = norm("bn2")(conv(2, 3, "b")(tanh(norm("bn1")(conv(4, 3, "a")(x)))))
    x = tanh(y + norm("bn3")(conv(2, 1, "shortcut")(x)))
    return inputs, layers.GlobalAveragePooling2D()(x), ["stem", "a"]


def make(name):
    inputs, x, kernels = in_keras(name)
    model = randomise(keras.Model(inputs, layers.Dense(3, name="out")(x)))
    weights = {}
    for layer in model.layers:
        for variable in layer.weights:
            short = variable.name.split("/")[-1].removesuffix(":0")
            weights[f"{layer.name}/{short}"] = variable.numpy()
    return model, weights, kernels


class Oracle:
    """Gradient and Hessian-gradient product of the mean cross-entropy of a network."""

    def __init__(self, function, weights, x, y):
        self.function, self.weights, self.x, self.y = function, weights, x, y
        self.trained = [name for name in weights if "/moving" not in name]

    def loss(self, weights, temperature):
        logits = self.function(weights, self.x) / temperature
        logits = logits - logits.real.max(1, keepdims=True)
        chosen = logits[np.arange(len(self.y)), self.y]
        return (np.log(np.exp(logits).sum(1)) - chosen).mean()

    def gradient(self, temperature, names, shift=None, step=0.0):
        """Exact to rounding: f(w + ih) = f(w) + ih f'(w) for h = 1e-30."""
        moved = {n: w.astype("clongdouble") for n, w in self.weights.items()}
        for name in shift or ():
            moved[name] = moved[name] + step * shift[name]
        found = {}
        for name in names:
            found[name] = np.zeros(self.weights[name].shape, "longdouble")
            for place in np.ndindex(found[name].shape):
                before = moved[name][place]
                moved[name][place] = before + 1e-30j
                found[name][place] = self.loss(moved, temperature).imag * 1e30
                moved[name][place] = before
        return found

    def hessian_gradient(self, temperature, names):
        """By some of the weights, g being by all: differences of the sixth order."""
        g = self.gradient(temperature, self.trained)
        h = 4e-4 / np.sqrt(sum((own**2).sum() for own in g.values()))
        pairs = [
            [self.gradient(temperature, names, g, sign * k * h) for sign in (1, -1)]
            for k in (1, 2, 3)
        ]
        return {
            name: sum(
                factor * (up[name] - down[name])
                for factor, (up, down) in zip((45, -9, 1), pairs, strict=True)
            )
            / (60 * h)
            for name in names
        }

    def scores(self, criterion, kernels):
        """The papers' formulas: a number for each filter, over their total."""
        names = [f"{kernel}/kernel" for kernel in kernels]
        if criterion == "magnitude":
            squares = {name: self.weights[name] ** 2 for name in names}
            return {name: np.sqrt(own.sum((0, 1, 2))) for name, own in squares.items()}
        second = criterion in TEMPERATURE
        derive = self.hessian_gradient if second else self.gradient
        own = derive(TEMPERATURE.get(criterion, 5), names)
        found = {}
        for name in names:
            w = self.weights[name]
            product = w * own[name]
            if criterion == "loss_preservation":
                product = abs(product)
            if criterion == "small_magnitude_loss_preservation":
                product = abs(w) * abs(product)
            found[name] = product.sum((0, 1, 2))
            if criterion == "gradient_norm_preservation":
                found[name] = abs(found[name])
        total = abs(sum(own.sum() for own in found.values()))
        return {name: own / total for name, own in found.items()}


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("function", [vgg, mobilenet, resnet])
def test_scores_and_masks_of_filters_are_those_of_the_formulas(
    function, criterion, float64
):
    model, weights, kernels = make(function.__name__)
    generator = np.random.default_rng(3)
    x, y = generator.standard_normal((4, 4, 4, 2)), generator.integers(0, 3, 4)
    np.testing.assert_allclose(
        model(x, training=False).numpy(), function(weights, x), rtol=1e-12
    )
    wanted = Oracle(function, weights, x, y).scores(criterion, kernels)
    policy = tf_synflow.PruningPolicy(criterion, granularity="filter", progress=False)
    found = policy.score(model, (x, y))
    assert list(found) == list(wanted)
    for name, own in wanted.items():
        largest = max(abs(own).max() for own in wanted.values())
        np.testing.assert_allclose(found[name], own, rtol=0, atol=1e-10 * largest)
    # One round: the lowest go, but for one of each layer.
    masks = policy.masks(model, 0.5, (x, y))
    every, spared, at = np.concatenate(list(wanted.values())), [], 0
    for own in wanted.values():
        spared.append(at + own.argmax())
        at += own.size
    every[spared] = np.inf
    left = np.zeros(every.size, bool)
    left[np.argsort(-every)[: kept_count(every.size, 0.5)]] = True
    flags = [masks[name].any((0, 1, 2)) for name in wanted]
    np.testing.assert_array_equal(np.concatenate(flags), left)
