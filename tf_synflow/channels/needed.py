"""The rules by which `shrink` finds channels that the network's function does not need.

For its scores SynFlow treats every activation as the identity. But here channels are
taken out of the network itself. So it matters what a layer returns for a channel that
is zero, whether the layer treats each channel by itself, and what the layer adds.
Channels may lie along any axis here, as in channels-first layers.
"""

import math
from typing import Any

import numpy as np

from tf_synflow import frameworks
from tf_synflow.channels.groups import Axis, Channels, Rule
from tf_synflow.channels.operators import follow, operator
from tf_synflow.channels.rules import ANYWHERE, PASSES, REGISTERED
from tf_synflow.network import Call, Network, is_operator


def strided_1x1(call: Call) -> bool:
    """Whether a layer is a convolution with a 1x1 kernel and a stride above 1."""
    if call.kind not in ("Conv1D", "Conv2D", "Conv3D"):
        return False
    return set(call.layer.kernel_size) == {1} and max(call.layer.strides) > 1


def find_sources(network: Network, channels: Channels) -> dict[int, np.ndarray]:
    """The channels to which a layer adds something that does not come from the input.

    Args:
      network: The network.
      channels: Its channels, found with `rule_of`.

    Returns:
      Group to boolean vector.
    """
    found = {
        group: np.full(size, group in channels.lifted)
        for group, size in channels.sizes.items()
    }
    for call in network.calls:
        groups = channels.signals[call.outputs[0]]
        if set(groups) <= channels.held:
            continue
        weights = call.weights
        added = np.zeros(sum(channels.sizes[group] for group in groups), bool)
        for short in ("bias", "beta", "moving_mean", "renorm_mean"):
            if short in weights:
                added |= weights[short].numpy() != 0
        if _lifts_zero(call):
            added[:] = True
        first = 0
        for group in groups:
            found[group] |= added[first : first + channels.sizes[group]]
            first += channels.sizes[group]
    return found


# Functions of Keras and TensorFlow that look at one number at a time, by their names.
_ELEMENTWISE = (
    *("linear", "identity", "relu", "relu6", "leaky_relu", "elu", "selu", "gelu"),
    *("swish", "silu", "softplus", "softsign", "tanh", "sigmoid", "hard_sigmoid"),
    *("exponential", "mish"),
)

_ACTIVATIONS = (
    *("ReLU", "LeakyReLU", "ELU"),
    *("ThresholdedReLU", "Rescaling"),
)


def _lifts_zero(call: Call) -> bool:
    """Whether a layer, or its activation, turns 0 into another number."""
    layer, zero = call.layer, np.zeros([1, 1], "float32")
    if type(layer) in REGISTERED:
        return not REGISTERED[type(layer)].keeps_zero
    if call.kind in _ACTIVATIONS:
        return _gives_more(layer, layer.call, zero)
    activation = getattr(layer, "activation", None)
    return callable(activation) and _gives_more(layer, activation, zero)


def _gives_more(layer: Any, function: Any, zero: np.ndarray) -> bool:
    return bool((frameworks.adapter_of(layer).evaluated(function, zero) != 0).any())


def _by_channel(layer: Any) -> bool:
    """Whether the activation in a layer treats each channel by itself."""
    activation = getattr(layer, "activation", None)
    package = getattr(activation, "__module__", "").partition(".")[0]
    known = package in ("keras", "tf_keras", "tensorflow")
    name = getattr(activation, "__name__", None)
    return activation is None or (known and name in _ELEMENTWISE)


def _looks_at(layer: Any, shape: tuple) -> int | None:
    """The axis of channels that a layer's `data_format` names; None if it has none."""
    data_format = getattr(layer, "data_format", None)
    if data_format is None:
        return None
    return 1 if data_format == "channels_first" else len(shape) - 1


def _careful(rule: Rule) -> Rule:
    """Makes a rule for layers with a kernel take bias and activation into account.

    The given rule gets shapes in which the channels come last.
    """

    def careful(
        channels: Channels, call: Call, inputs: list[Axis], shapes: list
    ) -> Axis | None:
        place = _looks_at(call.layer, shapes[0]) or len(shapes[0]) - 1
        inputs = [channels.at(number, place) for number in call.inputs]
        last = [(*s[:place], *s[place + 1 :], *s[place : place + 1]) for s in shapes]
        output = rule(channels, call, inputs, last)
        if output is None:
            return None
        bias = call.weights.get("bias")
        if bias is not None and bias.shape[-1] == last[-1][-1]:
            channels.carry(f"{call.name}/bias", -1, output)
        channels.places.update(dict.fromkeys(call.outputs, place))
        return _guarded(channels, call, output)

    return careful


def _guarded(channels: Channels, call: Call, output: Axis) -> Axis:
    """Holds `output` if the activation mixes channels or the layer adds to the loss."""
    if not _by_channel(call.layer) or call.layer.activity_regularizer is not None:
        channels.hold(output)
    return output


