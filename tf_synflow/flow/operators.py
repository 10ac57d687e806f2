"""The linear part of operators, which Keras records as layers: x + y, tf.nn.relu(x).

An operator reads *signals*, *numbers* and constants. A number is a tensor that depends
on shapes only, such as `tf.shape(x)[1]` or `tf.zeros_like(x)`. It is the same whatever
the weights are, so the twin computes it as the model does and treats it as a constant.

A product of two signals has, at unit signals, their sum as its linear part: so a gate,
as of squeeze-and-excite, is a parallel branch of the twin. Its weights get flow, and
the flow stays linear in each layer's weights; a true product would double the degree of
a layer's weights at every gate. The rules for other operators follow from this:

- `x * c` and `x @ c` with a constant c become `x * |c|` and `x @ |c|`. `x + c` is x.
- A power `x**p` with p > 0 is `p * x`: a square is 2 x, as `x * x` is, and a square
  root is x / 2.
- `maximum(x, y)` and `minimum(x, y)` are `x + y`, so that both branches get flow.
- The maximum along an axis is itself, like max pooling: the largest signal passes. The
  minimum is the maximum with its sign changed twice, so it is the same.
- A function of each entry by itself (relu, exp, log, sin) is an activation, and so the
  identity. A normalisation of the signal by its own size (l2_normalize) is too.

Two operators are refused: a quotient by a signal, and a product of two signals that is
summed over an axis, such as `tf.matmul(x, y)`.
"""

import contextlib
import functools
import inspect
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_synflow.flow import linear_parts
from tf_synflow.keras2.imports import OperatorLayer
from tf_synflow.network import Call, Graph

_SUMS = (
    *("__operators__.add", "math.add", "math.subtract", "math.add_n"),
    *("math.accumulate_n", "math.maximum", "math.minimum"),
)


_PRODUCTS = ("math.multiply", "math.scalar_mul")


_QUOTIENTS = ("math.truediv", "math.divide", "math.divide_no_nan")


_POWERS = {"math.square": 2.0, "math.sqrt": 0.5, "math.squared_difference": 2.0}


# Functions of single entries, and what else is the identity up to its sign.
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
)


# Linear, and non-negative on non-negative signals, as they are.
_LINEAR = (
    *("reshape", "transpose", "squeeze", "expand_dims", "__operators__.getitem"),
    *("math.reduce_mean", "math.reduce_sum", "unstack", "split", "math.cumsum"),
    *("tile", "repeat", "slice", "strided_slice", "gather", "broadcast_to"),
    *("roll", "reverse", "linalg.matrix_transpose", "math.reduce_max"),
    *("nn.depth_to_space", "nn.space_to_depth", "image.extract_patches"),
    *("image.flip_left_right", "image.flip_up_down", "image.transpose"),
    *("image.crop_to_bounding_box", "image.central_crop"),
    "image.resize_with_crop_or_pad",
)


# Linear as they are, too; TensorFlow has them in float64 for up to two dimensions.
_POOLS = (
    *("nn.avg_pool", "nn.avg_pool1d", "nn.avg_pool2d"),
    *("nn.max_pool", "nn.max_pool1d", "nn.max_pool2d"),
)


# Linear in each of two arguments, of these names.
_CONTRACTIONS = {
    "linalg.matmul": ("a", "b"),
    "tensordot": ("a", "b"),
    "einsum": ("inputs",),
    "nn.conv2d": ("input", "filters", "filter"),
    "nn.depthwise_conv2d": ("input", "filter"),
}


# They read a signal and give a number.
_OF_SHAPES = ("shape", "size", "rank", "zeros_like", "ones_like")


# Layers that may read constants beside signals.
_MERGES = (
    *("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"),
    *("Concatenate", "Dot"),
)


