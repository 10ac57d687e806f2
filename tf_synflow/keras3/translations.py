"""Tables that translate operations of Keras 3 into operators of TensorFlow.

`operations` says why. `_PLAIN` has the operations without settings, each with the
function of TensorFlow that takes the same arguments. `_SET` has the operations with
settings, each with a function that arranges the arguments for TensorFlow, or returns
None if it cannot.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_synflow.network import Slot


class Translated(NamedTuple):
    """A call of a TensorFlow function that computes the same as an operation.

    Attributes:
      symbol: The function's public name in TensorFlow ("math.add"); or a name that
        begins with "keras.", if TensorFlow has no such function.
      function: The function.
      arguments: Positional arguments.
      options: Arguments by keyword.
    """

    symbol: str
    function: Callable
    arguments: tuple[Any, ...]
    options: dict[str, Any]


def translate(operation: Any, arguments: tuple, options: dict) -> Translated | None:
    """The TensorFlow call for a call of an operation; None if none is known.

    Args:
      operation: A Keras 3 `Operation` that is no layer.
      arguments: Positional arguments of the call, with a `Slot` for each tensor.
      options: Arguments by keyword, likewise.
    """
    kind = type(operation)
    if not kind.__module__.startswith("keras.src.ops."):
        return None
    name = kind.__name__
    if name in _PLAIN:
        symbol, function = _PLAIN[name]
        return Translated(symbol, function, (*arguments, *options.values()), {})
    if name in _SET:
        return _SET[name](operation, *arguments, **options)
    return None


def _getitem(tensor: Any, key: Any) -> Any:
    return tensor[key]


def _hard_sigmoid(x: Any) -> Any:
    return tf.nn.relu6(x + 3) / 6


def _hard_silu(x: Any) -> Any:
    return x * tf.nn.relu6(x + 3) / 6


def _reciprocal(x: Any) -> Any:
    return tf.math.reciprocal(x)


def _of_two(function: Callable) -> Callable:
    """Lets a function of two tensors take a plain number as its first argument.

    TensorFlow would make an integer of 2, and refuse 2 * x for a floating-point x.
    """

    def either(x: Any, y: Any) -> Any:
        if not tf.is_tensor(x) and not hasattr(x, "_keras_history"):
            x = np.asarray(x, tf.as_dtype(y.dtype).as_numpy_dtype)
        return function(x, y)

    return either


# Operations without settings: the arguments are TensorFlow's, in the same order.
_PLAIN: dict[str, tuple[str, Callable]] = {
    "Add": ("math.add", _of_two(tf.add)),
    "Subtract": ("math.subtract", _of_two(tf.subtract)),
    "Multiply": ("math.multiply", _of_two(tf.multiply)),
    "Divide": ("math.divide", _of_two(tf.math.divide)),
    "TrueDivide": ("math.truediv", _of_two(tf.math.truediv)),
    "DivideNoNan": ("math.divide_no_nan", _of_two(tf.math.divide_no_nan)),
    "Maximum": ("math.maximum", _of_two(tf.maximum)),
    "Minimum": ("math.minimum", _of_two(tf.minimum)),
    "Power": ("math.pow", _of_two(tf.pow)),
    "Square": ("math.square", tf.square),
    "Sqrt": ("math.sqrt", tf.sqrt),
    "Reciprocal": ("math.reciprocal", _reciprocal),
    "Rsqrt": ("math.rsqrt", tf.math.rsqrt),
    "GetItem": ("__operators__.getitem", _getitem),
    # Elementwise functions.
    "Negative": ("math.negative", tf.negative),
    "Absolute": ("math.abs", tf.abs),
    "Abs": ("math.abs", tf.abs),
    "Sign": ("math.sign", tf.sign),
    "Exp": ("math.exp", tf.exp),
    "Expm1": ("math.expm1", tf.math.expm1),
    "Log": ("math.log", tf.math.log),
    "Log1p": ("math.log1p", tf.math.log1p),
    "Sin": ("math.sin", tf.sin),
    "Cos": ("math.cos", tf.cos),
    "Sinh": ("math.sinh", tf.sinh),
    "Tanh": ("math.tanh", tf.tanh),
    "Arctan": ("math.atan", tf.atan),
    "Arcsinh": ("math.asinh", tf.asinh),
    "Erf": ("math.erf", tf.math.erf),
    "Sigmoid": ("math.sigmoid", tf.sigmoid),
    "LogSigmoid": ("math.log_sigmoid", tf.math.log_sigmoid),
    "Relu": ("nn.relu", tf.nn.relu),
    "Relu6": ("nn.relu6", tf.nn.relu6),
    "Selu": ("nn.selu", tf.nn.selu),
    "Silu": ("nn.silu", tf.nn.silu),
    "Softplus": ("math.softplus", tf.math.softplus),
    "Softsign": ("nn.softsign", tf.nn.softsign),
    "HardSigmoid": ("keras.hard_sigmoid", _hard_sigmoid),
    "HardSilu": ("keras.hard_silu", _hard_silu),
    "StopGradient": ("stop_gradient", tf.stop_gradient),
    "Copy": ("identity", tf.identity),
    # Functions that compute masks of time steps.
    "Equal": ("math.equal", _of_two(tf.equal)),
    "NotEqual": ("math.not_equal", _of_two(tf.not_equal)),
    "Greater": ("math.greater", _of_two(tf.greater)),
    "Less": ("math.less", _of_two(tf.less)),
    "LogicalAnd": ("math.logical_and", tf.logical_and),
    "LogicalOr": ("math.logical_or", tf.logical_or),
    "LogicalNot": ("math.logical_not", tf.logical_not),
    # These use only the shape of their argument.
    "ZerosLike": ("zeros_like", tf.zeros_like),
    "OnesLike": ("ones_like", tf.ones_like),
}


def _reduced(symbol: str, function: Callable) -> Callable:
    """Translates an operation that reduces axes."""

    def translated(op: Any, x: Any) -> Translated | None:
        if getattr(op, "initial", None) is not None:
            return None
        options = {"axis": op.axis, "keepdims": op.keepdims}
        return Translated(symbol, function, (x,), options)

    return translated


def _along(symbol: str, function: Callable, **names: str) -> Callable:
    """Translates an operation whose settings are arguments of TensorFlow's function."""

    def translated(op: Any, *arguments: Any) -> Translated:
        options = {name: getattr(op, own) for name, own in names.items()}
        return Translated(symbol, function, arguments, options)

    return translated


