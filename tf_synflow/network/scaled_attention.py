"""MultiHeadAttention with fewer units, and the scale of what it was.

Nothing here imports a Keras: each adapter joins this with its MultiHeadAttention.
"""

from typing import Any


class ScaledQueries:
    """Lets a MultiHeadAttention multiply its queries by a number.

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


def without_factor(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration that Keras's own layer takes."""
    return {key: value for key, value in config.items() if key != "query_factor"}
