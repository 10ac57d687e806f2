"""Layers that bring several signals together."""

import functools
from collections.abc import Mapping
from typing import Any

import tensorflow as tf


def add(layer: Any, inputs: list[Any], weights: Mapping[str, Any]) -> Any:
    """A sum; the -1 of a difference counts by its absolute value.

    A product of signals is linear in each: at unit signals its linear part is their
    sum; see `operators`. The maximum and the minimum of signals count as parallel
    branches too, so that each gets flow and the flow is linear in its weights.
    """
    return functools.reduce(tf.add, inputs)


def average(layer: Any, inputs: list[Any], weights: Mapping[str, Any]) -> Any:
    """The mean of the inputs."""
    return functools.reduce(tf.add, inputs) / len(inputs)


def concatenate(layer: Any, inputs: list[Any], weights: Mapping[str, Any]) -> Any:
    """The inputs side by side."""
    return tf.concat(inputs, axis=layer.axis)


def scaled_residual(layer: Any, inputs: list[Any], weights: Mapping[str, Any]) -> Any:
    """The first input plus |scale| times the second."""
    return inputs[0] + abs(layer.scale) * inputs[1]