# A maximum lets one of its signals through, and its mean lets all, as paths go.
_MEANS = {
    "math.reduce_max": tf.reduce_mean,
    "math.reduce_min": tf.reduce_mean,
    "nn.max_pool": tf.nn.avg_pool,
    "nn.max_pool1d": tf.nn.avg_pool1d,
    "nn.max_pool2d": tf.nn.avg_pool2d,
    "compat.v1.nn.max_pool": tf.compat.v1.nn.avg_pool,
}


def is_operator(layer: Any) -> bool:
    """Whether the layer is Keras's record of an operator."""
    return type(layer).__name__ in ("TFOpLambda", "SlicingOpLambda")


def numbers(graph: Graph) -> frozenset[int]:
    """The tensors of a model that depend on nothing but shapes."""
    found: set[int] = set()
    for call in graph.calls:
        if is_operator(call.layer) and (
            _short(call.layer) in _OF_SHAPES or found.issuperset(call.inputs)
        ):
            found.update(call.outputs)
    return frozenset(found)


def averaged(call: Call) -> Call:
    """A call that takes a maximum along an axis, with the mean in its place."""
    mean = _MEANS.get(call.layer.symbol) if is_operator(call.layer) else None
    return call if mean is None else call._replace(layer=OperatorLayer(mean))


def find(call: Call, numbers: Collection[int]) -> linear_parts.Rule | None:
    """The rule for an operator, or for a layer that merges signals with constants.

    Args:
      call: Any call.
      numbers: The model's tensors that are numbers; see `numbers`.

    Returns:
      A rule as in `linear_parts`, whose inputs are signals and numbers; None if there
      is none, or if the layer's class says all.
    """
    own = _Reading(call, numbers)
    if not is_operator(call.layer):
        return _merge(own)
    short = _short(call.layer)
    if short in _OF_SHAPES or not own.signals:
        return functools.partial(_number, own)
    if short in _IDENTITIES:
        return functools.partial(_sum, own, own.signals, 1.0)
    if short in (*_SUMS, *_PRODUCTS, *_QUOTIENTS, *_POWERS, "math.pow"):
        return _arithmetic(own, short)
    if short in _CONTRACTIONS:
        return _contraction(own, short)
    return _rearrangement(own, short)


def why_unknown(call: Call, numbers: Collection[int]) -> str:
    """Why a call has no known linear part: a remark in brackets, or nothing."""
    reason = _reason(call, _Reading(call, numbers))
    return f" ({reason})" if reason else ""


def _reason(call: Call, own: "_Reading") -> str:
    kind = type(call.layer).__name__
    short = _short(call.layer) if is_operator(call.layer) else kind
    known = ", ".join(linear_parts.INTERPOLATIONS)
    if kind == "Lambda":
        return "it holds a Python function, which SynFlow cannot look into"
    if kind in ("UpSampling2D", "Resizing"):
        method = call.layer.interpolation
        return f"it interpolates by {method!r}; known are {known}"
    if short == "image.resize":
        return f"known are the methods {known}, without antialias"
    if short in ("Dot", *_CONTRACTIONS) and len(own.signals) > 1:
        return "it multiplies two signals and sums the products over an axis"
    if short in (*_QUOTIENTS, "math.reciprocal", "math.rsqrt"):
        return (
            "it divides by a signal; to normalise a signal, use a layer such as "
            "keras.layers.UnitNormalization or LayerNormalization"
        )
    if short == "math.pow":
        return "its exponent is not a constant above 0"
    if own.channels_first():
        return "TensorFlow cannot compute it on the CPU with channels first"
    if short in (*_POOLS, "nn.avg_pool3d", "nn.max_pool3d"):
        return "TensorFlow pools three dimensions in float32 only; use a layer"
    return ""


def _short(layer: Any) -> str:
    """The operator's name, such as "nn.relu", the same in TensorFlow 1 and 2."""
    return (layer.symbol or "").removeprefix("compat.v1.")


def _is_tensor(argument: Any) -> bool:
    """Whether an argument is a tensor of the model: a signal or a number."""
    return hasattr(argument, "_keras_history")


