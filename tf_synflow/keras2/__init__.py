"""The adapter for Keras 2 (tf_keras): all code that is particular to it and to tfmot.

It has the functions that `frameworks` lists.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from tf_synflow.keras2.attention import with_factor
from tf_synflow.keras2.constraints import hold_zero
from tf_synflow.keras2.copying import config_of, layer_from, same_layer
from tf_synflow.keras2.holding import Holder
from tf_synflow.keras2.imports import keras
from tf_synflow.keras2.reading import read
from tf_synflow.keras2.serving import outputs_of, servable
from tf_synflow.keras2.weights import kind_of, prunable_weights, wrappable
from tf_synflow.keras2.wrapping import rebuild
from tf_synflow.network import Network

set_random_seed = keras.utils.set_random_seed


def scope(model: Any) -> Any:
    """The scope of the strategy that a model was made under."""
    return model.distribute_strategy.scope()


def for_gradients(network: Network, loss: Any) -> tuple[Network, Any]:
    """The network and the loss to take gradients with, which stay the same here."""
    return network, loss


def evaluated(function: Any, array: np.ndarray) -> np.ndarray:
    """The output of a layer or a function of Keras for an array."""
    return np.asarray(function(tf.constant(array)))


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
