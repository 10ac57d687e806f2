"""The adapter for Keras 3: all code that is particular to it, on any backend.

It has the functions that `frameworks` lists.
"""

from typing import Any

import numpy as np

from tf_synflow.keras3.attention import with_factor
from tf_synflow.keras3.constraints import hold_zero
from tf_synflow.keras3.conversion import outputs_of
from tf_synflow.keras3.copying import config_of, layer_from, same_layer, scope
from tf_synflow.keras3.holding import Holder
from tf_synflow.keras3.imports import keras
from tf_synflow.keras3.losses import for_gradients
from tf_synflow.keras3.reading import read
from tf_synflow.keras3.rebuilding import rebuild
from tf_synflow.keras3.serving import servable
from tf_synflow.keras3.weights import kind_of, prunable_weights, wrappable

set_random_seed = keras.utils.set_random_seed


def evaluated(function: Any, array: np.ndarray) -> np.ndarray:
    """The output of a layer or a function of Keras for an array."""
    given = keras.ops.convert_to_tensor(array)
    return np.asarray(keras.ops.convert_to_numpy(function(given)))


__all__ = [
    "Holder",
    "config_of",
    "evaluated",
    "for_gradients",
    "hold_zero",
    "kind_of",
    "layer_from",
    "outputs_of",
    "prunable_weights",
    "read",
    "rebuild",
    "same_layer",
    "scope",
    "servable",
    "set_random_seed",
    "with_factor",
    "wrappable",
]
