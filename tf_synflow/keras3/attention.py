"""MultiHeadAttention of Keras 3 with fewer units, and the scale of what it was."""

import math
from typing import Any

import numpy as np

from tf_synflow.keras3.imports import keras


@keras.saving.register_keras_serializable("tf_synflow")
class ScaledAttention(keras.layers.MultiHeadAttention):
    """MultiHeadAttention that multiplies its queries by a number.

    Keras divides them by the square root of `key_dim`. `shrink` takes out units, and
    the layer has to go on dividing by what it was. Scaled weights would give the same
    outputs, but would not train alike. `strip` scales the weights.

    Attributes:
      query_factor: The number.
    """

    stands_for = "MultiHeadAttention"

    def __init__(self, *args: Any, query_factor: float = 1.0, **kwargs: Any):
        """Makes the layer.

        Args:
          *args: What MultiHeadAttention takes.
          query_factor: See above. Defaults to 1.
          **kwargs: What MultiHeadAttention takes.
        """
        super().__init__(*args, **kwargs)
        self.query_factor = query_factor

    def _compute_attention(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        return super()._compute_attention(query * self.query_factor, *args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras saves them."""
        return {**super().get_config(), "query_factor": self.query_factor}


def with_factor(config: dict[str, Any], factor: float) -> Any:
    """A new MultiHeadAttention whose queries are multiplied by a number.

    Args:
      config: What `config_of` gave for one, with other sizes.
      factor: The number; of 1 the layer is Keras's own.
    """
    config = {key: value for key, value in config.items() if key != "query_factor"}
    # Keras rounds 1 / sqrt(key_dim) to float32, whatever it computes in.
    scale = 1 / math.sqrt(config["key_dim"])
    factor = float(np.float64(np.float32(factor * scale)) / np.float32(scale))
    if abs(factor - 1) < 1e-6:
        return keras.layers.MultiHeadAttention.from_config(config)
    return ScaledAttention.from_config({**config, "query_factor": factor})
