"""Which axis of which weight carries which channels.

A convolution's output channels are the input channels of whatever reads them, through
BatchNorm, pooling and activations; an Add makes the channels of its branches the same;
a Concatenate sets them side by side; a Flatten repeats them for every position. So the
channels of a network fall into *groups* that live or die by the channel, and each axis
of a weight is a sequence of groups. A layer that is not known here keeps all its
channels: its groups are *held*.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from tf_synflow._compat import keras
from tf_synflow.graph import Call, Graph, layer_weights

layers = keras.layers

Axis = tuple[int, ...]  # numbers of groups, in order along the axis

_PASSES = (
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


class Channels:
    """The groups of a network's channels.

    Attributes:
      axes: Name of a weight to {axis: its groups}, axes counted from the end (-1 is the
        last), for the axes that carry channels: of kernels and of what stands beside
        them, such as BatchNorm's vectors.
      kernels: Name of a kernel that may be pruned to its axes (channels in, out).
      sizes: Group to its number of channels.
      signals: Tensor number to the groups along its last axis.
      held: Groups that keep all their channels.
      names: The weights that may be pruned.
    """

    def __init__(
        self,
        graph: Graph,
        names: Collection[str],
        rules: Mapping[type, "Rule"] | None = None,
    ):
        """Finds the groups.

        Args:
          graph: The model, laid flat.
          names: The weights that may be pruned. What is not among them holds the
            channels that it joins.
          rules: Layer class to rule. Defaults to `RULES`.
        """
        rules = RULES if rules is None else rules
        self.names = names
        self._parents: list[int] = []
        self._new_sizes: list[int] = []
        self.held: set[int] = set()
        self.axes: dict[str, dict[int, Axis]] = {}
        self.kernels: dict[str, tuple[int, int]] = {}
        signals: dict[int, Axis] = {}
        for number, shape in zip(graph.inputs, graph.input_shapes, strict=True):
            signals[number] = self.hold(self.group(shape[-1] or 1))
        for call in graph.calls:
            inputs = [signals[number] for number in call.inputs]
            shapes = [graph.shapes[number] for number in (*call.inputs, *call.outputs)]
            rule = rules.get(type(call.layer))
            known = rule is not None and _plain(call.layer)
            output = rule(self, call, inputs, shapes) if known else None
            if output is not None and self._size(output) == shapes[-1][-1]:
                signals.update(dict.fromkeys(call.outputs, output))
                continue
            for axis in inputs:
                self.hold(axis)
            for number in call.outputs:
                size = graph.shapes[number][-1] if graph.shapes[number][1:] else 1
                signals[number] = self.hold(self.group(size or 1))
        self._join_nested(graph, signals)
        self._resolve(signals)
        ends = {group for number in graph.outputs for group in self.signals[number]}
        self._ends = ends | self.held

    def _join_nested(self, graph: Graph, signals: Mapping[int, Axis]) -> None:
        """A nested model that is called again reads channels as it did before."""
        before: dict[int, tuple[int, ...]] = {}
        for model, reads in graph.nested:
            first = before.setdefault(id(model), reads)
            for pair in zip(first, reads, strict=True):
                self.join([signals[number] for number in pair])

    def _resolve(self, signals: Mapping[int, Axis]) -> None:
        """Replaces each group by the one that it was joined to."""
        self.held = {self._find(group) for group in self.held}
        self.signals = {
            number: tuple(map(self._find, groups)) for number, groups in signals.items()
        }
        self.sizes = {self._find(g): size for g, size in enumerate(self._new_sizes)}
        self.axes = {
            name: {axis: tuple(map(self._find, groups)) for axis, groups in own.items()}
            for name, own in self.axes.items()
        }

    def living(
        self,
        joins: Mapping[str, np.ndarray],
        sizes: Mapping[int, int],
        sources: Mapping[int, np.ndarray] | None = None,
    ) -> dict[int, np.ndarray]:
        """The channels that are fed from the input and read up to the output.

        Args:
          joins: Name to boolean matrix `(channels in, channels out)` for each of
            `kernels`: whether any weight joins the two.
          sizes: Group to the number of channels that there are now.
          sources: Group to boolean vector: channels that are fed by something else than
            the input. Defaults to none.

        Returns:
          Group to boolean vector, True for the channels that live.
        """
        fed, read = self.reached(joins, sizes, sources)
        return {group: fed[group] & read[group] for group in sizes}

    def reached(
        self,
        joins: Mapping[str, np.ndarray],
        sizes: Mapping[int, int],
        sources: Mapping[int, np.ndarray] | None = None,
        sinks: Mapping[int, np.ndarray] | None = None,
    ) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
        """The channels that are fed, and those that are read.

        Args:
          joins: See `living`.
          sizes: See `living`.
          sources: See `living`.
          sinks: Group to boolean vector: channels that are read, whoever reads them.
            Defaults to none.
        """
        edges = [
            (joins[name], *(self.axes[name][axis] for axis in axes))
            for name, axes in self.kernels.items()
        ]
        back = [(join.T, out, into) for join, into, out in reversed(edges)]
        return (
            _reached(edges, self.held, sizes, sources or {}),
            _reached(back, self._ends, sizes, sinks or {}),
        )

    def group(self, size: int) -> Axis:
        """A new group of so many channels."""
        self._parents.append(len(self._parents))
        self._new_sizes.append(size)
        return (self._parents[-1],)

    def _find(self, group: int) -> int:
        while self._parents[group] != group:
            self._parents[group] = group = self._parents[self._parents[group]]
        return group

    def _size(self, axis: Axis) -> int:
        return sum(self._new_sizes[group] for group in axis)

    def hold(self, axis: Axis) -> Axis:
        """Keeps all channels of these groups; gives them back."""
        self.held.update(axis)
        return axis

    def join(self, axes: Sequence[Axis]) -> Axis:
        """Makes axes the same, channel by channel; holds them if they are cut apart."""
        sizes = [[self._new_sizes[group] for group in axis] for axis in axes]
        if any(size != sizes[0] for size in sizes):
            for axis in axes:
                self.hold(axis)
            return axes[0]
        for axis in axes[1:]:
            for group, other in zip(axes[0], axis, strict=True):
                self._parents[self._find(other)] = self._find(group)
        return axes[0]

    def carry(self, name: str, axis: int, groups: Axis) -> Axis:
        """Records the groups along an axis of a weight; a shared layer joins them."""
        own = self.axes.setdefault(name, {})
        own[axis] = self.join([own[axis], groups]) if axis in own else groups
        return own[axis]


def along(groups: Axis, living: Mapping[int, np.ndarray]) -> np.ndarray:
    """What `living` says of each place along an axis."""
    return np.concatenate([living[group] for group in groups])


def _reached(
    edges: list[tuple[np.ndarray, Axis, Axis]],
    start: Collection[int],
    sizes: Mapping[int, int],
    more: Mapping[int, np.ndarray],
) -> dict[int, np.ndarray]:
    """The channels to which a way leads from the groups in `start`, and from `more`.

    `edges` holds (matrix, groups from, groups to), in the order of the way, so that one
    sweep finds all; a layer that feeds itself, being shared, needs more.
    """
    reached = {group: np.full(size, group in start) for group, size in sizes.items()}
    for group, flags in more.items():
        reached[group] |= flags
    while True:
        before = sum(int(flags.sum()) for flags in reached.values())
        for join, source, target in edges:
            flags, first = join[along(source, reached)].any(0), 0
            for group in target:
                reached[group] |= flags[first : first + sizes[group]]
                first += sizes[group]
        if sum(int(flags.sum()) for flags in reached.values()) == before:
            return reached


def _plain(layer: Any) -> bool:
    """Whether the channels come last and are not cut into convolution groups."""
    return (
        getattr(layer, "data_format", "channels_last") == "channels_last"
        and getattr(layer, "groups", 1) == 1
        and getattr(layer, "depth_multiplier", 1) == 1
    )


# A rule takes (channels, call, groups of the inputs, shapes of inputs and outputs) and
# gives the groups of the output, or None if it cannot tell.
Rule = Callable[[Channels, Call, list[Axis], list[tuple]], Axis | None]


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


RULES: dict[type, Rule] = {
    **dict.fromkeys(_PASSES, _same),
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