def _matmul(op: Any, x1: Any, x2: Any) -> Translated | None:
    # TensorFlow's matmul takes no vectors.
    if any(not isinstance(x, Slot) and np.ndim(x) < 2 for x in (x1, x2)):
        return None
    return Translated("linalg.matmul", tf.linalg.matmul, (x1, x2), {})


def _expand_dims(op: Any, x: Any) -> Translated | None:
    if not isinstance(op.axis, int):
        return None
    return Translated("expand_dims", tf.expand_dims, (x,), {"axis": op.axis})


def _roll(op: Any, x: Any) -> Translated | None:
    if op.axis is None:
        return None
    return Translated("roll", tf.roll, (x,), {"shift": op.shift, "axis": op.axis})


def _transpose(op: Any, x: Any) -> Translated:
    axes = None if op.axes is None else list(op.axes)
    return Translated("transpose", tf.transpose, (x,), {"perm": axes})


def _swapaxes(op: Any, x: Any) -> Translated:
    def swapped(tensor: Any, axis1: int, axis2: int) -> Any:
        perm = list(range(tensor.shape.rank))
        perm[axis1], perm[axis2] = perm[axis2], perm[axis1]
        return tf.transpose(tensor, perm)

    options = {"axis1": op.axis1, "axis2": op.axis2}
    return Translated("transpose", swapped, (x,), options)


