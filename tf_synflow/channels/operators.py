"""Which channels come out of a call, found by trying it with one channel more.

An operator, which Keras records as a layer (x + y, tf.nn.relu(x)), names sizes and axes
in many ways. But if one channel more goes in, one channel more comes out. This shows
along which axis the channels of the output lie. It also shows that no constant of the
operator fixes the number of channels. Such a constant would be wrong in a smaller
network. Shapes do not show whether an operator keeps channels apart. So the operators
that do are listed here by name.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_synflow.channels.groups import Axis, Channels
from tf_synflow.network import Call, Network, filled

# These compute each number by itself; a second argument may be a constant.
_ELEMENTWISE = (
    *("nn.relu", "nn.relu6", "nn.leaky_relu", "nn.elu", "nn.selu", "nn.gelu"),
    *("nn.silu", "nn.swish", "nn.softplus", "math.softplus", "nn.softsign"),
    *("math.sigmoid", "nn.sigmoid", "math.tanh", "nn.tanh", "math.exp"),
    *("math.negative", "math.abs", "math.sign", "math.square", "math.sqrt"),
    *("math.pow", "math.truediv", "math.divide", "clip_by_value", "nn.dropout"),
    *("identity", "cast", "stop_gradient", "zeros_like"),
    *("keras.hard_sigmoid", "keras.hard_silu"),
)

# The output of these is 0 where all signals are 0.
_SUMS = (
    *("__operators__.add", "math.add", "math.subtract", "math.add_n"),
    *("math.maximum", "math.minimum", "concat", "stack"),
)

# The output of these is 0 where one signal is 0.
_PRODUCTS = ("math.multiply",)

# These move or combine numbers within a channel.
_WITHIN = (
    *("transpose", "squeeze", "expand_dims", "pad", "tile", "repeat"),
    *(
        "slice",
        "strided_slice",
        "__operators__.getitem",
        "gather",
        "split",
        "unstack",
        "roll",
        "reverse",
    ),
    *("math.reduce_mean", "math.reduce_sum", "math.reduce_max", "math.reduce_min"),
    *("nn.avg_pool", "nn.avg_pool2d", "nn.max_pool", "nn.max_pool2d", "image.resize"),
)

_ANY_SIZE = 8  # used in trials where a size is not fixed


class _Tried(NamedTuple):
    """What a trial of a call shows.

    Attributes:
      inputs: The groups of each input.
      places: The axis of the channels in each input.
      axis: The axis of the channels in all outputs.
      beside: Whether an output holds the channels of the inputs side by side.
    """

    inputs: list[Axis]
    places: list[int]
    axis: int
    beside: bool


def follow(
    channels: Channels,
    call: Call,
    shapes: list[tuple],
    new_shapes: Callable[[list[tuple]], list[tuple]],
    place: int | None = None,
    product: bool = False,
) -> Axis | None:
    """The groups of the outputs of a call that keeps channels apart.

    Args:
      channels: The channels found so far.
      call: The call.
      shapes: The shapes of its inputs and outputs.
      new_shapes: Function from shapes of the inputs to shapes of the outputs.
      place: The axis along which the call wants the channels of its inputs, counted
        from the front. Defaults to None: the axis along which the channels lie.
      product: Whether an output is 0 where one input is 0. Defaults to False.
    """
    tried = _try(channels, call, shapes, new_shapes, place, product)
    return None if tried is None else _combined(channels, call, tried, product)


def _combined(channels: Channels, call: Call, tried: _Tried, product: bool) -> Axis:
    channels.places.update(dict.fromkeys(call.outputs, tried.axis))
    if tried.beside:
        return tuple(group for axis in tried.inputs for group in axis)
    if product and len(tried.inputs) > 1:
        return channels.combine(tried.inputs)
    return channels.join(tried.inputs)


def _try(
    channels: Channels,
    call: Call,
    shapes: list[tuple],
    new_shapes: Callable[[list[tuple]], list[tuple]],
    place: int | None,
    product: bool,
) -> _Tried | None:
    """Tries a call with one channel more; None if the result is not clear."""
    count = len(call.inputs)
    given, made = shapes[:count], shapes[count:]
    places = _places(channels, call, given, place)
    if any(at >= len(shape) for shape, at in zip(given, places, strict=True)):
        return None  # an input is a single number, as in a loss
    sizes = [shape[at] for shape, at in zip(given, places, strict=True)]
    if not sizes or None in sizes or 0 in places:
        return None
    wide = max(sizes)
    more = [0 if product and size == 1 < wide else 1 for size in sizes]
    wider = [
        (*shape[:at], shape[at] + one, *shape[at + 1 :])
        for shape, at, one in zip(given, places, more, strict=True)
    ]
    try:
        found = new_shapes(wider)
    except Exception:  # of any kind: the call fails with another number of channels
        return None
    grown = set()
    for old, new in zip(made, found, strict=True):
        if len(old) != len(new):
            return None
        grown.add(tuple(a for a, size in enumerate(old) if size != new[a]))
        if len(grown) != 1 or len(next(iter(grown))) != 1:
            return None
    ((axis,),) = grown
    if not axis:
        return None  # the channels lie along the batch
    change = {
        (old[axis], new[axis] - old[axis]) for old, new in zip(made, found, strict=True)
    }
    inputs = [channels.at(n, at) for n, at in zip(call.inputs, places, strict=True)]
    if change == {(wide, 1)}:
        return _Tried(inputs, places, axis, False)
    if change == {(sum(sizes), count)}:
        return _Tried(inputs, places, axis, True)
    return None


def _places(
    channels: Channels, call: Call, given: list[tuple], place: int | None
) -> list[int]:
    """The axis of the channels in each input; held inputs follow the other inputs."""
    if place is not None:
        return [place for _ in given]
    free = [n for n in call.inputs if not channels.held.issuperset(channels.signals[n])]
    lead = (*free, *call.inputs)[0]
    back = channels.places[lead] - len(given[call.inputs.index(lead)])
    return [
        channels.places[number]
        if number in free or len(shape) + back < 1
        else len(shape) + back
        for number, shape in zip(call.inputs, given, strict=True)
    ]


def operator(
    channels: Channels, call: Call, inputs: list[Axis], shapes: list
) -> Axis | None:
    """The rule of operators, which Keras records as layers; see `groups.Rule`."""
    symbol = call.kind.removeprefix("tf.")
    within = symbol in _WITHIN
    several = symbol in (*_SUMS, *_PRODUCTS)
    if not (within or several or symbol in _ELEMENTWISE) or not inputs:
        return None
    if len(inputs) > 1 and not several:
        return None
    if symbol == "nn.dropout" and (
        len(call.arguments) > 2 or call.options.get("noise_shape")
    ):
        return None  # noise_shape names a number of channels

    def new_shapes(given: list[tuple]) -> list[tuple]:
        dtypes = _dtypes(channels.network, call)
        with tf.Graph().as_default():
            tensors = [
                tf.compat.v1.placeholder(dtype, shape)
                for dtype, shape in zip(dtypes, given, strict=True)
            ]
            return [tuple(output.shape) for output in _applied(call, tensors)]

    product = symbol in _PRODUCTS
    tried = _try(channels, call, shapes, new_shapes, None, product)
    if tried is None or (
        within and not _stays_within(channels.network, call, tried, shapes)
    ):
        return None
    zero = symbol == "nn.dropout" or _keeps_zero(channels.network, call, tried, shapes)
    if zero is None:
        return None
    output = _combined(channels, call, tried, product)
    return output if zero else channels.lift(output)


def _dtypes(network: Network, call: Call) -> list[str]:
    return [network.dtypes[number] for number in call.inputs]


def _applied(call: Call, tensors: list[Any]) -> list[Any]:
    """The operator's outputs for these tensors in place of the model's."""
    given = dict(zip(call.inputs, tensors, strict=True))
    named = {key: value for key, value in call.options.items() if key != "name"}
    outputs = call.layer.call(*filled(call.arguments, given), **filled(named, given))
    return tf.nest.flatten(outputs)


def _keeps_zero(
    network: Network, call: Call, tried: _Tried, shapes: list[tuple]
) -> bool | None:
    """Whether zeros give zeros; None if that cannot be tried with one channel."""
    zeros = []
    dtypes = _dtypes(network, call)
    for dtype, shape, place in zip(dtypes, shapes, tried.places, strict=False):
        sizes = [1, *(size or _ANY_SIZE for size in shape[1:])]
        sizes[place] = 1
        zeros.append(np.zeros(sizes, dtype))
    outputs = _evaluated(call, zeros)
    return outputs and not any((output != 0).any() for output in outputs)


def _stays_within(
    network: Network, call: Call, tried: _Tried, shapes: list[tuple]
) -> bool:
    """Whether the first input channel changes the first output channel and no other.

    The trial has one channel more, so that a shift of all channels by their number
    shows too.
    """
    (dtype,), (place,) = _dtypes(network, call), tried.places
    sizes = [1, *(size or _ANY_SIZE for size in shapes[0][1:])]
    sizes[place] += 1
    first = np.zeros(sizes, dtype)
    nothing = _evaluated(call, [first])
    np.moveaxis(first, place, 0)[0] = 1
    outputs = _evaluated(call, [first])
    if nothing is None or outputs is None:
        return False
    for before, after in zip(nothing, outputs, strict=True):
        changed = np.moveaxis(before != after, tried.axis, 0)
        if not changed[0].any() or changed[1:].any():
            return False
    return True


def _evaluated(call: Call, arrays: list[np.ndarray]) -> list[np.ndarray] | None:
    try:
        with tf.device("CPU"):
            outputs = _applied(call, [tf.constant(array) for array in arrays])
            return [output.numpy() for output in outputs]
    except Exception:  # of any kind: then the outputs are not known
        return None
