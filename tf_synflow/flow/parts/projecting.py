"""Embeddings and EinsumDense: products with a kernel along axes of any kind."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tf_synflow.network import Call


def einsum_dense(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """The product with the kernel, by the layer's own equation."""
    return tf.einsum(layer.equation, x, weights["kernel"])


def embedding(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """The sum over the vocabulary: each token is any of the words.

    A Dense layer that reads one-hot codes of words gives the same for an input of ones.
    """
    return x[..., None] * tf.reduce_sum(weights["embeddings"], 0)


def is_reversed(call: Call) -> bool:
    """Whether a ReversibleEmbedding is called to give a score for each word."""
    return bool(call.options.get("reverse") or True in call.arguments[1:])


def reversible_embedding(
    call: Call, layer: Any, x: Any, weights: Mapping[str, Any]
) -> Any:
    """An embedding, or the projection back to the vocabulary."""
    if not is_reversed(call):
        return embedding(layer, x, weights)
    if "reverse_embeddings" in weights:
        return tf.tensordot(x, weights["reverse_embeddings"], 1)
    return tf.tensordot(x, tf.transpose(weights["embeddings"]), 1)
