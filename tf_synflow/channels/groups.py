"""Which axis of which weight carries which channels.

A convolution's output channels are the input channels of whatever reads them, through
BatchNorm, pooling and activations; an Add makes the channels of its branches the same;
a Concatenate sets them side by side; a Flatten repeats them for every position. So the
channels of a network fall into *groups* that live or die by the channel, and each axis
of a weight is a sequence of groups. A layer that is not known here keeps all its
channels: its groups are *held*.

A product of signals, as of a gate, has a group of its own: its channel is fed only if
those of all factors are. But the channel can only be taken out of all of them at once,
so these groups are a *bundle*.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_synflow.network import Call, Network

Axis = tuple[int, ...]  # numbers of groups, in order along the axis


class Link(NamedTuple):
    """A signal that is made of others, channel by channel.

    Its channel is fed if those of all inputs are. An input's channel is read if the
    output's is, and the other inputs' are fed.

    Attributes:
      inputs: The groups it is made of. One with fewer channels is repeated: each of its
        channels so many times in a row.
      output: Its group.
      after: The number of kernels that come before it.
    """

    inputs: tuple[int, ...]
    output: int
    after: int


class Channels:
    """The groups of a network's channels.

    Attributes:
      network: The network.
      axes: Name of a weight to {axis: its groups}, axes counted from the end (-1 is the
        last), for the axes that carry channels: of kernels and of what stands beside
        them, such as BatchNorm's vectors.
      kernels: Name of a kernel that may be pruned to its axes (channels in, out).
      sizes: Group to its number of channels.
      signals: Tensor number to the groups along one of its axes.
      places: Tensor number to that axis, counted from the front.
      held: Groups that keep all their channels.
      ends: Those, and the groups of the outputs, which something outside reads.
      links: The signals that are made of others, in the order of the calls.
      lifted: Groups of signals that are not 0 where what they are made of is.
      bundles: Groups out of which a channel is taken at once, for each bundle. Of its
        groups each has the same number of channels, or a multiple of it: then several
        in a row stand for one channel.
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
          names: The weights that may be pruned. What is not among them holds the
            channels that it joins.
          rule_of: Gives the rule for a call: `rules.rule_of` or `needed.rule_of`.
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
        """Holds the last axis of a tensor of which nothing is known."""
        shape = self.network.shapes[number]
        self.places[number] = max(len(shape) - 1, 0)
        size = shape[-1] if shape[1:] else 1
        self.signals[number] = self.hold(self.group(size or 1))

    def _fits(self, groups: Axis, call: Call) -> bool:
        """Whether the outputs of a call have so many channels, where they have them."""
        for number in call.outputs:
            shape = self.network.shapes[number]
            place = self.places.setdefault(number, len(shape) - 1)
            if not shape[1:] or shape[place] != self._size(groups):
                return False
        return True

    def at(self, number: int, place: int) -> Axis:
        """The groups of a tensor along an axis, counted from the front.

        They are new ones, and held like all that were known, if those known lie along
        another axis.
        """
        if self.places[number] != place:
            self.hold(self.signals[number])
            return self.hold(self.group(self.network.shapes[number][place] or 1))
        return self.signals[number]

    def _join_nested(self) -> None:
        """A nested model that is called again reads channels as it did before."""
        before: dict[int, tuple[int, ...]] = {}
        for model, reads in self.network.nested:
            first = before.setdefault(id(model), reads)
            for one, other in zip(first, reads, strict=True):
                self.join([self.signals[one], self.at(other, self.places[one])])

    def _resolve(self) -> None:
        """Replaces each group by the one that it was joined to."""
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
        """All groups, those that are tied to each other side by side."""
        bundles = {group: {group} for group in map(self._find, self._parents)}
        for pair in self._tied:
            one, other = (bundles[self._find(group)] for group in pair)
            if one is not other:
                one |= other
                bundles.update(dict.fromkeys(other, one))
        unique = {id(bundle): bundle for bundle in bundles.values()}
        return [tuple(sorted(bundle)) for bundle in unique.values()]

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

    def combine(self, inputs: Sequence[Axis], times: int = 1) -> Axis:
        """A signal that is made of others, channel by channel: see `Link`.

        Args:
          inputs: Their groups. A signal of one channel goes with each of the others'.
          times: How often each channel stands in a row in what is made.

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
        """A signal that is not 0 where the one is that it is made of."""
        lifted = self.combine([groups])
        self.lifted.update(lifted)
        return lifted

    def carry(self, name: str, axis: int, groups: Axis) -> Axis:
        """Records the groups along an axis of a weight; a shared layer joins them."""
        own = self.axes.setdefault(name, {})
        own[axis] = self.join([own[axis], groups]) if axis in own else groups
        return own[axis]


def along(groups: Axis, living: Mapping[int, np.ndarray]) -> np.ndarray:
    """What `living` says of each place along an axis."""
    return np.concatenate([living[group] for group in groups])


def fewer(flags: np.ndarray, size: int) -> np.ndarray:
    """Whether any of the flags in a row that stand for a channel is True."""
    return flags.reshape(size, -1).any(1)


def more(flags: np.ndarray, size: int) -> np.ndarray:
    """Each flag so often in a row that there are `size`."""
    return np.repeat(flags, size // flags.size)


def _plain(layer: Any) -> bool:
    """Whether the channels are not cut into convolution groups, or multiplied."""
    return (
        getattr(layer, "groups", 1) == 1 and getattr(layer, "depth_multiplier", 1) == 1
    )


# A rule takes (channels, call, groups of the inputs, shapes of inputs and outputs) and
# gives the groups of the output, or None if it cannot tell.
Rule = Callable[[Channels, Call, list[Axis], list[tuple]], Axis | None]
