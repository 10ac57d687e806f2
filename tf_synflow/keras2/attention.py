"""MultiHeadAttention of tf_keras with fewer units, but queries scaled as before."""

from typing import Any

from tf_synflow.keras2.imports import keras
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
    if factor == 1:
        return keras.layers.MultiHeadAttention.from_config(config)
    return ScaledAttention.from_config({**config, "query_factor": factor})
