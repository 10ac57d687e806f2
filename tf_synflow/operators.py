"""The linear part of operators, which Keras records as layers: x + y, tf.nn.relu(x).

A product of two signals has, at unit signals, their sum as its linear part: so a gate,
as of squeeze-and-excite, is a parallel branch of the twin. Its weights get flow, and
the flow stays linear in each layer's weights; a true product would double the degree of
a layer's weights at every gate.
"""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_synflow._compat import tf
from tf_synflow.graph import Call

_SUMS = ("__operators__.add", "math.add", "math.subtract", "math.add_n")
_PRODUCTS = ("math.multiply",)
_QUOTIENTS = ("math.truediv", "math.divide")
# Activations, and what else is the identity up to its sign.
_IDENTITIES = (
    *("nn.relu", "nn.relu6", "nn.leaky_relu", "nn.elu", "nn.selu", "nn.gelu"),
    *("nn.silu", "nn.swish", "nn.softmax", "nn.softplus", "math.softplus"),
    *("math.sigmoid", "nn.sigmoid", "math.tanh", "nn.tanh", "identity", "cast"),
    *("math.negative", "math.abs", "clip_by_value", "nn.dropout", "stop_gradient"),
)
# Linear, and non-negative on non-negative signals, as they are.
_LINEAR = (
    *("reshape", "transpose", "squeeze", "expand_dims"),
    *("math.reduce_mean", "math.reduce_sum", "concat", "stack", "unstack", "split"),
    *("tile", "repeat", "slice", "strided_slice", "pad", "gather"),
    "nn.avg_pool2d",
)


def find(call: Call) -> Any:
    """The rule for a call of an operator layer, or None; see `linear_parts`."""
    kind = type(call.layer).__name__
    symbol = getattr(call.layer, "symbol", "").removeprefix("compat.v1.")
    if kind == "SlicingOpLambda" or (kind == "TFOpLambda" and symbol in _LINEAR):
        return functools.partial(_as_it_is, call)
    if kind != "TFOpLambda":
        return None
    if symbol in _SUMS or symbol in _IDENTITIES:
        return _sum
    constants = [a for a in tf.nest.flatten(call.node.call_args) if not _is_signal(a)]
    if symbol in _PRODUCTS:
        return functools.partial(_product, factor=_size(constants))
    first = call.node.call_args[0] if call.node.call_args else None
    if symbol in _QUOTIENTS and len(call.inputs) == 1 and _is_signal(first):
        return functools.partial(_product, factor=1 / _size(constants))
    return None


def _is_signal(argument: Any) -> bool:
    return hasattr(argument, "_keras_history")


def _size(constants: list[Any]) -> np.ndarray:
    """The absolute value of the product of what is not a signal."""
    arrays = [np.abs(np.asarray(constant, "float64")) for constant in constants]
    return functools.reduce(np.multiply, arrays, np.float64(1))


def _sum(layer: Any, inputs: Any, weights: Mapping[str, Any]) -> Any:
    """The sum of the signals; an offset drops out."""
    return functools.reduce(tf.add, tf.nest.flatten(inputs))


def _product(layer: Any, inputs: Any, weights: Mapping[str, Any], factor: Any) -> Any:
    """The signals' sum, times what is constant."""
    total = _sum(layer, inputs, weights)
    return total * tf.constant(factor, total.dtype)


def _as_it_is(call: Call, layer: Any, inputs: Any, weights: Mapping[str, Any]) -> Any:
    """The operator itself, applied to the signals in the places of its tensors."""
    signals = iter(tf.nest.flatten(inputs))

    def put(argument: Any) -> Any:
        return next(signals) if _is_signal(argument) else argument

    arguments = tf.nest.map_structure(put, call.node.call_args)
    named = tf.nest.map_structure(put, call.node.call_kwargs)
    named.pop("name", None)
    return layer.call(*arguments, **named)