class _Reading:
    """What a call reads, and how to put the twin's tensors in the model's places.

    Attributes:
      layer: The layer.
      node: Keras's record of the call.
      signals: The model's tensors that the call reads and that are no numbers.
      arguments: Argument name of an operator to value; {} for another layer.
    """

    def __init__(self, call: Call, numbers: Collection[int]):
        self.layer, self.node = call.layer, call.node
        self.tensors = tf.nest.flatten(call.node.keras_inputs)
        pairs = zip(self.tensors, call.inputs, strict=True)
        self.signals = [tensor for tensor, number in pairs if number not in numbers]
        self._ids = {id(tensor) for tensor in self.signals}
        self.arguments: dict[str, Any] = {}
        if is_operator(call.layer):
            self.arguments = self._bound().arguments

    def _bound(self) -> inspect.BoundArguments:
        signature = inspect.signature(self.layer.function)
        bound = signature.bind(*self.node.call_args, **self.node.call_kwargs)
        bound.arguments.pop("name", None)
        return bound

    def is_signal(self, argument: Any) -> bool:
        """Whether it is one of the signals."""
        return id(argument) in self._ids

    def parts(self, *names: str) -> list[Any]:
        """The arguments of these names one by one; lists of tensors are taken apart."""
        parts: list[Any] = []
        for name in names:
            value = self.arguments.get(name)
            if isinstance(value, (list, tuple)) and any(map(_is_tensor, value)):
                parts.extend(value)
            elif value is not None:
                parts.append(value)
        return parts

    def channels_first(self) -> bool:
        """Whether the arguments say so."""
        return str(self.arguments.get("data_format") or "").startswith("NC")

    def placed(self, structure: Any, inputs: Any) -> Any:
        """A structure of arguments, with the twin's tensors for the model's."""
        pairs = zip(self.tensors, tf.nest.flatten(inputs), strict=True)
        places = {id(tensor): value for tensor, value in pairs}
        return tf.nest.map_structure(lambda a: places.get(id(a), a), structure)

    def sizes(self, part: Any, inputs: Any, dtype: Any) -> Any:
        """A signal as it is; of a constant or a number the absolute value."""
        value = self.placed(part, inputs)
        if self.is_signal(part):
            return value
        if not (tf.is_tensor(value) or isinstance(value, tf.Variable)):
            value = np.asarray(value, "float64")  # TensorFlow would take float32
        return tf.abs(tf.cast(value, dtype))

    def without_offset(self, part: Any, inputs: Any, dtype: Any) -> Any:
        """A signal as it is; of a constant or a number the shape, filled with 0."""
        value = self.sizes(part, inputs, dtype)
        return value if self.is_signal(part) else tf.zeros_like(value)

    def dtype(self, inputs: Any) -> Any:
        """The type that the twin computes in."""
        return self.placed(self.signals[0], inputs).dtype

    def applied(self, inputs: Any, changed: Mapping[str, Any] | None = None) -> Any:
        """The operator itself on the twin's tensors, with other arguments changed."""
        bound = self._bound()
        for name, value in bound.arguments.items():
            bound.arguments[name] = self.placed(value, inputs)
        bound.arguments.update(changed or {})
        return self.layer.call(*bound.args, **bound.kwargs)


def _number(own: _Reading, layer: Any, inputs: Any, weights: Mapping[str, Any]) -> Any:
    """What depends on shapes only, as in the model; a random number counts as 1."""
    values = tf.nest.flatten(inputs)
    for place, tensor in enumerate(own.tensors):
        if own.is_signal(tensor):  # only its shape and type matter
            shape = values[place].shape
            if not shape.is_fully_defined():
                shape = tf.shape(values[place])
            with _at_once(shape):
                values[place] = tf.zeros(shape, tensor.dtype)
    with _at_once(values):
        if _short(layer).startswith("random."):
            (output,) = tf.nest.flatten(own.node.outputs)
            return tf.ones(own.placed(own.arguments["shape"], values), output.dtype)
        return own.applied(values)


