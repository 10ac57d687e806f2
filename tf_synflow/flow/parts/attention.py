"""Attention: every token attends alike to every token that it may see.

With W_q, W_k, W_v, W_o the absolute values of the kernels, h a head, U the matrix of
equal attention, and x_q and x_k the means of the query and the key signal over tokens:

    r_h   = sum_d (x_q W_q[:, h, d]) (x_k W_k[:, h, d])
    rho_h = r_h / stop(r_h) if r_h > 0, else 1
    out   = sum_h rho_h (U x_v W_v[:, h]) W_o[h]

x_q, x_k and the denominator are held constant while scores are computed. So the value
of rho_h is 1, and the flow is that of the network at equal logits. But each query or
key weight gets a share of its head's flow: the share that its products have in r_h. In
each layer, and in each of its heads, the scores of the four kernels have the same sum.
A query unit whose key unit has no weights scores 0.

With the setting "product", rho_h is r_h / sqrt(K), where K is the number of key units
and the signals x_q and x_k are scaled to mean 1. Then a head without query or key
weights carries no flow.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_synflow.flow.scaling import exponent_of, power_of_two
from tf_synflow.network import Call, filled

# The layer is linear in these kernels. In a query or key kernel it is of degree 0.
_LINEAR = ("value/kernel", "attention_output/kernel")


def linear_weights(call: Call) -> Sequence[str]:
    """Short names of the kernels that may be scaled by a power of two."""
    # A gate is added to the values, so neither of the two can be scaled alone.
    return () if "gate/kernel" in call.weights else _LINEAR


def multi_head_attention(
    call: Call,
    layer: Any,
    inputs: Any,
    weights: Mapping[str, Any],
    product: bool = False,
) -> Any:
    """The mean of the values, times the share that queries and keys give each head."""
    given = _given(call, inputs)
    query, value = given["query"], given["value"]
    key = value if given.get("key") is None else given["key"]
    axes = getattr(layer, "_attention_axes", None) or range(1, query.shape.rank - 1)
    axes = [axis % query.shape.rank for axis in axes]
    values = tf.tensordot(value, weights["value/kernel"], 1)
    y = _attended(values, axes, query.shape, _visible(layer, given, query, key, axes))
    shares = _products if product else _shares
    share = shares(query, key, weights["query/kernel"], weights["key/kernel"])
    y = tf.repeat(y, share.shape[0] // y.shape[-2], axis=-2) * share[:, None]
    if "gate/kernel" in weights:  # a product of signals counts as their sum
        y += tf.tensordot(query, weights["gate/kernel"], 1)
    return _with_scores(given, tf.tensordot(y, weights["attention_output/kernel"], 2))


def mean_of_values(
    call: Call, layer: Any, inputs: Any, weights: Mapping[str, Any]
) -> Any:
    """The mean of the values; queries and keys carry no flow."""
    given = _given(call, inputs)
    query, value = given["inputs"][:2]
    axes = [query.shape.rank - 2]
    visible = _visible(layer, given, query, value, axes)
    return _with_scores(given, _attended(value, axes, query.shape, visible))


def _given(call: Call, inputs: Any) -> dict[str, Any]:
    """The arguments of a call by name, with the twin's tensors in them."""
    bound = inspect.signature(call.layer.call).bind(*call.arguments, **call.options)
    tensors = dict(zip(call.inputs, tf.nest.flatten(inputs), strict=True))
    return {name: filled(value, tensors) for name, value in bound.arguments.items()}


def _with_scores(given: Mapping[str, Any], output: Any) -> Any:
    """The output; if attention scores are asked for too, a 0 in their place."""
    if not given.get("return_attention_scores"):
        return output
    return [output, tf.zeros([1], output.dtype)]


