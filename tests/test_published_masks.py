"""The authors' own masks, reproduced in every bit; see data/README.md."""

from pathlib import Path

import numpy as np
import pytest

import tf_synflow
from tf_synflow.keras2.reading import flatten
from tf_synflow.network import named_weights

DATA = Path(__file__).with_name("data")


def in_the_authors_order(names):
    """Stem, then each block's conv1, conv2, shortcut, then the classifier."""

    def key(name):
        layer = name.split("/")[0]
        block, _, part = layer.rpartition("_")
        place = {"stem": 0, "classifier": 2}.get(layer.split("_")[0], 1)
        return place, block, part == "shortcut", part

    return sorted(names, key=key)


def load_published(model, file):
    """Gives the model the published weights and returns the published masks."""
    with np.load(DATA / file) as stored:
        shapes = [tuple(int(n) for n in shape if n) for shape in stored["shapes"]]
        bits = np.unpackbits(stored["bits"])[: int(stored["n"])].astype(bool)
    variables = named_weights(flatten(model))
    names = in_the_authors_order(n for n in variables if n.endswith("/kernel"))
    rng, masks, start = np.random.default_rng(20261120), {}, 0
    for name, shape in zip(names, shapes, strict=True):
        scale = np.sqrt(2 / np.prod(shape[:-1]))
        variables[name].assign((rng.standard_normal(shape) * scale).astype("float32"))
        masks[name] = bits[start : start + np.prod(shape)].reshape(shape)
        start += np.prod(shape)
    assert start == bits.size
    return masks


@pytest.mark.parametrize(
    ("file", "model", "ratio", "kept"),
    [
        ("resnet20_exp1.npz", "resnet20", 10, 27_090),
        ("resnet20_exp2.npz", "resnet20", 100, 2_709),
        ("vgg11_bn_exp2.npz", "vgg11_bn", 100, 92_229),
    ],
)
def test_the_authors_masks_in_every_bit(file, model, ratio, kept):
    model = tf_synflow.models.build(model, (32, 32, 3), 10)
    published = load_published(model, file)
    masks = tf_synflow.PruningPolicy().masks(model, ratio)
    assert sum(mask.sum() for mask in masks.values()) == kept
    for name, mask in published.items():
        np.testing.assert_array_equal(masks[name], mask, err_msg=name)