def _at_once(values: Any) -> Any:
    """Computes outside of the twin's graph what can be: sizes have to be known."""
    symbolic = any(map(tf.is_symbolic_tensor, tf.nest.flatten(values)))
    return contextlib.nullcontext() if symbolic else tf.init_scope()


def _arithmetic(own: _Reading, short: str) -> linear_parts.Rule | None:
    """The rule of sums, products, quotients and powers."""
    parts = own.parts("inputs", "scalar", "x", "y")
    if short in _SUMS:
        return functools.partial(_sum, own, parts, 1.0)
    if short in _PRODUCTS:
        return functools.partial(_product, own, parts)
    if short in _POWERS:
        return functools.partial(_sum, own, parts, _POWERS[short])
    base, other = parts
    if not own.is_signal(base) or own.is_signal(other):
        return None
    if short in _QUOTIENTS:
        return functools.partial(_quotient, own, base, other)
    if _is_tensor(other) or np.ndim(other) or not float(other) > 0:
        return None
    return functools.partial(_sum, own, [base], float(other))


def _sum(
    own: _Reading,
    parts: list[Any],
    times: float,
    layer: Any,
    inputs: Any,
    weights: Mapping[str, Any],
) -> Any:
    """The sum of the signals; an offset drops out, but for its shape."""
    dtype = own.dtype(inputs)
    values = [(part, own.without_offset(part, inputs, dtype)) for part in parts]
    terms = [x for part, x in values if own.is_signal(part) or x.shape.rank]
    total = functools.reduce(tf.add, terms)
    return total if times == 1 else total * tf.constant(times, dtype)


def _product(
    own: _Reading,
    parts: list[Any],
    layer: Any,
    inputs: Any,
    weights: Mapping[str, Any],
) -> Any:
    """The signals' sum, times what is constant."""
    dtype = own.dtype(inputs)
    values = [(part, own.sizes(part, inputs, dtype)) for part in parts]
    total = functools.reduce(tf.add, [v for part, v in values if own.is_signal(part)])
    factors = [value for part, value in values if not own.is_signal(part)]
    return functools.reduce(tf.multiply, factors, total)


def _quotient(
    own: _Reading,
    signal: Any,
    constant: Any,
    layer: Any,
    inputs: Any,
    weights: Mapping[str, Any],
) -> Any:
    """The signal, divided by what is constant."""
    x = own.placed(signal, inputs)
    return x / own.sizes(constant, inputs, x.dtype)


def _contraction(own: _Reading, short: str) -> linear_parts.Rule | None:
    """The rule of matrix products and the like, one factor of which is constant."""
    names = [name for name in _CONTRACTIONS[short] if name in own.arguments]
    if len(own.signals) != 1 or own.channels_first():
        return None
    if "conv" in short and not own.is_signal(own.arguments["input"]):
        return None

    def rule(layer: Any, inputs: Any, weights: Mapping[str, Any]) -> Any:
        dtype = own.dtype(inputs)

        def sizes(value: Any) -> Any:
            return own.sizes(value, inputs, dtype)

        changed = {
            name: tuple(map(sizes, own.arguments[name]))
            if name == "inputs"
            else sizes(own.arguments[name])
            for name in names
        }
        return own.applied(inputs, changed)

    return rule


def _rearrangement(own: _Reading, short: str) -> linear_parts.Rule | None:
    """The rule of what moves, pools or interpolates the entries of one argument."""
    first = next(iter(own.arguments.values()))
    parts = first if isinstance(first, (list, tuple)) else [first]
    if any(not any(signal is part for part in parts) for signal in own.signals):
        return None  # a signal says where or how
    if short in ("concat", "stack"):
        return functools.partial(_join, own, parts)
    if short == "pad":
        return functools.partial(_pad, own)
    if short == "math.reduce_min":
        return functools.partial(_maximum, own)
    if own.layer.symbol == "image.resize":
        return _resize(own)
    if short in _POOLS and (own.channels_first() or len(first.shape) > 4):
        return None
    return functools.partial(_as_it_is, own) if short in (*_LINEAR, *_POOLS) else None


