"""The networks of gRDA's paper: sizes, first values, and the order of a block."""

import keras as keras3
import numpy as np
import pytest
import tensorflow as tf

from tf_synflow import models
from tf_synflow.frameworks import read
from tf_synflow.keras2.imports import keras as keras2

KERASES = {"tf_keras": keras2, "keras": keras3}
BOTH = pytest.mark.parametrize("keras", list(KERASES))


@pytest.fixture
def all_zero(monkeypatch):
    """New weights are 0: of what only shapes matter, random values take the time."""

    def zeros(self, shape, dtype=None, **more):
        return np.zeros(shape, "float32")

    for package in KERASES.values():
        for kind in ("VarianceScaling", "RandomUniform"):
            initializer = getattr(package.initializers, kind)
            monkeypatch.setattr(initializer, "__call__", zeros)


def sizes(variables):
    return [int(np.prod(variable.shape)) for variable in variables]


@BOTH
@pytest.mark.usefixtures("all_zero")
@pytest.mark.parametrize(
    ("name", "classes", "parameters", "kernels", "in_kernels"),
    [
        ("vgg16_dropout", 10, 15_245_130, 16, 15_239_872),
        ("wide_resnet28_10", 10, 36_489_290, 29, 36_461_232),
        ("wide_resnet28_10", 100, 36_546_980, 29, 36_518_832),
    ],
)
def test_parameters_and_kernels(name, classes, parameters, kernels, in_kernels, keras):
    model = models.build(name, (32, 32, 3), classes, keras=keras)
    assert sum(sizes(model.trainable_variables)) == parameters
    network = read(model)
    found = sizes(network.weights[n] for n in network.prunable)
    assert (len(found), sum(found)) == (kernels, in_kernels)
    assert model.output_shape == (None, classes)


@BOTH
@pytest.mark.usefixtures("all_zero")
def test_the_last_norm_of_the_wide_resnet_forgets_faster(keras):
    model = models.build("wide_resnet28_10", (32, 32, 3), 10, keras=keras)
    norms = [x for x in model.layers if type(x).__name__ == "BatchNormalization"]
    assert len(norms) == 25
    assert [norm.momentum for norm in norms] == pytest.approx([0.9] * 24 + [0.1])
    assert {norm.epsilon for norm in norms} == {1e-5}
    assert len(model.trainable_variables) == 108


def deviates(values, expected):
    """By how many standard errors the standard deviation is off.

    The error of a uniform variable's is smaller than that of a normal one's.
    """
    error = expected / np.sqrt(2 * values.size)
    return abs(values.std() - expected) / error


@BOTH
def test_vgg_starts_as_the_paper_draws_it(keras):
    KERASES[keras].utils.set_random_seed(3)
    model = models.build("vgg16_dropout", (32, 32, 3), 10, keras=keras)
    seen = set()
    for layer in model.layers:
        if type(layer).__name__ not in ("Conv2D", "Dense"):
            continue
        kernel, bias = (v.numpy() for v in (layer.kernel, layer.bias))
        seen.add(kernel.tobytes())
        if type(layer).__name__ == "Conv2D":
            expected = np.sqrt(2 / (9 * kernel.shape[-1]))
            assert not bias.any()
            assert np.abs(kernel).max() > 2.5 * expected  # not truncated
        else:
            bound = 1 / np.sqrt(512)
            expected = bound / np.sqrt(3)
            assert expected == pytest.approx(0.0255, abs=5e-5)
            assert 0.99 * bound < np.abs(kernel).max() <= bound * (1 + 1e-6)
            assert 0 < np.abs(bias).max() <= bound * (1 + 1e-6)
            assert not np.array_equal(kernel.ravel()[: bias.size], bias)
        assert deviates(kernel, expected) < 4
    assert len(seen) == 16


@BOTH
def test_the_wide_resnet_starts_as_pytorch_draws_it(keras):
    KERASES[keras].utils.set_random_seed(3)
    model = models.build("wide_resnet28_10", (32, 32, 3), 10, keras=keras)
    seen = set()
    for layer in model.layers:
        if type(layer).__name__ not in ("Conv2D", "Dense"):
            continue
        kernel, bias = (v.numpy() for v in (layer.kernel, layer.bias))
        bound = 1 / np.sqrt(kernel.size / kernel.shape[-1])
        assert deviates(kernel, bound / np.sqrt(3)) < 4
        assert np.abs(kernel).max() <= bound * (1 + 1e-6)  # of float32
        assert np.abs(bias).max() <= bound * (1 + 1e-6)
        if bias.size > 100:
            assert deviates(bias, bound / np.sqrt(3)) < 4
        seen |= {kernel.tobytes(), bias.tobytes()}
    assert len(seen) == 58


