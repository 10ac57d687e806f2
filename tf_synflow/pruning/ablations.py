"""Ablations: which part of a pruned network matters, its masks or its weights?

If a network trains as well after its masks are shuffled within each layer, or after its
weights are drawn anew, the criterion has found no more than how many weights each layer
needs. (A third check of this kind, with inverted scores, is
`PruningPolicy(invert=True)`.)

References:
  Frankle, Dziugaite, Roy, Carbin. Pruning neural networks at initialization: why are we
  missing the mark? ICLR 2021. arXiv 2009.08576, section 5.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_synflow import frameworks
from tf_synflow.masks.types import Masks


def shuffle(masks: Mapping[str, np.ndarray], seed: int = 0) -> Masks:
    """Shuffles each mask within its weight tensor.

    Args:
      masks: Name to boolean array, as `PruningPolicy.masks` returns. It is not changed.
      seed: Seed of the new order. Defaults to 0.

    Returns:
      New masks, each of the same shape with as many True as before.
    """
    generator = np.random.default_rng(seed)
    return {
        name: generator.permutation(np.ravel(mask)).reshape(np.shape(mask))
        for name, mask in masks.items()
    }


_STREAM = 2718


def _unseeded(layer: Any) -> Any:
    """A new layer of the same configuration, with unseeded initialisers."""
    adapter = frameworks.adapter_of(layer)

    def strip(config: Any) -> Any:
        if isinstance(config, list):
            return [strip(part) for part in config]
        if not isinstance(config, Mapping):
            return config
        inner = {key: strip(value) for key, value in config.items()}
        if config.get("module") == "keras.initializers" and "seed" in inner["config"]:
            inner["config"]["seed"] = None
        return inner

    return adapter.layer_from(type(layer), strip(adapter.config_of(layer)))


def reinitialise(model: Any, seed: int = 0) -> Any:
    """Draws the weights of a model anew, and keeps its masks.

    Args:
      model: A built Sequential or functional Keras model, pruned or not. It is not
        changed.
      seed: Determines the seed for `keras.utils.set_random_seed`, and so the new
        weights. Seeds that the initialisers themselves have are ignored. Defaults to 0.

    Returns:
      A new, uncompiled model with the same masks. Each layer has initialised its
      weights anew. Only what layers such as Normalization have learned by `adapt` is
      kept.

    Raises:
      TypeError: `model` is no Keras model.
      ValueError: `model` is subclassed or not built.
    """
    network = frameworks.read(model)
    adapter = frameworks.adapter_of(model)
    # Not `seed` itself: the model may have been made with the same seed.
    (fresh_seed,) = np.random.SeedSequence([seed, _STREAM]).generate_state(1)
    adapter.set_random_seed(int(fresh_seed))
    adapted = {id(c.layer) for c in network.calls if hasattr(c.layer, "adapt")}
    return adapter.rebuild(
        network,
        network.masks,
        make=_unseeded,
        weights=lambda layer: id(layer) in adapted,
    ).model
