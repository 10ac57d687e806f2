"""Convolution as a product of matrices: the different windows, times the kernel.

Only a few windows of a spread signal differ; `positions` says what "spread" means. Each
of these windows is cut out as a row of a matrix, which is multiplied by the kernel as a
matrix. For few windows this is also several times faster than TensorFlow's convolution.
For 2x2 positions, the derivative of a convolution by a kernel of 512 x 512 channels
takes 37 ms; as a product of matrices it takes 3 ms.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_synflow.flow.positions import Spread, Window, position

# The largest number of windows times taps. Beyond it, TensorFlow's convolution is as
# fast and takes less memory.
MOST = 4096


class Patches(NamedTuple):
    """The windows that a convolution reads.

    Attributes:
      signal: Tensor `(1, *computed positions, channels)`.
      reads: Integer array `(*windows, *taps)`: the flat index, among the computed
        positions, of the position that each tap of each window reads; -1 for padding.
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

        # With its own gradient the function has a third of the operations to trace.
        @tf.custom_gradient
        def convolved(signal: Any, kernel: Any) -> tuple[Any, Any]:
            rows = _rows(tf.reshape(signal, [positions, channels]), flat)
            windows = tf.reshape(rows, [count, *taps, channels])

            def gradient(upstream: Any) -> tuple[Any, Any]:
                upstream = tf.reshape(upstream, [count, filters])
                back = _sums(upstream, kernel, f"{write},{weigh}->{read}")
                back = tf.reshape(back, [flat.size, channels])
                # unsorted_segment_sum leaves out entries whose index is below 0.
                back = tf.math.unsorted_segment_sum(back, flat, positions)
                back = tf.reshape(back, [*self.signal.shape[:-1], channels])
                return back, _sums(windows, upstream, f"{read},{write}->{weigh}")

            y = _sums(windows, kernel, f"{read},{weigh}->{write}")
            return tf.reshape(y, [1, *sizes, filters]), gradient

        return convolved(self.signal, kernel)


def _rows(rows: Any, index: np.ndarray) -> Any:
    """Rows of a matrix by their index; the index -1 gives a row of zeros."""
    outside = index < 0
    if outside.any():
        rows = tf.pad(rows, [[0, 1], [0, 0]])
    return tf.gather(rows, np.where(outside, rows.shape[0] - 1, index))


def _sums(one: Any, other: Any, equation: str) -> Any:
    return tf.raw_ops.Einsum(inputs=[one, other], equation=equation)


def cut_out(
    spread: Spread, windows: Mapping[int, Window]
) -> tuple[Patches, dict[int, np.ndarray]]:
    """Cuts out the windows of a signal that differ.

    Args:
      spread: A signal with its channels last.
      windows: Axis to the `Window` along it, for all axes but the first and the last.

    Returns:
      The patches; and a dictionary from each axis to the list that gives, for every
      output of the full signal, the place of its window among those that differ.
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
    # The axes are output, tap, output, tap ...: outputs are put first, then taps.
    reads = flat.transpose([*range(0, flat.ndim, 2), *range(1, flat.ndim, 2)])
    return Patches(spread.tensor, reads), indices


def _reads(index: np.ndarray, window: Window) -> np.ndarray:
    """The computed position that each tap of each output reads; -1 for padding."""
    rows = np.arange(window.outputs)[:, None] * window.stride - window.before
    rows = rows + np.arange(window.taps) * window.dilation
    inside = (rows >= 0) & (rows < index.size)
    return np.where(inside, index[np.clip(rows, 0, index.size - 1)], -1)
