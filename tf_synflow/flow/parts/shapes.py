"""Layers that move entries of a signal, repeat them, or leave some out."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_synflow.flow.positions import gathered


def channels_last(rule: Callable) -> Callable:
    """Lets a rule for channels-last signals serve channels-first layers too."""

    @functools.wraps(rule)
    def either(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
        if getattr(layer, "data_format", "channels_last") != "channels_first":
            return rule(layer, x, weights)
        y = rule(layer, to_channels_last(x), weights)
        rank = y.shape.rank
        return tf.transpose(y, [0, rank - 1, *range(1, rank - 1)])

    return either


def to_channels_last(x: Any) -> Any:
    """Moves the channels from axis 1 to the last axis."""
    return tf.transpose(x, [0, *range(2, x.shape.rank), 1])


def identity(layer: Any, inputs: Any, weights: Mapping[str, Any]) -> Any:
    """Activations, dropout and noise: the identity in the twin."""
    return inputs


def flatten(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """One axis; channels-first signals are turned first, as Keras does."""
    if layer.data_format == "channels_first" and x.shape.rank > 1:
        x = to_channels_last(x)
    return tf.reshape(x, [1, -1])


def reshape(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """The same entries in another shape, of which one size may be -1."""
    return tf.reshape(x, [1, *layer.target_shape])


def permute(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """The axes in another order; Keras counts them from 1, the batch left out."""
    return tf.transpose(x, [0, *layer.dims])


def repeat_vector(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """(1, C) to (1, n, C)."""
    return tf.repeat(x[:, None], layer.n, axis=1)


@channels_last
def zero_padding(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """Zeros around the positions of a signal with one, two or three axes."""
    return tf.pad(x, [(0, 0), *pairs(layer.padding), (0, 0)])


@channels_last
def cropping(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """Leaves out the positions at the border."""
    inside = [
        slice(first, size - last)
        for (first, last), size in zip(
            pairs(layer.cropping), x.shape[1:-1], strict=True
        )
    ]
    return x[(slice(None), *inside)]


def pairs(amounts: Any) -> list[tuple[int, int]]:
    """A list of pairs: Keras keeps one pair for one axis, a tuple of pairs for more."""
    return [amounts] if isinstance(amounts[0], int) else list(amounts)


@channels_last
def repeated(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """UpSampling by the nearest neighbour: each position several times."""
    times = enumerate(tf.nest.flatten(layer.size), 1)
    rows = {axis: np.repeat(np.arange(x.shape[axis]), count) for axis, count in times}
    return gathered(x, rows)  # after tf.repeat the shape would not be known


def global_average(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """The mean over all positions."""
    axes = _positions(layer, x)
    return tf.reduce_mean(x, axes, keepdims=layer.keepdims)


def global_maximum(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """The maximum over all positions: one of them, so linear on signals >= 0."""
    return tf.reduce_max(x, _positions(layer, x), keepdims=layer.keepdims)


def _positions(layer: Any, x: Any) -> list[int]:
    """The axes that are neither the batch's nor the channels'."""
    first = layer.data_format == "channels_first"
    return list(range(2 if first else 1, x.shape.rank - (not first)))


def at_each_step(
    inner: Any,
    path: str,
    rule: Callable,
    layer: Any,
    x: Any,
    weights: Mapping[str, Any],
) -> Any:
    """TimeDistributed: the rule of the layer inside, for each step by itself.

    Args:
      inner: The inner layer.
      path: The prefix that the names of the inner layer's weights have in `weights`.
      rule: The linear part of the inner layer.
      layer: The TimeDistributed layer.
      x: Tensor `(1, steps, ...)`.
      weights: The weights of the whole layer.
    """
    own = {short.removeprefix(path): weight for short, weight in weights.items()}
    return tf.stack([rule(inner, step, own) for step in tf.unstack(x, axis=1)], 1)
