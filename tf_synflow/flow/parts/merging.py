"""Layers that bring several signals together."""

import functools
from collections.abc import Mapping
from typing import Any

import tensorflow as tf


def add(layer: Any, inputs: list[Any], weights: Mapping[str, Any]) -> Any:
    """A sum; the -1 of a difference counts by its absolute value.

    At signals of value 1, the linear part of a product of signals is their sum; see
    `operators`. The signals of a maximum or a minimum count as parallel branches too.
    So each branch gets flow, and the flow is linear in the weights of the branch.
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
