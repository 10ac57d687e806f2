"""MultiHeadAttention of Keras 3 with fewer units, but queries scaled as before."""

import math
from typing import Any

import numpy as np

from tf_synflow.keras3.imports import keras
from tf_synflow.network.scaled_attention import ScaledQueries, without_factor


@keras.saving.register_keras_serializable("tf_synflow")
class ScaledAttention(ScaledQueries, keras.layers.MultiHeadAttention):
    """MultiHeadAttention that multiplies its queries by a number."""


def with_factor(config: dict[str, Any], factor: float) -> Any:
    """A new MultiHeadAttention whose queries are multiplied by a number.

    Args:
      config: The configuration of a MultiHeadAttention, as `config_of` returns it, with
        other sizes.
      factor: The number. If it is 1, the layer is Keras's own.
    """
    config = without_factor(config)
    # Keras rounds 1 / sqrt(key_dim) to float32, whatever type it computes in.
    scale = 1 / math.sqrt(config["key_dim"])
    factor = float(np.float64(np.float32(factor * scale)) / np.float32(scale))
    if abs(factor - 1) < 1e-6:
        return keras.layers.MultiHeadAttention.from_config(config)
    return ScaledAttention.from_config({**config, "query_factor": factor})
