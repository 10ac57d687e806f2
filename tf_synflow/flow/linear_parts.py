"""The linear part of each kind of layer: what becomes of it in the linear twin.

A rule is a function `(layer, inputs, weights) -> outputs`. `inputs` is a float64 tensor
(a list, for a layer with several inputs) with non-negative entries and batch axis 1;
`weights` maps the short names of the layer's variables ("kernel", "gamma") to float64
tensors of their absolute values. A rule takes shapes from the tensors it is given, not
from the layer, and must be linear in its inputs and keep them non-negative.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_synflow.keras2.imports import convnext, inception_resnet_v2, keras

Rule = Callable[[Any, Any, Mapping[str, Any]], Any]


layers = keras.layers


_RULES: dict[type, Rule] = {}


# The methods of interpolation that give no pixel a weight below 0.
INTERPOLATIONS = ("nearest", "bilinear", "area")


def register_linear_part(layer_class: type, rule: Rule) -> None:
    """Tells SynFlow what the linear part of a layer class is.

    ```python
    # y = x * |scale|: a scale is linear already, an offset has no linear part
    tf_synflow.register_linear_part(LayerScale, lambda layer, x, w: x * w["scale"])
    ```

    Args:
      layer_class: A `tf_keras` layer class. The rule holds for this very class; a
        subclass may compute something else and needs its own.
      rule: `rule(layer, inputs, weights) -> outputs`: `inputs` is one float64 tensor of
        shape `(1, ...)` or a list of them, with entries >= 0; `weights` maps the short
        names of the layer's variables to their absolute values as float64 tensors. What
        it gives must be linear in `inputs` and >= 0.

    Raises:
      TypeError: `layer_class` is no layer class or `rule` is not callable.
    """
    if not (isinstance(layer_class, type) and issubclass(layer_class, layers.Layer)):
        raise TypeError(
            f"layer_class must be a class of tf_keras layers, got {layer_class!r}"
        )
    if not callable(rule):
        raise TypeError(
            f"rule must be a function (layer, inputs, weights) -> outputs, got {rule!r}"
        )
    _RULES[layer_class] = rule


def find(layer: Any) -> Rule | None:
    """The rule for a layer's class, or None where there is none for the layer."""
    rule = _RULES.get(type(layer))
    if rule in (upsampling, resizing) and layer.interpolation not in INTERPOLATIONS:
        return None
    return rule


def identity(layer: Any, inputs: Any, weights: Mapping[str, Any]) -> Any:
    """The rule of activations, dropout and noise."""
    return inputs


def _rule(*names: str) -> Callable[[Rule], Rule]:
    """Registers a rule for the Keras layers of these names."""

    def register(rule: Rule) -> Rule:
        for name in names:
            register_linear_part(getattr(layers, name), rule)
        return rule

    return register


_rule(
    *("Activation", "ReLU", "LeakyReLU", "ELU", "PReLU", "ThresholdedReLU", "Softmax"),
    *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"),
    *("AlphaDropout", "GaussianDropout", "GaussianNoise", "ActivityRegularization"),
    *("RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation"),
    *("RandomContrast", "RandomBrightness", "UnitNormalization", "Identity"),
    *("RandomHeight", "RandomWidth", "Masking"),
)(identity)