@BOTH
@pytest.mark.parametrize("name", ["vgg16_dropout", "wide_resnet28_10"])
def test_a_new_networks_logits_do_not_vanish(name, keras):
    """Those of the papers' initial values are small, but depend on the image."""
    KERASES[keras].utils.set_random_seed(3)
    images = np.random.default_rng(0).standard_normal((4, 32, 32, 3), "float32")
    model = models.build(name, (32, 32, 3), 10, keras=keras)
    logits, of_nothing = (
        model(x, training=False).numpy() for x in (images, np.zeros_like(images))
    )
    assert 0.01 < logits.std() < 10
    assert 3e-3 < np.abs(logits - of_nothing).max() < 10


def by_hand(weights, x, depth):
    """The wide ResNet of the paper, written with TensorFlow's bare operations."""

    def convolution(name, x, stride=1):
        kernel = weights[f"{name}/kernel"]
        side = kernel.shape[0] // 2
        pad = [[0, 0], [side, side], [side, side], [0, 0]]
        return tf.nn.conv2d(x, kernel, stride, pad) + weights[f"{name}/bias"]

    def norm_relu(name, x):
        gamma, beta, mean, variance = (
            weights[f"{name}/{part}"]
            for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return np.maximum(gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta, 0)

    x = convolution("stem_conv", x)
    for stage in (1, 2, 3):
        for block in range(1, (depth - 4) // 6 + 1):
            name = f"stage{stage}_block{block}"
            stride = 2 if stage > 1 and block == 1 else 1
            y = convolution(f"{name}_conv1", norm_relu(f"{name}_bn1", x))
            y = convolution(f"{name}_conv2", norm_relu(f"{name}_bn2", y), stride)
            if f"{name}_shortcut/kernel" in weights:
                x = convolution(f"{name}_shortcut", x, stride)
            x = x + y
    x = np.mean(norm_relu("final_bn", x), axis=(1, 2))
    return x @ weights["classifier/kernel"] + weights["classifier/bias"]


@BOTH
@pytest.mark.parametrize("width", [1, 2])
def test_the_wide_resnet_computes_what_its_blocks_say(width, keras):
    model = models.wide_resnet(16, width, (8, 8, 3), 4, keras=keras)
    generator = np.random.default_rng(0)
    weights = {}
    for name, variable in read(model).weights.items():
        value = generator.standard_normal(variable.shape).astype("float32")
        if name.endswith("kernel"):
            value /= np.sqrt(value.size / value.shape[-1])
        weights[name] = np.abs(value) + 0.5 if "variance" in name else value
        variable.assign(weights[name])
    # Where the shape changes; at width 1 the first stage keeps the stem's 16 channels.
    shortcuts = [n.split("/")[0] for n in weights if n.endswith("_shortcut/kernel")]
    stages = [1, 2, 3] if width > 1 else [2, 3]
    assert shortcuts == [f"stage{n}_block1_shortcut" for n in stages]
    x = generator.standard_normal((3, 8, 8, 3)).astype("float32")
    want = by_hand(weights, x, 16)
    found = model(x, training=False).numpy()
    np.testing.assert_allclose(found, want, rtol=2e-4, atol=2e-4)
    assert want.std() > 0.1


@BOTH
def test_dropout_comes_before_the_hidden_layers_and_widths_scale(keras):
    model = models.vgg16_dropout(width=1 / 16, keras=keras)
    kinds = [type(x).__name__ for x in model.layers]
    assert kinds[-6:] == ["Flatten", *["Dropout", "Dense"] * 2, "Dense"]
    assert kinds.count("MaxPooling2D") == 5 and kinds.count("Conv2D") == 13
    assert "BatchNormalization" not in kinds
    convolutions = [x.filters for x in model.layers if hasattr(x, "filters")]
    assert convolutions == [4, 4, 8, 8, *[16] * 3, *[32] * 6]
    assert [x.units for x in model.layers if hasattr(x, "units")] == [32, 32, 10]


@BOTH
def test_the_small_network_has_no_norm_and_13_706_parameters(keras):
    model = models.build("small_cnn", (8, 8, 1), 10, keras=keras)
    assert sum(sizes(model.weights)) == 13_706
    assert len(model.trainable_variables) == 8


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: models.vgg16_dropout(variant="tiny"), "variant of vgg16_dropout"),
        (lambda: models.vgg16_dropout((28, 28, 1)), "at least 32x32"),
        (lambda: models.wide_resnet(27), "depth must be 6 n"),
        (lambda: models.wide_resnet(variant="tiny"), "variant of a wide ResNet"),
        (lambda: models.small_cnn(variant="tiny"), "variant of small_cnn"),
    ],
)
def test_what_there_is_not_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
