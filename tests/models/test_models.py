import numpy as np
import pytest
import tensorflow as tf
from nets import layers

from tf_synflow import models
from tf_synflow.frameworks import read
from tf_synflow.keras2.imports import keras

# Prunable weights N and weight tensors L, as the papers' networks have them.
TABLE = [
    *[("vgg11_bn", 32, c, n, 9) for c, n in ((10, 9_222_848), (100, 9_268_928))],
    ("vgg13_bn", 32, 100, 9_453_248, 11),
    ("vgg16_bn", 32, 100, 14_761_664, 14),
    ("vgg19_bn", 32, 100, 20_070_080, 17),
    ("resnet18", 32, 100, 11_210_432, 21),
    ("resnet34", 32, 100, 21_311_168, 37),
    ("resnet50", 32, 100, 23_652_032, 54),
    *[("resnet20", 32, c, n, 22) for c, n in ((10, 270_896), (100, 276_656))],
    ("wide_resnet20", 32, 10, 1_081_440, 22),
    ("wide_resnet20", 32, 100, 1_092_960, 22),
    ("resnet32", 32, 10, 464_432, 34),
    ("resnet44", 32, 10, 657_968, 46),
    ("resnet56", 32, 10, 851_504, 58),
    ("resnet110", 32, 10, 1_722_416, 112),
    ("vgg13_bn_last", 32, 10, 9_407_168, 11),
    # 3x3x3x32, the pointwise ones, and the classifier; depthwise kernels do not count.
    ("mobilenet", 32, 10, 864 + 3_139_584 + 10_240, 15),
    ("vgg11_bn", 64, 200, 12_568_256, 11),
    ("vgg13_bn", 64, 200, 12_752_576, 13),
    ("vgg16_bn", 64, 200, 18_060_992, 16),
    ("vgg19_bn", 64, 200, 23_369_408, 19),
    ("resnet18", 64, 200, 11_261_632, 21),
    ("resnet34", 64, 200, 21_362_368, 37),
    ("resnet50", 64, 200, 23_856_832, 54),
    ("vgg11_bn", 224, 1000, 132_851_392, 11),
    ("vgg16_bn", 224, 1000, 138_344_128, 16),
    ("vgg19", 224, 1000, 143_652_544, 19),
    ("resnet18", 224, 1000, 11_678_912, 21),
    ("resnet34", 224, 1000, 21_779_648, 37),
    ("resnet50", 224, 1000, 25_502_912, 54),
    ("resnet101", 224, 1000, 44_442_816, 105),
]


@pytest.fixture
def all_zero(monkeypatch):
    """New weights are 0: of what only shapes matter, random values take the time."""

    def zeros(self, shape, dtype=None, **more):
        return tf.zeros(shape, dtype or "float32")

    for kind in (keras.initializers.VarianceScaling, keras.initializers.RandomNormal):
        monkeypatch.setattr(kind, "__call__", zeros)


@pytest.mark.usefixtures("all_zero")
@pytest.mark.parametrize(("name", "size", "classes", "prunable", "tensors"), TABLE)
def test_prunable_weights_and_tensors(name, size, classes, prunable, tensors):
    model = models.build(name, (size, size, 3), classes)
    network = read(model)
    sizes = [network.weights[n].shape.num_elements() for n in network.prunable]
    assert sum(sizes) == prunable
    assert len(sizes) == tensors
    assert model.output_shape == (None, classes)


@pytest.mark.usefixtures("all_zero")
def test_constructors_and_build_make_the_same_networks():
    for name, make in (("vgg16_bn", models.VGG16), ("resnet20", models.ResNet20)):
        built = models.build(name, (32, 32, 3), 10)
        made = make(input_shape=(32, 32, 3), classes=10)
        assert [w.shape for w in built.weights] == [w.shape for w in made.weights]
        assert built.name == made.name == name
    plain = models.VGG11(batch_norm=False)
    assert not any(isinstance(x, layers.BatchNormalization) for x in plain.layers)


@pytest.mark.usefixtures("all_zero")
def test_a_wide_resnet_is_twice_as_wide_everywhere():
    narrow, wide = models.ResNet18(), models.WideResNet18()
    for a, b in zip(narrow.layers, wide.layers, strict=True):
        if isinstance(a, layers.Conv2D):
            assert b.filters == 2 * a.filters