def _moveaxis(op: Any, x: Any) -> Translated:
    def moved(tensor: Any, source: Any, destination: Any) -> Any:
        rank = tensor.shape.rank
        sources = [s % rank for s in np.atleast_1d(source)]
        targets = [d % rank for d in np.atleast_1d(destination)]
        rest = [axis for axis in range(rank) if axis not in sources]
        for target, own in sorted(zip(targets, sources, strict=True)):
            rest.insert(target, own)
        return tf.transpose(tensor, rest)

    options = {"source": op.source, "destination": op.destination}
    return Translated("transpose", moved, (x,), options)


def _reshape(op: Any, x: Any) -> Translated | None:
    sizes = [-1 if size is None else size for size in op.newshape]
    if any(not isinstance(size, int) for size in sizes):
        return None
    return Translated("reshape", tf.reshape, (x, sizes), {})


def _repeat(op: Any, x: Any) -> Translated:
    return Translated("repeat", tf.repeat, (x, op.repeats), {"axis": op.axis})


def _tile(op: Any, x: Any) -> Translated | None:
    repeats = [op.repeats] if isinstance(op.repeats, int) else list(op.repeats)

    def tiled(tensor: Any, multiples: list[int]) -> Any:
        missing = tensor.shape.rank - len(multiples)
        if missing < 0:
            raise ValueError("tile would add axes")
        return tf.tile(tensor, [1] * missing + multiples)

    return Translated("tile", tiled, (x, repeats), {})


def _split(op: Any, x: Any) -> Translated:
    def split(value: Any, parts: Any, axis: int) -> Any:
        if isinstance(parts, int):
            return tf.split(value, parts, axis)
        ends = [0, *parts]
        sizes = [b - a for a, b in zip(ends, parts, strict=False)]
        return tf.split(value, [*sizes, -1], axis)  # -1: the rest

    options = {"parts": op.indices_or_sections, "axis": op.axis}
    return Translated("split", split, (x,), options)


def _pad(op: Any, x: Any, constant_values: Any = None) -> Translated | None:
    if op.mode not in ("constant", "reflect", "symmetric"):
        return None

    def padded(tensor: Any, paddings: Any, mode: str, constant_values: Any) -> Any:
        if len(paddings) == 1:
            paddings = list(paddings) * tensor.shape.rank
        return tf.pad(tensor, paddings, mode, constant_values)

    options = {"mode": op.mode, "constant_values": constant_values or 0}
    return Translated("pad", padded, (x, op.pad_width), options)


def _take(op: Any, x: Any, indices: Any) -> Translated | None:
    if op.axis is None:
        return None
    if not isinstance(indices, Slot):
        indices = np.asarray(indices)  # TensorFlow takes no negative indices
        if (indices < 0).any():
            return None
    return Translated("gather", tf.gather, (x, indices), {"axis": op.axis})


def _clip(op: Any, x: Any) -> Translated:
    return Translated("clip_by_value", tf.clip_by_value, (x, op.x_min, op.x_max), {})


def _cast(op: Any, x: Any) -> Translated:
    return Translated("cast", tf.cast, (x, op.dtype), {})


def _converted(op: Any, x: Any) -> Translated:
    return Translated("identity", tf.identity, (x,), {})


def _einsum(op: Any, *operands: Any) -> Translated:
    return Translated("einsum", tf.einsum, (op.subscripts, *operands), {})


def _tensordot(op: Any, x1: Any, x2: Any) -> Translated:
    return Translated("tensordot", tf.tensordot, (x1, x2), {"axes": op.axes})


def _window(op: Any, symbol: str, function: Callable, x: Any) -> Translated:
    form = "channels_first" if op.data_format == "channels_first" else "channels_last"
    options = {
        "ksize": op.pool_size,
        "strides": op.pool_size if op.strides is None else op.strides,
        "padding": op.padding.upper(),
    }
    if form == "channels_first":
        options["data_format"] = "NCHW"
    return Translated(symbol, function, (x,), options)


def _average_pool(op: Any, x: Any) -> Translated:
    return _window(op, "nn.avg_pool", tf.nn.avg_pool, x)


def _max_pool(op: Any, x: Any) -> Translated:
    return _window(op, "nn.max_pool", tf.nn.max_pool, x)


