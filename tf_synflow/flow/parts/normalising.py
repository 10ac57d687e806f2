"""Normalisation and scales: products with numbers that are known beforehand."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

_EPSILON = 1e-7  # Keras's backend.epsilon()


def batch_normalization(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """Multiplies by |gamma| / sqrt(moving_variance + epsilon)."""
    scale = 1.0 / tf.sqrt(weights["moving_variance"] + layer.epsilon)
    if layer.scale:
        scale = weights["gamma"] * scale
    return x * _along_axes(scale, layer, x)


def _along_axes(scale: Any, layer: Any, x: Any) -> Any:
    """A scale along the layer's axes, in a shape that fits the signal."""
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    axes = sorted(axis % x.shape.rank for axis in axes)
    if axes == [x.shape.rank - 1]:
        return scale
    shape = tf.shape(x)
    picks = [axis in axes for axis in range(x.shape.rank)]
    return tf.reshape(scale, tf.where(picks, shape, tf.ones_like(shape)))


def other_normalization(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """Multiplies by |gamma|: the statistics are those of the signal, not known here."""
    return x * _along_axes(weights["gamma"], layer, x) if "gamma" in weights else x


def rms_normalization(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """Multiplies by |scale|; the size of the signal is not known here."""
    return x * _along_axes(weights["scale"], layer, x)


def rescaling(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """Multiplies by |scale|; the offset drops out."""
    return x * tf.constant(np.abs(layer.scale), x.dtype)


def normalization(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """Divides by the standard deviation that was given or learned by adapt()."""
    if "variance" in weights:
        variance = tf.reshape(weights["variance"], layer._broadcast_shape)
    else:
        variance = tf.cast(layer.variance, x.dtype)
    return x / tf.maximum(tf.sqrt(variance), _EPSILON)


def layer_scale(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """Multiplies by |gamma|, the one weight there is."""
    (gamma,) = weights.values()
    return x * gamma
