"""Finds the channels that each axis of each weight carries.

The output channels of a convolution are the input channels of the layers that read
them, through BatchNorm, pooling and activations. An Add makes the channels of its
branches the same. A Concatenate sets channels side by side. A Flatten repeats channels
for every position. So the channels of a network form *groups*. A channel of a group is
alive or dead in all weights that carry the group. Each axis of a weight is a sequence
of groups. A layer without a rule keeps all its channels: its groups are *held*.

A product of signals, such as a gate's, has a group of its own. A channel of the product
is fed only if the same channel of every factor is fed. But a channel can only be taken
out of the product and of all factors together. So these groups form a *bundle*.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_synflow.network import Call, Network

Axis = tuple[int, ...]  # numbers of groups, in order along the axis


class Link(NamedTuple):
    """A signal that is made of other signals, channel by channel.

    A channel of the output is fed if the same channel of every input is fed. A channel
    of an input is read if the same channel of the output is read and the same channel
    of every other input is fed.

    Attributes:
      inputs: The groups of the inputs. If a group has fewer channels than the output,
        each of its channels is repeated several times in a row.
      output: The group of the output.
      after: The link comes after this many kernels.
    """

    inputs: tuple[int, ...]
    output: int
    after: int


class Channels:
    """The groups of a network's channels.

    Attributes:
      network: The network.
      axes: Name of a weight to {axis: the groups along it}, for the axes that carry
        channels. Axes are counted from the end (-1 is the last). The weights are
        kernels, and others that carry channels, such as BatchNorm's vectors.
      kernels: Name of a kernel that may be pruned to its axes (channels in, out).
      sizes: Group to its number of channels.
      signals: Tensor number to the groups along the tensor's axis of channels.
      places: Tensor number to the axis of channels, counted from the front.
      held: Groups that keep all their channels.
      ends: The held groups, and the groups of the outputs, which are read from outside.
      links: The signals that are made of other signals, in the order of the calls.
      lifted: Groups of signals that are not 0 where the signals they are made of are 0.
      bundles: For each bundle its groups, which can lose a channel only together. The
        groups of a bundle have the same number of channels, or a multiple of that
        number. In a group with a multiple, several channels in a row stand for one.
      names: The weights that may be pruned.
    """

    def __init__(
        self,
        network: Network,
        names: Collection[str],
        rule_of: Callable[[Call], "Rule | None"],
    ):
        """Finds the groups.

        Args:
          network: The network.
          names: The weights that may be pruned. A kernel that is not among them holds
            the channels that it joins.
          rule_of: Function from a call to its rule: `rules.rule_of` or
            `needed.rule_of`.
        """
        self.names = names
        self._parents: list[int] = []
        self._new_sizes: list[int] = []
        self.held: set[int] = set()
        self.axes: dict[str, dict[int, Axis]] = {}
        self.kernels: dict[str, tuple[int, int]] = {}
        self.links: list[Link] = []
        self.lifted: set[int] = set()
        self.places: dict[int, int] = {}
        self._tied: list[tuple[int, int]] = []
        self.network = network
        self.signals: dict[int, Axis] = {}
        for number in network.inputs:
            self._begin(number)
        for call in network.calls:
            inputs = [self.signals[number] for number in call.inputs]
            shapes = [
                network.shapes[number] for number in (*call.inputs, *call.outputs)
            ]
            rule = rule_of(call)
            known = rule is not None and _plain(call.layer)
            output = rule(self, call, inputs, shapes) if known else None
            if output is not None and self._fits(output, call):
                self.signals.update(dict.fromkeys(call.outputs, output))
                continue
            for axis in inputs:
                self.hold(axis)
            for number in call.outputs:
                self._begin(number)
        self._join_nested()
        self._resolve()
        ends = {group for number in network.outputs for group in self.signals[number]}
        self.ends = ends | self.held

    def _begin(self, number: int) -> None:
        """Gives a tensor of unknown origin a held group along its last axis."""
        shape = self.network.shapes[number]
        self.places[number] = max(len(shape) - 1, 0)
        size = shape[-1] if shape[1:] else 1
        self.signals[number] = self.hold(self.group(size or 1))

    def _fits(self, groups: Axis, call: Call) -> bool:
        """Whether the outputs of a call have as many channels as these groups."""
        for number in call.outputs:
            shape = self.network.shapes[number]
            place = self.places.setdefault(number, len(shape) - 1)
            if not shape[1:] or shape[place] != self._size(groups):
                return False
        return True

    def at(self, number: int, place: int) -> Axis:
        """The groups of a tensor along an axis, counted from the front.

        If the known groups of the tensor lie along another axis, they are held. The
        result is then a new group, which is held too.
        """
        if self.places[number] != place:
            self.hold(self.signals[number])
            return self.hold(self.group(self.network.shapes[number][place] or 1))
        return self.signals[number]

    def _join_nested(self) -> None:
        """Joins the channels that all calls of the same nested model read."""
        before: dict[int, tuple[int, ...]] = {}
        for model, reads in self.network.nested:
            first = before.setdefault(id(model), reads)
            for one, other in zip(first, reads, strict=True):
                self.join([self.signals[one], self.at(other, self.places[one])])

    def _resolve(self) -> None:
        """Replaces each group by the group that it was joined to."""
        self.held = {self._find(group) for group in self.held}
        self.lifted = {self._find(group) for group in self.lifted}
        self.signals = {
            number: tuple(map(self._find, groups))
            for number, groups in self.signals.items()
        }
        self.links = [
            Link(tuple(map(self._find, inputs)), self._find(output), after)
            for inputs, output, after in self.links
        ]
        self.bundles = self._bundles()
        self.sizes = {self._find(g): size for g, size in enumerate(self._new_sizes)}
        self.axes = {
            name: {axis: tuple(map(self._find, groups)) for axis, groups in own.items()}
            for name, own in self.axes.items()
        }

    def _bundles(self) -> list[tuple[int, ...]]:
        """All bundles; groups that are tied to each other are in the same bundle."""
        bundles = {group: {group} for group in map(self._find, self._parents)}
        for pair in self._tied:
            one, other = (bundles[self._find(group)] for group in pair)
            if one is not other:
                one |= other
                bundles.update(dict.fromkeys(other, one))
        unique = {id(bundle): bundle for bundle in bundles.values()}
        return [tuple(sorted(bundle)) for bundle in unique.values()]

    def group(self, size: int) -> Axis:
        """Makes a new group of `size` channels."""
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
        """Marks groups as held, so that they keep all channels; returns the groups."""
        self.held.update(axis)
        return axis

    def join(self, axes: Sequence[Axis]) -> Axis:
        """Makes axes the same, channel by channel; holds them if group sizes differ."""
        sizes = [[self._new_sizes[group] for group in axis] for axis in axes]
        if any(size != sizes[0] for size in sizes):
            for axis in axes:
                self.hold(axis)
            return axes[0]
        for axis in axes[1:]:
            for group, other in zip(axes[0], axis, strict=True):
                self._parents[self._find(other)] = self._find(group)
        return axes[0]

    def combine(self, inputs: Sequence[Axis], times: int = 1) -> Axis:
        """The groups of a signal made of others, channel by channel; see `Link`.

        Args:
          inputs: The groups of each input. An input with one channel goes with every
            channel of the other inputs.
          times: How many times in a row each channel stands in the new signal. Defaults
            to 1.

        Returns:
          New groups, which lose the channels that the inputs lose.
        """
        wide = max(inputs, key=self._size)
        wanted = [self._new_sizes[group] for group in wide]
        sizes = [[self._new_sizes[group] for group in axis] for axis in inputs]
        if any(size not in (wanted, [1]) for size in sizes):
            for axis in inputs:
                self.hold(axis)
            return self.hold(self.group(sum(wanted) * times))
        factors = [
            tuple(axis[place if len(axis) > 1 else 0] for axis in inputs)
            for place in range(len(wide))
        ]
        made: dict[tuple[int, ...], int] = {}
        for groups, size in zip(factors, wanted, strict=True):
            if groups in made:
                continue
            (made[groups],) = self.group(size * times)
            self.links.append(Link(groups, made[groups], len(self.kernels)))
            for group in groups:
                if self._new_sizes[group] == size:
                    self._tied.append((group, made[groups]))
        return tuple(made[groups] for groups in factors)

    def lift(self, groups: Axis) -> Axis:
        """The groups of a signal that is not 0 where its input, of `groups`, is 0."""
        lifted = self.combine([groups])
        self.lifted.update(lifted)
        return lifted

    def carry(self, name: str, axis: int, groups: Axis) -> Axis:
        """Records the groups along an axis of a weight; a shared layer joins groups."""
        own = self.axes.setdefault(name, {})
        own[axis] = self.join([own[axis], groups]) if axis in own else groups
        return own[axis]


def along(groups: Axis, living: Mapping[int, np.ndarray]) -> np.ndarray:
    """The flags that `living` has for each place along an axis."""
    return np.concatenate([living[group] for group in groups])


def fewer(flags: np.ndarray, size: int) -> np.ndarray:
    """`size` flags: each is True if any of its flags in a row is True."""
    return flags.reshape(size, -1).any(1)


def more(flags: np.ndarray, size: int) -> np.ndarray:
    """`size` flags: each flag is repeated in a row."""
    return np.repeat(flags, size // flags.size)


def _plain(layer: Any) -> bool:
    """Whether a layer has one convolution group and no multiplier of channels."""
    return (
        getattr(layer, "groups", 1) == 1 and getattr(layer, "depth_multiplier", 1) == 1
    )


# A rule takes (channels, call, groups of the inputs, shapes of inputs and outputs) and
# returns the groups of the output, or None if they are not known.
Rule = Callable[[Channels, Call, list[Axis], list[tuple]], Axis | None]
