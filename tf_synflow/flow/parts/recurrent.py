"""Recurrent layers: the input kernel as in a Dense layer, and one recurrent step.

With W and U the absolute values of the input and the recurrent kernel, and x_t the
signal at step t:

    a_t = x_t W                                 one column for each gate and unit
    u   = stop(z) U                             z: mean over t of a_t, summed over gates
    y_t = sum over gates of a_t u / stop(u)     (u / stop(u) is 1 where u is 0)

A gate is a parallel branch, because a product of signals counts as their sum. The units
remember all steps so far alike. So the output at step t is the mean of y_1 ... y_t, and
the last output is the mean over all steps. An initial state is added to every output.

U is applied once, to the signal z, which is held constant. The value of u / stop(u) is
1. So the scores of U have the same sum as those of W, whatever the length of the
sequence. In an unrolled network U would count once for each step.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tf_synflow.flow.parts.attention import share_of
from tf_synflow.flow.parts.convolving import FORMATS
from tf_synflow.flow.parts.shapes import to_channels_last
from tf_synflow.network import Call

CELLS = ("SimpleRNNCell", "LSTMCell", "GRUCell", "ConvLSTMCell")


def cells_of(layer: Any) -> list[Any]:
    """The cells of a recurrent layer, in the order in which they apply."""
    cell = getattr(layer, "cell", None)
    return list(getattr(cell, "cells", [cell]))


def recurrent(call: Call, layer: Any, inputs: Any, weights: Mapping[str, Any]) -> Any:
    """The input kernel and one recurrent step, frozen; the mean of all steps so far."""
    x, *states = tf.nest.flatten(inputs)
    run = _run(layer, x, states, weights)
    return run.outputs(layer) if layer.return_state else run.outputs(layer)[0]


def bidirectional(
    call: Call, layer: Any, inputs: Any, weights: Mapping[str, Any]
) -> Any:
    """Both directions; a product of the two counts as their sum."""
    x, *states = tf.nest.flatten(inputs)
    runs = []
    for number, own in enumerate((layer.forward_layer, layer.backward_layer)):
        half = len(states) // 2
        part = states[half:] if number else states[:half]
        runs.append(_run(own, x, part, _inside(weights, own.name)))
    outputs = [
        run.outputs(own)
        for run, own in zip(
            runs, (layer.forward_layer, layer.backward_layer), strict=True
        )
    ]
    (forward, *ahead), (backward, *back) = outputs
    if layer.return_sequences:
        backward = tf.reverse(backward, [1])
    merged = {
        "concat": lambda: [tf.concat([forward, backward], -1)],
        "sum": lambda: [forward + backward],
        "mul": lambda: [forward + backward],
        "ave": lambda: [(forward + backward) / 2],
        None: lambda: [forward, backward],
    }[layer.merge_mode]()
    states = [*ahead, *back] if layer.return_state else []
    return [*merged, *states] if len(merged) + len(states) > 1 else merged[0]


class _Run(NamedTuple):
    """The outputs and the states of a recurrent layer.

    Attributes:
      steps: The output at each step.
      states: The states after the last step.
    """

    steps: Any
    states: list[Any]

    def outputs(self, layer: Any) -> list[Any]:
        """The output, of all steps or the last as the layer is set, and the states."""
        y = self.steps if layer.return_sequences else self.steps[:, -1]
        return [y, *self.states]


def _run(layer: Any, x: Any, states: Sequence[Any], weights: Mapping[str, Any]) -> _Run:
    if layer.go_backwards:
        x = tf.reverse(x, [1])
    stacked = hasattr(layer.cell, "cells")
    weights = _inside(weights, layer.cell.name)
    states, after = list(states), []
    for cell in cells_of(layer):
        own = _inside(weights, cell.name) if stacked else weights
        y = _gates(cell, x, own)
        y = tf.cumsum(y, 1) / _counts(y)
        number = 2 if "LSTM" in type(cell).__name__ else 1
        for state in states[:number]:
            y += state[:, None]
        states = states[number:]
        after += [y[:, -1]] * number
        x = y
    return _Run(x, after)


def _counts(y: Any) -> Any:
    """1, 2, 3 ... along the axis of the steps."""
    steps = tf.range(1, y.shape[1] + 1)
    shape = [1, -1, *[1] * (y.shape.rank - 2)]
    return tf.cast(tf.reshape(steps, shape), y.dtype)


def _inside(weights: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The weights of an inner layer, by their names in that layer."""
    return {
        short.removeprefix(f"{name}/"): weight
        for short, weight in weights.items()
        if short.startswith(f"{name}/")
    }


def _gates(cell: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """The y_t of the equations above at all steps: the sum over the gates."""
    if "Conv" in type(cell).__name__:
        return _conv_gates(cell, x, weights)
    kernel, recurrent_kernel = weights["kernel"], weights["recurrent_kernel"]
    units = recurrent_kernel.shape[0]
    a = tf.tensordot(x, kernel, 1)
    z = tf.reduce_mean(_summed(a, units), [0, 1])
    u = tf.tensordot(tf.stop_gradient(z), recurrent_kernel, 1)
    return _summed(a * share_of(u), units)


def _summed(a: Any, units: int) -> Any:
    """Sums over the gates; the last axis holds the units of one gate after another."""
    gates = a.shape[-1] // units
    return tf.reduce_sum(tf.reshape(a, [*a.shape[:-1], gates, units]), -2)


def _conv_gates(cell: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    first = cell.data_format == "channels_first"
    images = to_channels_last(x[0]) if first else x[0]  # an image for each step
    form = FORMATS[images.shape.rank]
    padding = cell.padding.upper()
    kernel, recurrent_kernel = weights["kernel"], weights["recurrent_kernel"]
    a = tf.nn.convolution(
        images, kernel, cell.strides, padding, form, cell.dilation_rate
    )
    units = recurrent_kernel.shape[-2]
    z = tf.reduce_mean(_summed(a, units), 0, keepdims=True)
    u = tf.nn.convolution(tf.stop_gradient(z), recurrent_kernel, 1, "SAME", form)
    y = _summed(a * share_of(u), units)
    if first:
        y = tf.transpose(y, [0, y.shape.rank - 1, *range(1, y.shape.rank - 1)])
    return y[None]
