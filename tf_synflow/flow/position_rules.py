"""What each kind of layer does to the positions of a signal; see `positions`.

A position rule is a function `(layer, apply, spreads) -> spreads`. It makes tensors for
the layer's linear part, and calls the linear part by `apply(tensors) -> tensors`. The
spreads that it returns say which computed position stands at each position of the
result. For a layer without a position rule, all positions are computed, which is always
right.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tf_synflow.flow import operator_parts
from tf_synflow.flow.linear_parts import LinearPart
from tf_synflow.flow.operands import is_tensor
from tf_synflow.flow.parts import (
    convolving,
    images,
    merging,
    normalising,
    pooling,
    shapes,
)
from tf_synflow.flow.patches import MOST, cut_out
from tf_synflow.flow.positions import (
    Spread,
    Window,
    expanded,
    gathered,
    met,
    moved,
    position,
    thinned,
)

Apply = Callable[[list[Any]], list[Any]]
PositionRule = Callable[[Any, Apply, list[Spread]], list[Spread]]


def rule_of(part: LinearPart) -> PositionRule:
    """The position rule of a layer or operator with this linear part."""
    if isinstance(part, functools.partial):
        operator = _OPERATORS.get(part.func)
        return operator(*part.args) if operator else everywhere
    return _LAYERS.get(part, everywhere)


def everywhere(layer: Any, apply: Apply, spreads: list[Spread]) -> list[Spread]:
    """Computes all positions."""
    return [Spread(y) for y in apply([expanded(spread).tensor for spread in spreads])]


def _each(layer: Any, apply: Apply, spreads: list[Spread]) -> list[Spread]:
    """The rule of layers that compute each entry by itself."""
    tensors = apply([spread.tensor for spread in spreads])
    return [Spread(y, s.positions) for y, s in zip(tensors, spreads, strict=True)]


def _along(axes: Callable[[Any, int], Any]) -> PositionRule:
    """Makes a rule that computes all positions along some axes, and only along these.

    Args:
      axes: Function from a layer and the rank of its input to these axes.
    """

    def rule(layer: Any, apply: Apply, spreads: list[Spread]) -> list[Spread]:
        rank = spreads[0].tensor.shape.rank
        whole = {axis % rank for axis in axes(layer, rank)}
        return _each(layer, apply, [expanded(spread, whole) for spread in spreads])

    return rule


def _axes(layer: Any, rank: int) -> list[int]:
    axes = [] if layer.axis is None else layer.axis
    return list(axes) if isinstance(axes, (list, tuple)) else [axes]


def _scaled(layer: Any, rank: int) -> range:
    return range(rank - np.ndim(layer.scale), rank)


def _last(layer: Any, rank: int) -> list[int]:
    return [-1]


def _together(layer: Any, apply: Apply, spreads: list[Spread]) -> list[Spread]:
    """The rule of layers that add up signals, entry by entry, perhaps broadcast."""
    if len({spread.tensor.shape.rank for spread in spreads}) > 1:
        return everywhere(layer, apply, spreads)
    tensors, indices = met(spreads)
    (y,) = apply(tensors)
    return [moved(Spread(y), indices)]


def _side_by_side(layer: Any, apply: Apply, spreads: list[Spread]) -> list[Spread]:
    """The rule of layers that set signals one after the other along an axis."""
    axis = layer.axis % spreads[0].tensor.shape.rank
    return _together(layer, apply, [expanded(spread, {axis}) for spread in spreads])


def _spatial(layer: Any, spread: Spread) -> list[int]:
    """The axes of a layer's input that are neither the batch's nor the channels'."""
    first = getattr(layer, "data_format", "channels_last") == "channels_first"
    rank = spread.tensor.shape.rank
    return list(range(2, rank) if first else range(1, rank - 1))


def _positions_only(layer: Any, spread: Spread) -> Spread:
    """The signal, spread along the axes of its positions only."""
    spatial = _spatial(layer, spread)
    return expanded(spread, set(range(spread.tensor.shape.rank)).difference(spatial))


