"""How layers carry channels, if every activation is the identity.

These rules are for SynFlow's scores; those in `needed` are for the network itself.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from tf_synflow.channels.groups import Axis, Channels, Rule
from tf_synflow.frameworks import check_layer_class
from tf_synflow.network import Call

PASSES = (
    *("Activation", "ReLU", "LeakyReLU", "ELU", "Identity"),
    *("ThresholdedReLU", "Dropout", "SpatialDropout2D"),
    *("AlphaDropout", "GaussianDropout", "GaussianNoise"),
    *("ActivityRegularization", "Softmax", "SpatialDropout1D"),
    *("AveragePooling1D", "AveragePooling2D", "AveragePooling3D"),
    *("MaxPooling1D", "MaxPooling2D", "MaxPooling3D"),
    *("GlobalAveragePooling1D", "GlobalAveragePooling2D"),
    *("GlobalMaxPooling1D", "GlobalMaxPooling2D", "PReLU"),
    *("ZeroPadding2D", "Cropping2D", "UpSampling2D"),
)


def _same(channels: Channels, call: Call, inputs: list[Axis], shapes: list) -> Axis:
    return inputs[0]


def _kernel(
    channels: Channels, call: Call, inputs: list[Axis], shapes: list
) -> Axis | None:
    """Dense and convolutions: the kernel's last axes are the channels in and out."""
    short = "pointwise_kernel" if "Separable" in call.class_name else "kernel"
    name = f"{call.name}/{short}"
    if name not in channels.names:
        return None
    if short == "pointwise_kernel":
        channels.carry(f"{call.name}/depthwise_kernel", -2, inputs[0])
    axes = (-1, -2) if "Transpose" in call.class_name else (-2, -1)
    if call.weights[short].shape[axes[1]] != shapes[-1][-1]:
        return None  # a fused activation gives another number of channels
    known = channels.axes.get(name, {}).get(axes[1])
    channels.kernels[name] = axes
    channels.carry(name, axes[0], inputs[0])
    return channels.carry(name, axes[1], known or channels.group(shapes[-1][-1]))


def _depthwise(
    channels: Channels, call: Call, inputs: list[Axis], shapes: list
) -> Axis:
    (short,) = (short for short in call.weights if short.endswith("kernel"))
    return channels.carry(f"{call.name}/{short}", -2, inputs[0])


def _batch_norm(
    channels: Channels, call: Call, inputs: list[Axis], shapes: list
) -> Axis | None:
    axis = call.layer.axis
    axes = list(axis) if isinstance(axis, (list, tuple)) else [axis]
    if [a % len(shapes[0]) for a in axes] != [len(shapes[0]) - 1]:
        return None
    for short in call.weights:
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
    """Limits a rule to layers whose channels come last."""

    def last(
        channels: Channels, call: Call, inputs: list[Axis], shapes: list
    ) -> Axis | None:
        if getattr(call.layer, "data_format", "channels_last") != "channels_last":
            return None
        return rule(channels, call, inputs, shapes)

    return last


ANYWHERE: dict[str, Rule] = {
    **dict.fromkeys(PASSES, _same),
    **dict.fromkeys(
        (
            *("Dense", "Conv1D", "Conv2D", "Conv3D"),
            *("Conv2DTranspose", "Conv3DTranspose"),
            *("SeparableConv1D", "SeparableConv2D"),
        ),
        _kernel,
    ),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _depthwise),
    **dict.fromkeys(("Add", "Subtract", "Average"), _merge),
    "BatchNormalization": _batch_norm,
    "Concatenate": _concatenate,
    "Flatten": _flatten,
}

RULES = {kind: _channels_last(rule) for kind, rule in ANYWHERE.items()}


def rule_of(call: Call) -> Rule | None:
    """The rule for a call, or None if its channels are not known."""
    if type(call.layer) in REGISTERED:
        return REGISTERED[type(call.layer)].rule
    return RULES.get(call.kind)


class Registered(NamedTuple):
    """What the user has registered about a class; see `register_channels`.

    Attributes:
      carries: Short name of a weight to the axis along which the channels lie.
      kernel: Short name of the weight that joins channels in and out, or None.
      size: Key of the layer's configuration for the number of channels, or None.
      keeps_zero: Whether an input channel that is 0 gives an output channel that is 0.
    """

    carries: dict[str, int]
    kernel: str | None
    size: str | None
    keeps_zero: bool

    def rule(
        self, channels: Channels, call: Call, inputs: list[Axis], shapes: list
    ) -> Axis | None:
        """The groups of the output; see `groups.Rule`."""
        output = inputs[0]
        if self.kernel is not None:
            name = f"{call.name}/{self.kernel}"
            if name not in channels.names:
                return None
            known = channels.axes.get(name, {}).get(-1)
            channels.kernels[name] = (-2, -1)
            channels.carry(name, -2, inputs[0])
            output = channels.carry(name, -1, known or channels.group(shapes[-1][-1]))
        for short, axis in self.carries.items():
            channels.carry(f"{call.name}/{short}", axis, output)
        return output


REGISTERED: dict[type, Registered] = {}


def register_channels(
    layer_class: type,
    carries: Mapping[str, int] | None = None,
    *,
    kernel: str | None = None,
    size: str | None = None,
    keeps_zero: bool = True,
) -> None:
    """Tells `shrink` how a layer class carries channels, so that it can cut them.

    The layer must have one input and one output, with the channels along the last axis.
    Without a `kernel`, an output channel may depend only on the input channel at the
    same place. With a `kernel`, it may depend only on the input channels that the
    kernel joins to it.

    ```python
    # y = x * scale, a scale for each channel
    tf_synflow.register_channels(LayerScale, {"scale": -1})
    # y = x W + b; the configuration calls the number of channels "units"
    tf_synflow.register_channels(MyDense, {"b": -1}, kernel="w", size="units")
    ```

    Args:
      layer_class: A class of Keras layers. The rule holds for this class only, not for
        its subclasses.
      carries: Short name of each weight that has an entry for each output channel, to
        the axis of the channels in it, counted from the end (-1 is the last). Defaults
        to none.
      kernel: Short name of a weight of shape `(..., channels in, channels out)` that
        joins input channels to output channels. An output channel is 0 if all of the
        kernel's weights for it are 0. Defaults to None: output channels are input
        channels.
      size: The key in the layer's `get_config()` that holds the number of output
        channels. Defaults to None.
      keeps_zero: Whether an input channel that is 0 gives an output channel that is 0,
        whatever the weights are. Use False for a layer that adds something. Defaults to
        True.

    Raises:
      TypeError: `layer_class` is no class of Keras layers.
      ValueError: An axis is not counted from the end.
    """
    check_layer_class(layer_class)
    carries = dict(carries or {})
    for name, axis in carries.items():
        if axis >= 0:
            raise ValueError(
                f"carries={carries}: the axis of {name!r} must be counted from the end,"
                " -1 for the last"
            )
    REGISTERED[layer_class] = Registered(carries, kernel, size, keeps_zero)
