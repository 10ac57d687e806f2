"""Reads the authors' own masks; see flow/data/README.md."""

from pathlib import Path

import numpy as np

from tf_synflow.frameworks import read

DATA = Path(__file__).with_name("flow") / "data"


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
    variables = read(model).weights
    names = in_the_authors_order(n for n in variables if n.endswith("/kernel"))
    rng, masks, start = np.random.default_rng(20261120), {}, 0
    for name, shape in zip(names, shapes, strict=True):
        scale = np.sqrt(2 / np.prod(shape[:-1]))
        variables[name].assign((rng.standard_normal(shape) * scale).astype("float32"))
        masks[name] = bits[start : start + np.prod(shape)].reshape(shape)
        start += np.prod(shape)
    assert start == bits.size
    return masks
