"""Dense layers and convolutions: sums of products with a kernel."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tf_synflow.flow.parts.shapes import channels_last
from tf_synflow.flow.patches import Patches

# Data format by the rank of the signal. In eager mode TensorFlow's gradients need the
# format to be spelt out.
FORMATS = {3: "NWC", 4: "NHWC", 5: "NDHWC"}


def dense(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """X W, over the last axis."""
    if x.shape.rank == 2:
        return tf.matmul(x, weights["kernel"])
    return tf.tensordot(x, weights["kernel"], 1)


@channels_last
def convolution(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """Convolution with any stride, padding, dilation and number of groups.

    `x` may be the `Patches` of the signal.
    """
    kernel, padding = weights["kernel"], layer.padding.upper()
    if isinstance(x, Patches):
        return x.times(kernel)
    if padding == "CAUSAL":
        before = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
        x, padding = tf.pad(x, [[0, 0], [before, 0], [0, 0]]), "VALID"
    strides, dilations = layer.strides, layer.dilation_rate
    if all(size == 1 for size in layer.kernel_size):
        # TensorFlow's own gradient of a strided 1x1 convolution writes past the end of
        # its memory in float32, unless there are 16, 32, 48 ... input channels.
        x = x[(slice(None), *(slice(None, None, step) for step in strides))]
        # Dilation means nothing for a single tap, but TensorFlow fails all the same.
        strides = dilations = 1
    else:  # TensorFlow dilates by itself only if it knows the number of channels
        kernel, dilations = _dilate(kernel, layer.dilation_rate), 1
    if layer.groups == 1:
        parts = [(x, kernel)]
    else:  # TensorFlow has no gradient of a grouped convolution on the CPU.
        groups = tf.split(x, layer.groups, -1), tf.split(kernel, layer.groups, -1)
        parts = zip(*groups, strict=True)
    outputs = [
        tf.nn.convolution(part, own, strides, padding, FORMATS[x.shape.rank], dilations)
        for part, own in parts
    ]
    return outputs[0] if len(outputs) == 1 else tf.concat(outputs, -1)


@channels_last
def transposed_convolution(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """Transposed convolution; the kernel is `(*window, channels out, channels in)`."""
    kernel = weights["kernel"]
    sizes = [1, *_transposed_sizes(layer, x.shape[1:-1]), tf.shape(kernel)[-2]]
    padding = layer.padding.upper()
    kernel = _dilate(kernel, layer.dilation_rate)
    form = FORMATS[x.shape.rank]
    return tf.nn.conv_transpose(x, kernel, sizes, layer.strides, padding, form)


def _dilate(kernel: Any, rate: tuple[int, ...]) -> Any:
    """The kernel with zeros between its taps.

    On the CPU TensorFlow has no gradient of a dilated transposed convolution.
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
    """The spatial sizes of the layer's output, from those of its input."""
    # The number of channels, here 1, does not matter to the sizes.
    if layer.data_format == "channels_first":
        return list(layer.compute_output_shape((1, 1, *sizes))[2:])
    return list(layer.compute_output_shape((1, *sizes, 1))[1:-1])


@channels_last
def depthwise_convolution(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """Each channel by itself; the kernel is `(*window, channels, multiplier)`."""
    (kernel,) = (w for name, w in weights.items() if name.endswith("kernel"))
    return _depthwise(layer, x, kernel)


@channels_last
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
    # The signal becomes an image of height 1; for images both strides must be equal.
    y = tf.nn.depthwise_conv2d(
        x[:, None],
        kernel[None],
        [1, *strides * 2, 1],
        padding,
        dilations=[1, *dilations],
    )
    return y[:, 0]
