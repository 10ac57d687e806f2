"""Convolution as a product of matrices: the different windows, times the kernel.

Of a spread signal only few windows differ. They are cut out, each a row of a matrix,
and multiplied by the kernel as a matrix. For few windows that is also several times
faster than TensorFlow's convolution, whose derivative by a kernel of 512 x 512 channels
takes 37 ms for 2x2 positions, and 3 ms as a product.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_synflow.flow.positions import Spread, Window, position

# Of windows times taps. Beyond it, TensorFlow's convolution is as fast and takes less
# memory.
MOST = 4096


class Patches(NamedTuple):
    """The windows that a convolution reads.

    Attributes:
      signal: Tensor `(1, *computed positions, channels)`.
      reads: Integer array `(*windows, *taps)`: the computed positions, counted through,
        that each window reads; -1 for padding.
    """

    signal: Any
    reads: np.ndarray

    def times(self, kernel: Any) -> Any:
        """The convolution with a kernel `(*taps, channels in, channels out)`.

        Returns:
          Tensor `(1, *windows, channels out)`.
        """
        axes = self.reads.ndim // 2
        sizes, taps = self.reads.shape[:axes], self.reads.shape[axes:]
        count, flat = math.prod(sizes), self.reads.reshape(-1)
        positions = self.signal.shape[1:-1].num_elements()
        channels, filters = (size or -1 for size in kernel.shape[-2:])
        letters = "abc"[:axes]
        read, weigh, write = f"p{letters}i", f"{letters}io", "po"

        # One function with its gradient: a third of the operations to trace.
        @tf.custom_gradient
        def convolved(signal: Any, kernel: Any) -> tuple[Any, Any]:
            rows = _rows(tf.reshape(signal, [positions, channels]), flat)
            windows = tf.reshape(rows, [count, *taps, channels])

            def gradient(upstream: Any) -> tuple[Any, Any]:
                upstream = tf.reshape(upstream, [count, filters])
                back = _sums(upstream, kernel, f"{write},{weigh}->{read}")
                back = tf.reshape(back, [flat.size, channels])
                # It leaves out what is below 0.
                back = tf.math.unsorted_segment_sum(back, flat, positions)
                back = tf.reshape(back, [*self.signal.shape[:-1], channels])
                return back, _sums(windows, upstream, f"{read},{write}->{weigh}")

            y = _sums(windows, kernel, f"{read},{weigh}->{write}")
            return tf.reshape(y, [1, *sizes, filters]), gradient

        return convolved(self.signal, kernel)


def _rows(rows: Any, index: np.ndarray) -> Any:
    """Rows of a matrix; -1 stands for a row of zeros."""
    outside = index < 0
    if outside.any():
        rows = tf.pad(rows, [[0, 1], [0, 0]])
    return tf.gather(rows, np.where(outside, rows.shape[0] - 1, index))


def _sums(one: Any, other: Any, equation: str) -> Any:
    return tf.raw_ops.Einsum(inputs=[one, other], equation=equation)


def cut_out(
    spread: Spread, windows: Mapping[int, Window]
) -> tuple[Patches, dict[int, np.ndarray]]:
    """The windows that differ.

    Args:
      spread: A signal with its channels last.
      windows: Axis to what is read along it, for all axes but the first and the last.

    Returns:
      The patches, and axis to the window that stands at each true output.
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
    # The axes are output, tap, output, tap ...: outputs come first, then taps.
    reads = flat.transpose([*range(0, flat.ndim, 2), *range(1, flat.ndim, 2)])
    return Patches(spread.tensor, reads), indices


def _reads(index: np.ndarray, window: Window) -> np.ndarray:
    """The computed position that each tap of each output reads; -1 for padding."""
    rows = np.arange(window.outputs)[:, None] * window.stride - window.before
    rows = rows + np.arange(window.taps) * window.dilation
    inside = (rows >= 0) & (rows < index.size)
    return np.where(inside, index[np.clip(rows, 0, index.size - 1)], -1)