def _windows(layer: Any, spread: Spread) -> dict[int, Window]:
    """Axis to the `Window` of a convolution or pooling, padded as TensorFlow does."""
    axes = _spatial(layer, spread)
    sizes = getattr(layer, "kernel_size", None) or layer.pool_size
    dilations = getattr(layer, "dilation_rate", [1] * len(axes))
    settings = map(tf.nest.flatten, (sizes, layer.strides, dilations))
    windows = {}
    for axis, taps, stride, dilation in zip(axes, *settings, strict=True):
        index = position(spread, axis)
        rows = spread.tensor.shape[axis] if index is None else index.size
        size = (taps - 1) * dilation + 1
        if layer.padding == "same":
            outputs = -(-rows // stride)
            before = max((outputs - 1) * stride + size - rows, 0) // 2
        else:
            before = size - 1 if layer.padding == "causal" else 0
            outputs = (before + rows - size) // stride + 1
        windows[axis] = Window(taps, stride, dilation, before, outputs)
    return windows


def _pool(layer: Any, apply: Apply, spreads: list[Spread]) -> list[Spread]:
    """The rule of layers that move a window over a signal, which is thinned first."""
    spread = _positions_only(layer, spreads[0])
    inputs, outputs = {}, {}
    for axis, window in _windows(layer, spread).items():
        index = position(spread, axis)
        if window.outputs < 1:  # the layer itself raises an error
            return everywhere(layer, apply, spreads)
        if index is not None:
            inputs[axis], outputs[axis] = thinned(index, window)
    (y,) = apply([gathered(spread.tensor, inputs)])
    return [moved(Spread(y), outputs)]


def _convolve(layer: Any, apply: Apply, spreads: list[Spread]) -> list[Spread]:
    """Computes only the windows that differ if they are few; otherwise like pooling."""
    spread = _positions_only(layer, spreads[0])
    windows = _windows(layer, spread)
    last = len(windows) + 2 == spread.tensor.shape.rank and max(windows) == len(windows)
    fits = min(window.outputs for window in windows.values()) > 0
    found = cut_out(spread, windows) if last and fits and layer.groups == 1 else None
    if found is None or found[0].reads.size > MOST:
        return _pool(layer, apply, spreads)
    patches, outputs = found
    (y,) = apply([patches])
    return [moved(Spread(y), outputs)]


def _pad(layer: Any, apply: Apply, spreads: list[Spread]) -> list[Spread]:
    """The rule of layers that put zeros around the positions."""
    spread = _positions_only(layer, spreads[0])
    (y,) = apply([spread.tensor])
    indices = {}
    for axis, (before, after) in _by_axis(layer, layer.padding, spread):
        index, computed = position(spread, axis), spread.tensor.shape[axis]
        if index is not None:
            first = np.arange(before)
            last = np.arange(after) + before + computed
            indices[axis] = np.concatenate([first, index + before, last])
    return [moved(Spread(y), indices)]


def _crop(layer: Any, apply: Apply, spreads: list[Spread]) -> list[Spread]:
    """The rule of layers that leave out positions at the border."""
    spread = _positions_only(layer, spreads[0])
    used, indices = {}, {}
    for axis, (first, last) in _by_axis(layer, layer.cropping, spread):
        index = position(spread, axis)
        if index is None:
            index = np.arange(spread.tensor.shape[axis])
        index = index[first : index.size - last]
        # Rows that no position needs any more would count as positions of the result.
        used[axis], indices[axis] = np.unique(index, return_inverse=True)
    return [moved(Spread(gathered(spread.tensor, used)), indices)]


def _by_axis(layer: Any, amounts: Any, spread: Spread) -> Any:
    return zip(_spatial(layer, spread), shapes.pairs(amounts), strict=True)


def _repeat(layer: Any, apply: Apply, spreads: list[Spread]) -> list[Spread]:
    """The rule of layers that repeat each position (by the nearest neighbour)."""
    if getattr(layer, "interpolation", "nearest") != "nearest":
        return everywhere(layer, apply, spreads)
    spread = _positions_only(layer, spreads[0])
    indices = {}
    times = tf.nest.flatten(layer.size)
    for axis, count in zip(_spatial(layer, spread), times, strict=True):
        index = position(spread, axis)
        index = np.arange(spread.tensor.shape[axis]) if index is None else index
        indices[axis] = np.repeat(index, count)
    return [moved(spread, indices)]


def _sum(operands: Any, parts: list[Any], *_: Any) -> PositionRule:
    """The rule of operators that add or multiply signals and constants."""
    constants = [part for part in parts if not operands.is_signal(part)]

    def rule(layer: Any, apply: Apply, spreads: list[Spread]) -> list[Spread]:
        rank = spreads[0].tensor.shape.rank
        if any(map(is_tensor, constants)):
            return everywhere(layer, apply, spreads)
        whole = set(range(rank - max(map(np.ndim, constants), default=0), rank))
        return _together(layer, apply, [expanded(s, whole) for s in spreads])

    return rule


_LAYERS: dict[LinearPart, PositionRule] = {
    shapes.identity: _each,
    shapes.zero_padding: _pad,
    shapes.cropping: _crop,
    **dict.fromkeys((shapes.repeated, images.upsampling), _repeat),
    **dict.fromkeys((merging.add, merging.average, merging.scaled_residual), _together),
    merging.concatenate: _side_by_side,
    **dict.fromkeys(
        (
            *(normalising.batch_normalization, normalising.other_normalization),
            normalising.normalization,
        ),
        _along(_axes),
    ),
    normalising.rescaling: _along(_scaled),
    convolving.convolution: _convolve,
    **dict.fromkeys((normalising.layer_scale, convolving.dense), _along(_last)),
    **dict.fromkeys(
        (
            *(convolving.depthwise_convolution, convolving.separable_convolution),
            *(pooling.average_pooling, pooling.average_pooling_3d),
            *(pooling.max_pooling, pooling.max_pooling_3d),
        ),
        _pool,
    ),
}

# The rules of operators, by the function of their linear part. What makes the rule gets
# the arguments that are bound to this function.
_OPERATORS: dict[Callable, Callable[..., PositionRule]] = {
    operator_parts.total: _sum,
    operator_parts.product: _sum,
}
