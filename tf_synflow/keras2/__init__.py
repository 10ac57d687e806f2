"""Everything that is particular to Keras 2 (tf_keras) and tfmot.

An adapter: the functions listed in `frameworks`, for models of tf_keras.
"""

from typing import Any

from tf_synflow.keras2.copying import same_layer
from tf_synflow.keras2.holding import Holder, hold
from tf_synflow.keras2.imports import keras
from tf_synflow.keras2.reading import kind_of, prunable_weights, read
from tf_synflow.keras2.wrapping import Rebuilt, rebuild

set_random_seed = keras.utils.set_random_seed


def scope(model: Any) -> Any:
    """The scope of the strategy that a model was made under."""
    return model.distribute_strategy.scope()


__all__ = [
    "Holder",
    "Rebuilt",
    "hold",
    "kind_of",
    "prunable_weights",
    "read",
    "rebuild",
    "same_layer",
    "scope",
    "set_random_seed",
]
