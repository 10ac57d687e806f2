"""Images: cropped, or interpolated to another size."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_synflow.flow.parts.shapes import channels_last

# The methods of interpolation that give no pixel a weight below 0.
INTERPOLATIONS = ("nearest", "bilinear", "area")


@channels_last
def upsampling(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """Each pixel several times, or interpolated."""
    height, width = (n * k for n, k in zip(x.shape[1:3], layer.size, strict=True))
    return resized(x, (height, width), layer.interpolation)


def resizing(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """Interpolates an image, or its largest part of the right aspect ratio."""
    size = layer.height, layer.width
    if layer.crop_to_aspect_ratio:
        x = _cut_to_aspect_ratio(x, *size)
    return resized(x, size, layer.interpolation)


def center_crop(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """The middle of an image; a smaller image is enlarged."""
    height, width = x.shape[1:3]
    top, left = height - layer.height, width - layer.width
    if top < 0 or left < 0:
        return random_crop(layer, x, weights)
    return _cut(x, top // 2, left // 2, layer.height, layer.width)


def random_crop(layer: Any, x: Any, weights: Mapping[str, Any]) -> Any:
    """Resizes the largest part of the right aspect ratio, as outside of training."""
    size = layer.height, layer.width
    return resized(_cut_to_aspect_ratio(x, *size), size, "bilinear")


def _cut(x: Any, top: int, left: int, height: int, width: int) -> Any:
    return x[:, top : top + height, left : left + width]


def _cut_to_aspect_ratio(x: Any, height: int, width: int) -> Any:
    """The largest middle part of an image with the aspect ratio of these sizes."""
    rows, columns = x.shape[1:3]
    # In float32, as Keras does it.
    own_height = min(rows, int(np.float32(columns * height) / np.float32(width)))
    own_width = min(columns, int(np.float32(rows * width) / np.float32(height)))
    top, left = (rows - own_height) // 2, (columns - own_width) // 2
    return _cut(x, top, left, own_height, own_width)


def resized(x: Any, size: Sequence[int], method: str) -> Any:
    """Resizes images as `tf.image.resize` does, but in the type of the images.

    Args:
      x: Tensor `(1, height, width, channels)`.
      size: The new height and width.
      method: One of `INTERPOLATIONS`.
    """
    if method == "nearest":
        return tf.image.resize(x, size, method)
    # TensorFlow interpolates along each axis by itself too, but in float32 only.
    for axis in (1, 2):
        matrix = _interpolation(method, x.shape[axis], int(size[axis - 1]))
        x = tf.tensordot(tf.constant(matrix, x.dtype), x, [[1], [axis]])
        x = tf.transpose(x, [1, 0, 2, 3] if axis == 1 else [1, 2, 0, 3])
    return x


def _interpolation(method: str, old: int, new: int) -> np.ndarray:
    """Matrix `(new, old)`: the share of each old pixel in each new one.

    A new pixel covers `old / new` old pixels. Bilinear interpolation looks at the
    middle of the new pixel. The share of an old pixel falls off linearly with its
    distance from there, to 0 at a distance of one old pixel. Outside of the image the
    outermost pixel is repeated.
    """
    scale = old / new
    if method == "area":
        ends = np.arange(new + 1)[:, None] * scale
        before = np.clip(ends - np.arange(old), 0, 1)  # share of a pixel left of an end
        shares = before[1:] - before[:-1]
    else:
        middles = np.clip((np.arange(new)[:, None] + 0.5) * scale - 0.5, 0, old - 1)
        shares = np.maximum(1 - np.abs(middles - np.arange(old)), 0)
    return shares / shares.sum(1, keepdims=True)
