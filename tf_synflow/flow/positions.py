"""Equal positions of a signal are computed once.

SynFlow's input is ones everywhere. So a signal of the twin is the same at all positions
except near the borders, where zero padding has an effect. After n convolutions 3x3 a
feature map has at most 2n + 1 different rows, however high the map is. So a signal is
stored *spread*. This means a small tensor of the rows that were computed and, for each
axis, a list. The list gives, for every *true* row (row of the full signal), the row of
the small tensor that stands for it.

    true rows      r0 r1 r2 r2 r2 r2 r3 r4     height 8
    tensor         r0 r1 r2 r3 r4              5 rows computed
    positions      [0, 1, 2, 2, 2, 2, 3, 4]

This changes nothing but the order in which sums over positions are added up. The module
`position_rules` says what each layer does to positions.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

Positions = tuple[np.ndarray | None, ...]


class Spread(NamedTuple):
    """A signal of which only some positions are computed.

    Attributes:
      tensor: The entries at the computed positions.
      positions: For each axis, the list that gives, for every row of the full signal,
        the row of `tensor` that stands for it. None for an axis whose rows are all
        computed; () if every axis is like that.
    """

    tensor: Any
    positions: Positions = ()


class Window(NamedTuple):
    """What a layer reads along one axis.

    Output o reads the rows `o * stride - before + n * dilation` with n < taps.

    Attributes:
      taps: Rows that one output reads.
      stride: Rows from one output to the next.
      dilation: Rows from one tap to the next.
      before: Rows of padding before the first row.
      outputs: Number of outputs.
    """

    taps: int
    stride: int
    dilation: int
    before: int
    outputs: int


def ones(shape: Sequence[int], dtype: Any) -> Spread:
    """The input of ones: one computed entry that stands at every position.

    Args:
      shape: `(1, ...)`, fully known.
      dtype: The tensor's type.
    """
    positions = [np.zeros(size, int) for size in shape[1:]]
    return spread_of(tf.ones([1] * len(shape), dtype), [None, *positions])


def spread_of(tensor: Any, positions: Sequence[np.ndarray | None]) -> Spread:
    """A spread; a list that names each row of `tensor` once, in order, becomes None."""
    tidy = tuple(
        None if index is not None and _is_whole(index, tensor, axis) else index
        for axis, index in enumerate(positions)
    )
    return Spread(tensor, () if all(index is None for index in tidy) else tidy)


def _is_whole(index: np.ndarray, tensor: Any, axis: int) -> bool:
    return np.array_equal(index, np.arange(tensor.shape[axis]))


def position(spread: Spread, axis: int) -> np.ndarray | None:
    """The list of positions along an axis, or None if all rows are computed."""
    return spread.positions[axis] if spread.positions else None


def expanded(spread: Spread, axes: Collection[int] | None = None) -> Spread:
    """The same signal with all rows in its tensor, along some axes or (default) all."""
    indices = {
        axis: index
        for axis, index in enumerate(spread.positions)
        if index is not None and (axes is None or axis in axes)
    }
    positions = [
        None if axis in indices else p for axis, p in enumerate(spread.positions)
    ]
    return spread_of(gathered(spread.tensor, indices), positions)


def gathered(x: Any, indices: Mapping[int, np.ndarray]) -> Any:
    """Takes entries of a tensor along some axes.

    Args:
      x: The tensor.
      indices: Axis to the indices of the entries to take along it.
    """
    indices = {a: i for a, i in indices.items() if not _is_whole(i, x, a)}
    if not indices:
        return x
    first, last = min(indices), max(indices) + 1
    sizes = x.shape[first:last].as_list()
    whole = [indices.get(first + n, np.arange(size)) for n, size in enumerate(sizes)]
    flat = np.ravel_multi_index(np.ix_(*whole), sizes).reshape(-1)
    before, after = x.shape[:first].as_list(), x.shape[last:].as_list()
    ahead = all(size == 1 for size in before)
    if not ahead:  # the axes are brought to the front
        others = [*range(first), *range(last, x.shape.rank)]
        x = tf.transpose(x, [*range(first, last), *others])
    rows = _taken(tf.reshape(x, [math.prod(sizes), -1]), flat)
    shape = [*before, *map(len, whole), *after]
    if ahead:
        return tf.reshape(rows, _with_one_unknown(shape))
    rows = tf.reshape(rows, _with_one_unknown([*map(len, whole), *before, *after]))
    moved = last - first
    order = [*range(moved, moved + first), *range(moved), *range(last, len(shape))]
    return tf.transpose(rows, order)


def _with_one_unknown(shape: list[int | None]) -> list[int]:
    return [-1 if size is None else size for size in shape]


def _taken(rows: Any, index: np.ndarray) -> Any:
    """Takes rows of a matrix, some of them several times.

    TensorFlow's own gradient of a gather takes ten times the operations of this one.
    """
    count = rows.shape[0]

    @tf.custom_gradient
    def take(rows: Any) -> tuple[Any, Any]:
        def gradient(upstream: Any) -> Any:
            return tf.math.unsorted_segment_sum(upstream, index, count)

        return tf.gather(rows, index), gradient

    return take(rows)


def met(spreads: Sequence[Spread]) -> tuple[list[Any], dict[int, np.ndarray]]:
    """Brings signals of one rank to the same computed positions, to be added up.

    A size of 1 along an axis fits every other size, as in broadcasting.

    Returns:
      The tensors; and a dictionary from each axis to the list that they now share,
      which gives, for every row of the full signal, the row of the tensors that stands
      for it.
    """
    ways: list[dict[int, np.ndarray]] = [{} for _ in spreads]
    common: dict[int, np.ndarray] = {}
    for axis in range(spreads[0].tensor.shape.rank):
        found = {n: position(spread, axis) for n, spread in enumerate(spreads)}
        if all(index is None for index in found.values()):
            continue
        sizes = [spread.tensor.shape[axis] for spread in spreads]
        if None in sizes:  # the axis of channels, which may have lost some
            for n, index in found.items():
                if index is not None:
                    ways[n][axis] = index
            continue
        full = {
            n: np.arange(sizes[n]) if index is None else index
            for n, index in found.items()
        }
        most = max(map(len, full.values()))
        full = {n: index for n, index in full.items() if len(index) == most}
        starts = np.zeros(most, bool)
        starts[0] = True
        for index in full.values():
            starts[1:] |= index[1:] != index[:-1]
        common[axis] = np.cumsum(starts) - 1
        for n, index in full.items():
            ways[n][axis] = index[starts]
    pairs = zip(spreads, ways, strict=True)
    return [gathered(spread.tensor, way) for spread, way in pairs], common


def thinned(index: np.ndarray, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Leaves out rows of the input that give an output equal to the next output.

    If outputs o and o + 1 read the same rows, the first `stride` rows that output o
    reads are left out. The rows are periodic up to the end of the second window, so
    every other output still reads the same rows. Only whole strides are left out, so
    the layer's own padding stays as it was.

    Args:
      index: For every row of the full input, the computed row that stands for it.
      window: What the layer reads along this axis.

    Returns:
      The computed row for each row of a smaller input; and, for every output of the
      full input, the output of the smaller input that stands for it.
    """
    span = max((window.taps - 1) * window.dilation + 1, window.stride)
    begins = np.arange(window.outputs) * window.stride
    padded = np.full(window.before + index.size + span + window.stride, -1)
    padded[window.before : window.before + index.size] = index
    read = np.lib.stride_tricks.sliding_window_view(padded, span)[begins]
    begins = begins[:-1] - window.before
    repeats = (read[1:] == read[:-1]).all(1)
    repeats &= (begins >= 0) & (begins + window.stride <= index.size)
    left = np.ones(index.size, bool)
    left[(begins[repeats, None] + np.arange(window.stride)).reshape(-1)] = False
    return index[left], np.concatenate([[0], np.cumsum(~repeats)])


def moved(spread: Spread, indices: dict[int, np.ndarray]) -> Spread:
    """The signal with other lists of positions along some axes.

    Args:
      spread: The signal.
      indices: Axis to its new list, as in `Spread.positions`.
    """
    positions = list(spread.positions or [None] * spread.tensor.shape.rank)
    for axis, index in indices.items():
        positions[axis] = index
    return spread_of(spread.tensor, positions)
