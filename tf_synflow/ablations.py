"""Ablations: which part of a pruned network matters, its masks or its weights?

If a network trains as well after its masks are shuffled within each layer, or after its
weights are drawn anew, the criterion has found no more than how many weights each layer
needs. (The third of these checks, inverted scores, is `PruningPolicy(invert=True)`.)

References:
  Frankle, Dziugaite, Roy, Carbin. Pruning neural networks at initialization: why are we
  missing the mark? ICLR 2021. arXiv 2009.08576, section 5.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_synflow._compat import keras
from tf_synflow.copying import copy_model
from tf_synflow.graph import flatten
from tf_synflow.masks import Masks
from tf_synflow.wrapping import apply_masks, masks_of


def shuffle(masks: Mapping[str, np.ndarray], seed: int = 0) -> Masks:
    """Shuffles each mask within its weight tensor.

    Args:
      masks: Name to boolean array, as `policy.masks` gives. It is not changed.
      seed: Seeds the order. Defaults to 0.

    Returns:
      New masks, each of the same shape with as many True as before.
    """
    generator = np.random.default_rng(seed)
    return {
        name: generator.permutation(np.ravel(mask)).reshape(np.shape(mask))
        for name, mask in masks.items()
    }


def reinitialise(model: Any, seed: int = 0) -> Any:
    """Draws the weights of a model anew, and keeps its masks.

    Args:
      model: A built Sequential or functional tf_keras model, pruned or not. It is not
        changed.
      seed: Seeds the initialisers that have no seed of their own, by
        `keras.utils.set_random_seed`. Defaults to 0.

    Returns:
      A new, uncompiled model: every weight as its layer initialises it, under the same
      masks.

    Raises:
      TypeError: `model` is no tf_keras model.
      ValueError: It is subclassed or not built.
    """
    masks = masks_of(flatten(model))
    keras.utils.set_random_seed(seed)
    fresh, _ = copy_model(model, weights=False)
    return apply_masks(fresh, masks) if masks else fresh