def test_kernels_are_he_normal_untruncated_and_differ():
    keras.utils.set_random_seed(3)
    for model, fan in ((models.ResNet20(), -2), (models.ResNet18(), -1)):
        seen = set()
        for layer in model.layers:
            if isinstance(layer, layers.Conv2D):
                kernel = layer.kernel.numpy()
                fan_size = kernel.size / kernel.shape[-1 if fan == -2 else -2]
                expected = np.sqrt(2 / fan_size)
                spread = 4 / np.sqrt(2 * kernel.size)  # four standard errors
                np.testing.assert_allclose(kernel.std(), expected, rtol=spread)
                if kernel.size > 2000:  # truncation would cut at two deviations
                    assert np.abs(kernel).max() > 2.5 * expected
                seen.add(kernel.tobytes())
        assert len(seen) == sum(isinstance(x, layers.Conv2D) for x in model.layers)


def test_mobilenets_depthwise_kernels_start_as_large_as_what_they_read():
    """Each output reads 3 x 3 values of one channel: He's variance is 2 / 9."""
    keras.utils.set_random_seed(3)
    model = models.MobileNet()
    depthwise = [x for x in model.layers if isinstance(x, layers.DepthwiseConv2D)]
    assert len(depthwise) == 13
    for layer in depthwise:
        kernel = layer.depthwise_kernel.numpy()
        spread = 4 / np.sqrt(2 * kernel.size)  # four standard errors
        np.testing.assert_allclose(kernel.std(), np.sqrt(2 / 9), rtol=spread)


@pytest.mark.parametrize("name", ["vgg11", "vgg11_bn", "mobilenet", "resnet18"])
def test_a_new_networks_logits_neither_vanish_nor_explode(name):
    keras.utils.set_random_seed(3)
    images = np.random.default_rng(0).standard_normal((2, 32, 32, 3))
    logits = models.build(name, (32, 32, 3), 10)(images, training=False).numpy()
    assert 0.1 < logits.std() < 10


def test_batch_norm_is_that_of_the_papers():
    for layer in models.VGG11().layers:
        if isinstance(layer, layers.BatchNormalization):
            assert layer.momentum == 0.9
            assert layer.epsilon == 1e-5


def test_strided_convolutions_pad_every_side():
    """The top left output sees the 2x2 corner, as in PyTorch, not a 3x3 patch."""
    model = models.ResNet20()
    conv = model.get_layer("stage2_block1_conv1")
    pad = model.get_layer("stage2_block1_conv1_pad")
    conv.kernel.assign(np.ones(conv.kernel.shape))
    y = conv(pad(np.ones((1, 32, 32, 16), "float32"))).numpy()
    assert y.shape == (1, 16, 16, 32)
    assert (y[0, 0, 0] == 4 * 16).all()
    assert (y[0, -1, -1] == 9 * 16).all()


@pytest.mark.parametrize("size", [28, 32, 64, 96])
def test_the_form_follows_the_image_size(size):
    model = models.VGG11(input_shape=(size, size, 3))
    dense = [x.units for x in model.layers if isinstance(x, layers.Dense)]
    hidden = {28: [], 32: [], 64: [1024] * 2, 96: [4096] * 2}[size]
    assert dense == [*hidden, 10]
    stem = models.ResNet18(input_shape=(size, size, 3)).get_layer("stem_conv")
    assert (stem.kernel_size, stem.strides) == (
        ((7, 7), (2, 2)) if size > 64 else ((3, 3), (1, 1))
    )


def test_variant_overrides_the_size():
    model = models.build("vgg11_bn", (64, 64, 3), 10, variant="cifar")
    assert [x.units for x in model.layers if isinstance(x, layers.Dense)] == [10]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: models.build("vgg12", (32, 32, 3), 10),
            "unknown model 'vgg12'; there",
        ),
        (
            lambda: models.VGG11(variant="big"),
            "unknown variant 'big'; there are 'cifar'",
        ),
        (
            lambda: models.ResNet20(variant="tiny"),
            "unknown variant of ResNet-20 'tiny'",
        ),
        (lambda: models.resnet(19), "there is no ResNet-19; there are"),
        (lambda: models.vgg(12), "there is no VGG-12; there are"),
    ],
)
def test_unknown_names_come_with_those_there_are(call, message):
    with pytest.raises(ValueError, match=message):
        call()
