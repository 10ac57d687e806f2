"""The VGG-13 of the gradient flow framework."""

import numpy as np
import pytest
from nets import layers

from tf_synflow import models
from tf_synflow.frameworks import keras_named
from tf_synflow.keras2.imports import keras


@pytest.mark.parametrize("which", ["tf_keras", "keras"])
def test_its_parameters_are_those_of_the_paper(which):
    model = models.build("vgg13_framework", (32, 32, 3), 10, keras=which)
    count = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert count == 9_413_066
    found = keras_named(which).layers
    convolutions = [x for x in model.layers if isinstance(x, found.Conv2D)]
    assert sum(x.filters for x in convolutions) == 2944
    assert not any(x.use_bias for x in convolutions)
    assert sum(isinstance(x, found.MaxPooling2D) for x in model.layers) == 5
    assert not any(isinstance(x, found.AveragePooling2D) for x in model.layers)


def test_batch_norm_comes_after_relu():
    kinds = [type(x) for x in models.build("vgg13_framework", (32, 32, 3), 10).layers]
    places = [i for i, kind in enumerate(kinds) if kind is layers.Conv2D]
    assert len(places) == 10
    for place in places:
        assert kinds[place + 1 : place + 3] == [layers.ReLU, layers.BatchNormalization]


def test_weights_start_as_those_of_pytorch():
    """Uniform within 1 / sqrt(fan-in): the deviation is the bound over sqrt(3)."""
    keras.utils.set_random_seed(5)
    model = models.build("vgg13_framework", (32, 32, 3), 100)
    seen = set()
    for layer in model.layers:
        if isinstance(layer, (layers.Conv2D, layers.Dense)):
            kernel = layer.kernel.numpy()
            bound = (kernel.size / kernel.shape[-1]) ** -0.5
            assert np.abs(kernel).max() <= bound
            np.testing.assert_allclose(kernel.std(), bound / 3**0.5, rtol=0.03)
            seen.add(kernel.tobytes())
    assert len(seen) == 11
    bias = model.get_layer("classifier").bias.numpy()
    assert 0.9 * 512**-0.5 < np.abs(bias).max() <= 512**-0.5


@pytest.mark.parametrize("name", ["vgg13_framework", "vgg13_framework_eighth"])
def test_new_logits_are_not_near_0(name):
    keras.utils.set_random_seed(3)
    images = np.random.default_rng(0).standard_normal((2, 32, 32, 3))
    model = models.build(name, (32, 32, 3), 10)
    assert model.name == name
    # Five layers of ReLU at PyTorch's small weights: the bias is most of it.
    assert 0.01 < model(images, training=False).numpy().std() < 1
    assert model(images, training=True).numpy().std() > 0.3


def test_what_it_has_no_form_for_is_refused():
    with pytest.raises(ValueError, match="at least 32x32 pixels"):
        models.build("vgg13_framework", (28, 28, 1), 10)
    with pytest.raises(ValueError, match="unknown variant of vgg13_framework 'tiny'"):
        models.build("vgg13_framework", (32, 32, 3), 10, variant="tiny")