def _as_it_is(
    own: _Reading, layer: Any, inputs: Any, weights: Mapping[str, Any]
) -> Any:
    """The operator itself."""
    return own.applied(inputs)


def _join(
    own: _Reading,
    parts: list[Any],
    layer: Any,
    inputs: Any,
    weights: Mapping[str, Any],
) -> Any:
    """Signals side by side; constants are offsets, of which 0 is left."""
    dtype = own.dtype(inputs)
    values = [own.without_offset(part, inputs, dtype) for part in parts]
    return own.applied(inputs, {"values": values})


def _pad(own: _Reading, layer: Any, inputs: Any, weights: Mapping[str, Any]) -> Any:
    """Padding, with zeros if it is by a constant."""
    return own.applied(inputs, {"constant_values": 0})


def _maximum(own: _Reading, layer: Any, inputs: Any, weights: Mapping[str, Any]) -> Any:
    """The minimum along an axis: the maximum, up to a sign."""
    return tf.reduce_max(**own.placed(own.arguments, inputs))


def _resize(own: _Reading) -> linear_parts.Rule | None:
    """The rule of tf.image.resize."""
    given = own.arguments
    method = given.get("method", "bilinear")
    if method not in linear_parts.INTERPOLATIONS or given.get("antialias"):
        return None
    (output,) = tf.nest.flatten(own.node.outputs)

    def rule(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
        size = output.shape[1:3]
        if None in size:  # known here, where all shapes are
            size = tf.get_static_value(own.placed(given["size"], x))
        (x,) = (own.placed(signal, x) for signal in own.signals)
        return linear_parts.resized(x, size, method)

    return rule


def _merge(own: _Reading) -> linear_parts.Rule | None:
    """The rule of a layer that reads constants or numbers beside signals."""
    kind = type(own.layer).__name__
    rule = linear_parts.find(own.layer)
    ours = rule is None or rule.__module__ == linear_parts.__name__
    if kind not in _MERGES or not own.signals or not ours:
        return None
    parts = [*own.node.call_args, *own.node.call_kwargs.values()][0]
    if all(map(own.is_signal, parts)):
        return None
    if kind == "Multiply":
        return functools.partial(_product, own, parts)
    if kind == "Dot":
        constants = [part for part in parts if not own.is_signal(part)]
        alone = constants[0].shape[0] in (1, None)
        return functools.partial(_dot, own, parts) if alone else None

    def with_zeros(layer: Any, inputs: Any, weights: Mapping[str, Any]) -> Any:
        dtype = own.dtype(inputs)
        values = [own.without_offset(part, inputs, dtype) for part in parts]
        return rule(layer, values, weights)

    return with_zeros


def _dot(
    own: _Reading,
    parts: list[Any],
    layer: Any,
    inputs: Any,
    weights: Mapping[str, Any],
) -> Any:
    """The layer Dot of a signal and a constant; a normalised signal is itself."""
    dtype = own.dtype(inputs)
    axes = [layer.axes] * 2 if isinstance(layer.axes, int) else layer.axes
    values, names = [], iter("cdefghij")
    spelt = []
    for part, axis in zip(parts, axes, strict=True):
        value = own.sizes(part, inputs, dtype)
        if layer.normalize and not own.is_signal(part):
            value = tf.math.l2_normalize(value, axis)
        letters = ["b", *(next(names) for _ in value.shape[1:])]
        letters[axis % value.shape.rank] = "a"
        values.append(value)
        spelt.append("".join(letters))
    kept = "".join(letter for letter in "".join(spelt) if letter not in "ab")
    y = tf.einsum(f"{spelt[0]},{spelt[1]}->b{kept}", *values)
    return y if kept else y[:, None]
