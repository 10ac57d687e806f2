"""TODO."""

import math

from tf_synflow.channels.groups import Axis, Channels, Rule, layers
from tf_synflow.network import Call, layer_weights

PASSES = (
    *(layers.Activation, layers.ReLU, layers.LeakyReLU, layers.ELU, layers.Identity),
    *(layers.ThresholdedReLU, layers.Dropout, layers.SpatialDropout2D),
    *(layers.AlphaDropout, layers.GaussianDropout, layers.GaussianNoise),
    *(layers.ActivityRegularization, layers.Softmax, layers.SpatialDropout1D),
    *(layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D),
    *(layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D),
    *(layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D),
    *(layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.PReLU),
    *(layers.ZeroPadding2D, layers.Cropping2D, layers.UpSampling2D),
)


def _same(channels: Channels, call: Call, inputs: list[Axis], shapes: list) -> Axis:
    return inputs[0]


def _kernel(
    channels: Channels, call: Call, inputs: list[Axis], shapes: list
) -> Axis | None:
    """Dense and convolutions: the kernel's last axes are the channels in and out."""
    short = "pointwise_kernel" if "Separable" in type(call.layer).__name__ else "kernel"
    name = f"{call.name}/{short}"
    if name not in channels.names:
        return None
    if short == "pointwise_kernel":
        channels.carry(f"{call.name}/depthwise_kernel", -2, inputs[0])
    axes = (-1, -2) if "Transpose" in type(call.layer).__name__ else (-2, -1)
    if layer_weights(call.layer)[short].shape[axes[1]] != shapes[-1][-1]:
        return None  # a fused activation gives another number of channels
    known = channels.axes.get(name, {}).get(axes[1])
    channels.kernels[name] = axes
    channels.carry(name, axes[0], inputs[0])
    return channels.carry(name, axes[1], known or channels.group(shapes[-1][-1]))


def _depthwise(
    channels: Channels, call: Call, inputs: list[Axis], shapes: list
) -> Axis:
    return channels.carry(f"{call.name}/depthwise_kernel", -2, inputs[0])


def _batch_norm(
    channels: Channels, call: Call, inputs: list[Axis], shapes: list
) -> Axis | None:
    axis = call.layer.axis
    axes = list(axis) if isinstance(axis, (list, tuple)) else [axis]
    if [a % len(shapes[0]) for a in axes] != [len(shapes[0]) - 1]:
        return None
    for short in layer_weights(call.layer):
        channels.carry(f"{call.name}/{short}", -1, inputs[0])
    return inputs[0]


def _merge(
    channels: Channels, call: Call, inputs: list[Axis], shapes: list
) -> Axis | None:
    return channels.join(inputs) if len(set(shapes)) == 1 else None


def _concatenate(
    channels: Channels, call: Call, inputs: list[Axis], shapes: list
) -> Axis:
    if call.layer.axis % len(shapes[0]) == len(shapes[0]) - 1:
        return tuple(group for axis in inputs for group in axis)
    return channels.join(inputs)


def _flatten(
    channels: Channels, call: Call, inputs: list[Axis], shapes: list
) -> Axis | None:
    """Positions one after the other, each with all channels."""
    sizes = shapes[0][1:-1]
    return None if None in sizes else inputs[0] * math.prod(sizes)


def _channels_last(rule: Rule) -> Rule:
    """A rule for layers whose channels come last."""

    def last(
        channels: Channels, call: Call, inputs: list[Axis], shapes: list
    ) -> Axis | None:
        if getattr(call.layer, "data_format", "channels_last") != "channels_last":
            return None
        return rule(channels, call, inputs, shapes)

    return last


ANYWHERE: dict[type, Rule] = {
    **dict.fromkeys(PASSES, _same),
    **dict.fromkeys(
        (
            *(layers.Dense, layers.Conv1D, layers.Conv2D, layers.Conv3D),
            *(layers.Conv2DTranspose, layers.Conv3DTranspose),
            *(layers.SeparableConv1D, layers.SeparableConv2D),
        ),
        _kernel,
    ),
    **dict.fromkeys((layers.DepthwiseConv1D, layers.DepthwiseConv2D), _depthwise),
    **dict.fromkeys((layers.Add, layers.Subtract, layers.Average), _merge),
    layers.BatchNormalization: _batch_norm,
    layers.Concatenate: _concatenate,
    layers.Flatten: _flatten,
}


RULES = {kind: _channels_last(rule) for kind, rule in ANYWHERE.items()}