def _batch_norm(
    channels: Channels, call: Call, inputs: list[Axis], shapes: list
) -> Axis | None:
    axis = call.layer.axis
    axes = list(axis) if isinstance(axis, (list, tuple)) else [axis]
    if len(axes) != 1 or call.layer.activity_regularizer is not None:
        return None
    place = axes[0] % len(shapes[0])
    groups = channels.at(call.inputs[0], place)
    for short in call.weights:
        channels.carry(f"{call.name}/{short}", -1, groups)
    channels.places[call.outputs[0]] = place
    return groups


def _layer(
    channels: Channels, call: Call, inputs: list[Axis], shapes: list
) -> Axis | None:
    """The rule of layers without a kernel that keep channels apart."""
    layer = call.layer
    if getattr(layer, "noise_shape", None) is not None:
        return None  # noise_shape names a number of channels
    if call.kind == "Rescaling" and np.ndim(layer.scale + layer.offset):
        return None  # the shape of these arrays does so too

    def new_shapes(given: list[tuple]) -> list[tuple]:
        return [
            tuple(layer.compute_output_shape(given if len(given) > 1 else given[0]))
        ]

    output = follow(
        channels,
        call,
        shapes,
        new_shapes,
        place=_looks_at(layer, shapes[0]),
        product=call.kind == "Multiply",
    )
    if output is None:
        return None
    alpha = call.weights.get("alpha")  # of PReLU
    axis = channels.places[call.outputs[0]] - len(shapes[-1])
    if alpha is not None and alpha.shape[axis] == shapes[-1][axis]:
        channels.carry(f"{call.name}/alpha", axis, output)
    output = _guarded(channels, call, output)
    return channels.lift(output) if _lifts_zero(call) else output


def _reshape(
    channels: Channels, call: Call, inputs: list[Axis], shapes: list
) -> Axis | None:
    """The rule of a Reshape that keeps channels whole, such as (C) to (1, 1, C)."""
    before, after = shapes
    place = channels.places[call.inputs[0]]
    for new in range(1, len(after)):
        if after[new] != before[place]:
            continue
        # Channels stay whole if the sizes after their axis have the same product before
        # and after the Reshape, or if the sizes in front of their axis do.
        if _same_number(before[place + 1 :], after[new + 1 :]) or _same_number(
            before[1:place], after[1:new]
        ):
            break
    else:
        return None
    # target_shape names one number of channels for all calls of the layer.
    name, axis = f"{call.name}/target_shape", new - len(after)
    if channels.axes.get(name, {axis: ()}).keys() != {axis}:
        return None
    channels.places[call.outputs[0]] = new
    return channels.carry(name, axis, inputs[0])


def _same_number(sizes: tuple, others: tuple) -> bool:
    if None in (*sizes, *others):
        return False
    return math.prod(sizes) == math.prod(others)


def _flatten(
    channels: Channels, call: Call, inputs: list[Axis], shapes: list
) -> Axis | None:
    """The rule of Flatten: each position with all channels, or the other way round."""
    rank, place = len(shapes[0]), channels.places[call.inputs[0]]
    order = list(range(1, rank))
    if call.layer.data_format == "channels_first":
        order = [*order[1:], 1]
    at = order.index(place)
    before = [shapes[0][axis] for axis in order[:at]]
    after = [shapes[0][axis] for axis in order[at + 1 :]]
    if None in (*before, *after):
        return None
    groups, times = inputs[0], math.prod(after)
    groups = groups if times == 1 else channels.combine([groups], times)
    return groups * math.prod(before)


# Layers without a rule here: they mix channels, turn 0 into another number, or add to
# the loss.
_INEXACT = (
    *("Softmax", "ActivityRegularization"),
    *("GaussianNoise", "AlphaDropout"),
)

_KERNELS = (
    *("Dense", "Conv1D", "Conv2D", "Conv3D"),
    *("Conv2DTranspose", "Conv3DTranspose"),
    *("SeparableConv1D", "SeparableConv2D"),
    *("DepthwiseConv1D", "DepthwiseConv2D"),
)

_APART = (
    *(kind for kind in PASSES if kind not in _INEXACT),
    *("Add", "Subtract", "Average", "Concatenate"),
    *("Multiply", "Maximum", "Minimum", "Rescaling"),
    *("ZeroPadding1D", "Cropping1D", "UpSampling1D"),
    *("ZeroPadding3D", "Cropping3D", "UpSampling3D"),
    *("GlobalAveragePooling3D", "GlobalMaxPooling3D"),
    *("SpatialDropout3D", "Permute", "RepeatVector"),
    *("Resizing", "CenterCrop"),
)

# By these rules a channel is dead only if the network's function does not need it.
EXACT: dict[str, Rule] = {
    **{kind: _careful(ANYWHERE[kind]) for kind in _KERNELS},
    "Conv1DTranspose": _careful(ANYWHERE["Conv2DTranspose"]),
    **dict.fromkeys(_APART, _layer),
    "BatchNormalization": _batch_norm,
    "Flatten": _flatten,
    "Reshape": _reshape,
}


def rule_of(call: Call) -> Rule | None:
    """The rule for a call, or None if its channels are not known."""
    if type(call.layer) in REGISTERED:
        return REGISTERED[type(call.layer)].rule
    return operator if is_operator(call) else EXACT.get(call.kind)