@_rule(
    *("Flatten", "Reshape", "Permute", "RepeatVector"),
    *("ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D"),
    *("Cropping1D", "Cropping2D", "Cropping3D"),
    *("UpSampling1D", "UpSampling3D"),
    *("GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D"),
    *("GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D"),
)
def itself(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """A layer that is linear already (max pooling: on non-negative signals)."""
    # `call`, because calling the layer would cast x to the layer's own dtype.
    return layer.call(x)


@_rule("Add", "Subtract", "Multiply", "Maximum", "Minimum")
def add(layer: Any, inputs: list[Any], weights: Mapping[str, Any]) -> Any:
    """A sum; the -1 of a difference counts by its absolute value.

    A product of signals is linear in each: at unit signals its linear part is their
    sum; see `operators`. The maximum and the minimum of signals count as parallel
    branches too, so that each gets flow and the flow is linear in its weights.
    """
    return functools.reduce(tf.add, inputs)


@_rule("Average")
def average(layer: Any, inputs: list[Any], weights: Mapping[str, Any]) -> Any:
    """The mean of the inputs."""
    return functools.reduce(tf.add, inputs) / len(inputs)


@_rule("Concatenate")
def concatenate(layer: Any, inputs: list[Any], weights: Mapping[str, Any]) -> Any:
    """The inputs side by side."""
    return tf.concat(inputs, axis=layer.axis)


@_rule("BatchNormalization")
def batch_normalization(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """Multiplies by |gamma| / sqrt(moving_variance + epsilon)."""
    scale = 1.0 / tf.sqrt(weights["moving_variance"] + layer.epsilon)
    if layer.scale:
        scale = weights["gamma"] * scale
    return x * _along_axes(scale, layer, x)


def _along_axes(scale: Any, layer: Any, x: Any) -> Any:
    """A scale for the layer's axes in a shape that fits the signal."""
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    axes = sorted(axis % x.shape.rank for axis in axes)
    if axes == [x.shape.rank - 1]:
        return scale
    shape = tf.shape(x)
    picks = [axis in axes for axis in range(x.shape.rank)]
    return tf.reshape(scale, tf.where(picks, shape, tf.ones_like(shape)))


@_rule("LayerNormalization", "GroupNormalization")
def other_normalization(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """Multiplies by |gamma|: the statistics are those of the signal, not known here."""
    return x * _along_axes(weights["gamma"], layer, x) if "gamma" in weights else x


@_rule("Rescaling")
def rescaling(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """Multiplies by |scale|; the offset drops out."""
    return x * tf.constant(np.abs(layer.scale), x.dtype)


@_rule("Normalization")
def normalization(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """Divides by the standard deviation that was given or learned by adapt()."""
    if "variance" in weights:
        variance = tf.reshape(weights["variance"], layer._broadcast_shape)
    else:
        variance = tf.cast(layer.variance, x.dtype)
    return x / tf.maximum(tf.sqrt(variance), keras.backend.epsilon())


def _layer_scale(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """Multiplies by |gamma|, the one weight there is."""
    (gamma,) = weights.values()
    return x * gamma


def _scaled_residual(layer: Any, inputs: list[Any], weights: Mapping[str, Any]) -> Any:
    """The first input plus |scale| times the second."""
    return inputs[0] + abs(layer.scale) * inputs[1]


register_linear_part(convnext.LayerScale, _layer_scale)


register_linear_part(convnext.StochasticDepth, identity)


register_linear_part(inception_resnet_v2.CustomScaleLayer, _scaled_residual)


@_rule("Dense")
def dense(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """X W, over the last axis."""
    if x.shape.rank == 2:
        return tf.matmul(x, weights["kernel"])
    return tf.tensordot(x, weights["kernel"], 1)


def _channels_last(rule: Rule) -> Rule:
    """Lets a rule for channels-last signals serve channels-first layers too."""

    @functools.wraps(rule)
    def either(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
        if layer.data_format == "channels_last":
            return rule(layer, x, weights)
        rank = x.shape.rank
        y = rule(layer, tf.transpose(x, [0, *range(2, rank), 1]), weights)
        return tf.transpose(y, [0, rank - 1, *range(1, rank - 1)])

    return either


@_rule("Conv1D", "Conv2D", "Conv3D")
@_channels_last
def convolution(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """Convolution with any stride, padding, dilation and number of groups."""
    kernel, padding = weights["kernel"], layer.padding.upper()
    if padding == "CAUSAL":
        before = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
        x, padding = tf.pad(x, [[0, 0], [before, 0], [0, 0]]), "VALID"
    strides = layer.strides
    if all(size == 1 for size in layer.kernel_size):
        # TensorFlow's own gradient of a strided 1x1 convolution writes past the end of
        # its memory in float32, unless there are 16, 32, 48 ... input channels.
        x = x[(slice(None), *(slice(None, None, step) for step in strides))]
        strides = 1
    if layer.groups == 1:
        parts = [(x, kernel)]
    else:  # TensorFlow has no gradient of a grouped convolution on the CPU.
        groups = tf.split(x, layer.groups, -1), tf.split(kernel, layer.groups, -1)
        parts = zip(*groups, strict=True)
    outputs = [
        tf.nn.convolution(part, own, strides, padding, dilations=layer.dilation_rate)
        for part, own in parts
    ]
    return outputs[0] if len(outputs) == 1 else tf.concat(outputs, -1)


@_rule("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
@_channels_last
def transposed_convolution(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """Transposed convolution; the kernel is `(*window, channels out, channels in)`."""
    kernel = weights["kernel"]
    sizes = [1, *_transposed_sizes(layer, x.shape[1:-1]), tf.shape(kernel)[-2]]
    padding = layer.padding.upper()
    kernel = _dilate(kernel, layer.dilation_rate)
    return tf.nn.conv_transpose(x, kernel, sizes, layer.strides, padding)


def _dilate(kernel: Any, rate: tuple[int, ...]) -> Any:
    """The kernel with zeros between its taps.

    TensorFlow has no gradient of a dilated transposed convolution on the CPU.
    """
    for axis, step in enumerate(rate):
        if step > 1:
            zeros = tf.zeros_like(kernel)
            spread = tf.stack([kernel] + [zeros] * (step - 1), axis + 1)
            shape, taps = tf.shape(kernel), kernel.shape[axis]
            flat = [
                *tf.unstack(shape)[:axis],
                taps * step,
                *tf.unstack(shape)[axis + 1 :],
            ]
            places = tf.range((taps - 1) * step + 1)
            kernel = tf.gather(tf.reshape(spread, flat), places, axis=axis)
    return kernel


def _transposed_sizes(layer: Any, sizes: Any) -> list[int]:
    """The spatial sizes that the layer gives for those of its input."""
    # The number of channels, here 1, does not matter to the sizes.
    if layer.data_format == "channels_first":
        return list(layer.compute_output_shape((1, 1, *sizes))[2:])
    return list(layer.compute_output_shape((1, *sizes, 1))[1:-1])


@_rule("DepthwiseConv1D", "DepthwiseConv2D")
@_channels_last
def depthwise_convolution(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """Each channel by itself; the kernel is `(*window, channels, multiplier)`."""
    return _depthwise(layer, x, weights["depthwise_kernel"])


@_rule("SeparableConv1D", "SeparableConv2D")
@_channels_last
def separable_convolution(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """A depthwise convolution, then a pointwise one."""
    y = _depthwise(layer, x, weights["depthwise_kernel"])
    return tf.nn.convolution(y, weights["pointwise_kernel"], padding="VALID")


def _depthwise(layer: Any, x: Any, kernel: Any) -> Any:
    strides, dilations = layer.strides, layer.dilation_rate
    padding = layer.padding.upper()
    if x.shape.rank == 4:
        return tf.nn.depthwise_conv2d(
            x, kernel, [1, *strides, 1], padding, dilations=dilations
        )
    if padding == "CAUSAL":
        before = dilations[0] * (layer.kernel_size[0] - 1)
        x, padding = tf.pad(x, [[0, 0], [before, 0], [0, 0]]), "VALID"
    # The one spatial axis as an image of height 1; strides have to be square there.
    y = tf.nn.depthwise_conv2d(
        x[:, None],
        kernel[None],
        [1, *strides * 2, 1],
        padding,
        dilations=[1, *dilations],
    )
    return y[:, 0]


@_rule("AveragePooling1D", "AveragePooling2D", "MaxPooling1D", "MaxPooling2D")
@_channels_last
def pooling(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """Pooling; the maximum of non-negative signals is one of them, so linear here."""
    # The 1-D layers keep plain numbers where the others keep tuples.
    window, strides = tf.nest.flatten(layer.pool_size), tf.nest.flatten(layer.strides)
    return _pool(layer, x, window, strides)


@_rule("AveragePooling3D", "MaxPooling3D")
@_channels_last
def pooling_3d(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """Plane by plane and then across, for TensorFlow has no 3-D pooling in float64."""
    (depth, *plane), (step, *steps) = layer.pool_size, layer.strides
    channels = tf.shape(x)[-1]
    x = _pool(layer, x[0], plane, steps)
    planes, height, width, _ = x.shape
    x = tf.reshape(x, [1, planes, height * width, channels])
    x = _pool(layer, x, [depth, 1], [step, 1])
    return tf.reshape(x, [1, x.shape[1], height, width, channels])


def _pool(layer: Any, x: Any, window: Any, strides: Any) -> Any:
    # Not tf.nn.pool, which refuses strides that are larger than the window.
    pool = tf.nn.avg_pool if "Average" in type(layer).__name__ else tf.nn.max_pool
    return pool(x, window, strides, layer.padding.upper())


@_rule("UpSampling2D")
@_channels_last
def upsampling(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """Each pixel several times, or interpolated."""
    height, width = (n * k for n, k in zip(x.shape[1:3], layer.size, strict=True))
    return resized(x, (height, width), layer.interpolation)


@_rule("Resizing")
def resizing(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """Interpolates an image, or its largest part of the right aspect ratio."""
    size = layer.height, layer.width
    if layer.crop_to_aspect_ratio:
        x = _cut_to_aspect_ratio(x, *size)
    return resized(x, size, layer.interpolation)


@_rule("CenterCrop")
def center_crop(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """The middle of an image; a smaller image is enlarged."""
    height, width = x.shape[1:3]
    top, left = height - layer.height, width - layer.width
    if top < 0 or left < 0:
        return random_crop(layer, x, weights)
    return _cut(x, top // 2, left // 2, layer.height, layer.width)


@_rule("RandomCrop")
def random_crop(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """Resizes the largest part of the right aspect ratio, as outside of training."""
    size = layer.height, layer.width
    return resized(_cut_to_aspect_ratio(x, *size), size, "bilinear")


def _cut(x: Any, top: int, left: int, height: int, width: int) -> Any:
    return x[:, top : top + height, left : left + width]


def _cut_to_aspect_ratio(x: Any, height: int, width: int) -> Any:
    """The middle of an image, as large as its aspect ratio allows."""
    rows, columns = x.shape[1:3]
    # In float32, as Keras does it.
    own_height = min(rows, int(np.float32(columns * height) / np.float32(width)))
    own_width = min(columns, int(np.float32(rows * width) / np.float32(height)))
    top, left = (rows - own_height) // 2, (columns - own_width) // 2
    return _cut(x, top, left, own_height, own_width)


def resized(x: Any, size: Sequence[int], method: str) -> Any:
    """Images of another size, as `tf.image.resize` makes them, in the images' type.

    Args:
      x: Tensor `(1, height, width, channels)`.
      size: The new height and width.
      method: One of `INTERPOLATIONS`.
    """
    if method == "nearest":
        return tf.image.resize(x, size, method)
    # TensorFlow interpolates in float32 only. It does so along each axis by itself.
    for axis in (1, 2):
        matrix = _interpolation(method, x.shape[axis], int(size[axis - 1]))
        x = tf.tensordot(tf.constant(matrix, x.dtype), x, [[1], [axis]])
        x = tf.transpose(x, [1, 0, 2, 3] if axis == 1 else [1, 2, 0, 3])
    return x


def _interpolation(method: str, old: int, new: int) -> np.ndarray:
    """Matrix `(new, old)`: the share of each old pixel in each new one.

    A new pixel covers `old / new` old ones. Bilinear interpolation looks at its middle:
    the share of an old pixel falls off in a straight line, to 0 where the next one's
    middle is. Outside of the image the outermost pixel goes on.
    """
    scale = old / new
    if method == "area":
        ends = np.arange(new + 1)[:, None] * scale
        before = np.clip(ends - np.arange(old), 0, 1)  # of a pixel, left of an end
        shares = before[1:] - before[:-1]
    else:
        middles = np.clip((np.arange(new)[:, None] + 0.5) * scale - 0.5, 0, old - 1)
        shares = np.maximum(1 - np.abs(middles - np.arange(old)), 0)
    return shares / shares.sum(1, keepdims=True)


# What gives no entry above the largest it was given, nor much below, needs no scaling.
NEVER_GROW = (
    *(identity, itself, average, concatenate, pooling, pooling_3d),
    *(upsampling, resizing, center_crop, random_crop),
)


# Rules that are linear in the kernel as well: it may be scaled by a power of two.
LINEAR_IN_KERNEL = (dense, convolution, transposed_convolution, separable_convolution)