def _conv(op: Any, x: Any, kernel: Any) -> Translated | None:
    if op.data_format == "channels_first" or np.ndim(kernel) != 4:
        return None
    options = {
        "strides": op.strides,
        "padding": op.padding.upper(),
        "dilations": op.dilation_rate,
    }
    return Translated("nn.conv2d", tf.nn.conv2d, (x, kernel), options)


def _resize(op: Any, images: Any) -> Translated | None:
    if (
        op.crop_to_aspect_ratio
        or op.pad_to_aspect_ratio
        or op.data_format == "channels_first"
    ):
        return None
    options = {
        "size": list(op.size),
        "method": op.interpolation,
        "antialias": op.antialias,
    }
    return Translated("image.resize", tf.image.resize, (images,), options)


def _flip(op: Any, x: Any) -> Translated | None:
    if op.axis is None:
        return None
    axes = [op.axis] if isinstance(op.axis, int) else list(op.axis)
    return Translated("reverse", tf.reverse, (x, axes), {})


def _leaky_relu(op: Any, x: Any) -> Translated:
    return Translated("nn.leaky_relu", tf.nn.leaky_relu, (x, op.negative_slope), {})


def _elu(op: Any, x: Any) -> Translated | None:
    if op.alpha != 1:
        return Translated("nn.elu", _scaled_elu, (x, op.alpha), {})
    return Translated("nn.elu", tf.nn.elu, (x,), {})


def _scaled_elu(x: Any, alpha: float) -> Any:
    return tf.where(x > 0, x, alpha * tf.math.expm1(x))


def _normalize(op: Any, x: Any) -> Translated | None:
    if op.order != 2:
        return None
    return Translated(
        "math.l2_normalize", tf.math.l2_normalize, (x,), {"axis": op.axis}
    )


_SET: dict[str, Callable[..., Translated | None]] = {
    "Mean": _reduced("math.reduce_mean", tf.reduce_mean),
    "Any": _reduced("math.reduce_any", tf.reduce_any),
    "All": _reduced("math.reduce_all", tf.reduce_all),
    "Sum": _reduced("math.reduce_sum", tf.reduce_sum),
    "Max": _reduced("math.reduce_max", tf.reduce_max),
    "Min": _reduced("math.reduce_min", tf.reduce_min),
    "Amax": _reduced("math.reduce_max", tf.reduce_max),
    "Amin": _reduced("math.reduce_min", tf.reduce_min),
    "Matmul": _matmul,
    "Squeeze": _along("squeeze", tf.squeeze, axis="axis"),
    "ExpandDims": _expand_dims,
    "Concatenate": _along("concat", tf.concat, axis="axis"),
    "Stack": _along("stack", tf.stack, axis="axis"),
    "Unstack": _along("unstack", tf.unstack, num="num", axis="axis"),
    "Roll": _roll,
    "Cumsum": _along("math.cumsum", tf.cumsum, axis="axis"),
    "BroadcastTo": _along("broadcast_to", tf.broadcast_to, shape="shape"),
    "Softmax": _along("nn.softmax", tf.nn.softmax, axis="axis"),
    "LogSoftmax": _along("nn.log_softmax", tf.nn.log_softmax, axis="axis"),
    "Gelu": _along("nn.gelu", tf.nn.gelu, approximate="approximate"),
    "Transpose": _transpose,
    "Swapaxes": _swapaxes,
    "Moveaxis": _moveaxis,
    "Reshape": _reshape,
    "Repeat": _repeat,
    "Tile": _tile,
    "Split": _split,
    "Pad": _pad,
    "Take": _take,
    "Clip": _clip,
    "Cast": _cast,
    "ConvertToTensor": _converted,
    "Einsum": _einsum,
    "Tensordot": _tensordot,
    "AveragePool": _average_pool,
    "MaxPool": _max_pool,
    "Conv": _conv,
    "Resize": _resize,
    "Flip": _flip,
    "LeakyRelu": _leaky_relu,
    "Elu": _elu,
    "Normalize": _normalize,
}
