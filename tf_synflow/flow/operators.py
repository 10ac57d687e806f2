"""The linear part of operators, which Keras records as layers: x + y, tf.nn.relu(x).

An operator reads *signals*, *numbers* and constants. A number is a tensor that depends
on shapes only, such as `tf.shape(x)[1]` or `tf.zeros_like(x)`. It is the same whatever
the weights are, so the twin computes it as the model does and treats it as a constant.

At signals of value 1, the linear part of a product of two signals is their sum. So a
gate, such as that of squeeze-and-excite, is a parallel branch of the twin. The weights
of the gate get flow, and the flow stays linear in the weights of each layer. A true
product would double the degree of a layer's weights at every gate. The rules for other
operators follow from this:

- `x * c` and `x @ c` with a constant c become `x * |c|` and `x @ |c|`. `x + c` becomes
  x.
- A power `x**p` with p > 0 is `p * x`: a square is 2 x, as `x * x` is, and a square
  root is x / 2.
- `maximum(x, y)` and `minimum(x, y)` are `x + y`, so that both branches get flow.
- The maximum along an axis stays a maximum, like max pooling: the largest signal
  passes. A minimum is a maximum with its sign changed twice, so it becomes a maximum
  too.
- A function of each entry by itself (relu, exp, log, sin) is an activation, so it
  becomes the identity. So does a normalisation of a signal by its own size
  (l2_normalize).

Two operators are refused: a quotient by a signal, and a product of two signals that is
summed over an axis, such as `tf.matmul(x, y)`.
"""

import functools
from collections.abc import Collection
from typing import Any

import tensorflow as tf

from tf_synflow.flow import operator_parts
from tf_synflow.flow.linear_parts import LinearPart
from tf_synflow.flow.operands import Operands, short_name
from tf_synflow.flow.parts import images
from tf_synflow.network import Call, Network, Slot, is_operator

# Functions of single entries, and other operators that become the identity.
_IDENTITIES = (
    *("nn.relu", "nn.relu6", "nn.leaky_relu", "nn.elu", "nn.selu", "nn.gelu"),
    *("nn.silu", "nn.swish", "nn.softmax", "nn.softplus", "math.softplus"),
    *("math.sigmoid", "nn.sigmoid", "math.tanh", "nn.tanh", "identity", "cast"),
    *("math.negative", "math.abs", "clip_by_value", "nn.dropout", "stop_gradient"),
    *("nn.log_softmax", "math.log_sigmoid", "nn.softsign", "math.exp", "math.expm1"),
    *("math.log", "math.log1p", "math.sin", "math.cos", "math.sinh", "math.asinh"),
    *("math.atan", "math.erf", "math.sign", "nn.bias_add", "ensure_shape"),
    *("math.l2_normalize", "nn.local_response_normalization", "clip_by_norm"),
    *("convert_to_tensor", "image.per_image_standardization"),
    *("keras.hard_sigmoid", "keras.hard_silu"),
)
# These operators read a signal and return a number.
_OF_SHAPES = ("shape", "size", "rank", "zeros_like", "ones_like")
# For finding paths, a mean takes the place of a maximum: a maximum lets only one of its
# signals through, and a mean lets all of them through.
_MEANS = {
    "math.reduce_max": ("math.reduce_mean", tf.reduce_mean),
    "math.reduce_min": ("math.reduce_mean", tf.reduce_mean),
    "nn.max_pool": ("nn.avg_pool", tf.nn.avg_pool),
    "nn.max_pool1d": ("nn.avg_pool1d", tf.nn.avg_pool1d),
    "nn.max_pool2d": ("nn.avg_pool2d", tf.nn.avg_pool2d),
    "compat.v1.nn.max_pool": ("nn.avg_pool", tf.compat.v1.nn.avg_pool),
}


def numbers(network: Network) -> frozenset[int]:
    """The tensors of a model that depend on nothing but shapes."""
    found: set[int] = set()
    for call in network.calls:
        if is_operator(call) and (
            short_name(call) in _OF_SHAPES or found.issuperset(call.inputs)
        ):
            found.update(call.outputs)
    return frozenset(found)


class _Function:
    """A function of TensorFlow that takes the place of an operator's layer."""

    def __init__(self, symbol: str, function: Any):
        self.symbol, self.function, self.call = symbol, function, function


def averaged(call: Call) -> Call:
    """The call, with a mean in place of a maximum along an axis or over windows."""
    if not is_operator(call) or call.layer.symbol not in _MEANS:
        return call
    name, mean = _MEANS[call.layer.symbol]
    return call._replace(kind=f"tf.{name}", layer=_Function(name, mean))


def rule_of(
    network: Network, call: Call, numbers: Collection[int]
) -> LinearPart | None:
    """The rule for an operator, or for a layer that merges signals with constants.

    Args:
      network: The network.
      call: Any of its calls.
      numbers: The model's tensors that are numbers; see `numbers`.

    Returns:
      A rule as in `linear_parts`, whose inputs are signals and numbers. None if there
      is no such rule, or if the rule of the layer's class is enough.
    """
    operands = Operands(network, call, numbers)
    if not is_operator(call):
        return operator_parts.merge(operands)
    if not call.kind.startswith("tf."):
        return None  # an operation of Keras 3 that has no counterpart in TensorFlow
    short = short_name(call)
    if short in _OF_SHAPES or not operands.signals:
        return functools.partial(operator_parts.number, operands)
    if short in _IDENTITIES:
        return functools.partial(
            operator_parts.total, operands, list(map(Slot, operands.signals)), 1.0
        )
    if short in (
        *operator_parts.SUMS,
        *operator_parts.PRODUCTS,
        *operator_parts.QUOTIENTS,
        *operator_parts.POWERS,
        "math.pow",
    ):
        return operator_parts.arithmetic(operands, short)
    if short in operator_parts.CONTRACTIONS:
        return operator_parts.contraction(operands, short)
    return operator_parts.rearrangement(operands, short)


def why_unknown(network: Network, call: Call, numbers: Collection[int]) -> str:
    """Why a call has no known linear part: a remark in brackets, or nothing."""
    reason = _reason(call, Operands(network, call, numbers))
    return f" ({reason})" if reason else ""


def _reason(call: Call, operands: "Operands") -> str:
    kind = call.class_name
    short = short_name(call) if is_operator(call) else kind
    known = ", ".join(images.INTERPOLATIONS)
    if kind == "Lambda":
        return "it holds a Python function, which SynFlow cannot look into"
    if kind in ("UpSampling2D", "Resizing"):
        method = call.layer.interpolation
        return f"it interpolates by {method!r}; known are {known}"
    if short == "image.resize":
        return f"known are the methods {known}, without antialias"
    if short in ("Dot", *operator_parts.CONTRACTIONS) and len(operands.signals) > 1:
        return "it multiplies two signals and sums the products over an axis"
    if short in (*operator_parts.QUOTIENTS, "math.reciprocal", "math.rsqrt"):
        return (
            "it divides by a signal; to normalise a signal, use a layer such as "
            "keras.layers.UnitNormalization or LayerNormalization"
        )
    if short == "math.pow":
        return "its exponent is not a constant above 0"
    if operands.channels_first():
        return "TensorFlow cannot compute it on the CPU with channels first"
    if short in (*operator_parts.POOLS, "nn.avg_pool3d", "nn.max_pool3d"):
        return "TensorFlow pools three dimensions in float32 only; use a layer"
    return ""