def _visible(
    layer: Any, given: Mapping[str, Any], query: Any, key: Any, axes: Sequence[int]
) -> np.ndarray | None:
    """Boolean matrix (queries, keys): which query sees which key; None: all see all.

    A mask that depends on the model's input hides nothing from an input of ones.
    """
    places = [int(np.prod([x.shape[axis] for axis in axes])) for x in (query, key)]
    seen = np.ones(places, bool)
    if given.get("use_causal_mask") or getattr(layer, "causal", False):
        seen &= np.tri(*places, dtype=bool)
    if (window := getattr(layer, "_sliding_window", None)) is not None:
        apart = np.arange(places[0])[:, None] - np.arange(places[1])
        seen &= np.abs(apart) < window
    mask = given.get("attention_mask")
    if mask is not None and np.size(mask) % seen.size == 0:
        seen &= np.asarray(mask).astype(bool).reshape(-1, *places).any(0)
    if seen.all():
        return None
    # With softmax, a token that sees no token attends to all tokens alike.
    return seen | ~seen.any(1, keepdims=True)


def _attended(
    values: Any, axes: Sequence[int], queries: Sequence, visible: np.ndarray | None
) -> Any:
    """For each query, the mean of the values that the query sees.

    Args:
      values: Tensor `(1, ..., features)`, or with heads before the features.
      axes: The axes of the tokens.
      queries: The shape of the query signal; its axes are those of the values.
      visible: See `_visible`.
    """
    sizes = [queries[axis] for axis in axes]
    if visible is None:
        mean = tf.reduce_mean(values, axes, keepdims=True)
        times = dict(zip(axes, sizes, strict=True))
        return tf.tile(mean, [times.get(axis, 1) for axis in range(mean.shape.rank)])
    others = [axis for axis in range(values.shape.rank) if axis not in axes]
    order = [*axes, *others]
    tokens = tf.transpose(values, order)
    shape = tf.shape(tokens)[len(axes) :]
    flat = tf.reshape(tokens, [visible.shape[1], -1])
    share = tf.constant(visible / visible.sum(1, keepdims=True), values.dtype)
    y = tf.reshape(tf.matmul(share, flat), tf.concat([sizes, shape], 0))
    return tf.transpose(y, np.argsort(order))


def _shares(query: Any, key: Any, query_kernel: Any, key_kernel: Any) -> Any:
    """The rho of each head: 1 in value, with derivatives by query and key kernel."""
    axes = list(range(query.shape.rank - 1))
    x_q = _near_one(tf.stop_gradient(tf.reduce_mean(query, axes)))
    x_k = _near_one(tf.stop_gradient(tf.reduce_mean(key, axes)))
    q = tf.tensordot(x_q, _near_one(query_kernel), 1)
    k = tf.tensordot(x_k, _near_one(key_kernel), 1)
    k = tf.repeat(k, q.shape[0] // k.shape[0], axis=0)
    return share_of(tf.reduce_sum(q * k, -1))


def _products(query: Any, key: Any, query_kernel: Any, key_kernel: Any) -> Any:
    """The rho of each head with the setting "product"."""
    axes = list(range(query.shape.rank - 1))
    x_q, x_k = (tf.stop_gradient(tf.reduce_mean(x, axes)) for x in (query, key))
    x_q, x_k = (tf.math.divide_no_nan(x, tf.reduce_mean(x)) for x in (x_q, x_k))
    q, k = tf.tensordot(x_q, query_kernel, 1), tf.tensordot(x_k, key_kernel, 1)
    k = tf.repeat(k, q.shape[0] // k.shape[0], axis=0)
    return tf.reduce_sum(q * k, -1) / q.shape[-1] ** 0.5


def _near_one(x: Any) -> Any:
    """The same numbers times a power of two that is held constant."""
    top = tf.stop_gradient(tf.reduce_max(x))
    return x * power_of_two(-exponent_of(top), x.dtype)


def share_of(flow: Any) -> Any:
    """A flow divided by itself as a constant; 1 where there is no flow."""
    some = flow > 0
    whole = tf.stop_gradient(tf.where(some, flow, tf.ones_like(flow)))
    return tf.where(some, flow / whole, tf.ones_like(flow))
