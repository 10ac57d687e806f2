"""Convolution as a product of matrices: the different windows, times the kernel.

Of a spread signal only few windows differ. They are cut out, each a row of a matrix,
and multiplied by the kernel as a matrix. For few windows that is also several times
faster than TensorFlow's convolution, whose derivative by a kernel of 512 x 512 channels
takes 37 ms for 2x2 positions, and 3 ms as a product.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_synflow.flow.positions import Spread, Window, position, taken

# Of windows times taps. Beyond it, TensorFlow's convolution is as fast and takes less
# memory.
_MOST = 4096


class Patches(NamedTuple):
    """The windows that a convolution reads.

    Attributes:
      matrix: Tensor `(windows, taps * channels)`.
      sizes: Numbers of windows along each axis of the result.
    """

    matrix: Any
    sizes: tuple[int, ...]

    def times(self, kernel: Any) -> Any:
        """The convolution with a kernel `(*taps, channels in, channels out)`.

        Returns:
          Tensor `(1, *sizes, channels out)`.
        """
        out = kernel.shape[-1] or tf.shape(kernel)[-1]
        y = tf.matmul(self.matrix, tf.reshape(kernel, [-1, out]))
        return tf.reshape(y, [1, *self.sizes, kernel.shape[-1] or -1])


def cut_out(
    spread: Spread, windows: Mapping[int, Window]
) -> tuple[Patches, dict[int, np.ndarray]] | None:
    """The windows that differ.

    Args:
      spread: A signal with its channels last.
      windows: Axis to what is read along it, for all axes but the first and the last.

    Returns:
      The patches, and axis to the window that stands at each true output; or None if
      they are too many.
    """
    flat, indices = np.zeros((), int), {}
    for axis, window in windows.items():
        computed = spread.tensor.shape[axis]
        index = position(spread, axis)
        reads = _reads(np.arange(computed) if index is None else index, window)
        first = np.ones(window.outputs, bool)
        first[1:] = (reads[1:] != reads[:-1]).any(1)
        indices[axis] = np.cumsum(first) - 1
        before, own = flat[..., None, None], reads[first]
        outside = (before < 0) | (own < 0)
        flat = np.where(outside, -1, before * computed + own)
    if flat.size > _MOST:
        return None
    # The axes are output, tap, output, tap ...: outputs come first, then taps.
    flat = flat.transpose([*range(0, flat.ndim, 2), *range(1, flat.ndim, 2)])
    sizes = flat.shape[: len(windows)]
    size = np.prod(spread.tensor.shape[1:-1].as_list(), dtype=int)
    rows = tf.reshape(spread.tensor, [size, spread.tensor.shape[-1] or -1])
    matrix = tf.reshape(taken(rows, flat.reshape(-1)), [np.prod(sizes), -1])
    return Patches(matrix, sizes), indices


def _reads(index: np.ndarray, window: Window) -> np.ndarray:
    """The computed position that each tap of each output reads; -1 for padding."""
    rows = np.arange(window.outputs)[:, None] * window.stride - window.before
    rows = rows + np.arange(window.taps) * window.dilation
    inside = (rows >= 0) & (rows < index.size)
    return np.where(inside, index[np.clip(rows, 0, index.size - 1)], -1)
