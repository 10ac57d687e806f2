"""The linear parts of operators, by what an operator does.

The functions `arithmetic`, `contraction`, `rearrangement` and `merge` return the linear
part for the `Operands` of a call, or None if no linear part is known.
"""

import contextlib
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_synflow.flow import linear_parts
from tf_synflow.flow.linear_parts import LinearPart
from tf_synflow.flow.operands import Operands, is_tensor, short_name
from tf_synflow.flow.parts import images
from tf_synflow.network import Slot

SUMS = (
    *("__operators__.add", "math.add", "math.subtract", "math.add_n"),
    *("math.accumulate_n", "math.maximum", "math.minimum"),
)
PRODUCTS = ("math.multiply", "math.scalar_mul")
QUOTIENTS = ("math.truediv", "math.divide", "math.divide_no_nan")
POWERS = {"math.square": 2.0, "math.sqrt": 0.5, "math.squared_difference": 2.0}
# These are linear, and non-negative on non-negative signals, without any change.
LINEAR = (
    *("reshape", "transpose", "squeeze", "expand_dims", "__operators__.getitem"),
    *("math.reduce_mean", "math.reduce_sum", "unstack", "split", "math.cumsum"),
    *("tile", "repeat", "slice", "strided_slice", "gather", "broadcast_to"),
    *("roll", "reverse", "linalg.matrix_transpose", "math.reduce_max"),
    *("nn.depth_to_space", "nn.space_to_depth", "image.extract_patches"),
    *("image.flip_left_right", "image.flip_up_down", "image.transpose"),
    *("image.crop_to_bounding_box", "image.central_crop"),
    "image.resize_with_crop_or_pad",
)
# These are linear without any change too. In float64 TensorFlow has them for one and
# two dimensions only.
POOLS = (
    *("nn.avg_pool", "nn.avg_pool1d", "nn.avg_pool2d"),
    *("nn.max_pool", "nn.max_pool1d", "nn.max_pool2d"),
)
# These are linear in each of two arguments, which have these names.
CONTRACTIONS = {
    "linalg.matmul": ("a", "b"),
    "tensordot": ("a", "b"),
    "einsum": ("inputs",),
    "nn.conv2d": ("input", "filters", "filter"),
    "nn.depthwise_conv2d": ("input", "filter"),
}
# Layers that may read constants beside signals.
MERGES = (
    *("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"),
    *("Concatenate", "Dot"),
)


def number(
    operands: Operands, layer: Any, inputs: Any, weights: Mapping[str, Any]
) -> Any:
    """Computes a tensor that depends on shapes only; a random number counts as 1."""
    values = tf.nest.flatten(inputs)
    for place, number in enumerate(operands.call.inputs):
        if number in operands.signals:  # only the signal's shape and type matter
            shape = values[place].shape
            if not shape.is_fully_defined():
                shape = tf.shape(values[place])
            with _at_once(shape):
                values[place] = tf.zeros(shape, operands.dtype_of(number))
    with _at_once(values):
        if short_name(operands.call).startswith("random."):
            shape = operands.placed(operands.arguments["shape"], values)
            return tf.ones(shape, operands.dtype_of(operands.call.outputs[0]))
        return operands.applied(values)


def _at_once(values: Any) -> Any:
    """A context outside of the twin's graph, if possible, so that sizes are known."""
    symbolic = any(map(tf.is_symbolic_tensor, tf.nest.flatten(values)))
    return contextlib.nullcontext() if symbolic else tf.init_scope()


def arithmetic(operands: Operands, short: str) -> LinearPart | None:
    """The rule of sums, products, quotients and powers."""
    parts = operands.parts("inputs", "scalar", "x", "y")
    if short in SUMS:
        return functools.partial(total, operands, parts, 1.0)
    if short in PRODUCTS:
        return functools.partial(product, operands, parts)
    if short in POWERS:
        return functools.partial(total, operands, parts, POWERS[short])
    base, other = parts
    if not operands.is_signal(base) or operands.is_signal(other):
        return None
    if short in QUOTIENTS:
        return functools.partial(_quotient, operands, base, other)
    if is_tensor(other) or np.ndim(other) or not float(other) > 0:
        return None
    return functools.partial(total, operands, [base], float(other))


def total(
    operands: Operands,
    parts: list[Any],
    times: float,
    layer: Any,
    inputs: Any,
    weights: Mapping[str, Any],
) -> Any:
    """`times` the sum of the signals; of an offset only the shape counts."""
    dtype = operands.dtype(inputs)
    values = [(part, operands.without_offset(part, inputs, dtype)) for part in parts]
    terms = [x for part, x in values if operands.is_signal(part) or x.shape.rank]
    total = functools.reduce(tf.add, terms)
    return total if times == 1 else total * tf.constant(times, dtype)


def product(
    operands: Operands,
    parts: list[Any],
    layer: Any,
    inputs: Any,
    weights: Mapping[str, Any],
) -> Any:
    """The sum of the signals, times the absolute values of the constants."""
    dtype = operands.dtype(inputs)
    values = [(part, operands.sizes(part, inputs, dtype)) for part in parts]
    total = functools.reduce(
        tf.add, [v for part, v in values if operands.is_signal(part)]
    )
    factors = [value for part, value in values if not operands.is_signal(part)]
    return functools.reduce(tf.multiply, factors, total)


def _quotient(
    operands: Operands,
    signal: Any,
    constant: Any,
    layer: Any,
    inputs: Any,
    weights: Mapping[str, Any],
) -> Any:
    """The signal, divided by the absolute value of the constant."""
    x = operands.placed(signal, inputs)
    return x / operands.sizes(constant, inputs, x.dtype)


