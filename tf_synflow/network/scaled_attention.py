"""MultiHeadAttention with fewer units that scales queries as before.

Nothing here imports Keras 2 or Keras 3: each adapter combines `ScaledQueries` with the
MultiHeadAttention of its Keras.
"""

from typing import Any

# Of any class, to a type checker: that of a Keras comes next in the order of bases.
_Mixin: Any = object


class ScaledQueries(_Mixin):
    """Lets a MultiHeadAttention multiply its queries by a number.

    Keras divides the queries by the square root of `key_dim`. `shrink` takes out units,
    but the layer must still divide by the square root of the old `key_dim`. Scaled
    weights would give the same outputs, but would train differently. `strip` does scale
    the weights.

    Attributes:
      query_factor: The number that multiplies the queries.
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
