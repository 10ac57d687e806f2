"""The authors' own masks, reproduced in every bit; see data/README.md."""

import numpy as np
import pytest
from published_masks import load_published

import tf_synflow


@pytest.mark.parametrize(
    ("file", "model", "ratio", "kept"),
    [
        ("resnet20_exp1.npz", "resnet20", 10, 27_090),
        ("resnet20_exp2.npz", "resnet20", 100, 2_709),
        ("vgg11_bn_exp2.npz", "vgg11_bn", 100, 92_229),
    ],
)
@pytest.mark.parametrize("keras", ["tf_keras", "keras"])
def test_the_authors_masks_in_every_bit(file, model, ratio, kept, keras):
    model = tf_synflow.models.build(model, (32, 32, 3), 10, keras=keras)
    published = load_published(model, file)
    masks = tf_synflow.PruningPolicy().masks(model, ratio)
    assert sum(mask.sum() for mask in masks.values()) == kept
    for name, mask in published.items():
        np.testing.assert_array_equal(masks[name], mask, err_msg=name)
