"""Pooling over windows.

The maximum of non-negative entries is one of these entries, so max pooling is linear
here.
"""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from tf_synflow.flow.parts.shapes import channels_last


@channels_last
def average_pooling(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """The mean of each window, over one or two axes."""
    return _windows(tf.nn.avg_pool, layer, x)


@channels_last
def max_pooling(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """The maximum of each window, over one or two axes."""
    return _windows(tf.nn.max_pool, layer, x)


@channels_last
def average_pooling_3d(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """The mean of each window, over three axes."""
    return _plane_by_plane(tf.nn.avg_pool, layer, x)


@channels_last
def max_pooling_3d(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """The maximum of each window, over three axes."""
    return _plane_by_plane(tf.nn.max_pool, layer, x)


# Not tf.nn.pool, which refuses strides that are larger than the window.
def _windows(pool: Callable, layer: Any, x: Any) -> Any:
    # The 1-D layers keep plain numbers where the others keep tuples.
    window, strides = tf.nest.flatten(layer.pool_size), tf.nest.flatten(layer.strides)
    return pool(x, window, strides, layer.padding.upper())


def _plane_by_plane(pool: Callable, layer: Any, x: Any) -> Any:
    """Pools in planes, then across planes: TensorFlow has no float64 pooling in 3-D."""
    (depth, *plane), (step, *steps) = layer.pool_size, layer.strides
    padding, channels = layer.padding.upper(), tf.shape(x)[-1]
    x = pool(x[0], plane, steps, padding)
    planes, height, width, _ = x.shape
    x = tf.reshape(x, [1, planes, height * width, channels])
    x = pool(x, [depth, 1], [step, 1], padding)
    return tf.reshape(x, [1, x.shape[1], height, width, channels])
