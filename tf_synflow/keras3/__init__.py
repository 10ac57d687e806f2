"""Everything that is particular to Keras 3, on any of its backends.

An adapter: the functions listed in `frameworks`, for models of Keras 3.
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
    """What a layer or a function of Keras gives for an array."""
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