def contraction(operands: Operands, short: str) -> LinearPart | None:
    """The rule of matrix products and convolutions with one constant factor."""
    names = [name for name in CONTRACTIONS[short] if name in operands.arguments]
    if len(operands.signals) != 1 or operands.channels_first():
        return None
    if "conv" in short and not operands.is_signal(operands.arguments["input"]):
        return None

    def rule(layer: Any, inputs: Any, weights: Mapping[str, Any]) -> Any:
        dtype = operands.dtype(inputs)

        def sizes(value: Any) -> Any:
            return operands.sizes(value, inputs, dtype)

        changed = {
            name: tuple(map(sizes, operands.arguments[name]))
            if name == "inputs"
            else sizes(operands.arguments[name])
            for name in names
        }
        return operands.applied(inputs, changed)

    return rule


def rearrangement(operands: Operands, short: str) -> LinearPart | None:
    """The rule of operators that move, pool or interpolate entries of one argument."""
    first = next(iter(operands.arguments.values()))
    parts = first if isinstance(first, (list, tuple)) else [first]
    placed = {part.number for part in parts if is_tensor(part)}
    if not placed.issuperset(operands.signals):
        return None  # another signal says where entries go, or how
    if short in ("concat", "stack"):
        return functools.partial(_join, operands, parts)
    if short == "pad":
        return functools.partial(_pad, operands)
    if short == "math.reduce_min":
        return functools.partial(_maximum, operands)
    if operands.call.layer.symbol == "image.resize":
        return _resize(operands)
    if short in POOLS and (
        operands.channels_first() or len(operands.shape_of(first.number)) > 4
    ):
        return None
    return (
        functools.partial(_as_it_is, operands) if short in (*LINEAR, *POOLS) else None
    )


def _as_it_is(
    operands: Operands, layer: Any, inputs: Any, weights: Mapping[str, Any]
) -> Any:
    """Applies the operator itself."""
    return operands.applied(inputs)


def _join(
    operands: Operands,
    parts: list[Any],
    layer: Any,
    inputs: Any,
    weights: Mapping[str, Any],
) -> Any:
    """Signals side by side; a constant is an offset, so it becomes 0."""
    dtype = operands.dtype(inputs)
    values = [operands.without_offset(part, inputs, dtype) for part in parts]
    return operands.applied(inputs, {"values": values})


def _pad(
    operands: Operands, layer: Any, inputs: Any, weights: Mapping[str, Any]
) -> Any:
    """Padding; if the model pads with a constant, the twin pads with zeros."""
    return operands.applied(inputs, {"constant_values": 0})


def _maximum(
    operands: Operands, layer: Any, inputs: Any, weights: Mapping[str, Any]
) -> Any:
    """The linear part of a minimum along an axis: the maximum, up to a sign."""
    return tf.reduce_max(**operands.placed(operands.arguments, inputs))


def _resize(operands: Operands) -> LinearPart | None:
    """The rule of tf.image.resize."""
    given = operands.arguments
    method = given.get("method", "bilinear")
    if method not in images.INTERPOLATIONS or given.get("antialias"):
        return None
    wanted = operands.shape_of(operands.call.outputs[0])[1:3]

    def rule(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
        size = wanted
        if None in size:  # here all shapes are known, and with them the size
            size = tf.get_static_value(operands.placed(given["size"], x))
        (x,) = (operands.placed(Slot(number), x) for number in operands.signals)
        return images.resized(x, size, method)

    return rule


def merge(operands: Operands) -> LinearPart | None:
    """The rule of a layer that reads constants or numbers besides signals."""
    kind, rule = operands.call.kind, linear_parts.rule_of(operands.call)
    if (
        kind not in MERGES
        or not operands.signals
        or linear_parts.is_registered(operands.call)
    ):
        return None
    parts = [*operands.call.arguments, *operands.call.options.values()][0]
    if all(map(operands.is_signal, parts)):
        return None
    if kind == "Multiply":
        return functools.partial(product, operands, parts)
    if kind == "Dot":
        constants = [part for part in parts if not operands.is_signal(part)]
        alone = constants[0].shape[0] in (1, None)
        return functools.partial(_dot, operands, parts) if alone else None

    def with_zeros(layer: Any, inputs: Any, weights: Mapping[str, Any]) -> Any:
        dtype = operands.dtype(inputs)
        values = [operands.without_offset(part, inputs, dtype) for part in parts]
        return rule(layer, values, weights)

    return with_zeros


def _dot(
    operands: Operands,
    parts: list[Any],
    layer: Any,
    inputs: Any,
    weights: Mapping[str, Any],
) -> Any:
    """The layer Dot of a signal and a constant; the signal is not normalised."""
    dtype = operands.dtype(inputs)
    axes = [layer.axes] * 2 if isinstance(layer.axes, int) else layer.axes
    values, names = [], iter("cdefghij")
    spelt = []
    for part, axis in zip(parts, axes, strict=True):
        value = operands.sizes(part, inputs, dtype)
        if layer.normalize and not operands.is_signal(part):
            value = tf.math.l2_normalize(value, axis)
        letters = ["b", *(next(names) for _ in value.shape[1:])]
        letters[axis % value.shape.rank] = "a"
        values.append(value)
        spelt.append("".join(letters))
    kept = "".join(letter for letter in "".join(spelt) if letter not in "ab")
    y = tf.einsum(f"{spelt[0]},{spelt[1]}->b{kept}", *values)
    return y if kept else y[:, None]
